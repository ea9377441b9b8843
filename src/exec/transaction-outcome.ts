/** What has become of a client's transaction whose COMMIT got no answer: PostgreSQL knows (manual 9.27.7, pg_xact_status). */

import type { ReservingBackend } from "../catalog/reserved-roles.ts";
import type { Queryable } from "../catalog/users.ts";
import type { ClientConnection } from "./context.ts";

/** How long a transaction that nobody waits for any more may go on, in ms; then its backend is terminated. */
const patienceMs = 500;
const pollMs = 20;
/** After that the upstream is not what it should be. */
const maxWaitMs = 10_000;

/** The number of the client's transaction; one that has written nothing gets one now. */
export async function readTransactionId(connection: ClientConnection): Promise<string> {
  const [row] = await connection.ask("SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text");
  return row?.[0] ?? "";
}

/**
 * Waits for the end of a transaction, and sees to it.
 *
 * @returns "unknown" when it does not end within ten seconds
 */
export async function awaitOutcome(
  client: Queryable,
  backend: ReservingBackend,
  transactionId: string,
): Promise<"committed" | "aborted" | "unknown"> {
  const startedAt = performance.now();
  for (;;) {
    const found = await client.query<{ status: string | null }>(
      "SELECT pg_catalog.pg_xact_status($1::pg_catalog.text::pg_catalog.xid8) AS status",
      [transactionId],
    );
    const status = found.rows[0]?.status;
    if (status === "committed" || status === "aborted") return status;
    const waitedMs = performance.now() - startedAt;
    if (waitedMs > maxWaitMs) return "unknown";
    if (waitedMs > patienceMs) {
      await client.query(
        `SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a
          WHERE a.pid = $1 AND a.backend_xid = pg_catalog.xid($2::pg_catalog.text::pg_catalog.xid8)`,
        [backend.processId, transactionId],
      );
    }
    await new Promise((resume) => setTimeout(resume, pollMs));
  }
}
