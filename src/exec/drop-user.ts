/** DROP USER, with or without REASSIGN OWNED TO. */

import { countUsableSuperusers, deleteUserRows, type PrincipalRecord } from "../catalog/users.ts";
import type { Statement, UserReference } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { denied, isSuperuser, requireAdmin, requireNotAbove } from "./authorize.ts";
import type { ExecutionContext, ExecutorDependencies } from "./context.ts";
import { dropRoles } from "./drop-roles.ts";
import { type FoundUser, findUser, missingUser, requireKind, wrongKind } from "./find-user.ts";
import type { StatementResult } from "./result.ts";
import { runWrite, type StatementScope } from "./run-statement.ts";

type DropUser = Extract<Statement, { kind: "drop_user" }>;

export function dropUser(
  deps: ExecutorDependencies,
  statement: DropUser,
  context: ExecutionContext,
): Promise<StatementResult | "forward"> {
  return runWrite(deps, context, async (scope) => {
    const found = await findAll(deps, statement, scope);
    if (found === "forward") return "forward";
    const notices = found
      .filter((entry) => entry.kind === "missing")
      .map((entry) => `role "${entry.name}" does not exist, skipping`);
    const users = distinct(found.flatMap((entry) => (entry.kind === "user" ? [entry.user] : [])));
    const newOwner = await findNewOwner(deps, statement.reassignTo, scope, users);
    if (users.length > 0) await drop(deps, scope, context, users, newOwner);
    for (const user of users) scope.touch(user.id);
    return { tag: `DROP ${statement.spelling}`, notices };
  });
}

/** Finds the users and checks the caller's right to drop each, before anything is changed. */
async function findAll(
  deps: ExecutorDependencies,
  statement: DropUser,
  { client, caller }: StatementScope,
): Promise<FoundUser[] | "forward"> {
  const found: FoundUser[] = [];
  for (const reference of statement.users) {
    const entry = await findUser(client, reference, caller, deps.catalog.adminRole);
    // Before the other names are looked up: whoever may not drop users must not keep the catalog busy either.
    if (entry.kind !== "foreign_role") requireAdmin(caller, "drop users");
    found.push(entry);
  }
  const foreign = found.find((entry) => entry.kind === "foreign_role");
  if (foreign !== undefined && statement.reassignTo === undefined && !found.some((e) => e.kind === "user")) {
    return "forward";
  }
  requireAdmin(caller, "drop users");
  if (foreign !== undefined) {
    throw new SqlError("wrong_object_type", `role "${foreign.name}" is not a user`, {
      hint: "Drop PostgreSQL's own roles in a statement of their own.",
    });
  }
  for (const entry of found) {
    if (entry.kind === "missing" && !statement.ifExists) throw missingUser(entry);
    if (entry.kind !== "user") continue;
    if (entry.user.id === caller.id) throw denied("cannot drop your own user");
    if (entry.user.kind !== "external") requireKind(entry.user, "user");
    requireNotAbove(caller, entry.user, "drop this user");
  }
  return found;
}

/** Objects are code too (functions, triggers), so they go to nobody whose rights are above the caller's. */
export async function findNewOwner(
  deps: ExecutorDependencies,
  reassignTo: UserReference | undefined,
  { client, caller }: StatementScope,
  dropped: readonly PrincipalRecord[],
): Promise<string | undefined> {
  if (reassignTo === undefined) return undefined;
  const found = await findUser(client, reassignTo, caller, deps.catalog.adminRole);
  if (found.kind === "missing") throw missingUser(found);
  if (found.kind === "foreign_role") {
    throw new SqlError("wrong_object_type", `role "${found.name}" is not a user`, {
      position: reassignTo.position,
    });
  }
  if (dropped.some((user) => user.id === found.user.id)) {
    throw new SqlError("invalid_parameter_value", "objects cannot be reassigned to a user that is dropped", {
      position: reassignTo.position,
    });
  }
  if (found.user.kind === "api_key" || found.user.kind === "external")
    throw wrongKind(found.user, "user", reassignTo.position);
  requireNotAbove(caller, found.user, "reassign objects to this user");
  return found.user.name;
}

async function drop(
  deps: ExecutorDependencies,
  { client, keepOut }: StatementScope,
  context: ExecutionContext,
  users: readonly PrincipalRecord[],
  newOwner: string | undefined,
): Promise<void> {
  await deleteUserRows(
    client,
    users.map((user) => user.id),
  );
  if (users.some(isSuperuser) && (await countUsableSuperusers(client)) === 0) {
    throw denied("this is the last superuser that can log in");
  }
  await keepOut(users);
  await dropRoles(deps, client, context, {
    names: users.map((user) => user.name),
    newOwner,
    hint: "Use DROP USER … REASSIGN OWNED TO another user.",
  });
}

function distinct(users: readonly PrincipalRecord[]): PrincipalRecord[] {
  return [...new Map(users.map((user) => [user.id, user])).values()];
}
