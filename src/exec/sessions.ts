/** What statements need to know of live sessions; the session layer implements it. */

import type { LiveSession } from "../auth/live-session.ts";
import type { SqlError } from "../errors/sql-error.ts";

export interface SessionDirectory {
  /**
   * Ends the principal's sessions in this process with the error: idle ones at once, others after their statement.
   *
   * @param mayStay tells which of them go on; none when absent
   */
  closeSessionsOf(principalId: number, error: SqlError, mayStay?: (session: LiveSession) => boolean): void;
}
