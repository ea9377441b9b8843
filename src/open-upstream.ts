/** What stands behind the front-end: the embedded PostgreSQL, started here, or the one that the configuration names. */

import { join } from "node:path";
import type { ClientConfig } from "pg";
import { connectAdmin } from "./catalog/connection.ts";
import type { Config } from "./config/config.ts";
import { parseUpstreamUrl, type UpstreamAddress } from "./config/upstream-url.ts";
import { type EmbeddedPostgres, openEmbeddedPostgres } from "./embedded/embedded-postgres.ts";
import { SqlError } from "./errors/sql-error.ts";
import type { Log } from "./observe/log.ts";
import type { UpstreamEndpoint } from "./upstream/endpoint.ts";

/** The front-end's own login in the embedded PostgreSQL. */
const embeddedAdminRole = "nodedb_admin_login";
const embeddedDefaultDatabase = "nodedb";
/** Connections to PostgreSQL that are not the clients': catalog, listener, databases being prepared, a spare. */
const ownConnections = 16;

export interface Upstream {
  readonly admin: ClientConfig;
  readonly endpoint: UpstreamEndpoint;
  readonly defaultDatabase: string;
  readonly description: string;
  readonly embedded: EmbeddedPostgres | undefined;
}

/** Starts the embedded PostgreSQL, or names the external one. @throws SqlError or Error for the person who starts it */
export async function openUpstream(config: Config, log: Log): Promise<Upstream> {
  return config.upstream.url === undefined ? openEmbedded(config, log) : external(config);
}

async function openEmbedded(config: Config, log: Log): Promise<Upstream> {
  const embedded = await openEmbeddedPostgres({
    dataDir: config.server.dataDir,
    superuserName: embeddedAdminRole,
    log,
    maxConnections: config.upstream.maxConnections + ownConnections,
  });
  const admin: ClientConfig = { host: embedded.socketDir, port: embedded.port, user: embeddedAdminRole };
  const defaultDatabase = config.upstream.defaultDatabase ?? embeddedDefaultDatabase;
  try {
    await createDatabase(admin, defaultDatabase);
  } catch (error) {
    await embedded.close();
    throw error;
  }
  return {
    admin,
    endpoint: { kind: "socket", path: socketPath(embedded.socketDir, embedded.port) },
    defaultDatabase,
    description: `embedded PostgreSQL in ${config.server.dataDir}`,
    embedded,
  };
}

async function createDatabase(admin: ClientConfig, name: string): Promise<void> {
  const client = await connectAdmin(admin, "postgres");
  try {
    const found = await client.query("SELECT FROM pg_catalog.pg_database WHERE datname = $1", [name]);
    if (found.rowCount === 0) await client.query(`CREATE DATABASE ${client.escapeIdentifier(name)}`);
  } finally {
    await client.end();
  }
}

function external(config: Config): Upstream {
  const parsed = parseUpstreamUrl(config.upstream.url?.reveal() ?? "");
  if (!parsed.ok) throw new SqlError("invalid_parameter_value", `upstream.url ${parsed.reason}`);
  const { host, port } = parsed.address;
  const path = host.startsWith("/") ? socketPath(host, port) : undefined;
  return {
    ...adminConnectionOf(config, parsed.address),
    endpoint:
      path === undefined ? { kind: "tcp", host, port, tls: config.upstream.tls } : { kind: "socket", path },
    description: `PostgreSQL at ${path ?? `${host}:${port}`}`,
    embedded: undefined,
  };
}

/** The administrative login to an external upstream, and the database that holds the catalog. */
export function adminConnectionOf(
  config: Config,
  address: UpstreamAddress,
): { readonly admin: ClientConfig; readonly defaultDatabase: string } {
  const { host, port, user, password, database } = address;
  const isVerified = !host.startsWith("/") && config.upstream.tls === "verify-full";
  return {
    admin: {
      host,
      port,
      user,
      password,
      ...(isVerified ? { ssl: { rejectUnauthorized: true, minVersion: "TLSv1.2" } } : {}),
    },
    defaultDatabase: config.upstream.defaultDatabase ?? database ?? user,
  };
}

/** As libpq names a server's socket in its directory. */
function socketPath(directory: string, port: number): string {
  return join(directory, `.s.PGSQL.${port}`);
}
