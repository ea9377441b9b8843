/**
 * The statements of one request on the connection that it has on loan: one alone, one whose rows are streamed, or several in
 * one transaction; the front-end's own and PostgreSQL's alike.
 */

import type { JsonValue } from "../auth/identity.ts";
import { conversationKind } from "../ddl/conversation-statement.ts";
import { namesInDatabaseCommands } from "../ddl/database-command.ts";
import type { LexerOptions } from "../ddl/lexer.ts";
import { splitStatements } from "../ddl/splitter.ts";
import type { Statement } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import type { QueryClient } from "../upstream/query-client.ts";
import type { Cell, QueryOutcome, ResultLimits } from "../upstream/query-result.ts";
import { bindParameters, needTypes } from "./bind-parameters.ts";
import type { ClientConnection } from "./context.ts";
import { findTypes } from "./find-types.ts";
import type { PairedTransaction } from "./paired-transaction.ts";
import type { RequestResult, ResultField } from "./request-result.ts";
import { resultOfTable } from "./result-cells.ts";
import type { SessionStatements } from "./session-statements.ts";
import { readsOnly } from "./statement-transaction.ts";

/** A statement's text and its parameters, as the client sent them. */
export interface RequestStatement {
  readonly sql: string;
  readonly parameters: readonly JsonValue[];
}

export type IsolationLevel = "read committed" | "repeatable read" | "serializable";

export interface TransactionOptions {
  readonly isReadOnly: boolean;
  /** PostgreSQL's default when absent. */
  readonly isolationLevel?: IsolationLevel | undefined;
}

/** Takes a streamed result; `undefined` fields are those of a statement without rows. */
export interface ResultListener {
  onFields(fields: readonly ResultField[]): void;
  onRow(cells: readonly Cell[]): void;
}

/** What the statements need of the session that they run in. */
export interface RequestScope {
  readonly client: QueryClient;
  readonly statements: SessionStatements;
  readonly paired: PairedTransaction;
  readonly limits: ResultLimits;
  /** Cancels what the connection runs. */
  cancel(): void;
  /** @throws when the session was told to end */
  checkpoint(): void;
  freeDatabases(names: readonly string[]): void;
}

/** How long PostgreSQL's COMMIT may take while a transaction on the catalog is held open for it, in ms. */
const maxHeldCommitMs = 5_000;
/** How long PostgreSQL may take to act on the cancel that follows; then its backend is terminated. In ms. */
const cancelGraceMs = 2_000;

interface Prepared {
  readonly text: Buffer;
  readonly own: Statement | undefined;
}

export class RequestStatements {
  readonly #scope: RequestScope;
  readonly #connection: ClientConnection;
  /** Index of the statement that runs, or failed. */
  current = 0;

  constructor(scope: RequestScope) {
    this.#scope = scope;
    this.#connection = {
      get standardConformingStrings() {
        return standardConformingStrings(scope.client);
      },
      query: async (sql) => (await scope.client.query(sql)).rows,
      ask: async (sql) => (await scope.client.query(sql)).rows,
    };
  }

  /** @throws SqlError, UpstreamError; nothing has changed then */
  async runAlone(statement: RequestStatement, options: TransactionOptions): Promise<RequestResult> {
    const { isReadOnly, isolationLevel } = options;
    if (isReadOnly || isolationLevel !== undefined) {
      const [result] = await this.runTogether([statement], options);
      if (result === undefined) throw new TypeError("one statement has one result");
      return result;
    }
    return this.#run(statement, this.#prepare(statement), undefined);
  }

  /** Runs all or none. @throws SqlError, UpstreamError; nothing has changed then, and `current` tells whose fault it was */
  async runTogether(
    statements: readonly RequestStatement[],
    options: TransactionOptions,
  ): Promise<RequestResult[]> {
    const { paired, client, checkpoint } = this.#scope;
    const results: RequestResult[] = [];
    try {
      // What cannot be run at all is refused before anything is.
      for (const [index, statement] of statements.entries()) {
        this.current = index;
        this.#prepare(statement);
      }
      await client.query(beginOf(options));
      for (const [index, statement] of statements.entries()) {
        this.current = index;
        checkpoint();
        // Again: how strings are read may have been changed by a statement before it.
        const prepared = this.#prepare(statement);
        if (options.isReadOnly && prepared.own !== undefined && !readsOnly(prepared.own)) {
          throw readOnly(prepared.own);
        }
        results.push(await this.#run(statement, prepared, paired));
        if (client.status !== "T") throw endedEarly();
      }
      checkpoint();
      await this.#commit();
      return results;
    } catch (error) {
      await this.#rollBack();
      throw error;
    }
  }

  /** Runs one statement and gives its rows out as they come. @throws as `runAlone`; rows may have been given out before */
  async stream(
    statement: RequestStatement,
    options: TransactionOptions,
    listener: ResultListener,
  ): Promise<Pick<RequestResult, "command" | "rowCount" | "notices">> {
    const { client } = this.#scope;
    const prepared = this.#prepare(statement);
    if (prepared.own !== undefined) {
      const result = await this.runAlone(statement, options);
      listener.onFields(result.fields);
      for (const row of result.rows) listener.onRow(row);
      return result;
    }
    const isInBlock = options.isReadOnly || options.isolationLevel !== undefined;
    try {
      if (isInBlock) await client.query(beginOf(options));
      const text = this.#textToForward(prepared);
      // Types that have to be looked up must be known before the first row is worded.
      const description = await client.describe(text);
      const parameters = bindParameters(statement.parameters, description.parameterTypeOids);
      const fields = await this.#fieldsOf(description.columns);
      let count = 0;
      listener.onFields(fields);
      const outcome = await client.stream(text, parameters, {
        onRow: (cells) => {
          count += 1;
          listener.onRow(cells);
        },
      });
      this.#requireUtf8();
      if (isInBlock) await this.#commit();
      return {
        ...readTag(outcome.tag, description.columns === undefined ? null : count),
        notices: outcome.notices,
      };
    } catch (error) {
      await this.#rollBack();
      throw error;
    }
  }

  /** @throws SqlError for what cannot be run here at all */
  #prepare({ sql }: RequestStatement): Prepared {
    const { statements, client } = this.#scope;
    if (/\p{Surrogate}/u.test(sql) || sql.includes("\0")) {
      throw new SqlError(
        "character_not_in_repertoire",
        "the statement holds a character that PostgreSQL cannot read",
      );
    }
    const text = Buffer.from(sql, "utf8");
    const options: LexerOptions = { standardConformingStrings: standardConformingStrings(client) };
    const [range, ...more] = splitStatements(text, 0, text.length, options);
    if (more.length > 0) throw severalStatements();
    if (range === undefined) return { text, own: undefined };
    const kind = conversationKind(text, range.start, range.end, options);
    if (kind !== undefined) throw refusals[kind]();
    const own = statements.parse(text, false);
    return { text, own: own === "forward" ? undefined : own };
  }

  async #run(
    statement: RequestStatement,
    { text, own }: Prepared,
    paired: PairedTransaction | undefined,
  ): Promise<RequestResult> {
    const { statements, client } = this.#scope;
    if (own !== undefined) {
      if (statement.parameters.length > 0) throw noParameters();
      const result = await statements.run(own, client.status, this.#connection, paired);
      if (result !== "forward") return resultOfTable(result);
    }
    return this.#forward(statement, this.#textToForward({ text, own }));
  }

  /** With `$auth` rewritten; the databases that it is about are let go. */
  #textToForward({ text }: Prepared): Buffer {
    const { client, statements, freeDatabases } = this.#scope;
    const names = namesInDatabaseCommands(text, 0, text.length, {
      standardConformingStrings: standardConformingStrings(client),
    });
    if (names.length > 0) freeDatabases(names);
    return statements.rewriteAuth(text);
  }

  /** Texts come and go as UTF-8; a statement may have changed what PostgreSQL takes them for. */
  #requireUtf8(): void {
    const encoding = this.#scope.client.connection.parameters.get("client_encoding");
    if (encoding === "UTF8") return;
    throw new SqlError("feature_not_supported", "client_encoding must stay UTF8 over HTTP");
  }

  async #forward(statement: RequestStatement, text: Buffer): Promise<RequestResult> {
    const { client, limits, cancel } = this.#scope;
    const types = needTypes(statement.parameters) ? (await client.describe(text)).parameterTypeOids : [];
    const outcome = await client.execute(text, bindParameters(statement.parameters, types), limits, cancel);
    this.#requireUtf8();
    const fields = await this.#fieldsOf(outcome.columns);
    return {
      ...readTag(outcome.tag, outcome.columns === undefined ? null : outcome.rows.length),
      fields,
      rows: outcome.rows,
      notices: outcome.notices,
    };
  }

  async #fieldsOf(columns: QueryOutcome["columns"] = []): Promise<ResultField[]> {
    const types = await findTypes(
      columns.map(({ typeOid }) => typeOid),
      async (sql) => (await this.#scope.client.query(sql)).rows,
    );
    return columns.map(({ name, typeOid }, index) => ({
      name,
      oid: typeOid,
      type: types[index] ?? { kind: "text", name: "text" },
    }));
  }

  /** Ours first, held open; then PostgreSQL's COMMIT; then both hold, or neither, whatever becomes of the request. */
  async #commit(): Promise<void> {
    const { client, paired, cancel } = this.#scope;
    const timers: NodeJS.Timeout[] = [];
    let giveUp = () => {};
    const overdue = new Promise<undefined>((resolve) => {
      giveUp = () => resolve(undefined);
    });
    try {
      const prepared = await paired.prepareCommit(this.#connection, () => {
        timers.push(setTimeout(cancel, maxHeldCommitMs), setTimeout(giveUp, maxHeldCommitMs + cancelGraceMs));
      });
      const answer = client.query("COMMIT").then(({ tag }) => tag);
      const tag = await Promise.race([answer, overdue]).catch(() => undefined);
      if (tag === "COMMIT") await prepared?.commit();
      else if (tag !== undefined) await prepared?.rollback();
      else await prepared?.endAsPostgres();
      // Some statement has failed the transaction without telling.
      if ((await answer) !== "COMMIT") throw endedEarly();
    } finally {
      for (const timer of timers) clearTimeout(timer);
    }
  }

  /** Never rejects: a connection that cannot roll back is closed by who gives it back. */
  async #rollBack(): Promise<void> {
    const { client, paired } = this.#scope;
    if (client.status !== "I") await client.query("ROLLBACK").catch(() => undefined);
    await paired.discard();
  }
}

function standardConformingStrings(client: QueryClient): boolean {
  return client.connection.parameters.get("standard_conforming_strings") !== "off";
}

/**
 * A transaction may be made READ WRITE again until its first query has taken a snapshot (SET TRANSACTION), so that the
 * front-end takes one before it lets the client in.
 */
function beginOf({ isReadOnly, isolationLevel }: TransactionOptions): string {
  const level = isolationLevel === undefined ? "" : ` ISOLATION LEVEL ${isolationLevel.toUpperCase()}`;
  return isReadOnly ? `BEGIN${level} READ ONLY; SELECT` : `BEGIN${level}`;
}

/** `INSERT 0 5` is INSERT and 5, `SELECT 3` SELECT and 3, `CREATE TABLE` has no number. */
function readTag(tag: string, rows: number | null): Pick<RequestResult, "command" | "rowCount"> {
  const [, command = "", count] = /^(.*?)(?: 0)?(?: (\d+))?$/.exec(tag) ?? [];
  return { command, rowCount: count === undefined ? rows : Number(count) };
}

const refusals = {
  transaction: () =>
    new SqlError("feature_not_supported", "a transaction cannot be begun or ended by a statement over HTTP", {
      hint: 'Send the statements of one transaction together in "queries".',
    }),
  copy: () =>
    new SqlError("feature_not_supported", "COPY is not available over HTTP", {
      hint: "Stream a SELECT, or use the PostgreSQL protocol.",
    }),
  notifications: () =>
    new SqlError("feature_not_supported", "notifications are not available over HTTP", {
      hint: "LISTEN in a session of the PostgreSQL protocol.",
    }),
};

function severalStatements(): SqlError {
  return new SqlError("syntax_error", "one request statement holds several commands", {
    hint: 'Send each as one of "queries": they run in one transaction.',
  });
}

function noParameters(): SqlError {
  return new SqlError("invalid_parameter_value", "this statement takes no parameters", {
    hint: "Write the values into the statement.",
  });
}

function readOnly(statement: Statement): SqlError {
  const command = statement.kind.replaceAll("_", " ").toUpperCase();
  return new SqlError("read_only_sql_transaction", `cannot execute ${command} in a read-only transaction`);
}

function endedEarly(): SqlError {
  return new SqlError(
    "invalid_transaction_termination",
    "a statement has ended the transaction of the request",
  );
}
