/** Which databases a session may be in: the owner's, cut down by the list of the key that it logged in with. */

import { SqlError } from "../errors/sql-error.ts";

/**
 * The databases that both lists allow, in the order of the key's; undefined where neither has a list, so that PostgreSQL's
 * CONNECT privilege alone decides.
 */
export function effectiveDatabases(
  ofOwner: readonly string[] | undefined,
  ofKey: readonly string[] | undefined,
): readonly string[] | undefined {
  if (ofKey === undefined) return ofOwner;
  if (ofOwner === undefined) return ofKey;
  return ofKey.filter((database) => ofOwner.includes(database));
}

/** @throws SqlError insufficient_privilege when there is a list and the database is not on it */
export function requireDatabase(databases: readonly string[] | undefined, database: string): void {
  if (databases === undefined || databases.includes(database)) return;
  throw new SqlError(
    "insufficient_privilege",
    `DATABASE_NOT_AUTHORIZED: permission denied for database "${database}"`,
    { detail: "The credential is limited to other databases." },
  );
}
