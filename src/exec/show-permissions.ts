/**
 * SHOW PERMISSIONS: who may do what in the session's database, as PostgreSQL's own catalogs have it. They are read on the
 * client's own connection, where its transaction is and names are resolved as the session does.
 */

import { escapeLiteral } from "pg";
import type { PrincipalRecord, Queryable } from "../catalog/users.ts";
import type { QualifiedName, Statement } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { builtInRoles, groupOf, isBuiltInRole, rankOf } from "../upstream/built-in-groups.ts";
import { highestRank, isSuperuser, requireAdmin } from "./authorize.ts";
import type { ClientConnection, ExecutionContext, ExecutorDependencies } from "./context.ts";
import { type FoundRole, findRole, missingRole } from "./find-role.ts";
import { listHeldRoles } from "./grants.ts";
import type { Column, StatementResult } from "./result.ts";
import { connectionOf } from "./rls-policies.ts";
import { runRead } from "./run-statement.ts";
import { table } from "./show.ts";

type ShowPermissions = Extract<Statement, { kind: "show_permissions" }>;

export const permissionColumns: readonly Column[] = [
  { name: "grantee", type: "text" },
  { name: "permission", type: "text" },
  { name: "target", type: "text" },
  { name: "source", type: "text" },
];

/** Whose permissions are shown: PostgreSQL roles by the names that users know, or everybody's. */
interface Shown {
  readonly isEverybody: boolean;
  /** Names of users, service accounts and keys. */
  readonly principals: readonly string[];
  /** Names of built-in and custom roles. */
  readonly roles: readonly string[];
}

/**
 * A `grantee` is a principal or a role; `source` is `owner`, `direct` for what was granted to the principal itself, and
 * `role` for what was granted to a role (or to PUBLIC) and reaches its members.
 */
export async function showPermissions(
  deps: ExecutorDependencies,
  statement: ShowPermissions,
  context: ExecutionContext,
): Promise<StatementResult> {
  const { adminRole } = deps.catalog;
  const shown = await runRead(deps, context, async ({ client, caller }) =>
    statement.user === undefined
      ? everythingVisible(client, caller)
      : visibleOf(client, caller, await findRole(client, statement.user, caller, adminRole)),
  );
  const connection = connectionOf(context);
  const relation =
    statement.table === undefined ? undefined : await findRelation(connection, statement.table);
  const rows = await readPermissions(connection, shown, relation);
  return table(
    permissionColumns,
    rows.map((row) => [row.grantee, row.permission, row.target, row.source]),
  );
}

/** The own permissions and those of the roles held; an admin sees its tenant's, a superuser all. */
async function everythingVisible(client: Queryable, caller: PrincipalRecord): Promise<Shown> {
  const isEverybody = isSuperuser(caller);
  if (highestRank(caller.effectiveRoles) < rankOf("admin")) return ownOf(client, caller);
  const tenant = await client.query<{ principals: string[]; roles: string[] }>(
    `SELECT ARRAY(SELECT name FROM nodedb.principal WHERE $1 OR tenant_id = $2) AS principals,
            ARRAY(SELECT name FROM nodedb.role WHERE $1 OR tenant_id = $2) AS roles`,
    [isEverybody, String(caller.tenantId)],
  );
  return {
    isEverybody,
    principals: tenant.rows[0]?.principals ?? [],
    roles: [...builtInRoles, ...(tenant.rows[0]?.roles ?? [])],
  };
}

/** @throws SqlError undefined_object, or insufficient_privilege for what only an admin may see */
async function visibleOf(client: Queryable, caller: PrincipalRecord, found: FoundRole): Promise<Shown> {
  if (found.kind === "principal" && found.principal.id === caller.id) return ownOf(client, caller);
  if (found.kind === "built_in" || found.kind === "custom") {
    const held = (await ownOf(client, caller)).roles;
    if (!held.includes(found.name)) requireAdmin(caller, "see the permissions of others");
    const roles = (await listHeldRoles(client, { roles: [found.name] })).map(({ role }) => role);
    return { isEverybody: false, principals: [], roles };
  }
  requireAdmin(caller, "see the permissions of others");
  if (found.kind === "principal") return ownOf(client, found.principal);
  throw missingRole(found);
}

async function ownOf(client: Queryable, principal: PrincipalRecord): Promise<Shown> {
  const held = await listHeldRoles(client, principal);
  return { isEverybody: false, principals: [principal.name], roles: held.map(({ role }) => role) };
}

/** By the session's search_path where no schema is named. Not by `to_regclass`, which refuses schemas that one may not use. */
async function findRelation(connection: ClientConnection, name: QualifiedName): Promise<string> {
  const schemas =
    name.schema === undefined ? "pg_catalog.current_schemas(true)" : `ARRAY[${escapeLiteral(name.schema)}]`;
  const [row] = await connection.ask(
    `SELECT c.oid FROM pg_catalog.pg_class c
       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
       JOIN unnest(${schemas}::pg_catalog.text[]) WITH ORDINALITY AS s (name, ordinal) ON s.name = n.nspname
      WHERE c.relname = ${escapeLiteral(name.name)} AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        AND n.nspname <> 'nodedb'
      ORDER BY s.ordinal LIMIT 1`,
  );
  if (row?.[0] != null) return row[0];
  const text = name.schema === undefined ? name.name : `${name.schema}.${name.name}`;
  throw new SqlError("undefined_table", `relation "${text}" does not exist`, { position: name.position });
}

interface PermissionRow {
  readonly grantee: string;
  readonly permission: string;
  readonly target: string;
  readonly source: "owner" | "direct" | "role";
}

/**
 * Objects of clients: neither PostgreSQL's own nor ours. Without an ACL an owner has what acldefault says.
 *
 * @param relation oid of the only one; undefined is every one
 * @param grantees roles that are shown; undefined is all
 */
const permissionsQuery = (relation: string | undefined, grantees: readonly string[] | undefined) => `
  WITH target AS (
    SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, c.relowner AS owner,
           coalesce(c.relacl, pg_catalog.acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner)) AS acl
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_'
       AND n.nspname <> ALL (ARRAY['information_schema', 'nodedb'])
    UNION ALL
    SELECT c.oid, pg_catalog.format('%I.%I(%I)', n.nspname, c.relname, a.attname), c.relowner, a.attacl
      FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE a.attacl IS NOT NULL AND n.nspname !~ '^pg_' AND n.nspname <> ALL (ARRAY['information_schema', 'nodedb'])
    UNION ALL
    SELECT NULL, 'schema ' || pg_catalog.quote_ident(n.nspname), n.nspowner,
           coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))
      FROM pg_catalog.pg_namespace n
     WHERE n.nspname !~ '^pg_' AND n.nspname <> ALL (ARRAY['information_schema', 'nodedb'])
    UNION ALL
    SELECT NULL, 'database ' || pg_catalog.quote_ident(d.datname), d.datdba,
           coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))
      FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
  SELECT DISTINCT coalesce(r.rolname::pg_catalog.text, 'public') AS grantee, a.privilege_type AS permission, t.name AS target,
         (a.grantee = t.owner)::pg_catalog.text AS is_owner,
         coalesce(r.rolcanlogin, false)::pg_catalog.text AS can_login
    FROM target t CROSS JOIN LATERAL pg_catalog.aclexplode(t.acl) a
    LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
   WHERE (a.grantee = 0 OR r.oid IS NOT NULL)${relation === undefined ? "" : ` AND t.oid = ${escapeLiteral(relation)}`}
     ${grantees === undefined ? "" : `AND (a.grantee = 0 OR r.rolname = ANY (ARRAY[${grantees.map((name) => escapeLiteral(name)).join(", ")}]::pg_catalog.text[]))`}
   ORDER BY target, grantee, permission`;

async function readPermissions(
  connection: ClientConnection,
  shown: Shown,
  relation: string | undefined,
): Promise<PermissionRow[]> {
  const principals = new Set(shown.principals);
  const groups = new Map(builtInRoles.map((role) => [groupOf(role), role as string]));
  const roleNames = shown.roles.map((role) => (isBuiltInRole(role) ? groupOf(role) : role));
  const grantees = shown.isEverybody ? undefined : [...shown.principals, ...roleNames];
  const rows = await connection.ask(permissionsQuery(relation, grantees));
  return rows.map(([grantee, permission, target, isOwner, canLogin]) => ({
    grantee: groups.get(grantee ?? "") ?? grantee ?? "",
    permission: permission ?? "",
    target: target ?? "",
    source:
      isOwner === "true" ? "owner" : principals.has(grantee ?? "") || canLogin === "true" ? "direct" : "role",
  }));
}
