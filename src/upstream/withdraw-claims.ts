/** Makes the envelopes worthless that a connection has had: its claims have changed, and its client may have kept one. */

import { type ClientBase, escapeIdentifier } from "pg";
import { claimsOwner } from "./built-in-groups.ts";
import { withdrawnClaimsTable } from "./claims-functions.ts";

export interface ClaimsWithdrawal {
  readonly processId: number;
  /** inet_client_port(); null on a unix socket. */
  readonly clientPort: number | null;
  /** What was sealed until then, in milliseconds since 1970. */
  readonly untilMs: number;
  /** How long envelopes are good, in ms; what is older than twice that needs no entry. */
  readonly lifetimeMs: number;
}

/**
 * Holds from the next statement of the connection on, or the next transaction in REPEATABLE READ.
 *
 * @param client an administrative connection to the same database, outside of a transaction
 * @param schema `auth.schema` of the configuration
 */
export async function withdrawClaims(
  client: ClientBase,
  schema: string,
  { processId, clientPort, untilMs, lifetimeMs }: ClaimsWithdrawal,
): Promise<void> {
  const table = `${escapeIdentifier(schema)}.${withdrawnClaimsTable}`;
  await client.query("BEGIN");
  await client.query(`SET LOCAL ROLE ${escapeIdentifier(claimsOwner)}`);
  await client.query(`DELETE FROM ${table} WHERE until < $1`, [(untilMs - 2 * lifetimeMs) / 1000]);
  await client.query(
    `INSERT INTO ${table} AS w (pid, port, until) VALUES ($1, $2, $3)
     ON CONFLICT (pid, port) DO UPDATE SET until = GREATEST(w.until, excluded.until)`,
    [processId, clientPort ?? -1, untilMs / 1000],
  );
  await client.query("COMMIT");
}
