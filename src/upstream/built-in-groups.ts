/**
 * The PostgreSQL group roles that carry the grants of the built-in roles. They are prefixed, because an existing cluster
 * often has a "readonly" or an "admin" of its own.
 */

import type { BuiltInRole } from "../config/built-in-roles.ts";

/** For those above, who may not know the configuration's folder. */
export { type BuiltInRole, builtInRoles, isBuiltInRole, rankOf } from "../config/built-in-roles.ts";

/** The NOLOGIN group role of a built-in role. */
export function groupOf(role: BuiltInRole): string {
  return `nodedb_${role}`;
}

/** The NOLOGIN role that owns `auth.session()` and its key, and nothing else. */
export const claimsOwner = "nodedb_auth";
