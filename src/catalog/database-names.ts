/** Which databases the upstream has, remembered for moments: it is asked at logins. */

import type { Pool } from "pg";
import { catalogUnavailable, isConnectionError, loginQuery } from "./connection.ts";

/** How long an answer holds, in ms: a database may be created or dropped any moment. */
const memoryMs = 1_000;

export class DatabaseNames {
  readonly #pool: Pool;
  readonly #onReplaced: () => void;
  #oids = new Map<string, number>();
  #loadedAtMs = Number.NEGATIVE_INFINITY;
  #loading: Promise<void> | undefined;

  /** @param onReplaced called when a name has come to mean another database than before */
  constructor(pool: Pool, onReplaced: () => void) {
    this.#pool = pool;
    this.#onReplaced = onReplaced;
  }

  /** @throws SqlError cannot_connect_now when the upstream is not there */
  async exists(name: string): Promise<boolean> {
    if (performance.now() - this.#loadedAtMs > memoryMs) {
      // Logins that come together ask once.
      this.#loading ??= this.#load().finally(() => {
        this.#loading = undefined;
      });
      await this.#loading;
    }
    return this.#oids.has(name);
  }

  async #load(): Promise<void> {
    const result = await this.#pool
      .query<{ name: string; oid: number }>(
        loginQuery("SELECT datname::text AS name, oid FROM pg_catalog.pg_database"),
      )
      .catch((error: unknown) => {
        throw isConnectionError(error) ? catalogUnavailable(error) : error;
      });
    const before = this.#oids;
    this.#oids = new Map(result.rows.map(({ name, oid }) => [name, oid]));
    this.#loadedAtMs = performance.now();
    if ([...before].some(([name, oid]) => this.#oids.get(name) !== oid)) this.#onReplaced();
  }
}
