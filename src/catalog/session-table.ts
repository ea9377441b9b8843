/**
 * The sessions of all front-ends, in nodedb.session: each front-end keeps its own rows there, in batches and beside the sessions'
 * work, with a heartbeat by which others tell that it is alive. KILL SESSION leaves a mark in a session's row for the front-end
 * that has it.
 */

import type { Pool, PoolClient } from "pg";
import type { Log } from "../observe/log.ts";
import type { ChangeListener } from "./change-listener.ts";
import { loginQuery, sqlstateOf } from "./connection.ts";
import type { Queryable } from "./users.ts";

/** Channel on which front-ends learn that a session is to be killed. */
export const sessionChannel = "nodedb_session";

/** A front-end that was not heard of for so long is taken for dead, and its rows are nobody's. */
const heartbeatLimit = "10 seconds";
const tickMs = 500;
/** After a session has come or gone. */
const flushDelayMs = 100;
/** Rows whose state alone has moved are written every so many ticks. */
const ticksPerActivity = 4;
const ticksPerHeartbeat = 2;
const rowsPerStatement = 1_000;

export type SessionTableState = "active" | "idle" | "idle in transaction" | "waiting";

/** One session as others see it. */
export interface SessionRow {
  /** A UUID. */
  readonly id: string;
  readonly principalId: number;
  readonly username: string;
  readonly database: string;
  readonly tenantId: number;
  readonly authMethod: string;
  readonly clientAddress: string | undefined;
  readonly protocol: string;
  readonly state: SessionTableState;
  readonly connectedAtMs: number;
  readonly lastActiveAtMs: number;
  readonly expiresAtMs: number | undefined;
}

/** How many sessions there may be on all front-ends together; undefined is any number. */
export interface PlaceLimits {
  readonly ofPrincipal: number | undefined;
  readonly ofTenant: number | undefined;
}

/** The sessions of this process. */
export interface SessionSource {
  rows(): Iterable<SessionRow>;
  /** Ends a session now; one that killed itself may finish its statement. */
  kill(sessionId: string, killedBy: string): void;
}

export interface SessionTableOptions {
  readonly pool: Pool;
  readonly changes: ChangeListener;
  /** A UUID of this process. */
  readonly instanceId: string;
  readonly source: SessionSource;
  readonly log: Log;
}

type Written = Pick<SessionRow, "state" | "lastActiveAtMs">;

export class SessionTable {
  readonly #options: SessionTableOptions;
  #written = new Map<string, Written>();
  /** Whose rows are under way, or perhaps not: batches leave them alone. */
  readonly #takingPlace = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #ticker: NodeJS.Timeout | undefined;
  #lastFlush: Promise<void> = Promise.resolve();
  #tick = 0;
  #isClosed = false;

  constructor(options: SessionTableOptions) {
    this.#options = options;
  }

  async open(): Promise<void> {
    await this.#beat();
    await this.#options.changes.subscribe({
      channel: sessionChannel,
      spacingMs: 50,
      pollIntervalMs: tickMs,
      check: () => this.#obeyKills(),
    });
    this.#ticker = setInterval(() => this.#onTick(), tickMs).unref();
  }

  /** A session has come or gone. */
  touch(): void {
    if (this.#isClosed) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#flushQuietly("arrivals");
    }, flushDelayMs).unref();
  }

  /**
   * Writes the row of a session at once, unless too many are there of its principal or tenant. A front-end that has crashed
   * counts until it has been silent for as long as makes it dead.
   *
   * @returns whose sessions are too many; undefined when the session has its place
   * @throws when that cannot be told; the session must not begin then
   */
  async takePlace(row: SessionRow, limits: PlaceLimits): Promise<"principal" | "tenant" | undefined> {
    this.#takingPlace.add(row.id);
    let full: "principal" | "tenant" | null = null;
    try {
      full = await this.#askForPlace(row, limits).catch(async (error: unknown) => {
        if (sqlstateOf(error) !== foreignKeyViolation) throw error;
        // Others took this process for dead, or PostgreSQL has crashed.
        await this.#beat();
        await this.flush();
        return this.#askForPlace(row, limits);
      });
      return full ?? undefined;
    } finally {
      this.#takingPlace.delete(row.id);
      // After an error the row may be there: it goes with the session, which does not begin.
      if (full === null) this.#written.set(row.id, { state: row.state, lastActiveAtMs: row.lastActiveAtMs });
    }
  }

  /** Writes everything as it is now. */
  flush(): Promise<void> {
    return this.#flush("everything");
  }

  /**
   * Runs work in a transaction without the catalog's lock, on a connection that waits for no statement which holds it: a session
   * that holds others up must be easy to end.
   */
  async change<T>(work: (client: PoolClient) => Promise<T>): Promise<T> {
    const client = await this.#options.pool.connect();
    const ignore = () => undefined;
    client.on("error", ignore);
    let failure: Error | undefined;
    try {
      await client.query("BEGIN");
      const result = await work(client);
      await client.query("COMMIT");
      return result;
    } catch (error) {
      await client.query("ROLLBACK").catch((cause: Error) => {
        failure = cause;
      });
      throw error;
    } finally {
      client.off("error", ignore);
      client.release(failure);
    }
  }

  /** Takes this process out of the table. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#timer);
    clearInterval(this.#ticker);
    await this.#lastFlush.catch(() => undefined);
    await this.#options.pool
      .query("DELETE FROM nodedb.front_end WHERE id = $1", [this.#options.instanceId])
      .catch((error: unknown) =>
        this.#options.log.debug({ err: error }, "cannot take the sessions out of the table"),
      );
  }

  #onTick(): void {
    this.#tick += 1;
    if (this.#tick % ticksPerHeartbeat === 0) {
      this.#beat().catch((error: unknown) => this.#options.log.debug({ err: error }, "no heartbeat"));
    }
    this.#flushQuietly(this.#tick % ticksPerActivity === 0 ? "everything" : "arrivals");
  }

  #flushQuietly(what: "arrivals" | "everything"): void {
    this.#flush(what).catch((error: unknown) =>
      this.#options.log.debug({ err: error }, "cannot write the table of sessions yet"),
    );
  }

  #flush(what: "arrivals" | "everything"): Promise<void> {
    const mine = this.#lastFlush.catch(() => undefined).then(() => this.#write(what));
    this.#lastFlush = mine;
    return mine;
  }

  /** Says that this process lives, and removes those that no longer say so. */
  async #beat(): Promise<void> {
    const { pool, instanceId } = this.#options;
    const result = await pool.query<{ is_new: boolean }>(
      `INSERT INTO nodedb.front_end AS f (id, heartbeat_at) VALUES ($1, pg_catalog.clock_timestamp())
       ON CONFLICT (id) DO UPDATE SET heartbeat_at = EXCLUDED.heartbeat_at
       RETURNING xmax::text = '0' AS is_new`,
      [instanceId],
    );
    // A crash of PostgreSQL empties the table; so does another front-end, when this one was silent for too long.
    if (result.rows[0]?.is_new === true) this.#written = new Map();
    await pool.query(
      `DELETE FROM nodedb.front_end WHERE heartbeat_at < pg_catalog.clock_timestamp() - '${heartbeatLimit}'::pg_catalog.interval`,
    );
  }

  async #askForPlace(row: SessionRow, limits: PlaceLimits): Promise<"principal" | "tenant" | null> {
    const { pool, instanceId } = this.#options;
    const result = await pool.query<{ full: "principal" | "tenant" | null }>(
      loginQuery(takePlace, [
        row.id,
        instanceId,
        row.principalId,
        row.username,
        row.database,
        row.tenantId,
        row.authMethod,
        row.clientAddress ?? null,
        row.protocol,
        row.state,
        moment(row.connectedAtMs),
        moment(row.lastActiveAtMs),
        row.expiresAtMs === undefined ? null : moment(row.expiresAtMs),
        limits.ofPrincipal ?? null,
        limits.ofTenant ?? null,
        this.#ended(),
      ]),
    );
    return result.rows[0]?.full ?? null;
  }

  /** Sessions that are over and whose rows may still be there. */
  #ended(): readonly string[] {
    const ids = new Set([...this.#written.keys(), ...this.#takingPlace]);
    for (const { id } of this.#options.source.rows()) ids.delete(id);
    return [...ids];
  }

  async #write(what: "arrivals" | "everything"): Promise<void> {
    if (this.#isClosed) return;
    const rows: SessionRow[] = [];
    const gone = new Set(this.#written.keys());
    for (const row of this.#options.source.rows()) {
      gone.delete(row.id);
      if (this.#takingPlace.has(row.id)) continue;
      const before = this.#written.get(row.id);
      const isMoved = before?.state !== row.state || before.lastActiveAtMs !== row.lastActiveAtMs;
      if (before === undefined || (what === "everything" && isMoved)) rows.push(row);
    }
    const { pool, instanceId } = this.#options;
    if (gone.size > 0) {
      await pool.query(
        "DELETE FROM nodedb.session WHERE instance_id = $1 AND id = ANY ($2::pg_catalog.uuid[])",
        [instanceId, [...gone]],
      );
      for (const id of gone) this.#written.delete(id);
    }
    for (let start = 0; start < rows.length; start += rowsPerStatement) {
      const part = rows.slice(start, start + rowsPerStatement);
      await pool.query(upsertSessions, [
        instanceId,
        part.map((row) => row.id),
        part.map((row) => String(row.principalId)),
        part.map((row) => row.username),
        part.map((row) => row.database),
        part.map((row) => String(row.tenantId)),
        part.map((row) => row.authMethod),
        part.map((row) => row.clientAddress ?? null),
        part.map((row) => row.protocol),
        part.map((row) => row.state),
        part.map((row) => moment(row.connectedAtMs)),
        part.map((row) => moment(row.lastActiveAtMs)),
        part.map((row) => (row.expiresAtMs === undefined ? null : moment(row.expiresAtMs))),
      ]);
      for (const { id, state, lastActiveAtMs } of part) this.#written.set(id, { state, lastActiveAtMs });
    }
  }

  async #obeyKills(): Promise<void> {
    const { pool, instanceId, source } = this.#options;
    const result = await pool.query<{ id: string; killed_by: string }>(
      "SELECT id, killed_by FROM nodedb.session WHERE instance_id = $1 AND killed_by IS NOT NULL",
      [instanceId],
    );
    for (const { id, killed_by } of result.rows) source.kill(id, killed_by);
  }
}

/** Whose a session is that lives on some front-end. */
export interface FoundSession {
  readonly id: string;
  readonly principalId: number;
  readonly tenantId: number;
}

/** SQL: rows `s` of sessions whose front-end is alive. */
export const liveSessions = `nodedb.session s JOIN nodedb.front_end f
    ON f.id = s.instance_id
   AND f.heartbeat_at >= pg_catalog.clock_timestamp() - '${heartbeatLimit}'::pg_catalog.interval`;

/** Finds a live session by its id. @returns undefined also when the text is no id */
export async function findSession(client: Queryable, id: string): Promise<FoundSession | undefined> {
  const result = await client.query<{ id: string; principal_id: string; tenant_id: string }>(
    `SELECT s.id, s.principal_id, s.tenant_id FROM ${liveSessions} WHERE s.id::text = pg_catalog.lower($1)`,
    [id],
  );
  const row = result.rows[0];
  return row === undefined
    ? undefined
    : { id: row.id, principalId: Number(row.principal_id), tenantId: Number(row.tenant_id) };
}

/** Marks a session as killed, as a part of the client's transaction; its front-end learns of it at the commit. */
export async function markKilled(client: Queryable, id: string, killedBy: string): Promise<void> {
  await client.query("UPDATE nodedb.session SET killed_by = $2 WHERE id = $1", [id, killedBy]);
  await client.query(`NOTIFY ${sessionChannel}`);
}

const upsertSessions = `
  INSERT INTO nodedb.session (id, instance_id, principal_id, username, database, tenant_id, auth_method, client_addr,
                              protocol, state, connected_at, last_active_at, expires_at)
  SELECT r.id, $1, r.principal_id, r.username, r.database, r.tenant_id, r.auth_method, r.client_addr,
         r.protocol, r.state, r.connected_at, r.last_active_at, r.expires_at
    FROM unnest($2::pg_catalog.uuid[], $3::pg_catalog.int8[], $4::pg_catalog.text[], $5::pg_catalog.text[],
                $6::pg_catalog.int8[], $7::pg_catalog.text[], $8::pg_catalog.text[], $9::pg_catalog.text[],
                $10::pg_catalog.text[], $11::pg_catalog.timestamptz[], $12::pg_catalog.timestamptz[],
                $13::pg_catalog.timestamptz[])
         AS r (id, principal_id, username, database, tenant_id, auth_method, client_addr, protocol, state,
               connected_at, last_active_at, expires_at)
  ON CONFLICT (id) DO UPDATE SET state = EXCLUDED.state, last_active_at = EXCLUDED.last_active_at`;

const foreignKeyViolation = "23503";

const takePlace = `
  SELECT nodedb.take_place(ROW($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, NULL)::nodedb.session, $14, $15, $16,
                           '${heartbeatLimit}') AS full`;

/** As PostgreSQL reads it; years beyond 9999 are none that a session ends in. */
function moment(ms: number): string {
  return new Date(Math.max(0, Math.min(ms, 253_402_300_799_000))).toISOString();
}
