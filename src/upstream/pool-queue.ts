/** Who waits for a connection of the pool, in the order in which they came, and for how long at most. */

import { SqlError } from "../errors/sql-error.ts";
import type { Lease } from "./lease.ts";
import { keyOfParameters, type PoolGroup } from "./pool-group.ts";
import type { UpstreamTarget } from "./upstream-target.ts";

/** Somebody who waits, until `settle` or `leave`. */
export interface Waiter {
  readonly target: UpstreamTarget;
  readonly group: PoolGroup;
  readonly parametersKey: string;
  timer: NodeJS.Timeout | undefined;
  isSettled: boolean;
  readonly resolve: (lease: Lease) => void;
  readonly reject: (error: unknown) => void;
}

export class PoolQueue {
  readonly #waiters: Waiter[] = [];

  get length(): number {
    return this.#waiters.length;
  }

  /** First come, first; not changed by who comes and goes meanwhile. */
  all(): Waiter[] {
    return [...this.#waiters];
  }

  hasFor(group: PoolGroup): boolean {
    return this.#waiters.some((waiter) => waiter.group === group);
  }

  join(
    target: UpstreamTarget,
    group: PoolGroup,
    resolve: (lease: Lease) => void,
    reject: (error: unknown) => void,
  ): Waiter {
    const waiter: Waiter = {
      target,
      group,
      parametersKey: keyOfParameters(target.parameters),
      timer: undefined,
      isSettled: false,
      resolve,
      reject,
    };
    this.#waiters.push(waiter);
    return waiter;
  }

  /** Refuses who then still waits, with SqlError too_many_connections. */
  limit(waiter: Waiter, timeoutMs: number): void {
    if (waiter.isSettled) return;
    waiter.timer = setTimeout(() => this.leave(waiter, queueTimeoutError()), timeoutMs);
  }

  /** Refuses whoever still waits; no effect on who does not. */
  leave(waiter: Waiter, error: unknown): void {
    if (waiter.isSettled) return;
    this.settle(waiter);
    waiter.reject(error);
  }

  /** Takes somebody out, for whom a connection is on its way. */
  settle(waiter: Waiter): void {
    waiter.isSettled = true;
    clearTimeout(waiter.timer);
    const index = this.#waiters.indexOf(waiter);
    if (index !== -1) this.#waiters.splice(index, 1);
  }
}

function queueTimeoutError(): SqlError {
  return new SqlError("too_many_connections", "no upstream connection became free in time", {
    severity: "FATAL",
    hint: "Close sessions that are not used, or raise upstream.pool_size, upstream.max_connections or upstream.queue_timeout.",
  });
}
