/** Who may run which statement on whom: the gates of the auth SQL contract. */

import type { PrincipalRecord } from "../catalog/users.ts";
import type { Name } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { isBuiltInRole, rankOf } from "../upstream/built-in-groups.ts";

/** A failed gate; `permission denied: ` and the reason. */
export function denied(reason: string): SqlError {
  return new SqlError("insufficient_privilege", `permission denied: ${reason}`);
}

/** Rank of the highest role held; -1 for none. */
export function highestRank(roles: readonly string[]): number {
  return Math.max(-1, ...roles.map(rankOf));
}

export function isSuperuser(user: Pick<PrincipalRecord, "roles">): boolean {
  return user.roles.includes("superuser");
}

/** @throws SqlError insufficient_privilege unless the caller is admin, tenant_admin or superuser */
export function requireAdmin(caller: PrincipalRecord, action: string): void {
  if (highestRank(caller.roles) < rankOf("admin")) throw denied(`only an admin may ${action}`);
}

/**
 * Whether the caller may know of this user. A user of another tenant is treated as one that does not exist (42704 and not
 * 42501), so that an admin cannot sound out other tenants' names; only CREATE and RENAME tell that a name is taken, because
 * PostgreSQL has one name space of roles for all tenants.
 */
export function maySee(caller: PrincipalRecord, user: PrincipalRecord): boolean {
  return isSuperuser(caller) || caller.tenantId === user.tenantId;
}

/** @throws SqlError insufficient_privilege when the user holds a role above the caller's highest */
export function requireNotAbove(caller: PrincipalRecord, user: PrincipalRecord, action: string): void {
  if (highestRank(user.roles) > highestRank(caller.roles)) {
    throw denied(`only ${article(topRole(user.roles))} may ${action}`);
  }
}

/**
 * Resolves the names of roles to be granted.
 *
 * @throws SqlError undefined_object when there is no such role
 * @throws SqlError insufficient_privilege when one is above the caller's highest
 */
export function grantableRoles(caller: PrincipalRecord, names: readonly Name[]): string[] {
  const roles = new Set<string>();
  for (const { text, position } of names) {
    if (!isBuiltInRole(text)) {
      throw new SqlError("undefined_object", `role "${text}" does not exist`, {
        position,
        hint: "The built-in roles are readonly, readwrite, admin, tenant_admin and superuser.",
      });
    }
    roles.add(text);
  }
  for (const role of roles) {
    if (rankOf(role) > highestRank(caller.roles))
      throw denied(`only ${article(role)} may grant role "${role}"`);
  }
  return [...roles];
}

function topRole(roles: readonly string[]): string {
  return roles.reduce((top, role) => (rankOf(role) > rankOf(top) ? role : top), "readonly");
}

function article(role: string): string {
  if (role === "superuser") return "superuser";
  return role === "admin" ? "an admin" : `a ${role}`;
}
