/**
 * Failed logins per name, and which names are locked for them. Decisions ask memory only; the catalog makes them survive a
 * restart and hold on every front-end, and is written in batches.
 */

import type { Pool } from "pg";
import type { Log } from "../observe/log.ts";
import type { ChangeListener } from "./change-listener.ts";
import { FlushSchedule } from "./flush-schedule.ts";
import type { Queryable } from "./users.ts";

/** Channel on which front-ends learn that a name was locked or freed. */
export const lockoutChannel = "nodedb_lockout";

/** Read at each failed login. */
export interface LockoutLimits {
  /** Failures that lock a name; 0 is never. */
  readonly maxFailures: number;
  /** How long it stays locked, and after how long failures are forgotten. */
  readonly durationMs: number;
}

export interface LockoutOptions {
  readonly pool: Pool;
  readonly changes: ChangeListener;
  readonly limits: LockoutLimits;
  readonly log: Log;
  /** Called once, by the front-end whose failure did it. */
  readonly onLocked: (name: string) => void;
  readonly flushDelayMs?: number;
  /** In milliseconds, from any fixed moment. */
  readonly clock?: () => number;
}

interface Count {
  /** As the catalog last had it. */
  failures: number;
  /** Of this process, not yet in the catalog. */
  pending: number;
  lastFailedAtMs: number;
  /** By the clock; undefined: not locked. */
  lockedUntilMs: number | undefined;
}

const defaultFlushDelayMs = 100;
const pollIntervalMs = 500;
/** Names in memory and rows in the catalog: anybody may fail to log in under any name. */
const maxNames = 10_000;
/** PostgreSQL has no longer ones, so no such name can ever succeed. */
const maxNameBytes = 63;
/** Each look at the catalog goes back this far, for transactions that were slow to commit. */
const overlap = "10 seconds";

export class Lockout {
  readonly #options: LockoutOptions;
  readonly #clock: () => number;
  readonly #counts = new Map<string, Count>();
  /** Names whose failures are to be forgotten, with the moment of the login that succeeded, by the clock. */
  readonly #cleared = new Map<string, number>();
  readonly #schedule = new FlushSchedule(
    () => this.#write(),
    (error) => {
      this.#options.log.debug({ err: error }, "cannot record failed logins yet");
      this.#flushLater();
    },
  );
  #isComplete = false;
  #flushes = 0;

  constructor(options: LockoutOptions) {
    this.#options = options;
    this.#clock = options.clock ?? (() => performance.now());
  }

  /** Reads what there is and begins to follow it. */
  async open(): Promise<void> {
    await this.#options.changes.subscribe({
      channel: lockoutChannel,
      spacingMs: 50,
      pollIntervalMs,
      check: () => this.#read(),
    });
  }

  isLocked(name: string): boolean {
    const count = this.#counts.get(name);
    return count?.lockedUntilMs !== undefined && count.lockedUntilMs > this.#clock();
  }

  /** Counts a failed login; those of a locked name change nothing, so that it does get free. */
  recordFailure(name: string): void {
    const { maxFailures, durationMs } = this.#options.limits;
    if (maxFailures === 0 || Buffer.byteLength(name) > maxNameBytes || name.includes("\0")) return;
    if (this.isLocked(name)) return;
    const now = this.#clock();
    const before = this.#counts.get(name);
    const isForgotten =
      before === undefined || before.lockedUntilMs !== undefined || before.lastFailedAtMs + durationMs <= now;
    // Changed in place: a flush that is under way takes what it has written off the same object.
    const count = isForgotten
      ? { failures: 0, pending: 0, lastFailedAtMs: now, lockedUntilMs: undefined as number | undefined }
      : before;
    count.pending += 1;
    count.lastFailedAtMs = now;
    // At once, and not when the catalog knows: the next attempt may come before.
    if (count.failures + count.pending >= maxFailures) count.lockedUntilMs = now + durationMs;
    this.#remember(name, count);
    this.#flushLater();
  }

  /** A login succeeded: the failures before it are forgotten. */
  recordSuccess(name: string): void {
    if (!this.#counts.delete(name)) return;
    this.#cleared.set(name, this.#clock());
    this.#flushLater();
  }

  /** Frees a name, as a part of the client's transaction: an administrator's wish. */
  static async clear(client: Queryable, name: string): Promise<void> {
    const result = await client.query(
      `UPDATE nodedb.login_failure SET failures = 0, locked_until = NULL, changed_at = pg_catalog.clock_timestamp()
        WHERE name = $1`,
      [name],
    );
    if (result.rowCount !== 0) await client.query(`NOTIFY ${lockoutChannel}`);
  }

  /** Writes what was counted. @throws when it cannot; it is kept for the next time */
  flush(): Promise<void> {
    return this.#schedule.now();
  }

  async close(): Promise<void> {
    await this.flush().catch((error: unknown) =>
      this.#options.log.warn({ err: error }, "cannot record failed logins"),
    );
  }

  #flushLater(): void {
    this.#schedule.later(this.#options.flushDelayMs ?? defaultFlushDelayMs);
  }

  /** The newest at the end; over the limit the oldest that is not locked goes, and the oldest of all only when none is. */
  #remember(name: string, count: Count): void {
    this.#counts.delete(name);
    this.#counts.set(name, count);
    if (this.#counts.size <= maxNames) return;
    let looked = 0;
    for (const candidate of this.#counts.keys()) {
      looked += 1;
      if (!this.isLocked(candidate) || looked > 1_000) {
        this.#counts.delete(candidate);
        return;
      }
    }
  }

  async #write(): Promise<void> {
    const cleared = [...this.#cleared];
    const batch = [...this.#counts]
      .filter(([, count]) => count.pending > 0)
      .map(([name, count]) => ({ name, count, pending: count.pending }));
    if (cleared.length > 0) {
      const now = this.#clock();
      await this.#options.pool.query(forgetFailures, [
        cleared.map(([name]) => name),
        cleared.map(([, succeededAtMs]) => now - succeededAtMs),
      ]);
      for (const [name, succeededAtMs] of cleared) {
        // Not one that came while this was being written.
        if (this.#cleared.get(name) === succeededAtMs) this.#cleared.delete(name);
      }
    }
    if (batch.length > 0) {
      const now = this.#clock();
      const result = await this.#options.pool.query<StoredCount & { is_new_lock: boolean }>(addFailures, [
        batch.map(({ name }) => name),
        batch.map(({ pending }) => pending),
        batch.map(({ count }) => now - count.lastFailedAtMs),
        this.#options.limits.maxFailures,
        this.#options.limits.durationMs,
      ]);
      for (const { count, pending } of batch) count.pending -= pending;
      for (const row of result.rows) this.#take(row);
      const locked = result.rows.filter((row) => row.is_new_lock).map((row) => row.name);
      for (const name of locked) this.#options.onLocked(name);
    }
    if (cleared.length + batch.length > 0) await this.#options.pool.query(`NOTIFY ${lockoutChannel}`);
    this.#flushes += 1;
    if (this.#flushes % 100 === 1) await this.#prune();
  }

  async #read(): Promise<void> {
    const wasComplete = this.#isComplete;
    this.#isComplete = false;
    const condition = wasComplete
      ? `changed_at > pg_catalog.clock_timestamp() - '${overlap}'::pg_catalog.interval`
      : "true";
    const result = await this.#options.pool.query<StoredCount>(
      `SELECT ${storedColumns} FROM nodedb.login_failure WHERE ${condition}
        ORDER BY changed_at DESC LIMIT ${maxNames}`,
    );
    for (const row of result.rows.toReversed()) this.#take(row);
    this.#isComplete = true;
  }

  #take(row: StoredCount): void {
    if (this.#cleared.has(row.name)) return;
    const now = this.#clock();
    const mine = this.#counts.get(row.name);
    const count = mine ?? { failures: 0, pending: 0, lastFailedAtMs: now, lockedUntilMs: undefined };
    count.failures = row.failures;
    count.lastFailedAtMs = now - row.failed_ago_ms;
    // What this process has locked and not yet written stays locked.
    if (row.locked_for_ms !== null) count.lockedUntilMs = now + row.locked_for_ms;
    else if (count.pending === 0) count.lockedUntilMs = undefined;
    if (count.failures + count.pending === 0) this.#counts.delete(row.name);
    else this.#remember(row.name, count);
  }

  async #prune(): Promise<void> {
    await this.#options.pool.query(
      `DELETE FROM nodedb.login_failure
        WHERE (last_failed_at < pg_catalog.now() - $1 * '1 millisecond'::pg_catalog.interval
               AND changed_at < pg_catalog.now() - '1 minute'::pg_catalog.interval
               AND coalesce(locked_until, '-infinity') < pg_catalog.now())
           OR name IN (SELECT f.name FROM nodedb.login_failure f
                        ORDER BY (f.locked_until IS NOT NULL) DESC, f.changed_at DESC OFFSET ${maxNames})`,
      [this.#options.limits.durationMs],
    );
  }
}

interface StoredCount {
  readonly name: string;
  readonly failures: number;
  readonly failed_ago_ms: number;
  /** null: not locked; negative: it was. */
  readonly locked_for_ms: number | null;
}

// Spans and not moments, because the clocks of PostgreSQL and of this machine may differ.
const storedColumns = `name, failures,
  (EXTRACT(epoch FROM pg_catalog.now() - last_failed_at) * 1000)::pg_catalog.float8 AS failed_ago_ms,
  (EXTRACT(epoch FROM locked_until - pg_catalog.now()) * 1000)::pg_catalog.float8 AS locked_for_ms`;

/**
 * A lock that the process had not heard of when it let the login in holds all the same, and so do failures after it: it is
 * written later than it was, and other front-ends may have written theirs before.
 */
const forgetFailures = `
  WITH forgotten AS MATERIALIZED (
    SELECT f.name FROM nodedb.login_failure f
      JOIN unnest($1::pg_catalog.text[], $2::pg_catalog.float8[]) AS s (name, ago_ms) ON s.name = f.name
     WHERE coalesce(f.locked_until <= pg_catalog.now(), true)
       AND f.last_failed_at <= pg_catalog.now() - s.ago_ms * '1 millisecond'::pg_catalog.interval
     ORDER BY f.name COLLATE "C" FOR UPDATE OF f)
  UPDATE nodedb.login_failure f
     SET failures = 0, locked_until = NULL, changed_at = pg_catalog.clock_timestamp()
    FROM forgotten WHERE f.name = forgotten.name`;

const lockSpan = "($5 * '1 millisecond'::pg_catalog.interval)";

/** Adds failures to the counts; failures of a locked name are dropped, and a lock or a count that is over begins anew. */
const addFailures = `
  INSERT INTO nodedb.login_failure AS f (name, failures, last_failed_at, locked_until, changed_at)
  SELECT n.name, n.failures, pg_catalog.now() - n.ago_ms * '1 millisecond'::pg_catalog.interval,
         CASE WHEN n.failures >= $4::pg_catalog.int4 THEN pg_catalog.now() + ${lockSpan} END,
         pg_catalog.clock_timestamp()
    FROM unnest($1::pg_catalog.text[], $2::pg_catalog.int4[], $3::pg_catalog.float8[]) AS n (name, failures, ago_ms)
   ORDER BY n.name COLLATE "C" -- in one order on every front-end, so that no two wait for each other
  ON CONFLICT (name) DO UPDATE SET (failures, last_failed_at, locked_until, changed_at) = (
    SELECT CASE WHEN s.is_locked THEN f.failures ELSE s.total END,
           CASE WHEN s.is_locked THEN f.last_failed_at ELSE greatest(f.last_failed_at, EXCLUDED.last_failed_at) END,
           CASE WHEN s.is_locked THEN f.locked_until
                WHEN s.total >= $4::pg_catalog.int4 THEN pg_catalog.now() + ${lockSpan} END,
           pg_catalog.clock_timestamp()
      FROM (SELECT coalesce(f.locked_until > pg_catalog.now(), false) AS is_locked,
                   EXCLUDED.failures
                   + CASE WHEN f.locked_until IS NOT NULL
                            OR f.last_failed_at <= pg_catalog.now() - ${lockSpan} THEN 0
                          ELSE f.failures END AS total) s)
  RETURNING ${storedColumns},
            coalesce(f.locked_until = pg_catalog.now() + ${lockSpan}, false) AS is_new_lock`;
