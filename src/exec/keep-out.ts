/**
 * Changes that keep a principal out, although its own sessions stand in their way: any role may alter itself, in a transaction
 * that it leaves open or again and again, and lock what it owns. Nobody is to stay by that.
 */

import { sqlstateOf } from "../catalog/connection.ts";
import type { CatalogTransactions } from "../catalog/transactions.ts";
import type { PrincipalRecord, Queryable } from "../catalog/users.ts";
import { SqlError } from "../errors/sql-error.ts";
import type { SessionDirectory } from "./sessions.ts";

export type KeptOut = Pick<PrincipalRecord, "id" | "name">;

const maxAttempts = 5;

/**
 * Runs a statement's transaction; when it fails because of what somebody else does at the same time, ends the server processes
 * of those whom it keeps out, and runs it again.
 *
 * @param run is given a function to call when the caller's rights have been checked, right before PostgreSQL's roles change
 */
export async function despiteSessions<T>(
  deps: { readonly catalog: Pick<CatalogTransactions, "read">; readonly sessions: SessionDirectory },
  run: (keepOut: (client: Queryable, users: readonly KeptOut[]) => Promise<void>) => Promise<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    let keptOut: readonly KeptOut[] = [];
    try {
      return await run(async (client, users) => {
        keptOut = users;
        // What has come since the last attempt.
        if (attempt > 1) await endBackendsOf(client, namesOf(users));
      });
    } catch (error) {
      if (attempt === maxAttempts || keptOut.length === 0 || !isInTheWay(error)) throw error;
      const names = namesOf(keptOut);
      const ended = await deps.catalog.read((client) => endBackendsOf(client, names));
      // Then it is somebody else's lock, which that one may have.
      if (ended === 0) throw error;
      for (const { id } of keptOut) deps.sessions.closeSessionsOf(id, sessionClosed());
    }
  }
}

/**
 * Terminates the server processes of these roles that run something or have a transaction open, where the front-end's login
 * may do that.
 *
 * @returns how many there were
 */
export async function endBackendsOf(client: Queryable, roles: readonly string[]): Promise<number> {
  const result = await client.query<{ ended: number }>(
    `SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(a.pid, 1000))::pg_catalog.int4 AS ended
       FROM pg_catalog.pg_stat_activity a
      WHERE a.usename = ANY ($1::pg_catalog.text[]) AND a.state IS DISTINCT FROM 'idle'
        AND (pg_catalog.pg_has_role(a.usesysid, 'USAGE') OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE'))`,
    [[...roles]],
  );
  return result.rows[0]?.ended ?? 0;
}

/** Whether an error of a change, raw or as it is worded for clients, says that others were at the same roles or objects. */
export function isInTheWay(error: unknown): boolean {
  const state = sqlstateOf(error instanceof SqlError ? error.cause : error);
  return state === "55P03" || (error instanceof SqlError && error.condition === "serialization_failure");
}

function namesOf(users: readonly KeptOut[]): string[] {
  return users.map(({ name }) => name);
}

export function sessionClosed(): SqlError {
  return new SqlError("admin_shutdown", "terminating connection due to administrator command", {
    severity: "FATAL",
  });
}
