/** A session as those see it who keep the list of them, whichever door it came through. */

import type { Identity } from "../auth/identity.ts";
import type { LiveSession, Self } from "../auth/live-session.ts";
import type { SqlError } from "../errors/sql-error.ts";

/** Who and where; fixed at the login. */
export interface SessionProfile extends LiveSession {
  /** A UUID. */
  readonly id: string;
  readonly identity: Identity;
  readonly database: string;
  /** Without its port. */
  readonly clientAddress: string;
  readonly protocol: "pgwire" | "http";
}

/** When a session that is to end may still finish something. */
export type EndingMode = "after_statement" | "after_transaction";

/** What the registry of sessions asks of one. */
export interface ManagedSession {
  readonly profile: SessionProfile;
  readonly connectedAtMs: number;
  /** Moves when a statement has ended; a session whose number stands still is idle or running one statement. */
  readonly activity: number;
  /** True when no statement is running. */
  readonly isIdle: boolean;
  /** True between the beginning and the end of the client's transaction, failed or not. */
  readonly isInTransaction: boolean;
  /** True while it waits for an upstream connection. */
  readonly isQueued: boolean;
  /** Takes other claims, and another name, than those that it began with. */
  renewClaims(self: Self): void;
  /** Ends it with the error, as soon as the mode allows. */
  end(error: SqlError, mode: EndingMode): void;
  /** Ends it now: the client is told, what runs upstream is cancelled. */
  fail(error: unknown): void;
}

/** Where sessions are counted and listed. */
export interface SessionGate {
  /**
   * Asks the other front-ends too where the number of a user's or a tenant's sessions is limited. Who is ended meanwhile hears of
   * it as any session does.
   *
   * @throws SqlError FATAL too_many_connections when the process, the tenant or the user has no room for one more,
   *   cannot_connect_now when that cannot be told
   */
  admit(session: ManagedSession): Promise<void>;
  remove(session: ManagedSession): void;
}

/** What statements need to know of live sessions. */
export interface SessionDirectory {
  /**
   * Ends the principal's sessions in this process with the error: idle ones at once, others after their statement.
   *
   * @param mayStay tells which of them go on; none when absent
   */
  closeSessionsOf(principalId: number, error: SqlError, mayStay?: (session: LiveSession) => boolean): void;
}
