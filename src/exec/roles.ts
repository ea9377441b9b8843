/** CREATE ROLE, ALTER ROLE … SET INHERIT, DROP ROLE and SHOW ROLES: custom roles. */

import {
  type CustomRole,
  createRoleRow,
  deleteRoleRows,
  findCustomRole,
  inheritanceDepthBelow,
  listRoleDependents,
  listRoleHolderIds,
  loadCustomRolesByName,
  updateRoleParent,
} from "../catalog/roles.ts";
import { systemTenantId } from "../catalog/tenants.ts";
import { findUserByName, loadUsersById } from "../catalog/users.ts";
import type { Name, Statement } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { builtInRoles, isBuiltInRole } from "../upstream/built-in-groups.ts";
import { reconcileCustomRoles, reconcileRoles } from "../upstream/reconcile-roles.ts";
import { isSuperuser, maySee, requireAdmin, requireNotAbove, resolveGrantableRoles } from "./authorize.ts";
import type { ExecutionContext, ExecutorDependencies } from "./context.ts";
import { nameTaken } from "./create-user.ts";
import { cannotDrop } from "./drop-postgres-roles.ts";
import { dropRoles } from "./drop-roles.ts";
import { dropUser } from "./drop-user.ts";
import { type FoundRole, findRole, findRolesOf, missingRole, notOurs } from "./find-role.ts";
import { concernsForeignRole } from "./foreign-role.ts";
import type { Column, StatementResult } from "./result.ts";
import { checkNewName, claimRoleName, refuseReservedName } from "./role-names.ts";
import { desiredRoleOf, runRead, runWrite, type StatementScope } from "./run-statement.ts";
import { table, timestamp, timestampColumns } from "./show.ts";
import { useSessionFormat } from "./user-options.ts";

type StatementOf<Kind extends Statement["kind"]> = Extract<Statement, { kind: Kind }>;

/** Steps of inheritance from a role to the last of its parents. */
const maxInheritanceDepth = 8;

export function createRole(
  deps: ExecutorDependencies,
  statement: StatementOf<"create_role">,
  context: ExecutionContext,
): Promise<StatementResult> {
  const { name, parent } = statement;
  const tag = "CREATE ROLE";
  return runWrite(deps, context, async ({ client, caller }) => {
    requireAdmin(caller, "create roles");
    const existing = isBuiltInRole(name.text) ? undefined : await findCustomRole(client, name.text);
    if (isBuiltInRole(name.text) || existing !== undefined) {
      const isVisible = existing === undefined || maySee(caller, existing);
      if (statement.ifNotExists && isVisible) {
        return { tag, notices: [`role "${name.text}" already exists, skipping`] };
      }
      throw nameTaken(name, "Use CREATE ROLE IF NOT EXISTS or ALTER ROLE.");
    }
    checkNewName(name);
    if ((await findUserByName(client, name.text)) !== undefined) {
      throw nameTaken(name, "Users, service accounts and roles share their names; choose another one.");
    }
    if (parent !== undefined) {
      const inherited = await checkParent({ client, caller }, name, parent, caller.tenantId);
      refuseDepth(inherited, 0, parent);
    }
    await claimRoleName(client, name, context);
    const role = { name: name.text, tenantId: caller.tenantId, parent: parent?.text };
    await createRoleRow(client, role);
    await reconcileCustomRoles(client, [role], deps.roleOptions);
    return { tag, notices: [] };
  });
}

export function setRoleParent(
  deps: ExecutorDependencies,
  statement: StatementOf<"alter_role_parent">,
  context: ExecutionContext,
): Promise<StatementResult> {
  const { name, parent } = statement;
  return runWrite(deps, context, async (scope) => {
    const { client, caller } = scope;
    requireAdmin(caller, "alter roles");
    const role = requireCustom(await findRole(client, name, caller, deps.catalog.adminRole));
    requireNotAbove(caller, role, "alter this role");
    const inherited = await checkParent(scope, name, parent, role.tenantId);
    if (inherited.includes(role.name)) {
      throw new SqlError(
        "invalid_table_definition",
        role.name === parent.text
          ? `role "${role.name}" cannot inherit itself`
          : `role "${parent.text}" already inherits role "${role.name}"`,
        { position: parent.position },
      );
    }
    refuseDepth(inherited, await inheritanceDepthBelow(client, role.name), parent);
    await updateRoleParent(client, role.name, parent.text);
    await reconcileCustomRoles(client, [{ name: role.name, parent: parent.text }], deps.roleOptions);
    // Their rights have changed with it, and maybe the side on which they stand to their tenant's administrators.
    const holderIds = await listRoleHolderIds(client, role.name);
    const holders = await loadUsersById(client, holderIds);
    await reconcileRoles(client, holders.map(desiredRoleOf), deps.roleOptions);
    for (const id of holderIds) scope.touch(id);
    return { tag: "ALTER ROLE", notices: [] };
  });
}

export async function dropRole(
  deps: ExecutorDependencies,
  statement: StatementOf<"drop_role">,
  context: ExecutionContext,
): Promise<StatementResult | "forward"> {
  const { names, ifExists } = statement;
  for (const name of names) refuseReservedName(name);
  const isAboutUsers = await runRead(deps, context, async ({ client, caller }) => {
    const found = await findRolesOf(client, names, caller, deps.catalog.adminRole);
    return found.some((entry) => entry.kind === "principal") && !found.some((e) => e.kind === "custom");
  });
  if (isAboutUsers) {
    return dropUser(deps, { kind: "drop_user", users: names, ifExists, spelling: "ROLE" }, context);
  }
  return runWrite(deps, context, async ({ client, caller }) => {
    if (await concernsForeignRole(client, statement)) return "forward";
    requireAdmin(caller, "drop roles");
    const found = await findRolesOf(client, names, caller, deps.catalog.adminRole);
    const notices: string[] = [];
    const roles = new Map<string, CustomRole>();
    for (const entry of found) {
      if (entry.kind === "missing" && ifExists) {
        notices.push(`role "${entry.name}" does not exist, skipping`);
        continue;
      }
      const role = requireCustom(entry);
      requireNotAbove(caller, role, "drop this role");
      roles.set(role.name, role);
    }
    const dropped = [...roles.keys()];
    for (const name of dropped) {
      const { holders, children } = await listRoleDependents(client, name, dropped);
      const lines = [
        ...holders.map((holder) => `held by ${holder}`),
        ...children.map((child) => `inherited by role ${child}`),
      ];
      if (lines.length > 0) throw cannotDrop(name, lines, "Use REVOKE, or drop those first.");
    }
    await deleteRoleRows(client, dropped);
    await dropRoles(deps, client, context, {
      names: dropped,
      newOwner: undefined,
      hint: "Give these objects to another owner first.",
    });
    return { tag: "DROP ROLE", notices };
  });
}

/** @throws SqlError for everything that is no custom role */
function requireCustom(found: FoundRole): CustomRole {
  switch (found.kind) {
    case "custom":
      return found.role;
    case "missing":
      throw missingRole(found);
    case "foreign":
      throw notOurs(found);
    case "built_in":
      throw new SqlError("insufficient_privilege", `permission denied: role "${found.name}" is built in`);
    case "principal":
      throw new SqlError("wrong_object_type", `"${found.name}" is not a custom role`, {
        position: found.position,
        hint: "Users and roles are changed and dropped in statements of their own.",
      });
  }
}

/** @returns the parent and all that it inherits */
async function checkParent(
  { client, caller }: Pick<StatementScope, "client" | "caller">,
  name: Name,
  parent: Name,
  tenantId: number,
): Promise<readonly string[]> {
  if (name.text === parent.text) {
    throw new SqlError("invalid_table_definition", `role "${name.text}" cannot inherit itself`, {
      position: parent.position,
    });
  }
  await resolveGrantableRoles(client, caller, [parent], tenantId);
  if (parent.text === "superuser") {
    throw new SqlError("feature_not_supported", 'role "superuser" cannot be inherited', {
      position: parent.position,
      hint: "As in PostgreSQL, being a superuser is no membership. Grant it to users directly.",
    });
  }
  if (isBuiltInRole(parent.text)) return [parent.text];
  const [role] = (await loadCustomRolesByName(client, [parent.text])).values();
  return role?.effectiveRoles ?? [parent.text];
}

function refuseDepth(inherited: readonly string[], below: number, parent: Name): void {
  if (inherited.length + below <= maxInheritanceDepth) return;
  throw new SqlError(
    "invalid_table_definition",
    `roles may inherit over ${maxInheritanceDepth} steps at most`,
    { position: parent.position },
  );
}

export const roleColumns: readonly Column[] = [
  { name: "name", type: "text" },
  { name: "tenant_id", type: "int8" },
  { name: "parent", type: "text" },
  { name: "built_in", type: "bool" },
  { name: "created_at", type: "timestamptz" },
];

interface RoleRow {
  readonly name: string;
  readonly tenant_id: string;
  readonly parent: string | null;
  readonly created_at_text: string | null;
  readonly created_at_micros: string | null;
}

/** Built-in roles from the lowest to the highest, each the parent of the next; then the custom ones. */
export function showRoles(deps: ExecutorDependencies, context: ExecutionContext): Promise<StatementResult> {
  return runRead(deps, context, async ({ client, caller }) => {
    await useSessionFormat(client, context);
    const result = await client.query<RoleRow>(
      `SELECT r.name, r.tenant_id, r.parent, ${timestampColumns("r.created_at", "created_at")}
         FROM nodedb.role r WHERE $1 OR r.tenant_id = $2 ORDER BY r.name COLLATE "C"`,
      [isSuperuser(caller), caller.tenantId],
    );
    const builtIn = builtInRoles.map((name, index) => [
      name,
      BigInt(systemTenantId),
      builtInRoles[index - 1] ?? null,
      true,
      null,
    ]);
    const custom = result.rows.map((row) => [
      row.name,
      BigInt(row.tenant_id),
      row.parent,
      false,
      timestamp(row.created_at_text, row.created_at_micros),
    ]);
    return table(roleColumns, [...builtIn, ...custom]);
  });
}
