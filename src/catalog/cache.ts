/** Principals, their API keys and OIDC providers in memory, so that a login asks PostgreSQL nothing; kept current by own writes, LISTEN and polling. */

import type { Pool } from "pg";
import { type ApiKeyRecord, loadApiKeys, loadApiKeysOf } from "./api-keys.ts";
import type { ChangeListener } from "./change-listener.ts";
import { catalogChannel } from "./migrations.ts";
import { loadOidcProviders, type OidcProviderRecord } from "./oidc-providers.ts";
import { loadTenants, type Tenant } from "./tenants.ts";
import { loadUsers, loadUsersById, type PrincipalRecord } from "./users.ts";

export interface CacheOptions {
  readonly pool: Pool;
  /** Connected; stays the caller's to close. */
  readonly changes: ChangeListener;
  /** How often the version is compared when no notification comes, in milliseconds. */
  readonly pollIntervalMs: number;
  /** Least time between two reloads that notifications cause: any client may NOTIFY, in milliseconds. */
  readonly reloadSpacingMs: number;
}

export class PrincipalCache {
  readonly #options: CacheOptions;
  #byName = new Map<string, PrincipalRecord>();
  #byId = new Map<number, PrincipalRecord>();
  #keysByOwner = new Map<number, readonly ApiKeyRecord[]>();
  #keysById = new Map<string, ApiKeyRecord>();
  #tenants = new Map<number, Tenant>();
  #providers: readonly OidcProviderRecord[] = [];
  #version: string | undefined;
  /** Loads run one after another, so that an older snapshot never replaces a newer one. */
  #lastLoad: Promise<void> = Promise.resolve();
  readonly #changeListeners = new Set<() => void>();

  constructor(options: CacheOptions) {
    this.#options = options;
  }

  /** Loads everything and begins to listen. */
  open(): Promise<void> {
    const { changes, reloadSpacingMs, pollIntervalMs } = this.#options;
    return changes.subscribe({
      channel: catalogChannel,
      spacingMs: reloadSpacingMs,
      pollIntervalMs,
      check: () => this.refresh(),
    });
  }

  /** @returns undefined when there is no user of that name */
  findByName(name: string): PrincipalRecord | undefined {
    return this.#byName.get(name);
  }

  findById(id: number): PrincipalRecord | undefined {
    return this.#byId.get(id);
  }

  /** The API keys of a principal, revoked and expired ones included. */
  keysOf(ownerId: number): readonly ApiKeyRecord[] {
    return this.#keysByOwner.get(ownerId) ?? [];
  }

  /** How many sessions a tenant's principals may have in one process; undefined is no limit. */
  tenantLimit(tenantId: number): number | undefined {
    return this.#tenants.get(tenantId)?.maxConnections;
  }

  /** @returns undefined when there is no key of that id */
  findKeyById(keyId: string): ApiKeyRecord | undefined {
    return this.#keysById.get(keyId);
  }

  /** @returns undefined when there is no key of that name */
  findKeyByName(name: string): ApiKeyRecord | undefined {
    for (const keys of this.#keysByOwner.values()) {
      const found = keys.find((key) => key.name === name);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** The OIDC providers, by name. */
  providers(): readonly OidcProviderRecord[] {
    return this.#providers;
  }

  all(): IterableIterator<PrincipalRecord> {
    return this.#byId.values();
  }

  /** Calls back after each change of what is in memory. @returns a function that ends that */
  onChange(listener: () => void): () => void {
    this.#changeListeners.add(listener);
    return () => this.#changeListeners.delete(listener);
  }

  /** Reads these users, all tenants and all providers again: for the writer, whose own next login must see what it wrote. */
  reload(ids: readonly number[]): Promise<void> {
    return this.#inOrder(async () => {
      const records = await loadUsersById(this.#options.pool, ids);
      const keys = await loadApiKeysOf(this.#options.pool, ids);
      const tenants = await loadTenants(this.#options.pool);
      const providers = await loadOidcProviders(this.#options.pool);
      this.#tenants = new Map(tenants.map((tenant) => [tenant.id, tenant]));
      this.#providers = providers;
      for (const id of ids) {
        this.#forget(id);
        for (const { keyId } of this.keysOf(id)) this.#keysById.delete(keyId);
        this.#keysByOwner.delete(id);
      }
      for (const [ownerId, ofOwner] of byOwner(keys)) this.#keysByOwner.set(ownerId, ofOwner);
      for (const key of keys) this.#keysById.set(key.keyId, key);
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
      const keys = await loadApiKeys(this.#options.pool);
      const tenants = await loadTenants(this.#options.pool);
      const providers = await loadOidcProviders(this.#options.pool);
      this.#tenants = new Map(tenants.map((tenant) => [tenant.id, tenant]));
      this.#providers = providers;
      this.#byName = new Map();
      this.#byId = new Map();
      this.#keysByOwner = byOwner(keys);
      this.#keysById = new Map(keys.map((key) => [key.keyId, key]));
      for (const record of records) this.#remember(record);
      // Read before the rows: should it be too old, the next comparison only loads once more.
      this.#version = version;
      this.#changed();
    });
  }

  /** Resolves when no load is under way; close the listener before. */
  async close(): Promise<void> {
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
}

function byOwner(keys: readonly ApiKeyRecord[]): Map<number, readonly ApiKeyRecord[]> {
  const groups = new Map<number, ApiKeyRecord[]>();
  for (const key of keys) {
    const group = groups.get(key.ownerId);
    if (group === undefined) groups.set(key.ownerId, [key]);
    else group.push(key);
  }
  return groups;
}
