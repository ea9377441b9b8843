/** Opens the catalog in the upstream, with the connections of the front-end's own login. */

import { createHash } from "node:crypto";
import type { Client, Pool } from "pg";
import { type Catalog, openCatalog } from "./catalog/catalog.ts";
import { connectAdmin, createAdminPool } from "./catalog/connection.ts";
import { SqlError } from "./errors/sql-error.ts";
import type { Log } from "./observe/log.ts";
import type { Upstream } from "./open-upstream.ts";
import { requestCancel } from "./upstream/cancel.ts";
import { deriveSecret } from "./upstream/role-credential.ts";
import { judgeServerVersion, oldestMajorVersion } from "./upstream/server-version.ts";

const catalogConnections = 4;

export interface Administration {
  readonly catalog: Catalog;
  readonly adminPool: Pool;
  /** Opens an administrative connection to a database; the caller ends it. */
  readonly connect: (database: string) => Promise<Client>;
  close(): Promise<void>;
}

/** @throws SqlError for an upstream that is too old or a catalog that is not this program's; nothing is left open then */
export async function openAdministration(
  upstream: Upstream,
  masterSecret: Buffer,
  log: Log,
): Promise<Administration> {
  const { defaultDatabase } = upstream;
  const adminPool = createAdminPool({ ...upstream.admin, database: defaultDatabase }, catalogConnections);
  const connect = (database: string) => connectAdmin(upstream.admin, database);
  let catalog: Catalog | undefined;
  const close = async () => {
    await catalog?.close();
    await adminPool.end();
  };
  try {
    catalog = await openCatalog({
      pool: adminPool,
      connectListener: () => connect(defaultDatabase),
      masterSecretFingerprint: createHash("sha256")
        .update(deriveSecret(masterSecret, "fingerprint"))
        .digest(),
      cancelBackend: async (processId, secretKey) => {
        const key = Buffer.alloc(4);
        key.writeInt32BE(secretKey);
        await requestCancel(upstream.endpoint, processId, key);
      },
      log,
    });
    await warnOfOldVersion(adminPool, log);
    return { catalog, adminPool, connect, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function warnOfOldVersion(pool: Pool, log: Log): Promise<void> {
  const result = await pool.query<{ version: number }>(
    "SELECT pg_catalog.current_setting('server_version_num')::int4 AS version",
  );
  const judgement = judgeServerVersion(result.rows[0]?.version ?? 0);
  if (judgement.kind === "unsupported") {
    throw new SqlError("feature_not_supported", `${judgement.name} is not supported as an upstream`, {
      hint: `Use PostgreSQL ${oldestMajorVersion} or newer.`,
    });
  }
  if (judgement.kind === "unsound") {
    log.warn({ upstreamVersion: judgement.version, atLeast: judgement.atLeast }, judgement.reason);
  }
}
