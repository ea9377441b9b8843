/** Users in memory, so that a login asks PostgreSQL nothing; kept current by own writes, LISTEN and polling. */

import type { Client, Pool } from "pg";
import type { Log } from "../observe/log.ts";
import { catalogChannel } from "./migrations.ts";
import { loadUsers, loadUsersById, type PrincipalRecord } from "./users.ts";

export interface CacheOptions {
  readonly pool: Pool;
  /** Opens the connection that listens; called again after it broke. */
  readonly connectListener: () => Promise<Client>;
  readonly log: Log;
  /** How often the version is compared when no notification comes, in milliseconds. */
  readonly pollIntervalMs: number;
  /** Least time between two reloads that notifications cause: any client may NOTIFY, in milliseconds. */
  readonly reloadSpacingMs: number;
}

export class PrincipalCache {
  readonly #options: CacheOptions;
  #byName = new Map<string, PrincipalRecord>();
  #byId = new Map<number, PrincipalRecord>();
  #version: string | undefined;
  /** Loads run one after another, so that an older snapshot never replaces a newer one. */
  #lastLoad: Promise<void> = Promise.resolve();
  #listener: Client | undefined;
  #timers = new Set<NodeJS.Timeout>();
  #isCheckPlanned = false;
  #isClosed = false;
  readonly #changeListeners = new Set<() => void>();

  constructor(options: CacheOptions) {
    this.#options = options;
  }

  /** Loads everything and begins to listen. */
  async open(): Promise<void> {
    await this.#listen();
    this.#poll();
  }

  /** @returns undefined when there is no user of that name */
  findByName(name: string): PrincipalRecord | undefined {
    return this.#byName.get(name);
  }

  findById(id: number): PrincipalRecord | undefined {
    return this.#byId.get(id);
  }

  all(): IterableIterator<PrincipalRecord> {
    return this.#byId.values();
  }

  /** Calls back after each change of what is in memory. @returns a function that ends that */
  onChange(listener: () => void): () => void {
    this.#changeListeners.add(listener);
    return () => this.#changeListeners.delete(listener);
  }

  /** Reads these users again: for the writer, whose own next login must see what it wrote. */
  reload(ids: readonly number[]): Promise<void> {
    return this.#inOrder(async () => {
      const records = await loadUsersById(this.#options.pool, ids);
      for (const id of ids) this.#forget(id);
      for (const record of records) this.#remember(record);
      this.#changed();
    });
  }

  /** Reads everything again when the catalog has changed since the last time. */
  refresh(): Promise<void> {
    return this.#inOrder(async () => {
      const version = await this.#readVersion();
      if (version === this.#version) return;
      const records = await loadUsers(this.#options.pool);
      this.#byName = new Map();
      this.#byId = new Map();
      for (const record of records) this.#remember(record);
      // Read before the rows: should it be too old, the next comparison only loads once more.
      this.#version = version;
      this.#changed();
    });
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    const listener = this.#listener;
    this.#listener = undefined;
    await listener?.end().catch(() => undefined);
    await this.#lastLoad.catch(() => undefined);
  }

  async #readVersion(): Promise<string | undefined> {
    const result = await this.#options.pool.query<{ catalog_version: string }>(
      "SELECT catalog_version FROM nodedb.instance",
    );
    return result.rows[0]?.catalog_version;
  }

  #remember(record: PrincipalRecord): void {
    const namesake = this.#byName.get(record.name);
    if (namesake !== undefined) this.#byId.delete(namesake.id);
    this.#byName.set(record.name, record);
    this.#byId.set(record.id, record);
  }

  #forget(id: number): void {
    const record = this.#byId.get(id);
    if (record === undefined) return;
    this.#byId.delete(id);
    if (this.#byName.get(record.name) === record) this.#byName.delete(record.name);
  }

  #changed(): void {
    for (const listener of this.#changeListeners) listener();
  }

  #inOrder(load: () => Promise<void>): Promise<void> {
    const mine = this.#lastLoad.catch(() => undefined).then(load);
    this.#lastLoad = mine;
    return mine;
  }

  /** Listens first and loads then, so that no change falls between the two. */
  async #listen(): Promise<void> {
    const client = await this.#options.connectListener();
    if (this.#isClosed) {
      await client.end();
      return;
    }
    this.#listener = client;
    client.on("notification", () => this.#planCheck());
    client.once("end", () => this.#relisten(client));
    await client.query(`LISTEN ${catalogChannel}`);
    await this.refresh();
  }

  #relisten(lost: Client): void {
    if (this.#isClosed || this.#listener !== lost) return;
    this.#listener = undefined;
    this.#options.log.warn("lost the connection that listens for catalog changes");
    this.#listenLater(1);
  }

  #listenLater(attempt: number): void {
    this.#after(Math.min(200 * 2 ** (attempt - 1), 10_000), () => {
      this.#listen().catch((error: unknown) => {
        this.#options.log.debug({ err: error }, "cannot listen for catalog changes yet");
        const half = this.#listener;
        this.#listener = undefined;
        half?.end().catch(() => undefined);
        this.#listenLater(attempt + 1);
      });
    });
  }

  #planCheck(): void {
    if (this.#isCheckPlanned) return;
    this.#isCheckPlanned = true;
    this.#after(this.#options.reloadSpacingMs, () => {
      this.#isCheckPlanned = false;
      this.#refreshQuietly();
    });
  }

  #poll(): void {
    this.#after(this.#options.pollIntervalMs, () => {
      this.#refreshQuietly();
      this.#poll();
    });
  }

  #refreshQuietly(): void {
    this.refresh().catch((error: unknown) => {
      this.#options.log.debug({ err: error }, "cannot read the catalog; the copy in memory stays in use");
    });
  }

  #after(delayMs: number, action: () => void): void {
    if (this.#isClosed) return;
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      action();
    }, delayMs);
    timer.unref();
    this.#timers.add(timer);
  }
}
