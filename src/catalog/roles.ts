/** Custom roles in the catalog: rows of nodedb.role, each of one tenant and with one parent at most. */

import { withInherited } from "./inherited-roles.ts";
import type { Queryable } from "./users.ts";

/** One custom role; it is a NOLOGIN role of the same name in PostgreSQL. */
export interface CustomRole {
  readonly name: string;
  readonly tenantId: number;
  /** A built-in role, or a custom one of the same tenant. */
  readonly parent: string | undefined;
  /** The role itself and everything that it inherits from custom parents; lower built-in roles are not spelled out. */
  readonly effectiveRoles: readonly string[];
}

interface CustomRoleRow {
  readonly name: string;
  readonly tenant_id: string;
  readonly parent: string | null;
  readonly effective_roles: string[];
}

const selectRole = `
  SELECT r.name, r.tenant_id, r.parent, ${withInherited("SELECT r.name")} AS effective_roles FROM nodedb.role r`;

function toCustomRole(row: CustomRoleRow): CustomRole {
  return {
    name: row.name,
    tenantId: Number(row.tenant_id),
    parent: row.parent ?? undefined,
    effectiveRoles: row.effective_roles,
  };
}

/** Reads every custom role. */
export async function loadCustomRoles(client: Queryable): Promise<CustomRole[]> {
  const result = await client.query<CustomRoleRow>(selectRole);
  return result.rows.map(toCustomRole);
}

/** Reads the custom roles of these names; those that do not exist are absent. */
export async function loadCustomRolesByName(
  client: Queryable,
  names: readonly string[],
): Promise<Map<string, CustomRole>> {
  const result = await client.query<CustomRoleRow>(
    `${selectRole} WHERE r.name = ANY ($1::pg_catalog.text[])`,
    [[...names]],
  );
  return new Map(result.rows.map((row) => [row.name, toCustomRole(row)]));
}

/** Reads one custom role. @returns undefined when there is none of that name */
export async function findCustomRole(client: Queryable, name: string): Promise<CustomRole | undefined> {
  return (await loadCustomRolesByName(client, [name])).get(name);
}

/** Creates a role's row. */
export async function createRoleRow(
  client: Queryable,
  role: Pick<CustomRole, "name" | "tenantId" | "parent">,
): Promise<void> {
  await client.query("INSERT INTO nodedb.role (name, tenant_id, parent) VALUES ($1, $2, $3)", [
    role.name,
    role.tenantId,
    role.parent ?? null,
  ]);
}

/** Gives a role another parent. */
export async function updateRoleParent(client: Queryable, name: string, parent: string): Promise<void> {
  await client.query("UPDATE nodedb.role SET parent = $2 WHERE name = $1", [name, parent]);
}

/** Deletes roles' rows. */
export async function deleteRoleRows(client: Queryable, names: readonly string[]): Promise<void> {
  await client.query("DELETE FROM nodedb.role WHERE name = ANY ($1::pg_catalog.text[])", [[...names]]);
}

/** Who stands in the way of dropping a role. */
export interface RoleDependents {
  /** Principals that hold it directly. */
  readonly holders: readonly string[];
  /** Roles whose parent it is. */
  readonly children: readonly string[];
}

/** Lists who holds or inherits a role directly, roles that are to be dropped with it left out. */
export async function listRoleDependents(
  client: Queryable,
  name: string,
  dropped: readonly string[],
): Promise<RoleDependents> {
  const result = await client.query<{ holders: string[]; children: string[] }>(
    `SELECT ARRAY(SELECT p.name FROM nodedb.principal_role h JOIN nodedb.principal p ON p.id = h.principal_id
                   WHERE h.role = $1 ORDER BY p.name COLLATE "C") AS holders,
            ARRAY(SELECT c.name FROM nodedb.role c
                   WHERE c.parent = $1 AND c.name <> ALL ($2::pg_catalog.text[]) ORDER BY c.name COLLATE "C") AS children`,
    [name, [...dropped]],
  );
  return result.rows[0] ?? { holders: [], children: [] };
}

/** Ids of the principals that hold a role, directly or through roles that inherit it. */
export async function listRoleHolderIds(client: Queryable, name: string): Promise<number[]> {
  const result = await client.query<{ id: string }>(
    `WITH RECURSIVE heir (name) AS (
       SELECT $1::pg_catalog.text
       UNION
       SELECT c.name FROM heir h JOIN nodedb.role c ON c.parent = h.name)
     SELECT DISTINCT r.principal_id AS id FROM heir h JOIN nodedb.principal_role r ON r.role = h.name`,
    [name],
  );
  return result.rows.map((row) => Number(row.id));
}

/** How many steps of inheritance lie below a role: 0 when no role has it as its parent. */
export async function inheritanceDepthBelow(client: Queryable, name: string): Promise<number> {
  const result = await client.query<{ depth: number }>(
    `WITH RECURSIVE heir (name, depth) AS (
       SELECT $1::pg_catalog.text, 0
       UNION ALL
       SELECT c.name, h.depth + 1 FROM heir h JOIN nodedb.role c ON c.parent = h.name WHERE h.depth < 100)
     SELECT pg_catalog.max(depth) AS depth FROM heir`,
    [name],
  );
  return result.rows[0]?.depth ?? 0;
}
