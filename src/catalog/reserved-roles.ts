/**
 * Names of roles that an open client transaction is about to create. They exist in PostgreSQL as NOLOGIN roles without any
 * right, so that the client's own GRANT … TO them works at once; a row here names the upstream connection that holds them.
 */

import { escapeIdentifier } from "pg";
import { setRoleAside } from "./dropped-roles.ts";
import type { Queryable } from "./users.ts";

/** Who has reserved a name. */
export type Reservation = "mine" | "others" | "abandoned" | "none";

/** The upstream connection of the session whose transaction it is. */
export interface ReservingBackend {
  readonly processId: number;
}

/** A reservation counts as long as its backend lives: one that ended has rolled back. */
const isLive = `EXISTS (SELECT FROM pg_catalog.pg_stat_activity a
                         WHERE a.pid = r.backend_pid AND a.backend_start = r.backend_start)`;

/** Whether a name is reserved, and by whom. */
export async function findReservation(
  client: Queryable,
  name: string,
  backend: ReservingBackend | undefined,
): Promise<Reservation> {
  const found = await client.query<{ mine: boolean; live: boolean }>(
    `SELECT r.backend_pid = $2 AS mine, ${isLive} AS live FROM nodedb.reserved_role r WHERE r.name = $1`,
    [name, backend?.processId ?? null],
  );
  const row = found.rows[0];
  if (row === undefined) return "none";
  if (!row.live) return "abandoned";
  return row.mine === true ? "mine" : "others";
}

/**
 * Reserves a name: run in a transaction of its own, which is committed before the client goes on.
 * @returns false when somebody else was faster
 */
export async function reserveRole(
  client: Queryable,
  name: string,
  backend: ReservingBackend,
): Promise<boolean> {
  const done = await client.query(
    `INSERT INTO nodedb.reserved_role (name, backend_pid, backend_start)
       SELECT $1, a.pid, a.backend_start FROM pg_catalog.pg_stat_activity a WHERE a.pid = $2
       ON CONFLICT (name) DO NOTHING`,
    [name, backend.processId],
  );
  if (done.rowCount !== 1) return false;
  await client.query(`CREATE ROLE ${escapeIdentifier(name)} NOLOGIN`);
  return true;
}

/** Takes a name out of the reservations because its role is now somebody's; part of that somebody's transaction. */
export async function adoptReservedRole(client: Queryable, name: string): Promise<void> {
  await client.query("DELETE FROM nodedb.reserved_role WHERE name = $1", [name]);
}

/**
 * Gives up a name that a transaction has reserved and not used; part of a transaction that needs no lock of the role, which
 * somebody may have granted something meanwhile. A name that is somebody's by now is left alone.
 *
 * @param backend that has reserved it; undefined: one that is gone
 * @returns the oid of the role that was reserved: set aside, and to be dropped
 */
export async function releaseReservedRole(
  client: Queryable,
  name: string,
  backend: ReservingBackend | undefined,
): Promise<string | undefined> {
  const found = await client.query<{ oid: string | null; taken: boolean }>(
    `DELETE FROM nodedb.reserved_role r
      WHERE r.name = $1 AND CASE WHEN $2::pg_catalog.int4 IS NULL THEN NOT ${isLive} ELSE r.backend_pid = $2 END
     RETURNING (SELECT a.oid FROM pg_catalog.pg_roles a WHERE a.rolname = $1)::pg_catalog.text AS oid,
               EXISTS (SELECT FROM nodedb.principal p WHERE p.name = $1)
                 OR EXISTS (SELECT FROM nodedb.role c WHERE c.name = $1) AS taken`,
    [name, backend?.processId ?? null],
  );
  const role = found.rows[0];
  if (role === undefined || role.taken || role.oid === null) return undefined;
  await setRoleAside(client, { name, oid: role.oid }, undefined);
  return role.oid;
}

/** Gives a role that was reserved under another name the one that it is for; part of the transaction that creates it. */
export async function renameReservedRole(client: Queryable, from: string, to: string): Promise<void> {
  await adoptReservedRole(client, from);
  await client.query(`ALTER ROLE ${escapeIdentifier(from)} RENAME TO ${escapeIdentifier(to)}`);
}

/** Names whose backend has gone: left behind by a crash. */
export async function findAbandonedRoles(client: Queryable): Promise<string[]> {
  const found = await client.query<{ name: string }>(
    `SELECT r.name FROM nodedb.reserved_role r WHERE NOT ${isLive}`,
  );
  return found.rows.map(({ name }) => name);
}
