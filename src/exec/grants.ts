/** GRANT and REVOKE of built-in and custom roles, and SHOW GRANTS. */

import { loadCustomRoles } from "../catalog/roles.ts";
import {
  countUsableSuperusers,
  loadUsersById,
  type PrincipalRecord,
  type Queryable,
  replaceRoles,
} from "../catalog/users.ts";
import type { Name, Statement } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { builtInRoles, isBuiltInRole, rankOf } from "../upstream/built-in-groups.ts";
import { reconcileRoles } from "../upstream/reconcile-roles.ts";
import { denied, isSuperuser, requireAdmin, requireNotAbove, resolveGrantableRoles } from "./authorize.ts";
import type { ExecutionContext, ExecutorDependencies } from "./context.ts";
import { type FoundRole, findRole, findRolesOf, missingRole, notOurs } from "./find-role.ts";
import { concernsForeignRole } from "./foreign-role.ts";
import type { Column, StatementResult } from "./result.ts";
import { desiredRoleOf, runRead, runWrite, type StatementScope } from "./run-statement.ts";
import { table } from "./show.ts";

type StatementOf<Kind extends Statement["kind"]> = Extract<Statement, { kind: Kind }>;
type GrantRoles = StatementOf<"grant_roles" | "revoke_roles">;

/** What a statement does to the roles of one principal. @returns the roles that it is to hold */
type Change = (
  scope: StatementScope,
  principal: PrincipalRecord,
  roles: readonly Name[],
) => Promise<string[]>;

export function grantRoles(
  deps: ExecutorDependencies,
  statement: GrantRoles,
  context: ExecutionContext,
): Promise<StatementResult | "forward"> {
  return change(deps, statement, context, "GRANT ROLE", async ({ client, caller }, principal, roles) => {
    const added = await resolveGrantableRoles(client, caller, roles, principal.tenantId);
    return [...new Set([...principal.roles, ...added])];
  });
}

export function revokeRoles(
  deps: ExecutorDependencies,
  statement: GrantRoles,
  context: ExecutionContext,
): Promise<StatementResult | "forward"> {
  return change(deps, statement, context, "REVOKE ROLE", async ({ caller }, principal, roles) => {
    for (const { text, position } of roles) {
      if (!principal.roles.includes(text)) {
        throw new SqlError("undefined_object", `"${principal.name}" does not hold role "${text}"`, {
          position,
          hint: "SHOW GRANTS tells which roles are held, and through which others.",
        });
      }
      if (text === "superuser" && principal.id === caller.id) {
        throw denied("you cannot revoke your own superuser role");
      }
    }
    return principal.roles.filter((held) => !roles.some((role) => role.text === held));
  });
}

function change(
  deps: ExecutorDependencies,
  statement: GrantRoles,
  context: ExecutionContext,
  tag: string,
  rolesAfter: Change,
): Promise<StatementResult | "forward"> {
  return runWrite(deps, context, async (scope) => {
    const { client, caller } = scope;
    if (await concernsForeignRole(client, statement)) return "forward";
    const { adminRole } = deps.catalog;
    const roles = await findRolesOf(client, statement.roles, caller, adminRole);
    const grantees = await findRolesOf(client, statement.grantees, caller, adminRole);
    requireAdmin(caller, "grant and revoke roles");
    for (const role of roles) requireRole(role, statement.onlyOurs === true);
    const principals = new Map(grantees.map((found) => [found.name, requireGrantee(found)]));
    if (statement.grantOptions !== undefined) {
      throw new SqlError(
        "feature_not_supported",
        "grant options are not supported for roles of the front-end",
        {
          position: statement.grantOptions.position,
          hint: "Use ROLE admin for those who grant roles.",
        },
      );
    }
    for (const principal of principals.values()) {
      requireNotAbove(caller, principal, "change the roles of this user");
      await replaceRoles(client, principal.id, await rolesAfter(scope, principal, statement.roles));
    }
    const before = [...principals.values()];
    if (before.some(isSuperuser) && (await countUsableSuperusers(client)) === 0) {
      throw denied("this is the last superuser that can log in");
    }
    const ids = before.map((principal) => principal.id);
    const after = await loadUsersById(client, ids);
    await reconcileRoles(client, after.map(desiredRoleOf), deps.roleOptions);
    for (const id of ids) scope.touch(id);
    return { tag, notices: [] };
  });
}

/** @throws SqlError for what cannot be granted by us */
function requireRole(found: FoundRole, onlyOurs: boolean): void {
  if (found.kind === "missing") throw missingRole(found);
  if (found.kind === "foreign") {
    throw onlyOurs
      ? missingRole(found, "For a role of PostgreSQL's own leave the word ROLE out.")
      : notOurs(found);
  }
  if (found.kind !== "principal") return;
  throw new SqlError("wrong_object_type", `"${found.name}" is not a role`, { position: found.position });
}

function requireGrantee(found: FoundRole): PrincipalRecord {
  switch (found.kind) {
    case "principal":
      if (found.principal.kind !== "external") return found.principal;
      throw new SqlError("wrong_object_type", `"${found.name}" is an external identity`, {
        position: found.position,
        hint: "Its roles come from the claim mapping of its provider: use ALTER OIDC PROVIDER … SET CLAIM MAPPING.",
      });
    case "missing":
      throw missingRole(found);
    case "foreign":
      throw new SqlError("wrong_object_type", `role "${found.name}" is not a user`, {
        position: found.position,
      });
    case "built_in":
    case "custom":
      throw new SqlError("wrong_object_type", `"${found.name}" is a role, not a user`, {
        position: found.position,
        hint: "A role gets another one's rights with ALTER ROLE … SET INHERIT.",
      });
  }
}

export const grantColumns: readonly Column[] = [
  { name: "username", type: "text" },
  { name: "role", type: "text" },
  { name: "inherited_from", type: "text" },
];

/** The caller's own grants, or with FOR those of somebody whom it administers. */
export function showGrants(
  deps: ExecutorDependencies,
  statement: StatementOf<"show_grants">,
  context: ExecutionContext,
): Promise<StatementResult> {
  return runRead(deps, context, async ({ client, caller }) => {
    const principal =
      statement.user === undefined
        ? caller
        : await findShown(client, statement.user, caller, deps.catalog.adminRole);
    const held = await listHeldRoles(client, principal);
    return table(
      grantColumns,
      held.map(({ role, inheritedFrom }) => [principal.name, role, inheritedFrom ?? null]),
    );
  });
}

async function findShown(
  client: Queryable,
  reference: NonNullable<StatementOf<"show_grants">["user"]>,
  caller: PrincipalRecord,
  adminRole: string,
): Promise<PrincipalRecord> {
  const isSelf = "self" in reference || reference.text === caller.name;
  if (isSelf) return caller;
  requireAdmin(caller, "see the grants of others");
  return requireGrantee(await findRole(client, reference, caller, adminRole));
}

/** A role that somebody has. */
export interface HeldRole {
  readonly role: string;
  /** The role that brings it along; undefined when it was granted itself. */
  readonly inheritedFrom: string | undefined;
}

/** Lists the roles of a principal: the granted ones in their order, and behind them what they bring along. */
export async function listHeldRoles(
  client: Queryable,
  principal: Pick<PrincipalRecord, "roles">,
): Promise<HeldRole[]> {
  const parents = new Map((await loadCustomRoles(client)).map((role) => [role.name, role.parent]));
  const held = new Map<string, HeldRole>();
  for (const role of principal.roles) held.set(role, { role, inheritedFrom: undefined });
  // Grows while it is walked: what was inherited brings along its own.
  for (const { role } of held.values()) {
    const parent = isBuiltInRole(role) ? builtInRoles[rankOf(role) - 1] : parents.get(role);
    if (parent !== undefined && !held.has(parent)) held.set(parent, { role: parent, inheritedFrom: role });
  }
  return [...held.values()];
}
