/** The live sessions of a process: limits, ends from outside, and idle timeouts. */

import { SqlError } from "../errors/sql-error.ts";
import type { SessionDirectory } from "../exec/sessions.ts";
import type { EndingMode, Session } from "./session.ts";

export interface SessionLimits {
  /** Sessions in this process; one more is refused with too_many_connections. */
  readonly maxConnections: number;
  /** Sessions of one user in this process; 0 is no limit. */
  readonly maxConnectionsPerUser: number;
  /** 0 is never. */
  readonly idleTimeoutMs: number;
  /** 0 is never. */
  readonly absoluteTimeoutMs: number;
}

interface Watch {
  activity: number;
  idleSinceMs: number;
}

const sweepIntervalMs = 1_000;

export class SessionRegistry implements SessionDirectory {
  readonly #limits: SessionLimits;
  readonly #sessions = new Map<Session, Watch>();
  readonly #byPrincipal = new Map<number, number>();
  readonly #sweeper: NodeJS.Timeout | undefined;
  #emptied: (() => void) | undefined;

  constructor(limits: SessionLimits) {
    this.#limits = limits;
    if (limits.idleTimeoutMs > 0 || limits.absoluteTimeoutMs > 0) {
      this.#sweeper = setInterval(() => this.#sweep(), sweepIntervalMs);
      this.#sweeper.unref();
    }
  }

  get size(): number {
    return this.#sessions.size;
  }

  /** @throws SqlError FATAL too_many_connections when the process, the user or the role has no room for one more */
  admit(session: Session): void {
    const { identity } = session.profile;
    const count = this.#byPrincipal.get(identity.principal.id) ?? 0;
    if (this.#sessions.size >= this.#limits.maxConnections) {
      throw tooMany("sorry, too many clients already");
    }
    const { maxConnectionsPerUser } = this.#limits;
    const isOverUserLimit = maxConnectionsPerUser > 0 && count >= maxConnectionsPerUser;
    const isOverOwnLimit =
      identity.connectionLimit >= 0 && count >= identity.connectionLimit && !identity.isSuperuser;
    if (isOverUserLimit || isOverOwnLimit) {
      throw tooMany(`too many connections for role "${identity.principal.name}"`);
    }
    this.#byPrincipal.set(identity.principal.id, count + 1);
    this.#sessions.set(session, { activity: -1, idleSinceMs: Date.now() });
  }

  remove(session: Session): void {
    if (!this.#sessions.delete(session)) return;
    const { id } = session.profile.identity.principal;
    const count = (this.#byPrincipal.get(id) ?? 1) - 1;
    if (count === 0) this.#byPrincipal.delete(id);
    else this.#byPrincipal.set(id, count);
    if (this.#sessions.size === 0) this.#emptied?.();
  }

  /** Whose sessions there are. */
  principalIds(): number[] {
    return [...this.#byPrincipal.keys()];
  }

  closeSessionsOf(principalId: number, error: SqlError): void {
    for (const session of [...this.#sessions.keys()]) {
      if (session.profile.identity.principal.id === principalId) session.end(error, "after_statement");
    }
  }

  /** Ends every session; resolves when all are gone or the time is over, and those left have been cut off. */
  async endAll(error: SqlError, mode: EndingMode, timeoutMs: number): Promise<void> {
    for (const session of [...this.#sessions.keys()]) session.end(error, mode);
    if (this.#sessions.size > 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, timeoutMs);
        this.#emptied = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    for (const session of [...this.#sessions.keys()]) session.fail(error);
    clearInterval(this.#sweeper);
  }

  #sweep(): void {
    const { idleTimeoutMs, absoluteTimeoutMs } = this.#limits;
    const now = Date.now();
    for (const [session, watch] of [...this.#sessions]) {
      if (absoluteTimeoutMs > 0 && now - session.connectedAtMs > absoluteTimeoutMs) {
        session.end(
          new SqlError("admin_shutdown", "terminating connection due to session timeout", {
            severity: "FATAL",
          }),
          "after_statement",
        );
      } else if (!session.isIdle || session.activity !== watch.activity) {
        watch.activity = session.activity;
        watch.idleSinceMs = now;
      } else if (idleTimeoutMs > 0 && now - watch.idleSinceMs > idleTimeoutMs) {
        session.end(
          new SqlError("idle_session_timeout", "terminating connection due to idle-session timeout", {
            severity: "FATAL",
          }),
          "after_statement",
        );
      }
    }
  }
}

function tooMany(message: string): SqlError {
  return new SqlError("too_many_connections", message, { severity: "FATAL" });
}
