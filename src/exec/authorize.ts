/** Who may run which statement on whom: the gates of the auth SQL contract. */

import { type CustomRole, loadCustomRolesByName } from "../catalog/roles.ts";
import type { PrincipalRecord, Queryable } from "../catalog/users.ts";
import type { Name } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { isBuiltInRole, rankOf } from "../upstream/built-in-groups.ts";

/** A failed gate; `permission denied: ` and the reason. */
export function denied(reason: string): SqlError {
  return new SqlError("insufficient_privilege", `permission denied: ${reason}`);
}

/** Rank of the highest among effective roles; -1 for none. */
export function highestRank(roles: readonly string[]): number {
  return Math.max(-1, ...roles.map(rankOf));
}

export function isSuperuser(user: Pick<PrincipalRecord, "roles">): boolean {
  return user.roles.includes("superuser");
}

/** @throws SqlError insufficient_privilege unless the caller is a superuser */
export function requireSuperuser(caller: PrincipalRecord, action: string): void {
  if (!isSuperuser(caller)) throw denied(`only superuser may ${action}`);
}

/** @throws SqlError insufficient_privilege unless the caller is admin, tenant_admin or superuser */
export function requireAdmin(caller: PrincipalRecord, action: string): void {
  if (highestRank(caller.effectiveRoles) < rankOf("admin")) throw denied(`only an admin may ${action}`);
}

/**
 * Whether the caller may know of this user or custom role. A user of another tenant is treated as one that does not exist (42704 and not
 * 42501), so that an admin cannot sound out other tenants' names; only CREATE and RENAME tell that a name is taken, because
 * PostgreSQL has one name space of roles for all tenants.
 */
export function maySee(caller: PrincipalRecord, user: Pick<PrincipalRecord, "tenantId">): boolean {
  return isSuperuser(caller) || caller.tenantId === user.tenantId;
}

/** @throws SqlError insufficient_privilege when the user or custom role has a role above the caller's highest */
export function requireNotAbove(
  caller: PrincipalRecord,
  user: Pick<PrincipalRecord, "effectiveRoles">,
  action: string,
): void {
  if (highestRank(user.effectiveRoles) > highestRank(caller.effectiveRoles)) {
    throw denied(`only ${article(topRole(user.effectiveRoles))} may ${action}`);
  }
}

/**
 * Resolves the names of roles to be granted, reading the custom ones.
 *
 * @param tenantId of whom they are granted to: a custom role stays in its tenant
 * @throws SqlError undefined_object when there is no such role, or the caller may not know of it
 * @throws SqlError insufficient_privilege when one is above the caller's highest, or belongs to another tenant
 */
export async function resolveGrantableRoles(
  client: Queryable,
  caller: PrincipalRecord,
  names: readonly Name[],
  tenantId: number = caller.tenantId,
): Promise<string[]> {
  const custom = names.map((name) => name.text).filter((name) => !isBuiltInRole(name));
  const known = custom.length === 0 ? undefined : await loadCustomRolesByName(client, custom);
  return grantableRoles(caller, names, known, tenantId);
}

/** As `resolveGrantableRoles`, with the custom roles already read. */
export function grantableRoles(
  caller: PrincipalRecord,
  names: readonly Name[],
  custom: ReadonlyMap<string, CustomRole> = new Map(),
  tenantId: number = caller.tenantId,
): string[] {
  const roles = new Map<string, readonly string[]>();
  for (const { text, position } of names) {
    const found = custom.get(text);
    const isKnown = isBuiltInRole(text) || (found !== undefined && maySee(caller, found));
    if (!isKnown) {
      throw new SqlError("undefined_object", `role "${text}" does not exist`, {
        position,
        hint: "SHOW ROLES lists the roles that there are.",
      });
    }
    if (found !== undefined && found.tenantId !== tenantId) {
      throw denied(`role "${text}" belongs to another tenant`);
    }
    roles.set(text, found?.effectiveRoles ?? [text]);
  }
  for (const [role, effectiveRoles] of roles) {
    if (highestRank(effectiveRoles) > highestRank(caller.effectiveRoles)) {
      throw denied(`only ${article(topRole(effectiveRoles))} may grant role "${role}"`);
    }
  }
  return [...roles.keys()];
}

function topRole(roles: readonly string[]): string {
  return roles.reduce((top, role) => (rankOf(role) > rankOf(top) ? role : top), "readonly");
}

function article(role: string): string {
  if (role === "superuser") return "superuser";
  return role === "admin" ? "an admin" : `a ${role}`;
}
