/** Ends the sessions whose user, key, certificate or database has been taken away, and each that expires, when it does. */

import { endsAt, type LiveCache, type LiveSession, mayStay, selfNow } from "./auth/live-session.ts";
import { loginRefusal } from "./auth/password.ts";
import type { PrincipalCache } from "./catalog/cache.ts";
import { SqlError } from "./errors/sql-error.ts";
import type { SessionRegistry } from "./session/session-registry.ts";

export interface SessionWatchOptions {
  readonly cache: LiveCache & Pick<PrincipalCache, "onChange">;
  readonly registry: Pick<SessionRegistry, "closeSessionsOf" | "principalIds" | "renewClaims">;
  /** Whether a certificate has been revoked since. */
  readonly isRevoked: (certificateId: string) => boolean;
  /** Told of principals that may not log in any more: their unused connections are to be closed. */
  readonly onGone: (principalId: number) => void;
  /** How often all sessions are looked at, in ms: for certificates, and for clocks that are set. */
  readonly sweepMs: number;
}

export interface SessionWatch {
  /** Learns of a session when it begins. */
  admitted(session: LiveSession): void;
  close(): void;
}

/** The longest that setTimeout waits; longer ones fire at once. */
const maxTimerMs = 2 ** 31 - 1;

export function openSessionWatch(options: SessionWatchOptions): SessionWatch {
  const { cache, registry, isRevoked, onGone } = options;
  let timer: NodeJS.Timeout | undefined;
  let firesAtMs = Number.POSITIVE_INFINITY;

  /** Sets the timer to an earlier moment than it has. */
  const wakeAt = (at: Date | undefined) => {
    const ms = at?.getTime() ?? Number.POSITIVE_INFINITY;
    if (ms >= firesAtMs) return;
    clearTimeout(timer);
    firesAtMs = ms;
    timer = setTimeout(look, Math.min(ms - Date.now(), maxTimerMs)).unref();
  };

  function look(): void {
    clearTimeout(timer);
    firesAtMs = Number.POSITIVE_INFINITY;
    const now = new Date();
    for (const id of registry.principalIds()) {
      const record = cache.findById(id);
      if (record === undefined || loginRefusal(record, now) !== undefined) onGone(id);
      registry.closeSessionsOf(
        id,
        new SqlError("admin_shutdown", "terminating connection due to administrator command", {
          severity: "FATAL",
        }),
        (session) => {
          const { certificateId } = session.identity;
          if (certificateId !== undefined && isRevoked(certificateId)) return false;
          if (!mayStay(cache, session, now)) return false;
          wakeAt(endsAt(cache, session));
          return true;
        },
      );
      registry.renewClaims(id, (identity) => selfNow(cache, identity));
    }
  }

  const stopListening = cache.onChange(look);
  const sweeper = setInterval(look, options.sweepMs).unref();
  return {
    admitted: (session) => wakeAt(endsAt(cache, session)),
    close: () => {
      stopListening();
      clearInterval(sweeper);
      clearTimeout(timer);
    },
  };
}
