/** Which databases the upstream has, remembered for moments: it is asked at logins. */

import type { Pool } from "pg";

/** How long an answer holds, in ms: a database may be created or dropped any moment. */
const memoryMs = 2_000;
const maxRemembered = 1_000;

export class DatabaseNames {
  readonly #pool: Pool;
  readonly #answers = new Map<string, { readonly exists: boolean; readonly untilMs: number }>();

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  async exists(name: string): Promise<boolean> {
    const known = this.#answers.get(name);
    if (known !== undefined && known.untilMs > Date.now()) return known.exists;
    const result = await this.#pool.query("SELECT FROM pg_catalog.pg_database WHERE datname = $1", [name]);
    if (this.#answers.size >= maxRemembered) this.#answers.clear();
    const exists = result.rowCount !== 0;
    this.#answers.set(name, { exists, untilMs: Date.now() + memoryMs });
    return exists;
  }
}
