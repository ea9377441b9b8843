/** What may be told about an error, whoever raised it: the front-end or PostgreSQL. */

import { SqlError } from "../errors/sql-error.ts";
import { UpstreamError } from "../upstream/upstream-error.ts";

/** The fields of an ErrorResponse (PostgreSQL manual 54.8) that are for the client. */
export interface Failure {
  readonly sqlstate: string;
  readonly message: string;
  readonly detail?: string | undefined;
  readonly hint?: string | undefined;
  /** In characters of the statement, from 1. */
  readonly position?: number | undefined;
  readonly where?: string | undefined;
  readonly schema?: string | undefined;
  readonly table?: string | undefined;
  readonly column?: string | undefined;
  readonly dataType?: string | undefined;
  readonly constraint?: string | undefined;
}

/** @returns undefined for what is a bug, and for the log only */
export function describeFailure(error: unknown): Failure | undefined {
  if (error instanceof SqlError) {
    const { sqlstate, message, detail, hint, position } = error;
    return { sqlstate, message, detail, hint, position };
  }
  if (!(error instanceof UpstreamError)) return undefined;
  const { fields, sqlstate, message } = error;
  const position = fields.get("P");
  return {
    sqlstate,
    message,
    detail: fields.get("D"),
    hint: fields.get("H"),
    position: position === undefined ? undefined : Number(position),
    where: fields.get("W"),
    schema: fields.get("s"),
    table: fields.get("t"),
    column: fields.get("c"),
    dataType: fields.get("d"),
    constraint: fields.get("n"),
  };
}
