/** What statements need to know of live sessions; the session layer implements it. */

import type { SqlError } from "../errors/sql-error.ts";

export interface SessionDirectory {
  /** Ends the principal's sessions in this process with the error: idle ones at once, others after their statement. */
  closeSessionsOf(principalId: number, error: SqlError): void;
}
