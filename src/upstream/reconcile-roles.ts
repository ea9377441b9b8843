/** Makes PostgreSQL's roles match the catalog: groups, one LOGIN role per user, memberships, credentials. */

import { type ClientBase, escapeIdentifier } from "pg";
import { SqlError } from "../errors/sql-error.ts";
import { type AdminRights, readAdminRights } from "./admin-rights.ts";
import { builtInRoles, claimsOwner, groupOf, isBuiltInRole } from "./built-in-groups.ts";
import { installCredentials } from "./install-credentials.ts";
import { reconcileMemberships } from "./reconcile-memberships.ts";
import { deriveRoleCredential } from "./role-credential.ts";

export interface RoleOptions {
  /** True where PostgreSQL is the embedded one, which is nobody else's: PUBLIC loses CONNECT and TEMPORARY on databases. */
  readonly isEmbedded: boolean;
  /** Present on an external upstream: roles get SCRAM verifiers derived from it. Absent on the private socket. */
  readonly masterSecret: Buffer | undefined;
  /** The database on which the groups get CONNECT. */
  readonly defaultDatabase: string;
}

/** What one PostgreSQL role is to be. */
export interface DesiredRole {
  readonly name: string;
  readonly canLogin: boolean;
  /** Names of the roles held directly, built-in and custom. */
  readonly roles: readonly string[];
  /** Part of the derivation of its credential. */
  readonly roleVersion: number;
}

const catalogSchema = "nodedb";

/** A role as it stands in pg_roles. */
interface ActualRole {
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

/**
 * Creates the group roles and their order (each a member of the one below) and the owner of the claims' functions, and lets the
 * groups into the default database.
 * Runs inside the caller's transaction.
 *
 * @returns how many statements were needed; 0 when everything stood already
 * @throws SqlError object_not_in_prerequisite_state when the front-end's login may not create roles, or a group's name
 * is taken by a role that is none of ours.
 */
export async function reconcileGroups(client: ClientBase, options: RoleOptions): Promise<number> {
  const admin = await readAdminRights(client);
  if (!admin.isSuperuser && !admin.mayCreateRoles) {
    throw new SqlError(
      "object_not_in_prerequisite_state",
      `upstream role "${admin.name}" may not create roles`,
      {
        hint: "Give it CREATEROLE, or let upstream.url name a superuser.",
      },
    );
  }
  let statements = 0;
  const groups = builtInRoles.map(groupOf);
  const owned = [...groups, claimsOwner];
  const actual = await readRoles(client, owned);
  for (const group of owned) {
    const found = actual.get(group);
    if (found === undefined) {
      statements += await createRole(client, group, [], admin);
    } else if (found.rolcanlogin || found.rolsuper || found.rolcreaterole || found.rolreplication) {
      throw new SqlError(
        "object_not_in_prerequisite_state",
        `role "${group}" exists and is not a group of NodeDB`,
        {
          hint: "Rename that role; NodeDB uses the names that begin with nodedb_ for its groups.",
        },
      );
    }
  }
  const wanted = new Map(groups.map((group, index) => [group, groups.slice(Math.max(0, index - 1), index)]));
  statements += await reconcileMemberships(client, wanted, groups, admin);
  return statements + (await reconcileConnect(client, options));
}

/**
 * Makes the roles of these users what the catalog says: attributes, memberships in the groups, and on an external
 * upstream the derived verifier, whatever password somebody set. Runs inside the caller's transaction.
 *
 * @param reinstallCredentials also where the present verifier cannot be read and looks current
 * @returns how many statements were needed; 0 when everything stood already
 */
export async function reconcileRoles(
  client: ClientBase,
  desired: readonly DesiredRole[],
  options: RoleOptions,
  reinstallCredentials = false,
): Promise<number> {
  if (desired.length === 0) return 0;
  const admin = await readAdminRights(client);
  const names = desired.map((role) => role.name);
  const actual = await readRoles(client, names);
  let statements = 0;
  const stale: DesiredRole[] = [];
  const passwords =
    options.masterSecret !== undefined && admin.mayReadPasswords
      ? await readPasswords(client, names)
      : undefined;
  for (const role of desired) {
    const wanted = wantedAttributes(role, admin);
    const found = actual.get(role.name);
    if (found === undefined) {
      const keywords = wanted
        .filter((attribute) => !attribute.isDefault)
        .map((attribute) => attribute.keyword);
      statements += await createRole(client, role.name, keywords, admin);
      statements += await avoidCatalogSchema(client, role.name);
    } else {
      const changes = wanted.filter((attribute) => !attribute.holds(found)).map((a) => a.keyword);
      if (changes.length > 0) {
        await client.query(`ALTER ROLE ${escapeIdentifier(role.name)} ${changes.join(" ")}`);
        statements += 1;
      }
    }
    if (options.masterSecret === undefined) continue;
    const verifier = deriveRoleCredential(options.masterSecret, role.name, role.roleVersion).verifier;
    const isCurrent =
      found !== undefined && (passwords === undefined || passwords.get(role.name) === verifier);
    if (!isCurrent || reinstallCredentials) stale.push(role);
  }
  const customRoles = await readCustomRoles(client);
  const managed = new Set([...builtInRoles.map(groupOf), ...customRoles]);
  const memberships = new Map(
    desired.map((role) => [role.name, role.roles.map(groupNameOf).filter((group) => managed.has(group))]),
  );
  statements += await reconcileMemberships(client, memberships, [...managed], admin);
  return statements + (await installCredentials(client, stale, options.masterSecret));
}

/** What PostgreSQL is to have of a custom role. */
export interface DesiredCustomRole {
  readonly name: string;
  /** A built-in role or another custom one. */
  readonly parent: string | undefined;
}

/**
 * Makes the PostgreSQL roles of these custom roles what the catalog says: NOLOGIN, and members of their parents, which are
 * there already or among them. Runs inside the caller's transaction.
 *
 * @returns how many statements were needed; 0 when everything stood already
 */
export function reconcileCustomRoles(
  client: ClientBase,
  desired: readonly DesiredCustomRole[],
  options: RoleOptions,
): Promise<number> {
  const roles = desired.map(({ name, parent }) => ({
    name,
    canLogin: false,
    roles: parent === undefined ? [] : [parent],
    roleVersion: 1,
  }));
  // Nobody logs in as one, so that none needs a verifier.
  return reconcileRoles(client, roles, { ...options, masterSecret: undefined });
}

/** The PostgreSQL role behind the name of a built-in or custom role. */
function groupNameOf(role: string): string {
  return isBuiltInRole(role) ? groupOf(role) : role;
}

/** Custom roles belong to the catalog: nothing in PostgreSQL itself tells them from somebody else's. */
async function readCustomRoles(client: ClientBase): Promise<string[]> {
  const result = await client.query<{ name: string }>("SELECT name FROM nodedb.role");
  return result.rows.map((row) => row.name);
}

interface Attribute {
  /** The keyword that makes it so. */
  readonly keyword: string;
  readonly holds: (role: ActualRole) => boolean;
  /** CREATE ROLE gives it anyway; a login that is not a superuser may not even say NOSUPERUSER. */
  readonly isDefault: boolean;
}

function wantedAttributes(role: DesiredRole, admin: AdminRights): readonly Attribute[] {
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

async function createRole(
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

/**
 * PostgreSQL's default search_path begins with a schema of the user's own name. For a user that is called like the
 * catalog's schema that would be the catalog: a superuser's tables would land among ours.
 */
async function avoidCatalogSchema(client: ClientBase, name: string): Promise<number> {
  if (name !== catalogSchema) return 0;
  await client.query(`ALTER ROLE ${escapeIdentifier(name)} SET search_path = public`);
  return 1;
}

async function readRoles(client: ClientBase, names: readonly string[]): Promise<Map<string, ActualRole>> {
  const result = await client.query<ActualRole>(
    `SELECT rolname::text, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls,
            rolconnlimit, coalesce(rolvaliduntil <> 'infinity', false) AS expires
       FROM pg_catalog.pg_roles WHERE rolname = ANY ($1::pg_catalog.text[])`,
    [[...names]],
  );
  return new Map(result.rows.map((role) => [role.rolname, role]));
}

async function readPasswords(client: ClientBase, names: readonly string[]): Promise<Map<string, string>> {
  const result = await client.query<{ rolname: string; rolpassword: string | null }>(
    `SELECT rolname::text, rolpassword FROM pg_catalog.pg_authid WHERE rolname = ANY ($1::pg_catalog.text[])`,
    [[...names]],
  );
  return new Map(result.rows.map((row) => [row.rolname, row.rolpassword ?? ""]));
}

/** Lets the lowest group, and so all of them, into the default database. */
async function reconcileConnect(client: ClientBase, options: RoleOptions): Promise<number> {
  let statements = 0;
  const lowest = groupOf("readonly");
  const found = await client.query<{ has: boolean }>(
    `SELECT EXISTS (SELECT FROM pg_catalog.aclexplode(d.datacl) a
                     WHERE a.grantee = $2::pg_catalog.text::regrole AND a.privilege_type = 'CONNECT') AS has
       FROM pg_catalog.pg_database d WHERE d.datname = $1`,
    [options.defaultDatabase, lowest],
  );
  if (found.rows[0]?.has === false) {
    await client.query(
      `GRANT CONNECT ON DATABASE ${escapeIdentifier(options.defaultDatabase)} TO ${escapeIdentifier(lowest)}`,
    );
    statements += 1;
  }
  if (!options.isEmbedded) return statements;
  // Never on an external upstream: there it would lock out logins that are none of our business.
  const open = await client.query<{ name: string }>(
    `SELECT d.datname::text AS name FROM pg_catalog.pg_database d
      WHERE d.datallowconn AND EXISTS (
        SELECT FROM pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a
         WHERE a.grantee = 0 AND a.privilege_type IN ('CONNECT', 'TEMPORARY'))`,
  );
  for (const { name } of open.rows) {
    await client.query(`REVOKE CONNECT, TEMPORARY ON DATABASE ${escapeIdentifier(name)} FROM PUBLIC`);
  }
  return statements + open.rows.length;
}
