/** Anything that was thrown → status, headers and body of the answer: one shape for all of them. */

import { randomUUID } from "node:crypto";
import { httpStatusOf } from "../errors/http-status.ts";
import { SqlError } from "../errors/sql-error.ts";
import { describeFailure, type Failure } from "../exec/failure.ts";
import type { Log } from "../observe/log.ts";
import { HttpError } from "./http-error.ts";

export interface ErrorBody {
  readonly status: "error";
  readonly error: Omit<Failure, "sqlstate"> & {
    /** A SQLSTATE, or NH and the HTTP status. */
    readonly code: string;
    /** Index of the statement in `queries`. */
    readonly query?: number | undefined;
    readonly requestId: string;
  };
}

export interface ErrorAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: ErrorBody;
}

/** Seconds after which a client may try again what could not be served now. */
const retryAfterS = "1";

/** One of several statements has failed. */
export class FailedQuery extends Error {
  /** Its index in `queries`. */
  readonly query: number;

  constructor(query: number, cause: unknown) {
    super("a statement has failed", { cause });
    this.query = query;
  }
}

export function answerError(thrown: unknown, requestId: string, log: Log): ErrorAnswer {
  const [error, query] = thrown instanceof FailedQuery ? [thrown.cause, thrown.query] : [thrown, undefined];
  if (error instanceof HttpError) {
    const { code, message, hint, headers, status } = error;
    return { status, headers, body: { status: "error", error: { code, message, hint, requestId } } };
  }
  const failure = describeFailure(error) ?? describeFailure(internalError(error, requestId, log));
  if (failure === undefined) throw new TypeError("an internal error can be described");
  const { sqlstate, ...fields } = failure;
  const status = httpStatusOf(sqlstate);
  return {
    status,
    headers: headersOf(status),
    body: { status: "error", error: { code: sqlstate, ...fields, query, requestId } },
  };
}

function headersOf(status: number): Record<string, string> {
  if (status === 503) return { "retry-after": retryAfterS };
  return status === 401 ? { "www-authenticate": 'Bearer realm="nodedb"' } : {};
}

function internalError(error: unknown, requestId: string, log: Log): SqlError {
  const errorId = randomUUID();
  log.error({ err: error, errorId, requestId }, "internal error");
  return new SqlError("internal_error", "internal error", {
    detail: `The log has more under id ${errorId}.`,
  });
}
