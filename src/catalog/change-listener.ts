/** Learns that other processes changed something: one connection that listens on channels, and polling where none comes. */

import type { Client } from "pg";
import type { Log } from "../observe/log.ts";

/** Somebody who wants to know of changes. */
export interface Subscription {
  /** An identifier of our own, as NOTIFY takes it. */
  readonly channel: string;
  /** Least time between two checks that notifications cause: any client may NOTIFY, in milliseconds. */
  readonly spacingMs: number;
  /** How often is checked when no notification comes, in milliseconds. */
  readonly pollIntervalMs: number;
  /** Looks for what changed; payloads are never read. A rejection is left to the next time. */
  readonly check: () => Promise<void>;
}

export interface ChangeListenerOptions {
  /** Opens the connection that listens; called again after it broke. */
  readonly connect: () => Promise<Client>;
  readonly log: Log;
}

export class ChangeListener {
  readonly #options: ChangeListenerOptions;
  readonly #subscriptions: Subscription[] = [];
  readonly #planned = new Set<Subscription>();
  readonly #timers = new Set<NodeJS.Timeout>();
  #client: Client | undefined;
  #isClosed = false;

  constructor(options: ChangeListenerOptions) {
    this.#options = options;
  }

  /** Connects; subscribe afterwards. */
  open(): Promise<void> {
    return this.#listen();
  }

  /**
   * Listens first and checks then, so that no change falls between the two.
   *
   * @throws what the first check throws
   */
  async subscribe(subscription: Subscription): Promise<void> {
    this.#subscriptions.push(subscription);
    await this.#client?.query(`LISTEN ${subscription.channel}`);
    await subscription.check();
    this.#poll(subscription);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    const client = this.#client;
    this.#client = undefined;
    await client?.end().catch(() => undefined);
  }

  async #listen(): Promise<void> {
    const client = await this.#options.connect();
    if (this.#isClosed) {
      await client.end();
      return;
    }
    this.#client = client;
    client.on("notification", ({ channel }) => this.#planChecks(channel));
    client.once("end", () => this.#relisten(client));
    for (const { channel } of this.#subscriptions) await client.query(`LISTEN ${channel}`);
    for (const subscription of this.#subscriptions) await subscription.check();
  }

  #relisten(lost: Client): void {
    if (this.#isClosed || this.#client !== lost) return;
    this.#client = undefined;
    this.#options.log.warn("lost the connection that listens for catalog changes");
    this.#listenLater(1);
  }

  #listenLater(attempt: number): void {
    this.#after(Math.min(200 * 2 ** (attempt - 1), 10_000), () => {
      this.#listen().catch((error: unknown) => {
        this.#options.log.debug({ err: error }, "cannot listen for catalog changes yet");
        const half = this.#client;
        this.#client = undefined;
        half?.end().catch(() => undefined);
        this.#listenLater(attempt + 1);
      });
    });
  }

  #planChecks(channel: string): void {
    for (const subscription of this.#subscriptions) {
      if (subscription.channel !== channel || this.#planned.has(subscription)) continue;
      this.#planned.add(subscription);
      this.#after(subscription.spacingMs, () => {
        this.#planned.delete(subscription);
        void this.#check(subscription);
      });
    }
  }

  #poll(subscription: Subscription): void {
    this.#after(subscription.pollIntervalMs, () => {
      void this.#check(subscription).finally(() => this.#poll(subscription));
    });
  }

  async #check(subscription: Subscription): Promise<void> {
    try {
      await subscription.check();
    } catch (error) {
      this.#options.log.debug({ err: error }, "cannot read the catalog; the copy in memory stays in use");
    }
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
