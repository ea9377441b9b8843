/** The catalog: schema nodedb in PostgreSQL, with its cache, its writer's transaction and its record of last uses. */

import type { Client, Pool, PoolClient } from "pg";
import { SqlError } from "../errors/sql-error.ts";
import type { Log } from "../observe/log.ts";
import { PrincipalCache } from "./cache.ts";
import { ChangeListener } from "./change-listener.ts";
import { catalogChannel, migrate } from "./migrations.ts";
import { MomentRecorder } from "./moment-recorder.ts";
import type { Queryable } from "./users.ts";
import { WriteQueue } from "./write-queue.ts";

export interface CatalogOptions {
  /** From `createAdminPool`, on the catalog's database; stays the caller's to end. */
  readonly pool: Pool;
  /** Opens the dedicated connection that listens for changes (`connectAdmin`). */
  readonly connectListener: () => Promise<Client>;
  /** Hash of a derivate of the master secret; the catalog remembers it. 32 bytes. */
  readonly masterSecretFingerprint: Buffer;
  readonly log: Log;
  readonly pollIntervalMs?: number;
  readonly reloadSpacingMs?: number;
  readonly loginFlushDelayMs?: number;
}

export interface Catalog {
  readonly pool: Pool;
  readonly cache: PrincipalCache;
  /** Tells what is kept beside the cache when to look again. */
  readonly changes: ChangeListener;
  /** The front-end's own login role, which owns the schema; no statement of a client may touch it. */
  readonly adminRole: string;
  /** Notes a login for last_login_at; costs the login nothing. */
  recordLogin(principalId: number): void;
  /** Notes the use of an API key for last_used_at. */
  recordKeyUse(keyId: string): void;
  /** Writes the noted logins and uses of keys now. */
  flushLogins(): Promise<void>;
  /** Runs work in a read-only transaction. */
  read<T>(work: (client: PoolClient) => Promise<T>): Promise<T>;
  /**
   * Runs work in a transaction under the catalog's lock, so that writers follow one another, and tells the other
   * processes. Own cache entries are the caller's to reload, with the ids that it touched.
   */
  write<T>(work: (client: PoolClient) => Promise<T>): Promise<T>;
  /** As `write`, and then undoes it: to know what statements would do. */
  rehearse<T>(work: (client: PoolClient) => Promise<T>): Promise<T>;
  /**
   * As `write`, but stays open when the work is done, until it is committed or rolled back: exactly one of the two, and
   * soon, because other writers wait.
   */
  writeAndHold<T>(work: (client: PoolClient) => Promise<T>): Promise<HeldWrite<T>>;
  /** Writes what is pending and stops listening; the pool stays open. */
  close(): Promise<void>;
}

/** A write that has been done and is neither committed nor undone. */
export interface HeldWrite<T> {
  readonly result: T;
  /** The connection that it is open on. */
  readonly client: Queryable;
  commit(): Promise<void>;
  /** Never rejects: a connection that breaks has rolled back as well. */
  rollback(): Promise<void>;
}

/**
 * Opens the catalog, creating or migrating its schema.
 *
 * @throws SqlError object_not_in_prerequisite_state when the schema is newer than the program, is not ours,
 * or belongs to another master secret.
 */
export async function openCatalog(options: CatalogOptions): Promise<Catalog> {
  const { pool, log } = options;
  const adminRole = await withClient(pool, async (client) => {
    await migrate(client);
    await claimInstance(client, options.masterSecretFingerprint);
    const result = await client.query<{ role: string }>("SELECT current_user::text AS role");
    return result.rows[0]?.role ?? "";
  });
  const changes = new ChangeListener({ connect: options.connectListener, log });
  const cache = new PrincipalCache({
    pool,
    changes,
    pollIntervalMs: options.pollIntervalMs ?? 30_000,
    reloadSpacingMs: options.reloadSpacingMs ?? 100,
  });
  try {
    await changes.open();
    await cache.open();
  } catch (error) {
    await changes.close();
    throw error;
  }
  const flushDelayMs = options.loginFlushDelayMs ?? 5_000;
  const logins = new MomentRecorder<number>(pool, log, "principal.last_login_at", flushDelayMs);
  const keyUses = new MomentRecorder<string>(pool, log, "api_key.last_used_at", flushDelayMs);
  const flushLogins = async () => {
    await logins.flush();
    await keyUses.flush();
  };
  const queue = new WriteQueue();
  const inTurn = async <T>(work: () => Promise<T>): Promise<T> => {
    const leave = await queue.enter();
    try {
      return await work();
    } finally {
      leave();
    }
  };
  return {
    pool,
    cache,
    changes,
    adminRole,
    recordLogin: (principalId) => logins.record(principalId, new Date()),
    recordKeyUse: (keyId) => keyUses.record(keyId, new Date()),
    flushLogins,
    read: (work) => withClient(pool, (client) => transaction(client, "BEGIN READ ONLY", () => work(client))),
    write: (work) =>
      inTurn(() =>
        withClient(pool, (client) => transaction(client, "BEGIN", () => writeUnderLock(client, work))),
      ),
    rehearse: (work) =>
      inTurn(() =>
        withClient(pool, async (client) => {
          await client.query("BEGIN");
          try {
            return await writeUnderLock(client, work);
          } finally {
            await client.query("ROLLBACK");
          }
        }),
      ),
    writeAndHold: async (work) => {
      const leave = await queue.enter();
      try {
        return await holdWrite(pool, work, leave);
      } catch (error) {
        leave();
        throw error;
      }
    },
    close: async () => {
      await Promise.all([logins.drain(), keyUses.drain()]).catch((error: unknown) =>
        log.warn({ err: error }, "cannot record the last logins"),
      );
      await changes.close();
      await cache.close();
    },
  };
}

async function writeUnderLock<T>(client: PoolClient, work: (client: PoolClient) => Promise<T>): Promise<T> {
  // A client's open transaction may hold what this needs, and the client may be waiting for this: PostgreSQL cannot know.
  await client.query("SET LOCAL lock_timeout = '3s'");
  // A row that only we can reach: an advisory lock could be held by any client.
  await client.query("SELECT FROM nodedb.instance FOR UPDATE");
  const result = await work(client);
  await client.query("UPDATE nodedb.instance SET catalog_version = catalog_version + 1");
  await client.query(`NOTIFY ${catalogChannel}`);
  return result;
}

async function holdWrite<T>(
  pool: Pool,
  work: (client: PoolClient) => Promise<T>,
  onEnd: () => void,
): Promise<HeldWrite<T>> {
  const client = await pool.connect();
  const ignore = () => undefined;
  client.on("error", ignore);
  const end = async (command: "COMMIT" | "ROLLBACK"): Promise<void> => {
    let failure: Error | undefined;
    try {
      await client.query(command);
    } catch (error) {
      failure = error instanceof Error ? error : new Error(String(error));
      if (command === "COMMIT") throw error;
    } finally {
      client.off("error", ignore);
      client.release(failure);
      onEnd();
    }
  };
  try {
    await client.query("BEGIN");
    const result = await writeUnderLock(client, work);
    return { result, client, commit: () => end("COMMIT"), rollback: () => end("ROLLBACK") };
  } catch (error) {
    await end("ROLLBACK");
    throw error;
  }
}

/** Remembers the master secret's fingerprint at the first start, and compares it at each later one. */
async function claimInstance(client: PoolClient, fingerprint: Buffer): Promise<void> {
  await client.query(
    "INSERT INTO nodedb.instance (master_secret_fingerprint) VALUES ($1) ON CONFLICT (only_row) DO NOTHING",
    [fingerprint],
  );
  const found = await client.query<{ master_secret_fingerprint: Buffer }>(
    "SELECT master_secret_fingerprint FROM nodedb.instance",
  );
  if (found.rows[0]?.master_secret_fingerprint.equals(fingerprint) === true) return;
  throw new SqlError("object_not_in_prerequisite_state", "this catalog belongs to another master secret", {
    hint: "Start with the data directory whose secret wrote this catalog, or name another database.",
  });
}

async function withClient<T>(pool: Pool, work: (client: PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  // While it is checked out the pool does not listen for its errors; the query that it breaks rejects anyway.
  const ignore = () => undefined;
  client.on("error", ignore);
  let failure: Error | undefined;
  try {
    return await work(client);
  } catch (error) {
    if (!(error instanceof SqlError)) failure = error instanceof Error ? error : new Error(String(error));
    throw error;
  } finally {
    client.off("error", ignore);
    // After an error that is not ours the connection's state is unknown: closed, not reused.
    client.release(failure);
  }
}

async function transaction<T>(client: PoolClient, begin: string, work: () => Promise<T>): Promise<T> {
  await client.query(begin);
  let result: T;
  try {
    result = await work();
  } catch (error) {
    await client.query("ROLLBACK").catch(() => undefined);
    throw error;
  }
  await client.query("COMMIT");
  return result;
}
