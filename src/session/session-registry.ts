/** The live sessions of a process: limits, ends from outside, and idle timeouts. */

import type { Identity } from "../auth/identity.ts";
import type { LiveSession, Self } from "../auth/live-session.ts";
import { SqlError } from "../errors/sql-error.ts";
import type { EndingMode, ManagedSession, SessionDirectory, SessionGate } from "../exec/sessions.ts";
import type { Audit, AuditEntry } from "../observe/audit.ts";

/** Read at each login and each sweep. */
export interface SessionLimits {
  /** Sessions in this process; one more is refused with too_many_connections. */
  readonly maxConnections: number;
  /** Sessions of one user; 0 is no limit. */
  readonly maxConnectionsPerUser: number;
  /** Sessions of one tenant; undefined is no limit. Asked at each login. */
  readonly tenantLimit?: (tenantId: number) => number | undefined;
  /** 0 is never. */
  readonly idleTimeoutMs: number;
  /** 0 is never. */
  readonly absoluteTimeoutMs: number;
}

/** Who is told of sessions that come and go, and asked of those of other processes. */
export interface SessionObserver {
  readonly audit: Audit;
  readonly onChange: () => void;
  readonly onAdmitted: (session: LiveSession) => void;
  /**
   * Counts the session with those of all front-ends, where its principal or its tenant may not have any number.
   *
   * @returns whose are too many; undefined when it may begin
   * @throws when that cannot be told
   */
  readonly takePlace: (
    status: SessionStatus,
    limits: PlaceLimits,
  ) => Promise<"principal" | "tenant" | undefined>;
}

/** How many sessions there may be of a principal and of a tenant; undefined is any number. */
export interface PlaceLimits {
  readonly ofPrincipal: number | undefined;
  readonly ofTenant: number | undefined;
}

/** One session as SHOW SESSIONS prints it. */
export interface SessionStatus {
  readonly session: ManagedSession;
  readonly state: "active" | "idle" | "idle in transaction" | "waiting";
  /** When a statement was last seen to run, as far as this was looked at. */
  readonly lastActiveAtMs: number;
}

interface Watch {
  activity: number;
  idleSinceMs: number;
  /** For SHOW SESSIONS, which looks at other moments than the sweeper. */
  seenActivity: number;
  lastActiveAtMs: number;
  /** False while other processes are asked. */
  isAdmitted: boolean;
}

const sweepIntervalMs = 1_000;

export class SessionRegistry implements SessionDirectory, SessionGate {
  readonly #limits: SessionLimits;
  readonly #observer: SessionObserver | undefined;
  readonly #sessions = new Map<ManagedSession, Watch>();
  readonly #byPrincipal = new Map<number, number>();
  readonly #byTenant = new Map<number, number>();
  readonly #sweeper: NodeJS.Timeout;
  #emptied: (() => void) | undefined;

  constructor(limits: SessionLimits, observer?: SessionObserver) {
    this.#limits = limits;
    this.#observer = observer;
    this.#sweeper = setInterval(() => this.#sweep(), sweepIntervalMs).unref();
  }

  get size(): number {
    return this.#sessions.size;
  }

  async admit(session: ManagedSession): Promise<void> {
    const { identity } = session.profile;
    const { principal, tenantId, isSuperuser, connectionLimit } = identity;
    if (this.#sessions.size >= this.#limits.maxConnections) {
      throw tooMany("sorry, too many clients already");
    }
    const { maxConnectionsPerUser } = this.#limits;
    const limits: PlaceLimits = {
      ofPrincipal: smallest([
        maxConnectionsPerUser > 0 ? maxConnectionsPerUser : undefined,
        connectionLimit >= 0 && !isSuperuser ? connectionLimit : undefined,
      ]),
      ofTenant: isSuperuser ? undefined : this.#limits.tenantLimit?.(tenantId),
    };
    const { ofPrincipal = Number.POSITIVE_INFINITY, ofTenant = Number.POSITIVE_INFINITY } = limits;
    if ((this.#byPrincipal.get(principal.id) ?? 0) >= ofPrincipal) throw tooManyOf("principal", session);
    if ((this.#byTenant.get(tenantId) ?? 0) >= ofTenant) throw tooManyOf("tenant", session);
    increment(this.#byPrincipal, principal.id);
    increment(this.#byTenant, tenantId);
    const now = Date.now();
    const watch = { activity: -1, idleSinceMs: now, seenActivity: 0, lastActiveAtMs: now, isAdmitted: false };
    this.#sessions.set(session, watch);
    if (limits.ofPrincipal !== undefined || limits.ofTenant !== undefined) {
      try {
        const status = { session, state: stateOf(session), lastActiveAtMs: now };
        const full = await this.#observer?.takePlace(status, limits);
        if (full !== undefined) throw tooManyOf(full, session);
      } catch (error) {
        this.remove(session);
        throw error;
      }
      if (!this.#sessions.has(session)) {
        // It has gone meanwhile; its row, written since, has to go as well.
        this.#observer?.onChange();
        return;
      }
    }
    watch.isAdmitted = true;
    this.#tell("SessionConnect", session);
    this.#observer?.onAdmitted(session.profile);
  }

  remove(session: ManagedSession): void {
    const watch = this.#sessions.get(session);
    if (watch === undefined) return;
    this.#sessions.delete(session);
    const { principal, tenantId } = session.profile.identity;
    decrement(this.#byPrincipal, principal.id);
    decrement(this.#byTenant, tenantId);
    if (watch.isAdmitted) this.#tell("SessionDisconnect", session);
    else this.#observer?.onChange();
    if (this.#sessions.size === 0) this.#emptied?.();
  }

  /** Every session and what it is doing. */
  *statuses(): Generator<SessionStatus> {
    const now = Date.now();
    for (const [session, watch] of this.#sessions) {
      const state = stateOf(session);
      if (state === "active" || session.activity !== watch.seenActivity) {
        watch.seenActivity = session.activity;
        watch.lastActiveAtMs = now;
      }
      yield { session, state, lastActiveAtMs: watch.lastActiveAtMs };
    }
  }

  /** Ends one session at once and cancels what it runs; the one that asked for its own end may hear the answer. */
  kill(sessionId: string, killedBy: string): void {
    const error = new SqlError("admin_shutdown", "terminating connection due to administrator command", {
      severity: "FATAL",
    });
    for (const session of [...this.#sessions.keys()]) {
      if (session.profile.id !== sessionId) continue;
      if (sessionId === killedBy) session.end(error, "after_statement");
      else session.fail(error);
    }
  }

  /** Whose sessions there are. */
  principalIds(): number[] {
    return [...this.#byPrincipal.keys()];
  }

  closeSessionsOf(
    principalId: number,
    error: SqlError,
    mayStay: (session: LiveSession) => boolean = () => false,
  ): void {
    for (const session of [...this.#sessions.keys()]) {
      const { profile } = session;
      if (profile.identity.principal.id !== principalId || mayStay(profile)) continue;
      session.end(error, "after_statement");
    }
  }

  /** Lets the sessions of a principal say of themselves what holds now. */
  renewClaims(principalId: number, selfNow: (identity: Identity) => Self): void {
    for (const session of this.#sessions.keys()) {
      const { identity } = session.profile;
      if (identity.principal.id === principalId) session.renewClaims(selfNow(identity));
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

  #tell(
    event: Extract<AuditEntry["event"], "SessionConnect" | "SessionDisconnect">,
    session: ManagedSession,
  ): void {
    const { id, identity, database, clientAddress } = session.profile;
    this.#observer?.audit.record({
      event,
      username: identity.principal.name,
      tenantId: identity.tenantId,
      source: clientAddress,
      sessionId: id,
      detail: `database ${JSON.stringify(database)}`,
    });
    this.#observer?.onChange();
  }

  #sweep(): void {
    const { idleTimeoutMs, absoluteTimeoutMs } = this.#limits;
    if (idleTimeoutMs === 0 && absoluteTimeoutMs === 0) return;
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

function stateOf(session: ManagedSession): SessionStatus["state"] {
  if (session.isQueued) return "waiting";
  if (!session.isIdle) return "active";
  return session.isInTransaction ? "idle in transaction" : "idle";
}

function smallest(limits: readonly (number | undefined)[]): number | undefined {
  const known = limits.filter((limit) => limit !== undefined);
  return known.length === 0 ? undefined : Math.min(...known);
}

function increment(counts: Map<number, number>, key: number): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

function decrement(counts: Map<number, number>, key: number): void {
  const count = (counts.get(key) ?? 1) - 1;
  if (count === 0) counts.delete(key);
  else counts.set(key, count);
}

function tooManyOf(whose: "principal" | "tenant", { profile }: ManagedSession): SqlError {
  return tooMany(
    whose === "tenant"
      ? "too many connections for this tenant"
      : `too many connections for role "${profile.identity.principal.name}"`,
  );
}

function tooMany(message: string): SqlError {
  return new SqlError("too_many_connections", message, { severity: "FATAL" });
}
