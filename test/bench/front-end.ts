/** The front-end as a target: the built program in front of the benchmark's PostgreSQL. */

import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";
import type { BenchOptions } from "./arguments.ts";
import { startChild, waitUntilReady } from "./child-process.ts";
import { acceptsConnections } from "./pgbouncer.ts";
import {
  database,
  grantPgbenchTables,
  maxUpstreamConnections,
  type PostgresServer,
} from "./postgres-server.ts";
import type { Target } from "./targets.ts";

const superuser = "nodedb";
const clientUser = "bench";

/**
 * Starts the front-end and makes sure that the client's user exists.
 * It keeps its data directory over several starts in one run: the upstream roles' keys derive from a secret there.
 */
export async function startFrontEnd(
  workDir: string,
  options: BenchOptions,
  server: PostgresServer,
  passwords: { readonly superuser: string; readonly client: string },
): Promise<Target> {
  const dataDir = join(workDir, "nodedb-data");
  const portsFile = join(dataDir, "ports.json");
  const configFile = join(workDir, "nodedb.toml");
  const program = join("dist", "main.js");
  if (!existsSync(program)) throw new Error(`${program} is missing; build first, from the project's folder`);
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  rmSync(portsFile, { force: true });
  writeFileSync(configFile, limits(options));
  const child = startChild(process.execPath, ["--max-semi-space-size=4", program, "start"], {
    env: {
      NODEDB_CONFIG: configFile,
      NODEDB_DATA_DIR: dataDir,
      NODEDB_LOG_LEVEL: "warn",
      NODEDB_PORT_PGWIRE: "0",
      NODEDB_PORT_HTTP: "0",
      NODEDB_SUPERUSER_PASSWORD: passwords.superuser,
      NODEDB_UPSTREAM_URL: upstreamUrl(options, server),
    },
    logFile: join(workDir, "nodedb.log"),
  });
  const close = () => child.stop("SIGTERM");
  try {
    await waitUntilReady("the front-end", child, async () => {
      const port = readPort(portsFile);
      return port !== undefined && (await acceptsConnections(port));
    });
    const port = readPort(portsFile);
    if (port === undefined) throw new Error(`${portsFile} names no pgwire port`);
    const endpoint = { host: "127.0.0.1", port, user: clientUser, password: passwords.client, database };
    await createClientUser({ ...endpoint, user: superuser, password: passwords.superuser }, passwords.client);
    await grantPgbenchTables(server, clientUser);
    return {
      name: "nodedb",
      endpoint,
      proxyPid: child.pid,
      version: `NodeDB on Node.js ${process.version}`,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function createClientUser(login: pg.ClientConfig, password: string): Promise<void> {
  const client = new pg.Client(login);
  await client.connect();
  try {
    await client.query(`CREATE USER IF NOT EXISTS ${clientUser} PASSWORD '${password}'`);
  } finally {
    await client.end();
  }
}

/** The same room as PgBouncer has. */
function limits(options: BenchOptions): string {
  const connections = maxUpstreamConnections(options);
  return `[server]
max_connections = ${connections}

[upstream]
pool_size = ${connections}
max_connections = ${connections}
`;
}

function upstreamUrl(options: BenchOptions, server: PostgresServer): string {
  const url = `postgres://postgres:${server.superuserPassword}@127.0.0.1:${server.port}/${database}`;
  return options.upstream === "unix" ? `${url}?host=${server.socketDir}` : url;
}

/** @returns undefined until the file has been written in full */
function readPort(portsFile: string): number | undefined {
  if (!existsSync(portsFile)) return undefined;
  try {
    const ports: unknown = JSON.parse(readFileSync(portsFile, "utf8"));
    const isRecord = typeof ports === "object" && ports !== null && "pgwire" in ports;
    return isRecord && typeof ports.pgwire === "number" ? ports.pgwire : undefined;
  } catch {
    return undefined;
  }
}
