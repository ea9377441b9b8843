/** Gives the built-in groups their grants in one database, on what exists and on what administrators will create. */

import { type ClientBase, escapeIdentifier } from "pg";
import { builtInRoles, claimsOwner, groupOf } from "./built-in-groups.ts";

export interface DatabaseOptions {
  /** The embedded PostgreSQL is ours alone: PUBLIC loses CONNECT and TEMPORARY. */
  readonly isEmbedded: boolean;
}

/** Objects named in one GRANT at most. */
const batchSize = 500;

/**
 * Schemas that are the program's or PostgreSQL's own. Objects of extensions are left out as well: what they grant is
 * theirs to say (dblink_connect_u would hand out the server's own rights).
 */
const plainSchema = `n.nspname !~ '^pg_' AND n.nspname <> ALL (ARRAY['information_schema', 'nodedb'])
  AND pg_catalog.pg_get_userbyid(n.nspowner) <> '${claimsOwner}'`;
const notOfExtension = (classId: string, oid: string) => `NOT EXISTS (
  SELECT FROM pg_catalog.pg_depend x
   WHERE x.classid = '${classId}'::pg_catalog.regclass AND x.objid = ${oid} AND x.deptype = 'e')`;

const tables = `
  SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS target
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND ${plainSchema} AND ${notOfExtension("pg_catalog.pg_class", "c.oid")}
     AND pg_catalog.pg_has_role(c.relowner, 'USAGE') AND ($3 OR c.relacl IS NULL)
     AND NOT (SELECT pg_catalog.bool_and(pg_catalog.has_table_privilege($1, c.oid, w.privilege))
                FROM pg_catalog.unnest($2::pg_catalog.text[]) AS w (privilege))`;

const sequences = `
  SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS target
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind = 'S' AND ${plainSchema} AND ${notOfExtension("pg_catalog.pg_class", "c.oid")}
     AND pg_catalog.pg_has_role(c.relowner, 'USAGE') AND ($3 OR c.relacl IS NULL)
     AND NOT (SELECT pg_catalog.bool_and(CASE WHEN c.relkind = 'S'
                     THEN pg_catalog.has_sequence_privilege($1, c.oid, w.privilege) ELSE true END)
                FROM pg_catalog.unnest($2::pg_catalog.text[]) AS w (privilege))`;

const schemas = `
  SELECT pg_catalog.format('%I', n.nspname) AS target FROM pg_catalog.pg_namespace n
   WHERE ${plainSchema} AND ${notOfExtension("pg_catalog.pg_namespace", "n.oid")}
     AND pg_catalog.pg_has_role(n.nspowner, 'USAGE') AND ($3 OR n.nspacl IS NULL)
     AND NOT (SELECT pg_catalog.bool_and(pg_catalog.has_schema_privilege($1, n.oid, w.privilege))
                FROM pg_catalog.unnest($2::pg_catalog.text[]) AS w (privilege))`;

/** Not SECURITY DEFINER functions: who took EXECUTE on one from PUBLIC did so on purpose. */
const routines = `
  SELECT pg_catalog.format('%I.%I(%s)', n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)) AS target
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
   WHERE ${plainSchema} AND ${notOfExtension("pg_catalog.pg_proc", "p.oid")} AND NOT p.prosecdef
     AND pg_catalog.pg_has_role(p.proowner, 'USAGE') AND ($3 OR p.proacl IS NULL)
     AND NOT (SELECT pg_catalog.bool_and(pg_catalog.has_function_privilege($1, p.oid, w.privilege))
                FROM pg_catalog.unnest($2::pg_catalog.text[]) AS w (privilege))`;

interface Grant {
  readonly on: "TABLE" | "SEQUENCE" | "SCHEMA" | "ROUTINE";
  readonly missing: string;
  readonly privileges: readonly string[];
  readonly group: string;
}

/**
 * Higher groups are members of the lower ones, so each is named with what it adds. TRIGGER is nobody's: a trigger runs as
 * whoever writes to the table, and would carry an admin's code into a superuser's session.
 */
const grants: readonly Grant[] = [
  { on: "SCHEMA", missing: schemas, privileges: ["USAGE"], group: groupOf("readonly") },
  { on: "TABLE", missing: tables, privileges: ["SELECT"], group: groupOf("readonly") },
  { on: "SEQUENCE", missing: sequences, privileges: ["SELECT"], group: groupOf("readonly") },
  { on: "TABLE", missing: tables, privileges: ["INSERT", "UPDATE", "DELETE"], group: groupOf("readwrite") },
  { on: "SEQUENCE", missing: sequences, privileges: ["USAGE", "UPDATE"], group: groupOf("readwrite") },
  { on: "ROUTINE", missing: routines, privileges: ["EXECUTE"], group: groupOf("readwrite") },
  { on: "SCHEMA", missing: schemas, privileges: ["CREATE"], group: groupOf("admin") },
  { on: "TABLE", missing: tables, privileges: ["TRUNCATE", "REFERENCES"], group: groupOf("admin") },
];

/**
 * Grants on the objects of the client's database what the groups lack there: the first time on everything, later only on those
 * whose privileges nobody has touched yet, so that what an administrator revoked stays revoked. Objects whose owner the login
 * may not act for are passed over: on an external upstream their grants are their owner's to give. Runs inside the caller's
 * transaction.
 *
 * @returns how many statements were needed; 0 when everything stood already
 */
export async function reconcileObjects(client: ClientBase): Promise<number> {
  const isFirst = await isUntouched(client);
  const statements: string[] = [];
  for (const grant of grants) {
    const result = await client.query<{ target: string }>(grant.missing, [
      grant.group,
      [...grant.privileges],
      isFirst,
    ]);
    for (let start = 0; start < result.rows.length; start += batchSize) {
      const targets = result.rows.slice(start, start + batchSize).map((row) => row.target);
      statements.push(
        `GRANT ${grant.privileges.join(", ")} ON ${grant.on} ${targets.join(", ")} TO ${escapeIdentifier(grant.group)}`,
      );
    }
  }
  // After all has been read: the first grant on an object is what makes its privileges touched.
  for (const statement of statements) await client.query(statement);
  return statements.length;
}

/**
 * Gives the groups what they lack on the client's database itself, and closes it to PUBLIC where it is ours. What is granted on
 * a database does not count as a grant on its objects. Runs inside the caller's transaction.
 *
 * @returns how many statements were needed; 0 when everything stood already
 */
export async function reconcileAccess(client: ClientBase, options: DatabaseOptions): Promise<number> {
  const statements = await databaseGrants(client, options, await isUntouched(client));
  for (const statement of statements) await client.query(statement);
  return statements.length;
}

/** Whether no privilege on an object of the client's database mentions one of the groups. */
async function isUntouched(client: ClientBase): Promise<boolean> {
  const found = await client.query(
    `SELECT FROM pg_catalog.pg_shdepend s
       JOIN pg_catalog.pg_roles g ON g.oid = s.refobjid AND g.rolname = ANY ($1::pg_catalog.text[])
       JOIN pg_catalog.pg_database d ON d.oid = s.dbid AND d.datname = pg_catalog.current_database()
      WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.deptype = 'a' LIMIT 1`,
    [builtInRoles.map(groupOf)],
  );
  return found.rowCount === 0;
}

/** TEMPORARY from readwrite upwards (applications need their temporary tables), CREATE from admin upwards. */
async function databaseGrants(
  client: ClientBase,
  options: DatabaseOptions,
  isFirst: boolean,
): Promise<string[]> {
  const found = await client.query<{
    name: string;
    is_mine: boolean;
    temp: boolean;
    creates: boolean;
    open: boolean;
  }>(
    `SELECT pg_catalog.format('%I', d.datname) AS name, pg_catalog.pg_has_role(d.datdba, 'USAGE') AS is_mine,
            pg_catalog.has_database_privilege($1, d.oid, 'TEMPORARY') AS temp,
            pg_catalog.has_database_privilege($2, d.oid, 'CREATE') AS creates,
            EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a
                     WHERE a.grantee = 0 AND a.privilege_type IN ('CONNECT', 'TEMPORARY')) AS open
       FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()`,
    [groupOf("readwrite"), groupOf("admin")],
  );
  const database = found.rows[0];
  if (database === undefined || !database.is_mine) return [];
  const statements: string[] = [];
  // Never on an external upstream: there it would lock out logins that are none of our business.
  const closes = options.isEmbedded && database.open;
  if (closes) {
    statements.push(`REVOKE CONNECT, TEMPORARY ON DATABASE ${database.name} FROM PUBLIC`);
  }
  if ((isFirst && !database.temp) || closes) {
    statements.push(
      `GRANT TEMPORARY ON DATABASE ${database.name} TO ${escapeIdentifier(groupOf("readwrite"))}`,
    );
  }
  if (isFirst && !database.creates) {
    statements.push(`GRANT CREATE ON DATABASE ${database.name} TO ${escapeIdentifier(groupOf("admin"))}`);
  }
  return statements;
}

interface DefaultGrant {
  /** pg_default_acl.defaclobjtype */
  readonly objectType: "r" | "S" | "n";
  readonly on: "TABLES" | "SEQUENCES" | "SCHEMAS";
  readonly privileges: readonly string[];
  readonly group: string;
}

/** Functions need none: PUBLIC may execute new ones until their owner says otherwise. */
const defaultGrants: readonly DefaultGrant[] = [
  { objectType: "n", on: "SCHEMAS", privileges: ["USAGE"], group: groupOf("readonly") },
  { objectType: "r", on: "TABLES", privileges: ["SELECT"], group: groupOf("readonly") },
  { objectType: "S", on: "SEQUENCES", privileges: ["SELECT"], group: groupOf("readonly") },
  { objectType: "r", on: "TABLES", privileges: ["INSERT", "UPDATE", "DELETE"], group: groupOf("readwrite") },
  { objectType: "S", on: "SEQUENCES", privileges: ["USAGE", "UPDATE"], group: groupOf("readwrite") },
  { objectType: "n", on: "SCHEMAS", privileges: ["CREATE"], group: groupOf("admin") },
  { objectType: "r", on: "TABLES", privileges: ["TRUNCATE", "REFERENCES"], group: groupOf("admin") },
];

/**
 * Sets the default privileges of one role in the client's database, so that the groups reach what it creates from now on.
 * Runs inside the caller's transaction.
 *
 * @returns how many statements were needed; 0 when everything stood already, or the login may not act for the role
 */
export async function reconcileDefaultPrivileges(client: ClientBase, owner: string): Promise<number> {
  const found = await client.query<{ grantee: string; object_type: string; privilege: string }>(
    `SELECT g.rolname::text AS grantee, d.defaclobjtype::text AS object_type, a.privilege_type AS privilege
       FROM pg_catalog.pg_default_acl d
       JOIN pg_catalog.pg_roles o ON o.oid = d.defaclrole AND o.rolname = $1
       CROSS JOIN LATERAL pg_catalog.aclexplode(d.defaclacl) a
       JOIN pg_catalog.pg_roles g ON g.oid = a.grantee
      WHERE d.defaclnamespace = 0`,
    [owner],
  );
  const held = new Set(found.rows.map((row) => `${row.grantee} ${row.object_type} ${row.privilege}`));
  const missing = defaultGrants.filter((grant) =>
    grant.privileges.some((privilege) => !held.has(`${grant.group} ${grant.objectType} ${privilege}`)),
  );
  if (missing.length === 0) return 0;
  const rights = await client.query<{ may: boolean }>(
    `SELECT pg_catalog.pg_has_role(r.oid, 'USAGE') AS may FROM pg_catalog.pg_roles r WHERE r.rolname = $1`,
    [owner],
  );
  if (rights.rows[0]?.may !== true) return 0;
  for (const grant of missing) {
    await client.query(
      `ALTER DEFAULT PRIVILEGES FOR ROLE ${escapeIdentifier(owner)}
       GRANT ${grant.privileges.join(", ")} ON ${grant.on} TO ${escapeIdentifier(grant.group)}`,
    );
  }
  return missing.length;
}
