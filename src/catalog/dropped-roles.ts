/**
 * PostgreSQL roles that a client's transaction has dropped: set aside with it, under another name and without rights, because
 * what was granted to them in other databases can only be taken away there, in transactions of those databases.
 */

import { escapeIdentifier } from "pg";
import type { Queryable } from "./users.ts";

/** A role that is on its way out. */
export interface PendingDrop {
  readonly oid: string;
  /** As PostgreSQL has it now; undefined when somebody has dropped it. */
  readonly name: string | undefined;
  readonly formerName: string;
  /** Name of the role that gets what it owns; undefined: nobody. */
  readonly newOwner: string | undefined;
}

/**
 * Renames a role out of the way and notes that it is to be dropped; a part of the caller's transaction. It may own objects and
 * hold grants.
 *
 * @param newOwner name of the role that gets what it owns
 */
export async function setRoleAside(
  client: Queryable,
  role: { readonly name: string; readonly oid: string },
  newOwner: string | undefined,
): Promise<void> {
  await client.query(
    `INSERT INTO nodedb.dropped_role (role_oid, former_name, new_owner_oid)
     VALUES ($1, $2, (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = $3))`,
    [role.oid, role.name, newOwner ?? null],
  );
  await client.query(
    `ALTER ROLE ${escapeIdentifier(role.name)} RENAME TO ${escapeIdentifier(nameAside(role.oid))}`,
  );
}

/** The name that a role has while it is set aside; nobody else's, because users' names do not begin so. */
export function nameAside(oid: string): string {
  return `nodedb_dropped_${oid}`;
}

/** Oids of the roles that are set aside, in the order in which they were dropped. */
export async function listPendingDrops(client: Queryable): Promise<string[]> {
  const result = await client.query<{ oid: string }>(
    "SELECT d.role_oid::pg_catalog.text AS oid FROM nodedb.dropped_role d ORDER BY d.id",
  );
  return result.rows.map(({ oid }) => oid);
}

/**
 * Takes up a role that is set aside, for the rest of the transaction.
 *
 * @returns undefined when it is gone, somebody else has it in hand, or it is still to get what another dropped role owns
 */
export async function claimPendingDrop(client: Queryable, oid: string): Promise<PendingDrop | undefined> {
  const result = await client.query<{ name: string | null; former_name: string; new_owner: string | null }>(
    `SELECT r.rolname::pg_catalog.text AS name, d.former_name, o.rolname::pg_catalog.text AS new_owner
       FROM nodedb.dropped_role d
       LEFT JOIN pg_catalog.pg_roles r ON r.oid = d.role_oid
       LEFT JOIN pg_catalog.pg_roles o ON o.oid = d.new_owner_oid
      WHERE d.role_oid = $1 AND NOT EXISTS (SELECT FROM nodedb.dropped_role b WHERE b.new_owner_oid = d.role_oid)
        FOR UPDATE OF d SKIP LOCKED`,
    [oid],
  );
  const row = result.rows[0];
  if (row === undefined) return undefined;
  return {
    oid,
    name: row.name ?? undefined,
    formerName: row.former_name,
    newOwner: row.new_owner ?? undefined,
  };
}

/** The role is gone; a part of the transaction that has dropped it. */
export async function forgetPendingDrop(client: Queryable, oid: string): Promise<void> {
  await client.query("DELETE FROM nodedb.dropped_role WHERE role_oid = $1", [oid]);
}
