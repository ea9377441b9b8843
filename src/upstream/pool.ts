/**
 * Upstream connections, pooled per database, identity and claims. A connection is never handed to another
 * identity, nor to a session with other startup parameters: what `RESET ALL` returns to is fixed at login.
 * Before it is given out, it is told whose claims it carries.
 */

import { SqlError } from "../errors/sql-error.ts";
import type { Log } from "../observe/log.ts";
import { Conversation } from "./conversation.ts";
import type { Lease, Ticket } from "./lease.ts";
import { keyOfGroup, type PoolEntry, PoolGroup } from "./pool-group.ts";
import { PoolQueue, type Waiter } from "./pool-queue.ts";
import { carriesClaimsFor, claimsToRepeat } from "./repeated-claims.ts";
import { resetConnection } from "./reset.ts";
import { noteParameterStatus, type UpstreamConnection } from "./upstream-connection.ts";
import type { UpstreamTarget } from "./upstream-target.ts";

/** Read at each use; `settingsChanged` applies them to what is there. */
export interface PoolSettings {
  /** Connections per database and identity. */
  readonly poolSize: number;
  /** Connections of all pools together. */
  readonly maxConnections: number;
  readonly queueTimeoutMs: number;
  /** An unused connection is closed after this; 0 is never. */
  readonly idleTimeoutMs: number;
  /** A connection is not given out again after this; 0 is never. */
  readonly maxLifetimeMs: number;
}

/** Counts for SHOW and metrics. */
export interface PoolCounts {
  readonly open: number;
  readonly idle: number;
  readonly waiting: number;
}

const sweepIntervalMs = 1_000;

export class UpstreamPool {
  readonly #open: (target: UpstreamTarget) => Promise<UpstreamConnection>;
  readonly #publish: (connection: UpstreamConnection, target: UpstreamTarget) => Promise<void>;
  readonly #settings: PoolSettings;
  readonly #log: Log;
  readonly #onLease: (waitedMs: number) => void;
  readonly #groups = new Map<string, PoolGroup>();
  readonly #sweeper: NodeJS.Timeout;
  readonly #queue = new PoolQueue();
  #count = 0;
  #isClosed = false;

  /**
   * @param open logs in; its error reaches the session that asked
   * @param publish tells PostgreSQL the target's claims; a connection on which it fails is closed
   */
  constructor(
    open: (target: UpstreamTarget) => Promise<UpstreamConnection>,
    publish: (connection: UpstreamConnection, target: UpstreamTarget) => Promise<void>,
    settings: PoolSettings,
    log: Log,
    onLease: (waitedMs: number) => void = () => {},
  ) {
    this.#open = open;
    this.#publish = publish;
    this.#settings = settings;
    this.#log = log;
    this.#onLease = onLease;
    this.#sweeper = setInterval(() => this.#sweep(), sweepIntervalMs);
    this.#sweeper.unref();
  }

  /**
   * Asks for a connection. The lease's promise rejects with SqlError too_many_connections when the queue
   * timeout passes, and with the login's own error when a new connection cannot be opened.
   */
  acquire(target: UpstreamTarget): Ticket {
    const group = this.#groupOf(target);
    const askedAtMs = performance.now();
    let waiter: Waiter | undefined;
    const lease = new Promise<Lease>((resolve, reject) => {
      const onGranted = (granted: Lease) => {
        this.#onLease(performance.now() - askedAtMs);
        resolve(granted);
      };
      waiter = this.#queue.join(target, group, onGranted, reject);
      this.#serveQueue();
      this.#queue.limit(waiter, this.#settings.queueTimeoutMs);
    });
    return {
      lease,
      cancel: (error) => {
        if (waiter !== undefined) this.#queue.leave(waiter, error);
      },
    };
  }

  /** Who has connections, and where. */
  owners(): { readonly principalId: number; readonly role: string; readonly database: string }[] {
    return [...this.#groups.values()];
  }

  /**
   * Closes a principal's idle connections now and its others when they come back: after DROP USER.
   *
   * @param database leaves those to others as they are
   */
  closePrincipal(principalId: number, database?: string): void {
    for (const group of [...this.#groups.values()]) {
      if (group.principalId !== principalId || (database ?? group.database) !== group.database) continue;
      group.isRetired = true;
      this.#groups.delete(group.key);
      for (const entry of [...group.idle]) this.#close(entry);
    }
  }

  /** Those of the names that there are connections to. */
  databasesAmong(names: readonly string[]): string[] {
    const databases = new Set([...this.#groups.values()].map(({ database }) => database));
    return names.filter((name) => databases.delete(name));
  }

  /**
   * Closes the idle connections to these databases now and the others when they come back: before a command that wants a
   * database to itself. PostgreSQL waits some seconds for connections that are just ending, and so nobody waits here.
   */
  freeDatabases(names: readonly string[]): void {
    for (const group of [...this.#groups.values()]) {
      if (!names.includes(group.database)) continue;
      group.generation += 1;
      for (const entry of [...group.idle]) this.#close(entry);
    }
  }

  /** Lets in who waits where there is more room, and closes what is idle beyond less. */
  settingsChanged(): void {
    const { poolSize, maxConnections } = this.#settings;
    const groups = [...this.#groups.values()];
    const oldestFirst = groups.flatMap((group) => group.idle).sort((a, b) => a.idleSinceMs - b.idleSinceMs);
    for (const entry of oldestFirst) {
      if (entry.group.count > poolSize || this.#count > maxConnections) this.#close(entry);
    }
    this.#serveQueue();
  }

  counts(): PoolCounts {
    let idle = 0;
    for (const group of this.#groups.values()) idle += group.idle.length;
    return { open: this.#count, idle, waiting: this.#queue.length };
  }

  /** Closes what is idle, refuses who waits; leases still out are closed when they come back. */
  close(): void {
    this.#isClosed = true;
    clearInterval(this.#sweeper);
    const error = new SqlError("admin_shutdown", "terminating connection due to administrator command", {
      severity: "FATAL",
    });
    for (const waiter of this.#queue.all()) this.#queue.leave(waiter, error);
    for (const group of this.#groups.values()) {
      for (const entry of [...group.idle]) this.#close(entry);
    }
  }

  #groupOf(target: UpstreamTarget): PoolGroup {
    const key = keyOfGroup(target);
    let group = this.#groups.get(key);
    if (group === undefined) {
      group = new PoolGroup(key, target);
      this.#groups.set(key, group);
    }
    return group;
  }

  // First come, first served; a waiter whose own pool is full does not hold up the others.
  #serveQueue(): void {
    if (this.#isClosed) return;
    for (const waiter of this.#queue.all()) {
      const { group } = waiter;
      const entry = group.takeIdle(waiter.parametersKey);
      if (entry !== undefined) {
        this.#queue.settle(waiter);
        void this.#reuseFor(waiter, entry);
        continue;
      }
      if (!this.#makeRoom(group)) continue;
      this.#queue.settle(waiter);
      void this.#openFor(waiter);
    }
  }

  // True when the group may open one more connection; closes an idle one that stands in its way.
  #makeRoom(group: PoolGroup): boolean {
    if (group.count >= this.#settings.poolSize) {
      const oldest = group.idle[0];
      if (oldest === undefined) return false;
      this.#close(oldest);
    }
    if (this.#count < this.#settings.maxConnections) return true;
    let victim: PoolEntry | undefined;
    for (const other of this.#groups.values()) {
      const oldest = other.idle[0];
      if (oldest !== undefined && (victim === undefined || oldest.idleSinceMs < victim.idleSinceMs)) {
        victim = oldest;
      }
    }
    if (victim === undefined) return false;
    this.#close(victim);
    return true;
  }

  async #reuseFor(waiter: Waiter, entry: PoolEntry): Promise<void> {
    try {
      if (!carriesClaimsFor(entry, waiter.target)) await this.#publish(entry.connection, waiter.target);
    } catch {
      // It has broken while it was idle, or is not in the state that it was taken to be in.
      entry.connection.transport.close();
      this.#forget(entry.group);
      await this.#openFor(waiter);
      return;
    }
    waiter.resolve(this.#lend(entry));
  }

  async #openFor(waiter: Waiter): Promise<void> {
    const { group, parametersKey } = waiter;
    const { generation } = group;
    group.count += 1;
    this.#count += 1;
    try {
      const connection = await this.#open(waiter.target);
      try {
        await this.#publish(connection, waiter.target);
      } catch (error) {
        connection.transport.close();
        throw error;
      }
      waiter.resolve(this.#lend({ group, parametersKey, connection, generation, idleSinceMs: 0 }));
    } catch (error) {
      this.#forget(group);
      waiter.reject(error);
      this.#serveQueue();
    }
  }

  #lend(entry: PoolEntry): Lease {
    let isReturned = false;
    const once =
      <Arguments extends unknown[]>(giveBack: (...args: Arguments) => void) =>
      (...args: Arguments) => {
        if (isReturned) return;
        isReturned = true;
        giveBack(...args);
      };
    return {
      connection: entry.connection,
      release: once(() => void this.#takeBack(entry)),
      discard: once((ended?: Promise<void>) => {
        entry.connection.transport.close();
        const forget = () => {
          this.#forget(entry.group);
          this.#serveQueue();
        };
        if (ended === undefined) forget();
        else void ended.then(forget);
      }),
    };
  }

  async #takeBack(entry: PoolEntry): Promise<void> {
    const { connection, group } = entry;
    // A cancel that is still on its way must have hit before anybody else can be hit.
    await Promise.all(connection.cancels);
    const carried = claimsToRepeat(connection);
    const isKept =
      this.#mayKeep(entry) && !this.#isTooOld(entry) && (await resetConnection(connection, carried?.calls));
    if (!isKept || !connection.isReusable || !this.#mayKeep(entry)) {
      connection.transport.close();
      this.#forget(group);
    } else {
      entry.idleSinceMs = Date.now();
      entry.carried = carried;
      if (carried !== undefined) connection.claimsDueAtMs = carried.dueAtMs;
      group.idle.push(entry);
      this.#watchIdle(entry);
    }
    this.#serveQueue();
  }

  #mayKeep(entry: PoolEntry): boolean {
    return !this.#isClosed && entry.group.mayKeep(entry);
  }

  // An idle connection is read on: to see it close, and to keep its parameters true.
  #watchIdle(entry: PoolEntry): void {
    new Conversation(entry.connection.transport, {
      onMessage: (type, body) => {
        if (type === "S") noteParameterStatus(entry.connection, body);
        else if (type !== "N" && type !== "A") this.#close(entry);
      },
      onEnd: () => this.#close(entry),
    });
  }

  #close(entry: PoolEntry): void {
    const index = entry.group.idle.indexOf(entry);
    if (index === -1) return;
    entry.group.idle.splice(index, 1);
    entry.connection.transport.close();
    this.#forget(entry.group);
    if (this.#queue.length > 0) queueMicrotask(() => this.#serveQueue());
  }

  #forget(group: PoolGroup): void {
    this.#count -= 1;
    group.count -= 1;
    if (group.count === 0 && !this.#queue.hasFor(group) && this.#groups.get(group.key) === group) {
      this.#groups.delete(group.key);
    }
  }

  #isTooOld(entry: PoolEntry): boolean {
    const { maxLifetimeMs } = this.#settings;
    return maxLifetimeMs > 0 && Date.now() - entry.connection.openedAtMs > maxLifetimeMs;
  }

  #sweep(): void {
    const { idleTimeoutMs } = this.#settings;
    const now = Date.now();
    let closed = 0;
    for (const group of [...this.#groups.values()]) {
      for (const entry of [...group.idle]) {
        if (this.#isTooOld(entry) || (idleTimeoutMs > 0 && now - entry.idleSinceMs > idleTimeoutMs)) {
          this.#close(entry);
          closed += 1;
        }
      }
    }
    if (closed > 0) this.#log.debug({ closed }, "closed upstream connections that were idle or old");
  }
}
