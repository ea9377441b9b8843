/** The one error that may be shown to a client: a condition, a message and PostgreSQL's optional fields. */

import { type Condition, conditions } from "./conditions.ts";

/** ERROR ends the statement; FATAL ends the session. */
export type Severity = "ERROR" | "FATAL";

export interface SqlErrorFields {
  readonly severity?: Severity;
  /** A whole sentence; may quote what the client sent, never a secret. */
  readonly detail?: string | undefined;
  /** A whole sentence that says what to do. */
  readonly hint?: string | undefined;
  /** 1-based character offset into the statement's text. */
  readonly position?: number | undefined;
  /** For the log only. */
  readonly cause?: unknown;
}

/**
 * An expected failure, worded for the client in the style of the PostgreSQL manual, chapter 55.3
 * (lower case, no full stop). Anything else that is thrown is a bug and reaches the client as
 * `internal_error` without its text.
 */
export class SqlError extends Error {
  override readonly name = "SqlError";
  readonly condition: Condition;
  readonly severity: Severity;
  readonly detail: string | undefined;
  readonly hint: string | undefined;
  readonly position: number | undefined;

  constructor(condition: Condition, message: string, fields: SqlErrorFields = {}) {
    super(message, fields.cause === undefined ? undefined : { cause: fields.cause });
    this.condition = condition;
    this.severity = fields.severity ?? "ERROR";
    this.detail = fields.detail;
    this.hint = fields.hint;
    this.position = fields.position;
  }

  /** The five-character code that the wire carries. */
  get sqlstate(): string {
    return conditions[this.condition];
  }
}
