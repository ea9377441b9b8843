/** Drops PostgreSQL roles of ours, with what was granted to them in all databases. */

import { type ClientBase, escapeIdentifier } from "pg";
import { connectAdmin } from "../catalog/connection.ts";
import { SqlError } from "../errors/sql-error.ts";
import {
  findRoles,
  listOwnedObjects,
  type OwnedObject,
  type OwnedObjectsAccess,
  releaseRoles,
} from "../upstream/owned-objects.ts";
import type { ExecutorDependencies } from "./context.ts";

/** Objects that the detail of a refusal lists at most, as in PostgreSQL. */
const maxListedObjects = 100;

/** How long an object in use is waited for; the catalog is locked meanwhile. */
const lockTimeout = "10s";

export interface DropOptions {
  /** Who gets what the roles own; without it they may own nothing. */
  readonly newOwner: string | undefined;
  /** What to do about objects that are still owned. */
  readonly hint: string;
}

/**
 * Drops roles inside the caller's transaction; those that somebody dropped behind our back are no obstacle.
 *
 * @throws SqlError dependent_objects_still_exist when one owns objects and nobody is named to get them
 */
export async function dropPostgresRoles(
  deps: ExecutorDependencies,
  client: ClientBase,
  names: readonly string[],
  { newOwner, hint }: DropOptions,
): Promise<void> {
  await client.query("SELECT pg_catalog.set_config('lock_timeout', $1, true)", [lockTimeout]);
  const access: OwnedObjectsAccess = {
    client,
    connect: (database) => connectAdmin(deps.adminConnection, database),
  };
  const roles = await findRoles(client, names);
  if (roles.length === 0) return;
  if (newOwner === undefined) {
    const owned = await listOwnedObjects(access, roles);
    if (owned.length > 0) throw ownsObjects(owned, await databaseName(client), hint);
  }
  await releaseRoles(access, roles, newOwner);
  await client.query(`DROP ROLE ${roles.map((role) => escapeIdentifier(role.name)).join(", ")}`);
}

/** @see PostgreSQL's DROP ROLE: `role "x" cannot be dropped because some objects depend on it` */
function ownsObjects(owned: readonly OwnedObject[], catalogDatabase: string, hint: string): SqlError {
  const role = owned[0]?.role ?? "";
  const mine = owned.filter((object) => object.role === role);
  const lines = mine.slice(0, maxListedObjects).map(({ database, description }) => {
    const isElsewhere = database !== "" && database !== catalogDatabase;
    return `owner of ${description}${isElsewhere ? ` in database ${database}` : ""}`;
  });
  const more = mine.length - lines.length;
  if (more > 0) lines.push(`and ${more} other object${more === 1 ? "" : "s"}`);
  return cannotDrop(role, lines, hint);
}

/** @param lines one sentence part per dependent object, as PostgreSQL lists them */
export function cannotDrop(role: string, lines: readonly string[], hint: string): SqlError {
  return new SqlError(
    "dependent_objects_still_exist",
    `role "${role}" cannot be dropped because some objects depend on it`,
    { detail: lines.join("\n"), hint },
  );
}

async function databaseName(client: ClientBase): Promise<string> {
  const result = await client.query<{ name: string }>(
    "SELECT pg_catalog.current_database()::pg_catalog.text AS name",
  );
  return result.rows[0]?.name ?? "";
}
