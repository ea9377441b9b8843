/** The attributes of PostgreSQL's roles: what they are, and what they are to be. */

import { type ClientBase, escapeIdentifier } from "pg";
import type { AdminRights } from "./admin-rights.ts";

/** A role as it stands in pg_roles. */
export interface ActualRole {
  readonly rolname: string;
  readonly rolsuper: boolean;
  readonly rolinherit: boolean;
  readonly rolcreaterole: boolean;
  readonly rolcreatedb: boolean;
  readonly rolcanlogin: boolean;
  readonly rolreplication: boolean;
  readonly rolbypassrls: boolean;
  readonly rolconnlimit: number;
  readonly expires: boolean;
}

/** Reads roles by name; those that do not exist are absent. */
export async function readRoles(
  client: ClientBase,
  names: readonly string[],
): Promise<Map<string, ActualRole>> {
  const result = await client.query<ActualRole>(
    `SELECT rolname::text, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls,
            rolconnlimit, coalesce(rolvaliduntil <> 'infinity', false) AS expires
       FROM pg_catalog.pg_roles WHERE rolname = ANY ($1::pg_catalog.text[])`,
    [[...names]],
  );
  return new Map(result.rows.map((role) => [role.rolname, role]));
}

export interface Attribute {
  /** The keyword that makes it so. */
  readonly keyword: string;
  readonly holds: (role: ActualRole) => boolean;
  /** CREATE ROLE gives it anyway; a login that is not a superuser may not even say NOSUPERUSER. */
  readonly isDefault: boolean;
}

/** The attributes of a principal's or custom role. */
export function wantedAttributes(
  role: { readonly canLogin: boolean; readonly roles: readonly string[] },
  admin: AdminRights,
): readonly Attribute[] {
  const isSuperuser = role.roles.includes("superuser");
  const asSuperuser = isSuperuser && admin.isSuperuser;
  // PostgreSQL lets only a superuser make superusers. Row-level security applies to the built-in superuser of an external upstream whose login may not lift it.
  const bypassRls = isSuperuser && !asSuperuser && admin.mayGiveBypassRls;
  return [
    role.canLogin
      ? { keyword: "LOGIN", holds: (r) => r.rolcanlogin, isDefault: false }
      : { keyword: "NOLOGIN", holds: (r) => !r.rolcanlogin, isDefault: true },
    asSuperuser
      ? { keyword: "SUPERUSER", holds: (r) => r.rolsuper, isDefault: false }
      : { keyword: "NOSUPERUSER", holds: (r) => !r.rolsuper, isDefault: true },
    bypassRls
      ? { keyword: "BYPASSRLS", holds: (r) => r.rolbypassrls, isDefault: false }
      : { keyword: "NOBYPASSRLS", holds: (r) => !r.rolbypassrls, isDefault: true },
    { keyword: "INHERIT", holds: (r) => r.rolinherit, isDefault: true },
    { keyword: "NOCREATEDB", holds: (r) => !r.rolcreatedb, isDefault: true },
    { keyword: "NOCREATEROLE", holds: (r) => !r.rolcreaterole, isDefault: true },
    { keyword: "NOREPLICATION", holds: (r) => !r.rolreplication, isDefault: true },
    // Limits and expiry are the front-end's to enforce; here they would only make its own logins fail.
    { keyword: "CONNECTION LIMIT -1", holds: (r) => r.rolconnlimit === -1, isDefault: true },
    { keyword: "VALID UNTIL 'infinity'", holds: (r) => !r.expires, isDefault: true },
  ];
}

/** Creates a role that the front-end's login may administer. @returns how many statements were needed */
export async function createRole(
  client: ClientBase,
  name: string,
  keywords: readonly string[],
  admin: AdminRights,
): Promise<number> {
  const quoted = escapeIdentifier(name);
  if (!admin.isSuperuser && admin.serverVersion >= 160000) {
    // Else the creator could administer the role, but neither give its objects away nor set its default privileges.
    await client.query("SELECT pg_catalog.set_config('createrole_self_grant', 'set, inherit', true)");
  }
  await client.query(`CREATE ROLE ${[quoted, ...keywords].join(" ")}`);
  if (admin.isSuperuser || admin.serverVersion >= 160000) return 1;
  await client.query(`GRANT ${quoted} TO ${escapeIdentifier(admin.name)}`);
  return 2;
}
