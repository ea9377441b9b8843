/** GRANT and REVOKE CONNECT ON DATABASE: PostgreSQL's own privilege is the truth, and the catalog keeps no copy. */

import { escapeIdentifier } from "pg";
import { defaultTenantId } from "../catalog/tenants.ts";
import type { PrincipalRecord, Queryable } from "../catalog/users.ts";
import type { Name, Statement } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { groupOf, isBuiltInRole } from "../upstream/built-in-groups.ts";
import { denied, isSuperuser, requireAdmin, requireNotAbove } from "./authorize.ts";
import type { ExecutionContext, ExecutorDependencies } from "./context.ts";
import { type FoundRole, findRolesOf, missingRole, notOurs } from "./find-role.ts";
import { concernsForeignRole } from "./foreign-role.ts";
import type { StatementResult } from "./result.ts";
import { runWrite } from "./run-statement.ts";

type ConnectGrant = Extract<Statement, { kind: "grant_connect" | "revoke_connect" }>;

export function changeConnect(
  deps: ExecutorDependencies,
  statement: ConnectGrant,
  context: ExecutionContext,
): Promise<StatementResult | "forward"> {
  const isGrant = statement.kind === "grant_connect";
  return runWrite(deps, context, async ({ client, caller, touch }) => {
    if (await concernsForeignRole(client, statement)) return "forward";
    const found = await findRolesOf(client, statement.grantees, caller, deps.catalog.adminRole);
    requireAdmin(caller, "grant and revoke CONNECT");
    const grantees = found.map((entry) => ({ name: entry.name, role: pgRoleOf(caller, entry) }));
    for (const database of statement.databases) {
      await requireDatabase(client, database);
      if (isGrant) await requireOwnTenant(client, caller, database);
    }
    const databases = statement.databases.map((database) => database.text);
    const [onDatabases, roles] = [list(databases), list(grantees.map(({ role }) => role))];
    await client.query(
      isGrant
        ? `GRANT CONNECT ON DATABASE ${onDatabases} TO ${roles}`
        : `REVOKE CONNECT ON DATABASE ${onDatabases} FROM ${roles}`,
    );
    const notices: string[] = [];
    for (const database of databases) {
      for (const { name, role } of grantees) {
        const left = await connectOf(client, database, role);
        // PostgreSQL only warns when its login may not grant.
        if (left.direct !== isGrant) throw denied("the upstream login may not do this");
        if (!isGrant && left.any) {
          notices.push(`"${name}" can still connect to database "${database}" through a role that it holds`);
        }
      }
    }
    for (const entry of found) if (entry.kind === "principal") touch(entry.principal.id);
    return { tag: isGrant ? "GRANT" : "REVOKE", notices };
  });
}

/** Which statement says where principals that are no users may go. */
const databaseStatements = {
  service_account: "ALTER SERVICE ACCOUNT … SET DATABASES",
  api_key: "ALTER API KEY … SET DATABASES",
  external: "ALTER OIDC PROVIDER … SET CLAIM MAPPING",
} as const;

/** The PostgreSQL role that is to get the privilege, when the caller may give it to that one. */
function pgRoleOf(caller: PrincipalRecord, found: FoundRole): string {
  switch (found.kind) {
    case "missing":
      throw missingRole(found);
    case "foreign":
      throw notOurs(found);
    case "built_in":
      // It would let in that role of every tenant.
      if (!isSuperuser(caller))
        throw denied(`only superuser may do this to the built-in role "${found.name}"`);
      return isBuiltInRole(found.name) ? groupOf(found.name) : found.name;
    case "custom":
      requireNotAbove(caller, found.role, "do this to this role");
      return found.name;
    case "principal": {
      const { kind } = found.principal;
      if (kind !== "user") {
        throw new SqlError("wrong_object_type", `"${found.name}" is not a user`, {
          position: found.position,
          hint: `Use ${databaseStatements[kind]}.`,
        });
      }
      requireNotAbove(caller, found.principal, "do this to this user");
      return found.name;
    }
  }
}

async function requireDatabase(client: Queryable, database: Name): Promise<void> {
  const found = await client.query("SELECT FROM pg_catalog.pg_database WHERE datname = $1", [database.text]);
  if (found.rowCount !== 0) return;
  throw new SqlError("invalid_catalog_name", `database "${database.text}" does not exist`, {
    position: database.position,
  });
}

/**
 * An admin lets its tenant into the databases that it can reach itself, or somebody of its tenant. One that nobody was let into
 * by name counts as the default tenant's: the admin of another must not take it. Superusers, who have made most databases and so
 * are in their ACLs, stand above the tenants and count for none.
 */
export async function requireOwnTenant(
  client: Queryable,
  caller: PrincipalRecord,
  database: Name,
): Promise<void> {
  if (isSuperuser(caller)) return;
  const found = await client.query<{ own: boolean; others: boolean }>(
    `SELECT pg_catalog.has_database_privilege($2::pg_catalog.text, d.oid, 'CONNECT')
              OR coalesce(pg_catalog.bool_or(h.tenant_id = $3), false) AS own,
            coalesce(pg_catalog.bool_or(h.tenant_id <> $3), false) AS others
       FROM pg_catalog.pg_database d
       LEFT JOIN LATERAL (
         SELECT p.tenant_id FROM pg_catalog.aclexplode(d.datacl) a
           JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
           JOIN (SELECT u.name, u.tenant_id FROM nodedb.principal u
                  WHERE NOT EXISTS (SELECT FROM nodedb.principal_role s
                                     WHERE s.principal_id = u.id AND s.role = 'superuser')
                 UNION ALL SELECT name, tenant_id FROM nodedb.role) p
             ON p.name = r.rolname
          WHERE a.privilege_type = 'CONNECT') h ON true
      WHERE d.datname = $1 GROUP BY d.oid`,
    [database.text, caller.name, String(caller.tenantId)],
  );
  const row = found.rows[0];
  if (row === undefined || row.own) return;
  if (row.others || caller.tenantId !== defaultTenantId) {
    throw denied(`database "${database.text}" is not open to your tenant`);
  }
}

/** Whether a role has CONNECT by a grant of its own, and whether it has it at all. */
async function connectOf(
  client: Queryable,
  database: string,
  role: string,
): Promise<{ direct: boolean; any: boolean }> {
  const result = await client.query<{ direct: boolean; any: boolean }>(
    `SELECT EXISTS (SELECT FROM pg_catalog.aclexplode(d.datacl) a
                     WHERE a.grantee = r.oid AND a.privilege_type = 'CONNECT') AS direct,
            pg_catalog.has_database_privilege(r.oid, d.oid, 'CONNECT') AS any
       FROM pg_catalog.pg_database d CROSS JOIN pg_catalog.pg_roles r
      WHERE d.datname = $1 AND r.rolname = $2`,
    [database, role],
  );
  return result.rows[0] ?? { direct: false, any: false };
}

function list(names: readonly string[]): string {
  return names.map((name) => escapeIdentifier(name)).join(", ");
}
