/** CREATE, ALTER, DROP and SHOW SERVICE ACCOUNT: principals that log in with API keys only, in the databases of a list. */

import {
  createUserRow,
  deleteUserRows,
  findUserByName,
  loadUsersById,
  type PrincipalRecord,
  replaceDatabases,
  replaceRoles,
} from "../catalog/users.ts";
import type { Name, Statement } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { reconcileConnect } from "../upstream/reconcile-connect.ts";
import { reconcileRoles } from "../upstream/reconcile-roles.ts";
import {
  denied,
  isSuperuser,
  maySee,
  requireAdmin,
  requireNotAbove,
  resolveGrantableRoles,
} from "./authorize.ts";
import { requireOwnTenant } from "./connect-grants.ts";
import type { ExecutionContext, ExecutorDependencies } from "./context.ts";
import { nameTaken, tenantFor } from "./create-user.ts";
import { dropRoles } from "./drop-roles.ts";
import { findNewOwner } from "./drop-user.ts";
import { findUser, requireKind } from "./find-user.ts";
import { resolveDatabases } from "./named-databases.ts";
import type { Column, StatementResult } from "./result.ts";
import { checkNewName, claimRoleName } from "./role-names.ts";
import { desiredRoleOf, flushBefore, runRead, runWrite, type StatementScope } from "./run-statement.ts";
import { table, timestamp, timestampColumns } from "./show.ts";
import { useSessionFormat } from "./user-options.ts";

type StatementOf<Kind extends Statement["kind"]> = Extract<Statement, { kind: Kind }>;
type Result = Promise<StatementResult>;

/** Role of a service account that names none. */
const defaultRole = "readwrite";

export function createServiceAccount(
  deps: ExecutorDependencies,
  statement: StatementOf<"create_service_account">,
  context: ExecutionContext,
): Result {
  const { name, roles: roleNames = [] } = statement;
  const tag = "CREATE SERVICE ACCOUNT";
  return runWrite(deps, context, async (scope) => {
    const { client, caller } = scope;
    requireAdmin(caller, "create service accounts");
    if (statement.tenant !== undefined && !isSuperuser(caller)) {
      throw denied("only superuser may choose a tenant");
    }
    checkNewName(name);
    const tenantId = await tenantFor(scope, statement.tenant);
    const roles =
      roleNames.length === 0
        ? [defaultRole]
        : await resolveGrantableRoles(client, caller, roleNames, tenantId);
    const existing = await findUserByName(client, name.text);
    const isSame = existing?.kind === "service_account" && maySee(caller, existing);
    if (isSame && statement.ifNotExists) {
      return { tag, notices: [`service account "${name.text}" already exists, skipping`] };
    }
    if (isSame) throw accountExists(name);
    if (existing !== undefined) throw nameTaken(name, "Choose another name.");
    const databases = await resolveDatabases(client, statement.databases);
    for (const database of statement.databases) await requireOwnTenant(client, caller, database);
    const claim = await claimRoleName(client, name, context);
    const id = await createUserRow(client, {
      kind: "service_account",
      name: name.text,
      tenantId,
      scramVerifier: undefined,
      canLogin: true,
      validUntil: undefined,
      connectionLimit: -1,
      roles,
    });
    await replaceDatabases(client, id, databases);
    await reconcile(deps, scope, id, claim === "reserved");
    return { tag, notices: [] };
  });
}

export function setServiceAccountDatabases(
  deps: ExecutorDependencies,
  statement: StatementOf<"alter_service_account_databases">,
  context: ExecutionContext,
): Result {
  return alter(deps, statement.name, context, async ({ client, caller }, account) => {
    const databases = await resolveDatabases(client, statement.databases);
    for (const database of statement.databases) {
      if (account.databases?.includes(database.text) === true) continue;
      await requireOwnTenant(client, caller, database);
    }
    await replaceDatabases(client, account.id, databases);
  });
}

export function setServiceAccountRoles(
  deps: ExecutorDependencies,
  statement: StatementOf<"alter_service_account_roles">,
  context: ExecutionContext,
): Result {
  return alter(deps, statement.name, context, async ({ client, caller }, account) => {
    if (account.id === caller.id && !isSuperuser(caller)) throw denied("you cannot change your own roles");
    const roles = await resolveGrantableRoles(client, caller, statement.roles, account.tenantId);
    await replaceRoles(client, account.id, roles);
  });
}

function alter(
  deps: ExecutorDependencies,
  name: Name,
  context: ExecutionContext,
  change: (scope: StatementScope, account: PrincipalRecord) => Promise<void>,
): Result {
  return runWrite(deps, context, async (scope) => {
    requireAdmin(scope.caller, "alter service accounts");
    const account = await findAccount(deps, scope, name);
    if (account === undefined) throw missingAccount(name);
    requireNotAbove(scope.caller, account, "alter this service account");
    await change(scope, account);
    await reconcile(deps, scope, account.id, false);
    return { tag: "ALTER SERVICE ACCOUNT", notices: [] };
  });
}

export function dropServiceAccount(
  deps: ExecutorDependencies,
  statement: StatementOf<"drop_service_account">,
  context: ExecutionContext,
): Result {
  const { name } = statement;
  const tag = "DROP SERVICE ACCOUNT";
  return runWrite(deps, context, async (scope) => {
    const { client, caller } = scope;
    requireAdmin(caller, "drop service accounts");
    const account = await findAccount(deps, scope, name);
    if (account === undefined) {
      if (!statement.ifExists) throw missingAccount(name);
      return { tag, notices: [`service account "${name.text}" does not exist, skipping`] };
    }
    if (account.id === caller.id) throw denied("cannot drop your own service account");
    requireNotAbove(caller, account, "drop this service account");
    const newOwner = await findNewOwner(deps, statement.reassignTo, scope, [account]);
    scope.touch(account.id);
    await deleteUserRows(client, [account.id]);
    await scope.keepOut([account]);
    await dropRoles(deps, client, context, {
      names: [account.name],
      newOwner,
      hint: "Use DROP SERVICE ACCOUNT … REASSIGN OWNED TO a user.",
    });
    return { tag, notices: [] };
  });
}

/**
 * @returns undefined when there is none that the caller may know of
 * @throws SqlError wrong_object_type when the name is somebody else's
 */
async function findAccount(
  deps: ExecutorDependencies,
  { client, caller }: StatementScope,
  name: Name,
): Promise<PrincipalRecord | undefined> {
  const found = await findUser(client, name, caller, deps.catalog.adminRole);
  if (found.kind === "missing") return undefined;
  if (found.kind === "foreign_role") {
    throw new SqlError("wrong_object_type", `role "${found.name}" is not a service account`, {
      position: name.position,
    });
  }
  requireKind(found.user, "service_account", name.position);
  return found.user;
}

/** Brings the PostgreSQL role to what the catalog has now. */
async function reconcile(
  deps: ExecutorDependencies,
  { client, touch }: StatementScope,
  id: number,
  isReserved: boolean,
): Promise<void> {
  const accounts = await loadUsersById(client, [id]);
  await reconcileRoles(client, accounts.map(desiredRoleOf), deps.roleOptions, isReserved);
  await reconcileConnect(client, accounts);
  touch(id);
}

export const serviceAccountColumns: readonly Column[] = [
  { name: "name", type: "text" },
  { name: "tenant_id", type: "int8" },
  { name: "roles", type: "text" },
  { name: "databases", type: "text" },
  { name: "created_at", type: "timestamptz" },
  { name: "last_used_at", type: "timestamptz" },
];

interface AccountRow {
  readonly name: string;
  readonly tenant_id: string;
  readonly roles: string;
  readonly databases: string;
  readonly created_at_text: string | null;
  readonly created_at_micros: string | null;
  readonly last_used_at_text: string | null;
  readonly last_used_at_micros: string | null;
}

/** A superuser sees all accounts, an admin those of its tenant. */
export async function showServiceAccounts(
  deps: ExecutorDependencies,
  context: ExecutionContext,
): Promise<StatementResult> {
  await flushBefore(deps, context, () => deps.catalog.flushLogins());
  return runRead(deps, context, async ({ client, caller }) => {
    requireAdmin(caller, "see service accounts");
    await useSessionFormat(client, context);
    const result = await client.query<AccountRow>(
      `SELECT p.name, p.tenant_id,
              (SELECT coalesce(pg_catalog.string_agg(h.role, ', ' ORDER BY h.ordinal), '')
                 FROM nodedb.principal_role h WHERE h.principal_id = p.id) AS roles,
              (SELECT coalesce(pg_catalog.string_agg(d.database, ', ' ORDER BY d.ordinal), '')
                 FROM nodedb.principal_database d WHERE d.principal_id = p.id) AS databases,
              ${timestampColumns("p.created_at", "created_at")},
              ${timestampColumns("u.at", "last_used_at")}
         FROM nodedb.principal p
         CROSS JOIN LATERAL (
           SELECT greatest(p.last_login_at, pg_catalog.max(k.last_used_at)) AS at
             FROM nodedb.api_key k WHERE k.owner_id = p.id) u
        WHERE p.kind = 'service_account' AND ($1 OR p.tenant_id = $2)
        ORDER BY p.name COLLATE "C"`,
      [isSuperuser(caller), caller.tenantId],
    );
    const rows = result.rows.map((row) => [
      row.name,
      BigInt(row.tenant_id),
      row.roles,
      row.databases,
      timestamp(row.created_at_text, row.created_at_micros),
      timestamp(row.last_used_at_text, row.last_used_at_micros),
    ]);
    return table(serviceAccountColumns, rows);
  });
}

function missingAccount(name: Name): SqlError {
  return new SqlError("undefined_object", `service account "${name.text}" does not exist`, {
    position: name.position,
  });
}

function accountExists(name: Name): SqlError {
  return new SqlError("duplicate_object", `service account "${name.text}" already exists`, {
    position: name.position,
    hint: "Use CREATE SERVICE ACCOUNT IF NOT EXISTS or ALTER SERVICE ACCOUNT.",
  });
}
