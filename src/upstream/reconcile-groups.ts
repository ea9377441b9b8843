/** Makes PostgreSQL's group roles of the built-in roles, their order, and their way into the default database. */

import { type ClientBase, escapeIdentifier } from "pg";
import { SqlError } from "../errors/sql-error.ts";
import { type AdminRights, readAdminRights } from "./admin-rights.ts";
import { builtInRoles, claimsOwner, groupOf } from "./built-in-groups.ts";
import { reconcileMemberships } from "./reconcile-memberships.ts";
import { createRole, readRoles } from "./role-attributes.ts";

export interface RoleOptions {
  /** True where PostgreSQL is the embedded one, which is nobody else's: PUBLIC loses CONNECT and TEMPORARY on databases. */
  readonly isEmbedded: boolean;
  /** Present on an external upstream: roles get SCRAM verifiers derived from it. Absent on the private socket. */
  readonly masterSecret: Buffer | undefined;
  /** The database on which the groups get CONNECT. */
  readonly defaultDatabase: string;
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
  const groups = builtInRoles.map(groupOf);
  let statements = (await createGroups(client, [...groups, claimsOwner], admin)).length;
  const wanted = new Map(groups.map((group, index) => [group, groups.slice(Math.max(0, index - 1), index)]));
  statements += await reconcileMemberships(client, [{ wanted, managed: groups }], admin);
  return statements + (await reconcileConnect(client, options));
}

/**
 * Creates the groups that there are not.
 *
 * @returns which have been created
 * @throws SqlError object_not_in_prerequisite_state when a name is taken by a role that is none of ours
 */
export async function createGroups(
  client: ClientBase,
  groups: readonly string[],
  admin: AdminRights,
): Promise<string[]> {
  const created: string[] = [];
  const actual = await readRoles(client, groups);
  for (const group of groups) {
    const found = actual.get(group);
    if (found === undefined) {
      await createRole(client, group, [], admin);
      created.push(group);
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
  return created;
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
