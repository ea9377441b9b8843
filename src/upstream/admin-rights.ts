/** What the front-end's own login may do upstream. */

import type { ClientBase } from "pg";

export interface AdminRights {
  readonly name: string;
  readonly isSuperuser: boolean;
  readonly mayCreateRoles: boolean;
  readonly mayGiveBypassRls: boolean;
  readonly mayReadPasswords: boolean;
  /** For example 180004. */
  readonly serverVersion: number;
}

export async function readAdminRights(client: ClientBase): Promise<AdminRights> {
  const result = await client.query<{
    name: string;
    superuser: boolean;
    createrole: boolean;
    bypassrls: boolean;
    passwords: boolean;
    version: number;
  }>(
    `SELECT r.rolname::text AS name, r.rolsuper AS superuser, r.rolcreaterole AS createrole, r.rolbypassrls AS bypassrls,
            pg_catalog.has_column_privilege('pg_catalog.pg_authid', 'rolpassword', 'SELECT') AS passwords,
            pg_catalog.current_setting('server_version_num')::pg_catalog.int4 AS version
       FROM pg_catalog.pg_roles r WHERE r.rolname = current_user`,
  );
  const row = result.rows[0];
  if (row === undefined) throw new Error("the login role of this connection was dropped");
  return {
    name: row.name,
    isSuperuser: row.superuser,
    mayCreateRoles: row.createrole,
    // Before PostgreSQL 16 only superusers may; since then whoever has CREATEROLE and the attribute itself.
    mayGiveBypassRls: row.superuser || (row.version >= 160000 && row.createrole && row.bypassrls),
    mayReadPasswords: row.passwords,
    serverVersion: row.version,
  };
}
