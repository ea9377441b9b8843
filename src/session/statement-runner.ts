/** Runs one statement of ours for a session, and words its result as protocol messages. */

import type { StatementResult } from "../exec/result.ts";
import { SessionStatements } from "../exec/session-statements.ts";
import { UpstreamError } from "../upstream/upstream-error.ts";
import { encodeNotice, encodeSqlError, type FormatCode } from "../wire/backend-message.ts";
import { encodeResultRow } from "../wire/row-encoding.ts";

export class StatementRunner extends SessionStatements {
  /** The message for anything that was thrown: PostgreSQL's own error as it came, ours, or that of a bug. */
  encodeError(error: unknown): Buffer {
    return error instanceof UpstreamError ? error.errorResponse : encodeSqlError(this.asSqlError(error));
  }
}

/** Notices that precede the result. */
export function encodeNotices(result: StatementResult): Buffer[] {
  return result.notices.map((notice) => encodeNotice(notice));
}

/** DataRow messages of a result. */
export function encodeRows(result: StatementResult, formats: readonly FormatCode[]): Buffer[] {
  const { table } = result;
  if (table === undefined) return [];
  return table.rows.map((row) => encodeResultRow(table.columns, row, formats));
}
