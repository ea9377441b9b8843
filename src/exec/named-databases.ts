/** Lists of databases in statements: that they exist, and that a principal may use them. */

import type { PrincipalRecord, Queryable } from "../catalog/users.ts";
import type { Name } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { denied } from "./authorize.ts";

/**
 * Checks that the databases exist.
 *
 * @returns their names, each once, in the order given
 * @throws SqlError syntax_error for an empty list, invalid_catalog_name for an unknown database
 */
export async function resolveDatabases(client: Queryable, names: readonly Name[]): Promise<string[]> {
  if (names.length === 0) throw new SqlError("syntax_error", "the list of databases must not be empty");
  const result = await client.query<{ name: string }>(
    `SELECT datname::pg_catalog.text AS name FROM pg_catalog.pg_database
      WHERE datallowconn AND datname = ANY ($1::pg_catalog.text[])`,
    [names.map((name) => name.text)],
  );
  const known = new Set(result.rows.map((row) => row.name));
  for (const { text, position } of names) {
    if (known.has(text)) continue;
    throw new SqlError("invalid_catalog_name", `database "${text}" does not exist`, { position });
  }
  return [...new Set(names.map((name) => name.text))];
}

/**
 * Refuses what would be wider than the owner: for a service account its list, for a user what PostgreSQL lets it into.
 *
 * @throws SqlError insufficient_privilege
 */
export async function requireWithinOwner(
  client: Queryable,
  owner: PrincipalRecord,
  databases: readonly string[],
): Promise<void> {
  const allowed = new Set(owner.databases ?? (await connectable(client, owner.name, databases)));
  const outside = databases.find((database) => !allowed.has(database));
  if (outside === undefined) return;
  throw denied(`database "${outside}" is wider than the databases of "${owner.name}"`);
}

/** Which of these databases PostgreSQL lets a role into. */
async function connectable(
  client: Queryable,
  role: string,
  databases: readonly string[],
): Promise<readonly string[]> {
  const result = await client.query<{ name: string }>(
    `SELECT d.datname::pg_catalog.text AS name FROM pg_catalog.pg_roles r CROSS JOIN pg_catalog.pg_database d
      WHERE r.rolname = $1 AND d.datname = ANY ($2::pg_catalog.text[])
        AND pg_catalog.has_database_privilege(r.oid, d.oid, 'CONNECT')`,
    [role, [...databases]],
  );
  return result.rows.map((row) => row.name);
}
