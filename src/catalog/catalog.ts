/** The catalog: schema nodedb in PostgreSQL, with its cache, its writer's transaction and its record of last uses. */

import type { Client, Pool, PoolClient } from "pg";
import { SqlError } from "../errors/sql-error.ts";
import type { Log } from "../observe/log.ts";
import { PrincipalCache } from "./cache.ts";
import type { CancelBackend } from "./cancellation.ts";
import { ChangeListener } from "./change-listener.ts";
import { migrate } from "./migrations.ts";
import { MomentRecorder } from "./moment-recorder.ts";
import { type CatalogTransactions, openTransactions, withClient } from "./transactions.ts";
import { WriteQueue } from "./write-queue.ts";

export interface CatalogOptions {
  /** From `createAdminPool`, on the catalog's database; stays the caller's to end. */
  readonly pool: Pool;
  /** Opens the dedicated connection that listens for changes (`connectAdmin`). */
  readonly connectListener: () => Promise<Client>;
  /** Hash of a derivate of the master secret; the catalog remembers it. 32 bytes. */
  readonly masterSecretFingerprint: Buffer;
  readonly cancelBackend: CancelBackend;
  readonly log: Log;
  readonly pollIntervalMs?: number;
  readonly reloadSpacingMs?: number;
  readonly loginFlushDelayMs?: number;
}

export interface Catalog extends CatalogTransactions {
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
  /** The same, with transactions that end early with SqlError query_canceled when the signal is aborted. */
  cancelable(signal: AbortSignal): Catalog;
  /** Writes what is pending and stops listening; the pool stays open. */
  close(): Promise<void>;
}

/**
 * Opens the catalog, creating or migrating its schema.
 *
 * @throws SqlError object_not_in_prerequisite_state when the schema is newer than the program, is not ours,
 * or belongs to another master secret.
 */
export async function openCatalog(options: CatalogOptions): Promise<Catalog> {
  const { pool, log, cancelBackend } = options;
  const adminRole = await withClient(pool, undefined, async (client) => {
    await migrate(client);
    await claimInstance(client, options.masterSecretFingerprint);
    const result = await client.query<{ role: string }>("SELECT current_user::text AS role");
    return result.rows[0]?.role ?? "";
  });
  const changes = new ChangeListener({ connect: options.connectListener, log });
  const cache = new PrincipalCache({
    pool,
    changes,
    pollIntervalMs: options.pollIntervalMs ?? 1_000,
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
  const catalog: Catalog = {
    pool,
    cache,
    changes,
    adminRole,
    recordLogin: (principalId) => logins.record(principalId, new Date()),
    recordKeyUse: (keyId) => keyUses.record(keyId, new Date()),
    flushLogins,
    ...openTransactions(pool, queue),
    cancelable: (signal) => ({ ...catalog, ...openTransactions(pool, queue, { signal, cancelBackend }) }),
    close: async () => {
      await Promise.all([logins.drain(), keyUses.drain()]).catch((error: unknown) =>
        log.warn({ err: error }, "cannot record the last logins"),
      );
      await changes.close();
      await cache.close();
    },
  };
  return catalog;
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
