/**
 * The built-in roles and the PostgreSQL group roles that carry their grants. The groups are prefixed, because an
 * existing cluster often has a "readonly" or an "admin" of its own.
 */

/** The built-in roles, from the lowest to the highest; higher includes lower. */
export const builtInRoles = ["readonly", "readwrite", "admin", "tenant_admin", "superuser"] as const;

export type BuiltInRole = (typeof builtInRoles)[number];

/** The NOLOGIN group role of a built-in role. */
export function groupOf(role: BuiltInRole): string {
  return `nodedb_${role}`;
}

export function isBuiltInRole(name: string): name is BuiltInRole {
  return (builtInRoles as readonly string[]).includes(name);
}

/** Position in the order of built-in roles; -1 for any other role, which carries no administrative right. */
export function rankOf(role: string): number {
  return (builtInRoles as readonly string[]).indexOf(role);
}
