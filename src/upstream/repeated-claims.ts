/**
 * Claims that a pooled connection is told again together with its reset, so that whoever gets it next need not wait for that.
 */

import type { PoolEntry } from "./pool-group.ts";
import type { ToldClaims, UpstreamConnection } from "./upstream-connection.ts";
import type { UpstreamTarget } from "./upstream-target.ts";

/** A connection that has been idle for no longer than this is taken to be alive, in ms; others are asked. */
const trustedIdleMs = 1_000;

/**
 * The claims that a connection which comes back was lent with, to be told again together with its reset: whoever gets it next
 * has the same, and mostly comes before they are due. The same envelope: it is bound to the connection, and not to a session.
 */
export function claimsToRepeat({ toldClaims }: UpstreamConnection): ToldClaims | undefined {
  return toldClaims !== undefined && Date.now() < toldClaims.dueAtMs ? toldClaims : undefined;
}

/** Whether the connection carries what the session is to have. The claims are those of its group; the end of a credential is not. */
export function carriesClaimsFor(
  { carried, idleSinceMs }: PoolEntry,
  { expiresAt }: UpstreamTarget,
): boolean {
  const now = Date.now();
  return (
    carried !== undefined &&
    carried.expiresAtMs === expiresAt?.getTime() &&
    now < carried.dueAtMs &&
    now <= idleSinceMs + trustedIdleMs
  );
}
