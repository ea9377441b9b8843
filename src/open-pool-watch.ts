/** Closes the unused upstream connections of roles that have lost CONNECT, whichever front-end took it from them. */

import type { Pool } from "pg";
import type { PrincipalCache } from "./catalog/cache.ts";
import { withoutConnect } from "./catalog/connect-privileges.ts";
import type { Log } from "./observe/log.ts";
import type { UpstreamPool } from "./upstream/pool.ts";

export interface PoolWatchOptions {
  readonly cache: Pick<PrincipalCache, "onChange">;
  /** For what is asked: not the upstream's, of which this watches the connections. */
  readonly adminPool: Pool;
  readonly pool: Pick<UpstreamPool, "owners" | "closePrincipal">;
  readonly log: Log;
}

/** After a look that failed, in ms. */
const retryMs = 1_000;

/** Looks after each change of the catalog. @returns a function that ends that, when a look that is under way has ended */
export function openPoolWatch({ cache, adminPool, pool, log }: PoolWatchOptions): () => Promise<void> {
  let isClosed = false;
  let isWanted = false;
  let underWay: Promise<void> | undefined;
  let retry: NodeJS.Timeout | undefined;

  const look = async () => {
    while (isWanted && !isClosed) {
      isWanted = false;
      for (const { principalId, database } of await withoutConnect(adminPool, pool.owners())) {
        pool.closePrincipal(principalId, database);
      }
    }
  };
  const start = () => {
    isWanted = true;
    underWay ??= look()
      .catch((error: unknown) => {
        log.warn({ err: error }, "cannot tell yet which unused connections may stay");
        if (!isClosed) retry = setTimeout(start, retryMs).unref();
      })
      .finally(() => {
        underWay = undefined;
      });
  };
  const stopListening = cache.onChange(start);
  return async () => {
    isClosed = true;
    stopListening();
    clearTimeout(retry);
    await underWay;
  };
}
