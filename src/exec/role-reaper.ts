/**
 * Finishes what transactions leave behind: drops the roles that were set aside by one that has committed, with what was granted
 * to them in every database, and those that were reserved by one that has not.
 */

import { connectAdmin } from "../catalog/connection.ts";
import {
  claimPendingDrop,
  forgetPendingDrop,
  listPendingDrops,
  type PendingDrop,
} from "../catalog/dropped-roles.ts";
import { findAbandonedRoles, type ReservingBackend, releaseReservedRole } from "../catalog/reserved-roles.ts";
import type { Log } from "../observe/log.ts";
import type { RoleOptions } from "../upstream/reconcile-groups.ts";
import type { ClusterAccess } from "./connect-elsewhere.ts";
import { dropPostgresRoles } from "./drop-postgres-roles.ts";
import { endBackendsOf, isInTheWay } from "./keep-out.ts";
import { translateErrors } from "./translate-errors.ts";

/** How often it is looked for what a crash, or a lock, has left; in ms. */
const defaultIntervalMs = 10_000;

/** How soon a name that could not be given up is tried again, in ms: until then nobody else can have it. */
const retryMs = 500;

/** How long a client waits for the roles that its COMMIT has dropped, in ms; the rest goes on without it. */
const maxWaitMs = 5_000;

const lockTimeout = "3s";

export interface ReaperDependencies extends ClusterAccess {
  readonly log: Log;
  readonly roleOptions: RoleOptions;
}

export class RoleReaper {
  readonly #deps: ReaperDependencies;
  #ticker: NodeJS.Timeout | undefined;
  #retry: NodeJS.Timeout | undefined;
  #isClosed = false;
  #run: Promise<void> = Promise.resolve();
  readonly #working = new Set<Promise<void>>();
  /** Names that could not be given up. */
  readonly #unreleased: [string, ReservingBackend][] = [];

  constructor(deps: ReaperDependencies) {
    this.#deps = deps;
  }

  /** Looks for what is left now, and again and again. Several front-ends may. */
  async start(intervalMs = defaultIntervalMs): Promise<void> {
    await this.run();
    this.#ticker = setInterval(() => void this.run(), intervalMs).unref();
  }

  /** Looks for what is left. Never rejects: what cannot be done now is logged, and tried again. */
  run(): Promise<void> {
    this.#run = this.#run.then(() => this.#reap());
    return this.#run;
  }

  /** Drops roles that a transaction has just set aside; returns when they are gone, or after some seconds. Never rejects. */
  async finish(oids: readonly string[]): Promise<void> {
    if (oids.length === 0) return;
    const work = this.#finishAll(oids);
    this.#working.add(work);
    void work.finally(() => this.#working.delete(work));
    let timer: NodeJS.Timeout | undefined;
    const timeUp = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, maxWaitMs);
    });
    await Promise.race([work, timeUp]);
    clearTimeout(timer);
  }

  /**
   * Gives up the names that a transaction had reserved. Never rejects: what cannot be done now is tried again.
   *
   * @param backend of the transaction; undefined: of one that is gone
   */
  async release(names: readonly string[], backend: ReservingBackend | undefined): Promise<void> {
    for (const name of names) {
      try {
        const oid = await translateErrors(() =>
          this.#deps.catalog.write((client) => releaseReservedRole(client, name, backend)),
        );
        if (oid !== undefined) await this.finish([oid]);
      } catch (error) {
        if (backend !== undefined) this.#tryAgain(name, backend);
        this.#deps.log.warn({ err: error, role: name }, "a reserved name could not be given up yet");
      }
    }
  }

  #tryAgain(name: string, backend: ReservingBackend): void {
    this.#unreleased.push([name, backend]);
    if (this.#isClosed) return;
    this.#retry ??= setTimeout(() => {
      this.#retry = undefined;
      void this.run();
    }, retryMs);
  }

  /** Stops looking, and waits for what is under way. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#ticker);
    clearTimeout(this.#retry);
    await this.#run;
    await Promise.all(this.#working);
  }

  async #reap(): Promise<void> {
    const { catalog, log } = this.#deps;
    try {
      for (const [name, backend] of this.#unreleased.splice(0)) await this.release([name], backend);
      await this.release(await catalog.read(findAbandonedRoles), undefined);
      await this.#finishAll(await catalog.read(listPendingDrops));
    } catch (error) {
      log.warn({ err: error }, "it could not be looked for roles that are to be dropped");
    }
  }

  async #finishAll(oids: readonly string[]): Promise<void> {
    for (const oid of oids) {
      let pending: PendingDrop | undefined;
      try {
        await this.#finishOne(oid, (claimed) => {
          pending = claimed;
        });
      } catch (error) {
        const { name, formerName } = pending ?? {};
        // A session that is left of a dropped user may hold a lock for as long as it likes.
        if (name !== undefined && isInTheWay(error)) await this.#endBackends(name);
        this.#deps.log.warn({ err: error, role: name, formerName }, "a dropped role is not gone yet");
      }
    }
  }

  async #endBackends(role: string): Promise<void> {
    const { catalog, log } = this.#deps;
    await catalog
      .read((client) => endBackendsOf(client, [role]))
      .catch((error: unknown) => log.warn({ err: error, role }, "cannot end what is left of a dropped role"));
  }

  // Without the catalog's lock: nobody else cares for a role that is set aside.
  async #finishOne(oid: string, onClaimed: (pending: PendingDrop) => void): Promise<void> {
    const { adminConnection, roleOptions } = this.#deps;
    const client = await connectAdmin(adminConnection, roleOptions.defaultDatabase);
    try {
      await client.query("BEGIN");
      const pending = await claimPendingDrop(client, oid);
      if (pending === undefined) return;
      onClaimed(pending);
      const { name, newOwner } = pending;
      if (name !== undefined) {
        await translateErrors(() =>
          dropPostgresRoles(this.#deps, client, [name], {
            newOwner,
            hint: "Give its objects to another owner; then it goes by itself.",
            lockTimeout,
          }),
        );
      }
      await forgetPendingDrop(client, oid);
      await client.query("COMMIT");
    } finally {
      await client.end().catch(() => undefined);
    }
  }
}
