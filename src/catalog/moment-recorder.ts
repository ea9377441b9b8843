/** Collects when something was last used (a user's login, an API key) and writes it in batches, off the login path. */

import type { Pool } from "pg";
import type { Log } from "../observe/log.ts";
import { FlushSchedule } from "./flush-schedule.ts";

/** What the moments are of: the column that keeps them. */
export type MomentColumn = "principal.last_login_at" | "api_key.last_used_at";

/**
 * (With several arguments `unnest` is syntax, which PostgreSQL itself qualifies.)
 * One statement under the lock of the auth statements: rows locked in another order would deadlock with them. When the lock is
 * somebody's it writes nothing and says so: nobody waits for this.
 */
const updates: Readonly<Record<MomentColumn, string>> = {
  "principal.last_login_at": `
    WITH lock AS MATERIALIZED (SELECT FROM nodedb.instance FOR UPDATE SKIP LOCKED),
         written AS (
           UPDATE nodedb.principal p SET last_login_at = greatest(p.last_login_at, l.at)
             FROM lock, unnest($1::pg_catalog.int8[], $2::pg_catalog.timestamptz[]) AS l (id, at)
            WHERE p.id = l.id)
    SELECT EXISTS (SELECT FROM lock) AS is_done`,
  "api_key.last_used_at": `
    WITH lock AS MATERIALIZED (SELECT FROM nodedb.instance FOR UPDATE SKIP LOCKED),
         written AS (
           UPDATE nodedb.api_key k SET last_used_at = greatest(k.last_used_at, l.at)
             FROM lock, unnest($1::pg_catalog.text[], $2::pg_catalog.timestamptz[]) AS l (key_id, at)
            WHERE k.key_id = l.key_id)
    SELECT EXISTS (SELECT FROM lock) AS is_done`,
};

/** How long the last moments are tried to be written, in ms. */
const maxDrainMs = 3_000;
const drainPollMs = 20;

/** @typeParam Id a principal's id, or a key id */
export class MomentRecorder<Id extends number | string> {
  readonly #pool: Pool;
  readonly #log: Log;
  readonly #column: MomentColumn;
  readonly #flushDelayMs: number;
  #pending = new Map<Id, Date>();
  readonly #schedule = new FlushSchedule(
    () => this.#write(),
    (error) => this.#log.debug({ err: error }, "cannot record last uses yet"),
  );

  constructor(pool: Pool, log: Log, column: MomentColumn, flushDelayMs: number) {
    this.#pool = pool;
    this.#log = log;
    this.#column = column;
    this.#flushDelayMs = flushDelayMs;
  }

  record(id: Id, at: Date): void {
    this.#pending.set(id, at);
    this.#schedule.later(this.#flushDelayMs);
  }

  /** Writes all, for the last time; waits some seconds for whoever has the catalog. */
  async drain(): Promise<void> {
    const deadline = performance.now() + maxDrainMs;
    for (;;) {
      await this.flush();
      if (this.#pending.size === 0 || performance.now() > deadline) break;
      await new Promise((resume) => setTimeout(resume, drainPollMs));
    }
    this.#schedule.cancel();
  }

  /** Writes what was collected; keeps it for the next time when that fails, or would have to wait. */
  flush(): Promise<void> {
    return this.#schedule.now();
  }

  async #write(): Promise<void> {
    if (this.#pending.size === 0) return;
    const batch = this.#pending;
    this.#pending = new Map();
    let isDone = false;
    try {
      const result = await this.#pool.query<{ is_done: boolean }>(updates[this.#column], [
        [...batch.keys()].map(String),
        [...batch.values()].map((at) => at.toISOString()),
      ]);
      isDone = result.rows[0]?.is_done === true;
    } finally {
      if (!isDone) {
        for (const [id, at] of batch) if (!this.#pending.has(id)) this.#pending.set(id, at);
        this.#schedule.later(this.#flushDelayMs);
      }
    }
  }
}
