/** Drops PostgreSQL roles of ours, with what was granted to them in all databases. */

import { type ClientBase, escapeIdentifier } from "pg";
import { SqlError } from "../errors/sql-error.ts";
import {
  currentDatabase,
  findRoles,
  listOwnedObjects,
  type OwnedObject,
  type OwnedObjectsAccess,
  readerOf,
  releaseRoles,
} from "../upstream/owned-objects.ts";
import { type ClusterAccess, connectElsewhere } from "./connect-elsewhere.ts";

/** Objects that the detail of a refusal lists at most, as in PostgreSQL. */
const maxListedObjects = 100;

/** How long an object in use is waited for where nothing else is said; the catalog is locked meanwhile. */
const defaultLockTimeout = "10s";

export interface DropOptions {
  /** Who gets what the roles own; without it they may own nothing. */
  readonly newOwner: string | undefined;
  /** What to do about objects that are still owned. */
  readonly hint: string;
  /** As PostgreSQL's lock_timeout reads it. */
  readonly lockTimeout?: string;
}

/**
 * Drops roles inside the caller's transaction; those that somebody dropped behind our back are no obstacle.
 *
 * @throws SqlError dependent_objects_still_exist when one owns objects and nobody is named to get them
 */
export async function dropPostgresRoles(
  deps: ClusterAccess,
  client: ClientBase,
  names: readonly string[],
  { newOwner, hint, lockTimeout = defaultLockTimeout }: DropOptions,
): Promise<void> {
  await client.query("SELECT pg_catalog.set_config('lock_timeout', $1, true)", [lockTimeout]);
  const access: OwnedObjectsAccess = {
    client,
    connect: (database) => connectElsewhere(deps, database),
  };
  const roles = await findRoles(client, names);
  if (roles.length === 0) return;
  if (newOwner === undefined) {
    const database = await currentDatabase(client);
    const owned = await listOwnedObjects({ ...access, reader: readerOf(client), database }, roles);
    if (owned.length > 0) throw ownsObjects(owned, database, hint);
  }
  await releaseRoles(access, roles, newOwner);
  await client.query(`DROP ROLE ${roles.map((role) => escapeIdentifier(role.name)).join(", ")}`);
}

/**
 * @param here the database whose objects are listed without its name
 * @see PostgreSQL's DROP ROLE: `role "x" cannot be dropped because some objects depend on it`
 */
export function ownsObjects(owned: readonly OwnedObject[], here: string, hint: string): SqlError {
  const role = owned[0]?.role ?? "";
  const mine = owned.filter((object) => object.role === role);
  const lines = mine.slice(0, maxListedObjects).map(({ database, description }) => {
    const isElsewhere = database !== "" && database !== here;
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
