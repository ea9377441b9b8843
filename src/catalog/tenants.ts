/** Tenants in the catalog: 0 is the system, 1 the default tenant. */

import type { Queryable } from "./users.ts";

export interface Tenant {
  readonly id: number;
  readonly name: string;
}

export const systemTenantId = 0;
export const defaultTenantId = 1;

/** Finds a tenant by number or name. @returns undefined when there is none */
export async function findTenant(
  client: Queryable,
  by: { readonly id: number } | { readonly name: string },
): Promise<Tenant | undefined> {
  const result =
    "id" in by
      ? await client.query<{ id: string; name: string }>("SELECT id, name FROM nodedb.tenant WHERE id = $1", [
          String(by.id),
        ])
      : await client.query<{ id: string; name: string }>(
          "SELECT id, name FROM nodedb.tenant WHERE name = $1",
          [by.name],
        );
  const row = result.rows[0];
  return row === undefined ? undefined : { id: Number(row.id), name: row.name };
}
