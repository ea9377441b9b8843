/**
 * Statements of ours inside a client's own transaction. They are kept as a list and run again from the beginning whenever
 * one is added, in a catalog transaction that is rolled back at once: so an open client transaction holds no lock, and what
 * it sees is what it did. At the client's COMMIT the list is run for good, held open while PostgreSQL commits, and committed
 * when it has.
 */

import type { HeldWrite } from "../catalog/catalog.ts";
import {
  findAbandonedRoles,
  type ReservingBackend,
  releaseReservedRole,
  reserveRole,
} from "../catalog/reserved-roles.ts";
import type { Statement } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import type { ExecutionContext, ExecutorDependencies, OpenTransaction } from "./context.ts";
import type { StatementResult } from "./result.ts";
import { runOnClientConnection } from "./rls-policies.ts";
import { beingCreated } from "./role-names.ts";
import { followUp, translateErrors } from "./run-statement.ts";

type Execute = (statement: Statement, context: ExecutionContext) => Promise<StatementResult | "forward">;

interface Entry {
  readonly statement: Statement;
  readonly context: ExecutionContext;
}

/** The list has been run for good; one of the two calls ends it. */
export interface PreparedCommit {
  /** After PostgreSQL has committed the client's part. */
  commit(): Promise<void>;
  rollback(): Promise<void>;
}

/** True for statements that are run as a Query on the client's connection, which ends a pipeline's transaction. */
export function endsPipeline(statement: Statement): boolean {
  return statement.kind === "create_rls_policy" || statement.kind === "drop_rls_policy";
}

/** True for statements that also change other databases: what cannot be undone there is no part of a transaction. */
export function isTransactionOfItsOwn(statement: Statement): boolean {
  return neverInside.has(statement.kind);
}

/** Kinds that change something in other databases, which no rehearsal can undo. */
const neverInside: ReadonlySet<Statement["kind"]> = new Set([
  "drop_user",
  "drop_role",
  "drop_service_account",
]);

export class StatementTransaction {
  readonly #deps: ExecutorDependencies;
  readonly #execute: Execute;
  readonly #backend: ReservingBackend;
  readonly #reserved = new Set<string>();
  #entries: Entry[] = [];

  /** @param backend the client's upstream connection, whose transaction this is a part of */
  constructor(deps: ExecutorDependencies, execute: Execute, backend: ReservingBackend) {
    this.#deps = deps;
    this.#execute = execute;
    this.#backend = backend;
  }

  get isEmpty(): boolean {
    return this.#entries.length === 0;
  }

  /** How many statements there are: what a savepoint remembers. */
  get length(): number {
    return this.#entries.length;
  }

  /** ROLLBACK TO SAVEPOINT: forgets the statements behind the first `length`. */
  truncate(length: number): void {
    this.#entries.length = Math.min(length, this.#entries.length);
  }

  /**
   * Runs a statement behind those that are there already; the list grows only when it succeeds.
   *
   * @throws SqlError of the statement, or of an earlier one that somebody else's commit has overtaken
   */
  async run(statement: Statement, context: ExecutionContext): Promise<StatementResult | "forward"> {
    if (neverInside.has(statement.kind)) {
      throw new SqlError(
        "active_sql_transaction",
        `${commandOf(statement)} cannot run inside a transaction block`,
        {
          hint: "It also changes other databases. Run it on its own.",
        },
      );
    }
    const entry: Entry = { statement, context };
    await runOnClientConnection(this.#deps, statement, context);
    const result = await translateErrors(() =>
      this.#deps.catalog.rehearse((client) => this.#replay([...this.#entries, entry], client)),
    );
    if (result.last === "forward" || readsOnly(statement)) return result.last;
    await this.#reserve(statement);
    this.#entries.push(entry);
    return result.last;
  }

  /** Runs the list for good. @throws SqlError when it does not hold any more; nothing is open then */
  async prepareCommit(): Promise<PreparedCommit> {
    const held = await translateErrors(() =>
      this.#deps.catalog.writeAndHold((client) => this.#replay(this.#entries, client)),
    );
    return {
      commit: () => this.#commit(held),
      rollback: async () => {
        await held.rollback();
        await this.discard();
      },
    };
  }

  /** The client's transaction has ended without these statements. Never rejects. */
  async discard(): Promise<void> {
    this.#entries = [];
    const names = [...this.#reserved];
    this.#reserved.clear();
    if (names.length === 0) return;
    for (const name of names) {
      try {
        await this.#deps.catalog.write((client) => releaseReservedRole(client, name));
      } catch (error) {
        // Somebody has granted it something meanwhile.
        this.#deps.log.warn({ err: error, role: name }, "a reserved role could not be dropped");
      }
    }
  }

  async #commit(held: HeldWrite<{ touched: Set<number> }>): Promise<void> {
    const entries = this.#entries;
    try {
      await translateErrors(() => held.commit());
      // The roles of statements that a savepoint took back stay reserved; the others are now somebody's.
      for (const { statement } of entries) {
        const name = createdRole(statement);
        if (name !== undefined) this.#reserved.delete(name);
      }
    } finally {
      await this.discard();
    }
    await followUp(this.#deps, held.result.touched);
  }

  async #replay(
    entries: readonly Entry[],
    client: OpenTransaction["client"],
  ): Promise<{ last: StatementResult | "forward"; touched: Set<number> }> {
    const transaction: OpenTransaction = { client, touched: new Set(), backend: this.#backend };
    let last: StatementResult | "forward" = "forward";
    for (const { statement, context } of entries) {
      last = await this.#execute(statement, { ...context, transaction });
    }
    return { last, touched: transaction.touched };
  }

  // So that the client's own GRANT … TO the new name works before the commit.
  async #reserve(statement: Statement): Promise<void> {
    const name = createdRole(statement);
    if (name === undefined || this.#reserved.has(name)) return;
    const isReserved = await translateErrors(() =>
      this.#deps.catalog.write((client) => reserveRole(client, name, this.#backend)),
    );
    if (!isReserved) throw beingCreated(name);
    this.#reserved.add(name);
  }
}

/**
 * Drops the roles that transactions had reserved whose upstream connection is gone: after a crash. Never rejects; one that
 * cannot be dropped, because it was granted something meanwhile, stays a NOLOGIN role and is logged.
 */
export async function reapReservedRoles(deps: Pick<ExecutorDependencies, "catalog" | "log">): Promise<void> {
  try {
    for (const name of await deps.catalog.read(findAbandonedRoles)) {
      await deps.catalog
        .write((client) => releaseReservedRole(client, name))
        .catch((error: unknown) => {
          deps.log.warn({ err: error, role: name }, "an abandoned role could not be dropped");
        });
    }
  } catch (error) {
    deps.log.warn({ err: error }, "abandoned roles could not be looked for");
  }
}

/** True for statements that read and change nothing. */
export function readsOnly(statement: Statement): boolean {
  return statement.kind.startsWith("show_") || statement.kind === "verify_audit_chain";
}

/** The PostgreSQL role that a statement makes. */
function createdRole(statement: Statement): string | undefined {
  switch (statement.kind) {
    case "create_user":
    case "create_role":
    case "create_service_account":
      return statement.name.text;
    case "create_api_key":
      return "roles" in statement.holder ? statement.name?.text : undefined;
    default:
      return undefined;
  }
}

function commandOf(statement: Statement): string {
  return statement.kind.replaceAll("_", " ").toUpperCase();
}
