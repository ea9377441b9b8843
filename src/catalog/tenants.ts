/** Tenants in the catalog: 0 is the system, 1 the default tenant. */

import type { Queryable } from "./users.ts";

export interface Tenant {
  readonly id: number;
  readonly name: string;
  /** Sessions that the tenant's principals may have in one process; undefined is no limit. */
  readonly maxConnections: number | undefined;
}

export const systemTenantId = 0;
export const defaultTenantId = 1;

interface TenantRow {
  readonly id: string;
  readonly name: string;
  readonly max_connections: number | null;
}

const selectTenant = "SELECT id, name, max_connections FROM nodedb.tenant";

function toTenant(row: TenantRow): Tenant {
  return { id: Number(row.id), name: row.name, maxConnections: row.max_connections ?? undefined };
}

/** Finds a tenant by number or name. @returns undefined when there is none */
export async function findTenant(
  client: Queryable,
  by: { readonly id: number } | { readonly name: string },
): Promise<Tenant | undefined> {
  const result =
    "id" in by
      ? await client.query<TenantRow>(`${selectTenant} WHERE id = $1`, [String(by.id)])
      : await client.query<TenantRow>(`${selectTenant} WHERE name = $1`, [by.name]);
  const row = result.rows[0];
  return row === undefined ? undefined : toTenant(row);
}

/** Reads every tenant. */
export async function loadTenants(client: Queryable): Promise<Tenant[]> {
  const result = await client.query<TenantRow>(selectTenant);
  return result.rows.map(toTenant);
}

/** Creates a tenant's row; without an id it gets the one above the highest. */
export async function createTenantRow(
  client: Queryable,
  tenant: { readonly name: string; readonly id: number | undefined },
): Promise<void> {
  await client.query(
    `INSERT INTO nodedb.tenant (id, name)
     VALUES (coalesce($1::pg_catalog.int8, (SELECT pg_catalog.max(t.id) + 1 FROM nodedb.tenant t)), $2)`,
    [tenant.id === undefined ? null : String(tenant.id), tenant.name],
  );
}

/** Sets a tenant's quota of sessions; undefined lifts it. */
export async function updateTenantQuota(
  client: Queryable,
  id: number,
  maxConnections: number | undefined,
): Promise<void> {
  await client.query("UPDATE nodedb.tenant SET max_connections = $2 WHERE id = $1", [
    String(id),
    maxConnections ?? null,
  ]);
}

/** Deletes a tenant's row. */
export async function deleteTenantRow(client: Queryable, id: number): Promise<void> {
  await client.query("DELETE FROM nodedb.tenant WHERE id = $1", [String(id)]);
}

/** What still belongs to a tenant, as lines such as `user bob`. */
export async function listTenantContents(client: Queryable, id: number): Promise<string[]> {
  const result = await client.query<{ line: string }>(
    `SELECT pg_catalog.replace(p.kind, '_', ' ') || ' ' || p.name AS line FROM nodedb.principal p WHERE p.tenant_id = $1
     UNION ALL SELECT 'role ' || r.name FROM nodedb.role r WHERE r.tenant_id = $1
     UNION ALL SELECT 'provider ' || o.name FROM nodedb.oidc_provider o WHERE o.tenant_id = $1
     ORDER BY line`,
    [String(id)],
  );
  return result.rows.map((row) => row.line);
}
