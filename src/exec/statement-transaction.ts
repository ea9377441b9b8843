/**
 * Statements of ours inside a client's own transaction. They are kept as a list and run again from the beginning whenever
 * one is added, in a catalog transaction that is rolled back at once: so an open client transaction holds no lock, and what
 * it sees is what it did. At the client's COMMIT the list is run for good, held open while PostgreSQL commits, and committed
 * when it has.
 */

import { randomBytes } from "node:crypto";
import type { PoolClient } from "pg";
import type { Catalog } from "../catalog/catalog.ts";
import { type ReservingBackend, reserveRole } from "../catalog/reserved-roles.ts";
import type { HeldWrite } from "../catalog/transactions.ts";
import type { Statement } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import {
  beginOpenTransaction,
  type ClientConnection,
  type ExecutionContext,
  type ExecutorDependencies,
  type OpenTransaction,
} from "./context.ts";
import { refuseOwners } from "./drop-roles.ts";
import type { StatementResult } from "./result.ts";
import { runOnClientConnection } from "./rls-policies.ts";
import { beingCreated, roleExists, standInKey } from "./role-names.ts";
import { followUp } from "./run-statement.ts";
import { awaitOutcome, readTransactionId } from "./transaction-outcome.ts";
import { translateErrors } from "./translate-errors.ts";

type Execute = (statement: Statement, context: ExecutionContext) => Promise<StatementResult | "forward">;

interface Entry {
  readonly statement: Statement;
  readonly context: ExecutionContext;
  /** Roles that are reserved for it. */
  readonly reserved: string[];
}

/** What a run of the list has come to. */
interface Replay extends Pick<OpenTransaction, "touched" | "setAside" | "leftovers"> {
  readonly last: StatementResult | "forward";
  /** What the last statement alone has dropped and claimed. */
  readonly lastSetAside: OpenTransaction["setAside"];
  readonly lastClaimed: readonly string[];
}

/** The list has been run for good; one of the calls ends it. */
export interface PreparedCommit {
  /** After PostgreSQL has committed the client's part. */
  commit(): Promise<void>;
  rollback(): Promise<void>;
  /** Either of the two, as PostgreSQL has ended the client's part, or will. @returns whether it has committed */
  endAsPostgres(): Promise<boolean>;
}

/** True for statements that are PostgreSQL's in the end: they hold when the client's transaction does, and not before. */
export function endsWithTransaction(statement: Statement): boolean {
  return statement.kind === "create_rls_policy" || statement.kind === "drop_rls_policy";
}

export class StatementTransaction {
  readonly #deps: ExecutorDependencies;
  readonly #execute: Execute;
  readonly #backend: ReservingBackend;
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

  /** ROLLBACK TO SAVEPOINT has succeeded: forgets the statements behind the first `length`. Never rejects. */
  async truncate(length: number): Promise<void> {
    const forgotten = this.#entries.splice(length);
    await this.#deps.reaper.release(
      forgotten.flatMap(({ reserved }) => reserved),
      this.#backend,
    );
  }

  /**
   * Runs a statement behind those that are there already; the list grows only when it succeeds.
   *
   * @throws SqlError of the statement, or of an earlier one that somebody else's commit has overtaken
   */
  async run(statement: Statement, context: ExecutionContext): Promise<StatementResult | "forward"> {
    const entry: Entry = { statement, context, reserved: [] };
    const catalog = this.#catalogFor(context.connection);
    await runOnClientConnection(this.#deps, statement, context);
    const result = await translateErrors(() =>
      catalog.rehearse((client) => this.#replay([...this.#entries, entry], client, context.connection)),
    );
    if (result.last === "forward" || readsOnly(statement)) return result.last;
    const { connection, database } = context;
    if (connection !== undefined && result.lastSetAside.length > 0) {
      await translateErrors(() =>
        refuseOwners({ ...this.#deps, catalog }, connection, database, result.setAside),
      );
    }
    this.#entries.push(entry);
    for (const name of result.lastClaimed) await this.#reserve(entry, name, catalog);
    return result.last;
  }

  /**
   * Runs the list for good.
   *
   * @param connection the client's own
   * @param onHeld called when others begin to wait for the end of this
   * @throws SqlError when it does not hold any more; nothing is open then
   */
  async prepareCommit(connection: ClientConnection, onHeld: () => void): Promise<PreparedCommit> {
    const catalog = this.#catalogFor(connection);
    const held = await translateErrors(() =>
      catalog.writeAndHold((client) => this.#replay(this.#entries, client, connection)),
    );
    onHeld();
    let transactionId: string;
    try {
      const database = this.#entries.at(-1)?.context.database ?? "";
      await translateErrors(() =>
        refuseOwners({ ...this.#deps, catalog }, connection, database, held.result.setAside),
      );
      transactionId = await readTransactionId(connection);
    } catch (error) {
      await held.rollback();
      throw error;
    }
    const commit = () => this.#commit(held);
    const rollback = async () => {
      await held.rollback();
      await this.discard();
    };
    return {
      commit,
      rollback,
      endAsPostgres: async () => {
        const outcome = await this.#outcome(held, transactionId);
        await (outcome === "committed" ? commit() : rollback());
        return outcome === "committed";
      },
    };
  }

  async #outcome(
    held: HeldWrite<Replay>,
    transactionId: string,
  ): Promise<"committed" | "aborted" | "unknown"> {
    try {
      const outcome = await awaitOutcome(held.client, this.#backend, transactionId);
      if (outcome !== "unknown") return outcome;
      this.#deps.log.error(
        { transactionId },
        "a client's COMMIT has not ended; its statements of ours are undone",
      );
    } catch (error) {
      // The connection that holds them is gone, and they with it.
      this.#deps.log.error({ err: error, transactionId }, "the outcome of a client's COMMIT is not known");
    }
    return "unknown";
  }

  /** The client's transaction has ended without these statements. Never rejects. */
  async discard(): Promise<void> {
    await this.truncate(0);
  }

  async #commit(held: HeldWrite<Replay>): Promise<void> {
    try {
      await held.commit().catch((error: unknown) => {
        throw lostAtCommit(error);
      });
      // The reserved roles are now somebody's.
      this.#entries = [];
    } finally {
      await this.discard();
    }
    const { touched, setAside, leftovers } = held.result;
    await followUp(this.#deps, touched);
    await this.#deps.reaper.finish([...setAside.map(({ oid }) => oid), ...leftovers]);
  }

  #catalogFor(connection: ClientConnection | undefined): Catalog {
    const { catalog } = this.#deps;
    return connection?.signal === undefined ? catalog : catalog.cancelable(connection.signal);
  }

  /** @param connection the client's own, as it is now: what an earlier statement was given is over */
  async #replay(
    entries: readonly Entry[],
    client: PoolClient,
    connection: ClientConnection | undefined,
  ): Promise<Replay> {
    const transaction = beginOpenTransaction(client, this.#backend);
    let last: StatementResult | "forward" = "forward";
    let dropped = 0;
    let claimed = 0;
    for (const { statement, context } of entries) {
      dropped = transaction.setAside.length;
      claimed = transaction.claimed.length;
      const current = connection === undefined ? context : { ...context, connection };
      last = await this.#execute(statement, { ...current, transaction });
    }
    return {
      ...transaction,
      last,
      lastSetAside: transaction.setAside.slice(dropped),
      lastClaimed: transaction.claimed.slice(claimed),
    };
  }

  // So that the client's own GRANT … TO the new name works before the commit.
  async #reserve(entry: Entry, name: string, catalog: Catalog): Promise<void> {
    const reserved = await translateErrors(() =>
      catalog.write(async (client) => {
        // Others still see the role that this transaction has dropped or renamed.
        const isTaken = await roleExists(client, name);
        const role = isTaken ? `nodedb_reserved_${randomBytes(12).toString("hex")}` : name;
        if (!(await reserveRole(client, role, this.#backend))) throw beingCreated(name);
        return role;
      }),
    );
    entry.reserved.push(reserved);
    if (reserved !== name) entry.context.materials.set(standInKey, reserved);
  }
}

/** The connection that held the statements open broke at the last moment; PostgreSQL has committed the client's part. */
function lostAtCommit(cause: unknown): SqlError {
  return new SqlError(
    "transaction_resolution_unknown",
    "the transaction was committed in PostgreSQL, but what it changed of users, roles and keys may be lost",
    { hint: "Look with SHOW USERS, SHOW ROLES or SHOW API KEYS, and run those statements again.", cause },
  );
}

/** True for statements that read and change nothing. */
export function readsOnly(statement: Statement): boolean {
  return statement.kind.startsWith("show_") || statement.kind === "verify_audit_chain";
}
