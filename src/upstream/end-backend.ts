/**
 * Ends the server process of a connection that is given up in the middle of a statement. A cancel alone does not: PL/pgSQL may
 * catch query_canceled and go on for ever, with its user's rights, in nobody's list of sessions and counted by no limit.
 */

import type { Log } from "../observe/log.ts";
import type { UpstreamConnection } from "./upstream-connection.ts";

/** The administrative login's questions about other processes. */
export interface BackendQueries {
  query<Row extends object>(sql: string, values: unknown[]): Promise<{ rows: Row[] }>;
}

export interface EndBackendOptions {
  /** Never rejects. */
  readonly cancel: (connection: UpstreamConnection) => Promise<void>;
  readonly admin: BackendQueries;
  readonly log: Log;
}

/** How long PostgreSQL may take to act on the cancel; then the process is terminated, which nothing can catch. In ms. */
const cancelGraceMs = 2_000;
/** How long it may take to act on that, in ms. */
const terminateGraceMs = 5_000;
const firstPollMs = 20;
const maxPollMs = 500;

/**
 * Cancels what the connection runs, and terminates its server process when that does not help. Call before the transport is
 * closed: until then the process id is certainly its own.
 *
 * @returns when the process is gone, or nothing more can be done about it; never rejects
 */
export async function endBackend(connection: UpstreamConnection, options: EndBackendOptions): Promise<void> {
  const { cancel, admin, log } = options;
  const { processId } = connection;
  try {
    const cancelled = cancel(connection);
    // A process id comes round again; together with its beginning it does not.
    const found = await admin.query<{ started: string | null }>(
      "SELECT backend_start::pg_catalog.text AS started FROM pg_catalog.pg_stat_activity WHERE pid = $1",
      [processId],
    );
    await cancelled;
    const backend = found.rows[0];
    if (backend === undefined) return;
    const which = [processId, backend.started];
    if (await isGoneWithin(admin, which, cancelGraceMs)) return;
    try {
      await admin.query(`SELECT pg_catalog.pg_terminate_backend(a.pid) ${theBackend}`, which);
    } catch (error) {
      log.warn(
        { err: error, processId },
        "cannot terminate a statement that goes on although it was cancelled",
      );
      return;
    }
    log.warn({ processId }, "terminated a statement that did not end when it was cancelled");
    if (await isGoneWithin(admin, which, terminateGraceMs)) return;
    log.warn({ processId }, "a server process has not ended although it was terminated");
  } catch (error) {
    log.warn({ err: error, processId }, "cannot tell whether a cancelled statement has ended upstream");
  }
}

const theBackend = `FROM pg_catalog.pg_stat_activity a
  WHERE a.pid = $1 AND a.backend_start IS NOT DISTINCT FROM $2::pg_catalog.timestamptz`;

async function isGoneWithin(
  admin: BackendQueries,
  which: readonly unknown[],
  timeoutMs: number,
): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  for (let pauseMs = firstPollMs; ; pauseMs = Math.min(2 * pauseMs, maxPollMs)) {
    await new Promise((resume) => setTimeout(resume, pauseMs));
    const found = await admin.query(`SELECT a.pid ${theBackend}`, [...which]);
    if (found.rows.length === 0) return true;
    if (performance.now() > deadline) return false;
  }
}
