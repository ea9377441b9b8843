/** How a session gets an upstream connection of the pool, and gives it back. */

import type { SqlError } from "../errors/sql-error.ts";
import type { UpstreamConnection } from "./upstream-connection.ts";

/** The right to use one connection until `release` or `discard`, exactly one of which is called once. */
export interface Lease {
  readonly connection: UpstreamConnection;
  /** Gives back a connection that waits for a command outside any transaction. */
  release(): void;
  /**
   * Closes a connection whose state is unknown.
   *
   * @param ended settles when its server process is gone: until then it counts
   */
  discard(ended?: Promise<void>): void;
}

/** A place in the queue. */
export interface Ticket {
  readonly lease: Promise<Lease>;
  /** Leaves the queue: `lease` rejects with the error. No effect once a connection is on its way: release that. */
  cancel(error: SqlError): void;
}
