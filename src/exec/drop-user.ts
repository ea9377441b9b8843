/** DROP USER, with or without REASSIGN OWNED TO. */

import { escapeIdentifier } from "pg";
import { connectAdmin } from "../catalog/connection.ts";
import { countUsableSuperusers, deleteUserRows, type PrincipalRecord } from "../catalog/users.ts";
import type { Statement } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import {
  findRoles,
  listOwnedObjects,
  type OwnedObject,
  type OwnedObjectsAccess,
  releaseRoles,
} from "../upstream/owned-objects.ts";
import { denied, isSuperuser, requireAdmin, requireNotAbove } from "./authorize.ts";
import type { ExecutionContext, ExecutorDependencies } from "./context.ts";
import { type FoundUser, findUser, missingUser } from "./find-user.ts";
import type { StatementResult } from "./result.ts";
import { runWrite, type StatementScope } from "./run-statement.ts";

type DropUser = Extract<Statement, { kind: "drop_user" }>;

/** Objects that the detail of a refusal lists at most, as in PostgreSQL. */
const maxListedObjects = 100;

/** How long an object in use is waited for; the catalog is locked meanwhile. */
const lockTimeout = "10s";

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
    const newOwner = await findNewOwner(deps, statement, scope, users);
    if (users.length > 0) await drop(deps, scope, users, newOwner);
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
    requireNotAbove(caller, entry.user, "drop this user");
  }
  return found;
}

/** Objects are code too (functions, triggers), so they go to nobody whose rights are above the caller's. */
async function findNewOwner(
  deps: ExecutorDependencies,
  statement: DropUser,
  { client, caller }: StatementScope,
  dropped: readonly PrincipalRecord[],
): Promise<string | undefined> {
  const { reassignTo } = statement;
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
  requireNotAbove(caller, found.user, "reassign objects to this user");
  return found.user.name;
}

async function drop(
  deps: ExecutorDependencies,
  { client }: StatementScope,
  users: readonly PrincipalRecord[],
  newOwner: string | undefined,
): Promise<void> {
  await client.query("SELECT pg_catalog.set_config('lock_timeout', $1, true)", [lockTimeout]);
  await deleteUserRows(
    client,
    users.map((user) => user.id),
  );
  if (users.some(isSuperuser) && (await countUsableSuperusers(client)) === 0) {
    throw denied("this is the last superuser that can log in");
  }
  const access: OwnedObjectsAccess = {
    client,
    connect: (database) => connectAdmin(deps.adminConnection, database),
  };
  // A role that somebody dropped behind our back is no obstacle.
  const roles = await findRoles(
    client,
    users.map((user) => user.name),
  );
  if (roles.length === 0) return;
  if (newOwner === undefined) {
    const owned = await listOwnedObjects(access, roles);
    if (owned.length > 0) throw ownsObjects(owned, await databaseName(client));
  }
  await releaseRoles(access, roles, newOwner);
  await client.query(`DROP ROLE ${roles.map((role) => escapeIdentifier(role.name)).join(", ")}`);
}

/** @see PostgreSQL's DROP ROLE: `role "x" cannot be dropped because some objects depend on it` */
function ownsObjects(owned: readonly OwnedObject[], catalogDatabase: string): SqlError {
  const role = owned[0]?.role ?? "";
  const mine = owned.filter((object) => object.role === role);
  const lines = mine.slice(0, maxListedObjects).map(({ database, description }) => {
    const isElsewhere = database !== "" && database !== catalogDatabase;
    return `owner of ${description}${isElsewhere ? ` in database ${database}` : ""}`;
  });
  const more = mine.length - lines.length;
  if (more > 0) lines.push(`and ${more} other object${more === 1 ? "" : "s"}`);
  return new SqlError(
    "dependent_objects_still_exist",
    `role "${role}" cannot be dropped because some objects depend on it`,
    { detail: lines.join("\n"), hint: "Use DROP USER … REASSIGN OWNED TO another user." },
  );
}

async function databaseName(client: StatementScope["client"]): Promise<string> {
  const result = await client.query<{ name: string }>(
    "SELECT pg_catalog.current_database()::pg_catalog.text AS name",
  );
  return result.rows[0]?.name ?? "";
}

function distinct(users: readonly PrincipalRecord[]): PrincipalRecord[] {
  return [...new Map(users.map((user) => [user.id, user])).values()];
}
