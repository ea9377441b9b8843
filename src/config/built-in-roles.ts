/** The built-in roles: names that no configuration and no statement may give to anything else. */

/** From the lowest to the highest; higher includes lower. */
export const builtInRoles = ["readonly", "readwrite", "admin", "tenant_admin", "superuser"] as const;

export type BuiltInRole = (typeof builtInRoles)[number];

export function isBuiltInRole(name: string): name is BuiltInRole {
  return (builtInRoles as readonly string[]).includes(name);
}

/** Position in the order of built-in roles; -1 for any other role, which carries no administrative right. */
export function rankOf(role: string): number {
  return (builtInRoles as readonly string[]).indexOf(role);
}
