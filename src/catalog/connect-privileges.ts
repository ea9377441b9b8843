/** CONNECT as PostgreSQL has it: it looks at it only when a connection is opened, and somebody has to for those that are open. */

import type { Pool } from "pg";

/** A role and a database that it is connected to. */
export interface ConnectedRole {
  readonly role: string;
  readonly database: string;
}

/** @returns those that would not be let in now: CONNECT was revoked, or the role or the database is gone */
export async function withoutConnect<T extends ConnectedRole>(
  pool: Pool,
  connected: readonly T[],
): Promise<readonly T[]> {
  if (connected.length === 0) return [];
  const result = await pool.query<{ place: number }>(
    `SELECT c.place::pg_catalog.int4 AS place
       FROM unnest($1::pg_catalog.text[], $2::pg_catalog.text[]) WITH ORDINALITY AS c (role, database, place)
       LEFT JOIN pg_catalog.pg_roles r ON r.rolname = c.role
       LEFT JOIN pg_catalog.pg_database d ON d.datname = c.database
      WHERE NOT coalesce(pg_catalog.has_database_privilege(r.oid, d.oid, 'CONNECT'), false)`,
    [connected.map(({ role }) => role), connected.map(({ database }) => database)],
  );
  const places = new Set(result.rows.map(({ place }) => place));
  return connected.filter((_, index) => places.has(index + 1));
}
