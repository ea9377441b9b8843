/** Collects the moments of logins and writes them in batches, off the login path. */

import type { Pool } from "pg";
import type { Log } from "../observe/log.ts";

export class LoginRecorder {
  readonly #pool: Pool;
  readonly #log: Log;
  readonly #flushDelayMs: number;
  #pending = new Map<number, Date>();
  #timer: NodeJS.Timeout | undefined;
  #lastFlush: Promise<void> = Promise.resolve();

  constructor(pool: Pool, log: Log, flushDelayMs: number) {
    this.#pool = pool;
    this.#log = log;
    this.#flushDelayMs = flushDelayMs;
  }

  record(principalId: number, at: Date): void {
    this.#pending.set(principalId, at);
    this.#timer ??= setTimeout(() => {
      this.flush().catch((error: unknown) => this.#log.debug({ err: error }, "cannot record logins yet"));
    }, this.#flushDelayMs).unref();
  }

  /** Writes what was collected; keeps it for the next time when that fails. */
  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const mine = this.#lastFlush.catch(() => undefined).then(() => this.#write());
    this.#lastFlush = mine;
    return mine;
  }

  async #write(): Promise<void> {
    if (this.#pending.size === 0) return;
    const batch = this.#pending;
    this.#pending = new Map();
    try {
      // (With several arguments `unnest` is syntax, which PostgreSQL itself qualifies.)
      // One statement under the lock of the auth statements: rows locked in another order would deadlock with them.
      await this.#pool.query(
        `WITH lock AS MATERIALIZED (SELECT FROM nodedb.instance FOR UPDATE)
         UPDATE nodedb.principal p SET last_login_at = greatest(p.last_login_at, l.at)
           FROM lock, unnest($1::pg_catalog.int8[], $2::pg_catalog.timestamptz[]) AS l (id, at)
          WHERE p.id = l.id`,
        [[...batch.keys()].map(String), [...batch.values()].map((at) => at.toISOString())],
      );
    } catch (error) {
      for (const [id, at] of batch) if (!this.#pending.has(id)) this.#pending.set(id, at);
      throw error;
    }
  }
}
