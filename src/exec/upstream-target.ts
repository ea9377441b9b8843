/** From an identity to the upstream connection that it needs. */

import type { Identity } from "../auth/identity.ts";
import type { UpstreamTarget } from "../upstream/upstream-target.ts";

/** @param parameters the client's settings, already filtered */
export function upstreamTargetOf(
  identity: Identity,
  database: string,
  parameters: ReadonlyMap<string, string>,
): UpstreamTarget {
  return {
    database,
    principalId: identity.principal.id,
    role: identity.role,
    roleVersion: identity.roleVersion,
    parameters,
    claims: identity.claims,
    expiresAt: identity.expiresAt,
  };
}
