/** Lets go of idle pooled connections to a database that a statement wants to have to itself, where its user may have that. */

import type { Queryable } from "../catalog/users.ts";
import type { Log } from "../observe/log.ts";
import type { UpstreamPool } from "../upstream/pool.ts";

/** Roles that the user may take count as well: PostgreSQL is asked by whichever of them the session has set. */
const claimable = `
  SELECT d.datname::pg_catalog.text AS name
    FROM pg_catalog.pg_database d JOIN pg_catalog.pg_roles r ON r.rolname = $1
   WHERE d.datname = ANY ($2::pg_catalog.text[])
     AND (pg_catalog.pg_has_role(r.oid, d.datdba, 'MEMBER')
          OR d.datistemplate AND EXISTS (
            SELECT FROM pg_catalog.pg_roles c
             WHERE c.rolcreatedb AND pg_catalog.pg_has_role(r.oid, c.oid, 'MEMBER')))`;

export class DatabaseRelease {
  readonly #pool: Pick<UpstreamPool, "databasesAmong" | "freeDatabases">;
  readonly #catalog: Queryable;
  readonly #log: Log;
  /** Role → what else it has named since its question was sent; so a client has one question under way, however often it asks. */
  readonly #asking = new Map<string, Set<string>>();

  constructor(pool: Pick<UpstreamPool, "databasesAmong" | "freeDatabases">, catalog: Queryable, log: Log) {
    this.#pool = pool;
    this.#catalog = catalog;
    this.#log = log;
  }

  /**
   * Closes the pool's connections to those of the databases that this PostgreSQL role may drop, rename or copy. The statement
   * goes its way meanwhile: PostgreSQL waits some seconds for connections to end.
   */
  request(role: string, names: readonly string[]): void {
    const pooled = this.#pool.databasesAmong(names);
    if (pooled.length === 0) return;
    const waiting = this.#asking.get(role);
    if (waiting !== undefined) {
      for (const name of pooled) waiting.add(name);
      return;
    }
    this.#asking.set(role, new Set());
    void this.#release(role, pooled);
  }

  async #release(role: string, names: readonly string[]): Promise<void> {
    try {
      const { rows } = await this.#catalog.query<{ name: string }>(claimable, [role, names]);
      if (rows.length > 0) this.#pool.freeDatabases(rows.map(({ name }) => name));
    } catch (error) {
      this.#log.warn(
        { err: error, role },
        "cannot tell which databases a user may drop; connections to them stay",
      );
    }
    const further = this.#asking.get(role);
    this.#asking.delete(role);
    if (further !== undefined && further.size > 0) this.request(role, [...further]);
  }
}
