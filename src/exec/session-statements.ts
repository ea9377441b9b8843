/** Runs statements of ours for one session, whichever door it came through. */

import { randomUUID } from "node:crypto";
import { mayHoldAuthReference } from "../ddl/auth-references.ts";
import { holdsOurs } from "../ddl/classify.ts";
import { parseStatement } from "../ddl/parse-statement.ts";
import { splitStatements } from "../ddl/splitter.ts";
import type { Statement } from "../ddl/statement.ts";
import { decodeStatementText } from "../ddl/statement-text.ts";
import { SqlError } from "../errors/sql-error.ts";
import type { Log } from "../observe/log.ts";
import type { ClientConnection, ExecutionContext } from "./context.ts";
import type { Executor } from "./execute.ts";
import type { PairedTransaction } from "./paired-transaction.ts";
import type { StatementResult } from "./result.ts";

/** What the session knows at the moment that a statement is run. */
export interface SessionState {
  readonly context: Omit<ExecutionContext, "dateStyle" | "timeZone" | "materials" | "transaction">;
  /** As the upstream last reported them. */
  readonly parameters: ReadonlyMap<string, string>;
}

export class SessionStatements {
  readonly #executor: Executor;
  readonly #state: SessionState;
  readonly #log: Log;

  constructor(executor: Executor, state: SessionState, log: Log) {
    this.#executor = executor;
    this.#state = state;
    this.#log = log;
  }

  /**
   * Parses the text of one statement that begins with the keywords of one of ours.
   *
   * @param isPrepared the text is a Parse's, which may hold one statement only
   * @returns "forward" when it is PostgreSQL's after all
   * @throws SqlError syntax_error and others, with positions in characters of this text
   */
  parse(text: Buffer, isPrepared: boolean): Statement | "forward" {
    const encoding = this.#state.parameters.get("client_encoding") ?? "UTF8";
    const options = {
      standardConformingStrings: this.#state.parameters.get("standard_conforming_strings") !== "off",
    };
    // Such a text is refused by PostgreSQL too, but there its log would keep the passwords in it.
    if (isPrepared && splitStatements(text, 0, text.length, options).length > 1) {
      throw new SqlError("syntax_error", "cannot insert multiple commands into a prepared statement");
    }
    // What is PostgreSQL's may be in any encoding.
    if (!holdsOurs(text, 0, text.length, options)) return "forward";
    return parseStatement(decodeStatementText(text, encoding), options);
  }

  /**
   * A text for PostgreSQL with its `$auth.…` replaced by calls of the verified functions; the same buffer without any.
   * @throws SqlError syntax_error for a name that there is not, object_not_in_prerequisite_state where the functions are missing
   */
  rewriteAuth(text: Buffer): Buffer {
    if (!mayHoldAuthReference(text, 0, text.length)) return text;
    return this.#executor.rewriteAuth(text, this.#state.context.database, {
      standardConformingStrings: this.#state.parameters.get("standard_conforming_strings") !== "off",
    });
  }

  /** True when the statement is about a role that is none of our users: PostgreSQL's to run. */
  concernsForeignRole(statement: Statement, signal: AbortSignal): Promise<boolean> {
    return this.#executor.concernsForeignRole(statement, signal);
  }

  /**
   * @param status of the client's transaction
   * @param connection the client's own, for statements that are PostgreSQL's in the end
   * @param paired runs the statement as a part of the client's transaction, where there is one
   * @returns "forward" as `concernsForeignRole` would have told
   * @throws SqlError
   */
  async run(
    statement: Statement,
    status: "I" | "T" | "E",
    connection: ClientConnection,
    paired: PairedTransaction | undefined,
  ): Promise<StatementResult | "forward"> {
    if (status === "E") {
      throw new SqlError(
        "in_failed_sql_transaction",
        "current transaction is aborted, commands ignored until end of transaction block",
      );
    }
    const context: ExecutionContext = {
      ...this.#state.context,
      connection,
      materials: new Map(),
      dateStyle: this.#state.parameters.get("DateStyle") ?? "ISO, MDY",
      timeZone: this.#state.parameters.get("TimeZone") ?? "UTC",
    };
    return paired === undefined ? this.#executor.execute(statement, context) : paired.run(statement, context);
  }

  /** Anything that was thrown, as what the client may see; a bug is logged under an id. */
  asSqlError(error: unknown): SqlError {
    if (error instanceof SqlError) return error;
    const id = randomUUID();
    this.#log.error({ err: error, errorId: id }, "internal error");
    return new SqlError("internal_error", "internal error", { detail: `The log has more under id ${id}.` });
  }
}
