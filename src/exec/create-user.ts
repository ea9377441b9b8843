/** CREATE USER, and CREATE ROLE … LOGIN, which is the same. */

import { findTenant } from "../catalog/tenants.ts";
import { createUserRow, findUserByName, loadUsersById, type PrincipalRecord } from "../catalog/users.ts";
import type { Statement, TenantReference } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { reconcileRoles } from "../upstream/reconcile-roles.ts";
import { denied, isSuperuser, maySee, requireAdmin, resolveGrantableRoles } from "./authorize.ts";
import type { ExecutionContext, ExecutorDependencies } from "./context.ts";
import type { StatementResult } from "./result.ts";
import { checkNewName, claimRoleName } from "./role-names.ts";
import { authorizeEarly, desiredRoleOf, runWrite, type StatementScope } from "./run-statement.ts";
import { verifierInTransit } from "./secrets-in-transit.ts";
import { parseTimestamp, verifierFor } from "./user-options.ts";

type CreateUser = Extract<Statement, { kind: "create_user" }>;

/** Role of a user that names none. */
const defaultRole = "readwrite";

export async function createUser(
  deps: ExecutorDependencies,
  statement: CreateUser,
  context: ExecutionContext,
): Promise<StatementResult> {
  const { name, options, spelling } = statement;
  const tag = `CREATE ${spelling}`;
  await authorizeEarly(deps, context, (caller) => authorize(caller, statement));
  const verifier = await verifierFor(deps, options.password);
  return runWrite(deps, context, async (scope) => {
    const { client, caller } = scope;
    authorize(caller, statement);
    const tenantId = await tenantFor(scope, options.tenant);
    const roles =
      options.roles === undefined || options.roles.length === 0
        ? [defaultRole]
        : await resolveGrantableRoles(client, caller, options.roles, tenantId);
    const existing = await findUserByName(client, name.text);
    if (existing !== undefined && statement.ifNotExists && maySee(caller, existing)) {
      return { tag, notices: [`role "${name.text}" already exists, skipping`] };
    }
    if (existing !== undefined) {
      throw nameTaken(name, "Use CREATE USER IF NOT EXISTS or ALTER USER.");
    }
    const claim = await claimRoleName(client, name, context);
    const id = await createUserRow(client, {
      name: name.text,
      tenantId,
      scramVerifier: (await verifierInTransit(client, verifier)) ?? undefined,
      // As in PostgreSQL, CREATE ROLE alone does not let anybody log in.
      canLogin: options.canLogin ?? spelling === "USER",
      validUntil:
        options.validUntil === undefined
          ? undefined
          : await parseTimestamp(client, options.validUntil, context),
      connectionLimit: options.connectionLimit ?? -1,
      roles,
    });
    const created = await loadUsersById(client, [id]);
    await reconcileRoles(client, created.map(desiredRoleOf), deps.roleOptions, claim === "reserved");
    scope.touch(id);
    return { tag, notices: [] };
  });
}

function authorize(caller: PrincipalRecord, statement: CreateUser): void {
  requireAdmin(caller, "create users");
  if (statement.options.tenant !== undefined && !isSuperuser(caller)) {
    throw denied("only superuser may choose a tenant");
  }
  checkNewName(statement.name);
}

/** @throws SqlError undefined_object */
export async function tenantFor(
  scope: StatementScope,
  reference: TenantReference | undefined,
): Promise<number> {
  if (reference === undefined) return scope.caller.tenantId;
  const tenant = await findTenant(scope.client, reference);
  if (tenant !== undefined) return tenant.id;
  const wording = "id" in reference ? String(reference.id) : `"${reference.name}"`;
  throw new SqlError("undefined_object", `tenant ${wording} does not exist`, {
    position: reference.position,
  });
}

/** @see PostgreSQL's own wording: `role "x" already exists` */
export function nameTaken(
  name: { readonly text: string; readonly position: number },
  hint: string,
): SqlError {
  return new SqlError("duplicate_object", `role "${name.text}" already exists`, {
    position: name.position,
    hint,
  });
}
