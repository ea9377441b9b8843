/**
 * The group of each tenant's administrators. It is a member of the PostgreSQL role of everybody in the tenant who ranks below
 * admin, and the tenant's admins are members of it: so they are owners of what those create, by PostgreSQL's own rule and in
 * every database. No admin, superuser or principal of the system's tenant is ever behind it: membership gives nothing that
 * an admin could not reach by logging in as somebody whose password or keys are its to set.
 */

import { type ClientBase, escapeIdentifier, escapeLiteral } from "pg";
import type { WantedMemberships } from "./reconcile-memberships.ts";

/** Where a principal stands in its tenant. */
export interface TenantPlace {
  readonly tenantId: number;
  readonly as: "administrator" | "member";
}

/** What the reconciler has to know of a principal. */
export interface Placed {
  readonly name: string;
  /** Absent: neither in the group nor behind it. */
  readonly place?: TenantPlace | undefined;
}

/** The NOLOGIN role that a tenant's administrators are members of. */
export function tenantGroupOf(tenantId: number): string {
  return `nodedb_admin_${tenantId}`;
}

/** Names of the tenants' groups that there are in PostgreSQL. */
export async function readTenantGroups(client: ClientBase): Promise<string[]> {
  const result = await client.query<{ name: string }>(
    "SELECT rolname::pg_catalog.text AS name FROM pg_catalog.pg_roles WHERE rolname ~ '^nodedb_admin_[0-9]+$'",
  );
  return result.rows.map((row) => row.name);
}

/** Says in `\du+` what the group is. */
export async function describeTenantGroup(client: ClientBase, tenantId: number): Promise<void> {
  const text = `administrators of tenant ${tenantId}, who own what its other members create`;
  await client.query(
    `COMMENT ON ROLE ${escapeIdentifier(tenantGroupOf(tenantId))} IS ${escapeLiteral(text)}`,
  );
}

/** Takes away the group of a tenant that nobody belongs to any more. */
export async function dropTenantGroup(client: ClientBase, tenantId: number): Promise<void> {
  await client.query(`DROP ROLE IF EXISTS ${escapeIdentifier(tenantGroupOf(tenantId))}`);
}

/** The group that a principal is to be a member of. */
export function groupsOfAdministrator({ place }: Placed): readonly string[] {
  return place?.as === "administrator" ? [tenantGroupOf(place.tenantId)] : [];
}

/**
 * What the groups are to be members of, among these principals and the groups of the built-in roles.
 *
 * @param tenantGroups all that there are
 */
export function membersBehindGroups(
  principals: readonly Placed[],
  tenantGroups: readonly string[],
  builtInGroups: readonly string[],
): WantedMemberships {
  const wanted = new Map<string, string[]>(tenantGroups.map((group) => [group, []]));
  for (const { name, place } of principals) {
    if (place?.as === "member") wanted.get(tenantGroupOf(place.tenantId))?.push(name);
  }
  const managed = [...principals.map(({ name }) => name), ...builtInGroups, ...tenantGroups];
  // Somebody may have made a member of the tenant a member of one of its admins by hand: that one is left out.
  return { wanted, managed, leavesOutCycles: true };
}
