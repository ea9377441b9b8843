/** Lets principals that have a list of databases into exactly those: PostgreSQL's CONNECT privilege. */

import { type ClientBase, escapeIdentifier } from "pg";

/** A role and its list; undefined: no list, and its privileges are nobody's business here. */
export interface ListedDatabases {
  readonly name: string;
  readonly databases: readonly string[] | undefined;
}

/** Whether a role has CONNECT by itself or by a group: what an admin has by those whose owner it is, they may lose. */
const hasForGood = `(pg_catalog.has_database_privilege(r.oid, d.oid, 'CONNECT') AND (r.rolsuper OR EXISTS (
  SELECT FROM pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a
    LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee
   WHERE a.privilege_type = 'CONNECT'
     AND (a.grantee = r.oid OR (pg_catalog.pg_has_role(r.oid, g.oid, 'USAGE')
          AND NOT EXISTS (SELECT FROM nodedb.principal p WHERE p.name = g.rolname))))))`;

/**
 * Grants what the roles lack, and takes back what was granted to them beyond their lists. What they hold through a group is
 * left to the front-end, which refuses it at the login. What PUBLIC may does not count: it is about to be taken away from a
 * new database on the embedded PostgreSQL. Runs inside the caller's transaction.
 *
 * @returns how many statements were needed; 0 when everything stood already
 */
export async function reconcileConnect(
  client: ClientBase,
  roles: readonly ListedDatabases[],
): Promise<number> {
  let statements = 0;
  for (const { name, databases } of roles) {
    if (databases === undefined) continue;
    const role = escapeIdentifier(name);
    const result = await client.query<{ database: string; change: "grant" | "revoke" | null }>(
      `SELECT d.datname::pg_catalog.text AS database,
              CASE WHEN d.datname = ANY ($2::pg_catalog.text[])
                   THEN CASE WHEN NOT ${hasForGood} THEN 'grant' END
                   WHEN EXISTS (SELECT FROM pg_catalog.aclexplode(d.datacl) a
                                 WHERE a.grantee = r.oid AND a.privilege_type = 'CONNECT') THEN 'revoke'
              END AS change
         FROM pg_catalog.pg_roles r CROSS JOIN pg_catalog.pg_database d
        WHERE r.rolname = $1 ORDER BY d.datname`,
      [name, [...databases]],
    );
    for (const { database, change } of result.rows) {
      if (change === null) continue;
      const target = `CONNECT ON DATABASE ${escapeIdentifier(database)}`;
      await client.query(change === "grant" ? `GRANT ${target} TO ${role}` : `REVOKE ${target} FROM ${role}`);
      statements += 1;
    }
  }
  return statements;
}
