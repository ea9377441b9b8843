/** The front-end as a target: the built program in front of the benchmark's PostgreSQL. */

import { randomBytes } from "node:crypto";
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
import { sslModeOf, type Target, type TlsFiles } from "./targets.ts";

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
  tls: TlsFiles | undefined,
): Promise<Target> {
  const dataDir = join(workDir, "nodedb-data");
  const portsFile = join(dataDir, "ports.json");
  const configFile = join(workDir, "nodedb.toml");
  const program = join("dist", "main.js");
  if (!existsSync(program)) throw new Error(`${program} is missing; build first, from the project's folder`);
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  rmSync(portsFile, { force: true });
  writeFileSync(configFile, configuration(options, tls));
  const child = startChild(process.execPath, [...nodeArguments(options), program, "start"], {
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
      const { pgwire: port } = readPorts(portsFile);
      return port !== undefined && (await acceptsConnections(port));
    });
    const { pgwire: port, http } = readPorts(portsFile);
    if (port === undefined || http === undefined) throw new Error(`${portsFile} does not name both ports`);
    const endpoint = {
      host: "127.0.0.1",
      port,
      user: clientUser,
      password: passwords.client,
      database,
      sslMode: sslModeOf(tls),
    };
    const key = await createClient(
      { ...endpoint, user: superuser, password: passwords.superuser },
      passwords.client,
    );
    await grantPgbenchTables(server, clientUser);
    return {
      name: "nodedb",
      endpoint,
      proxyPid: child.pid,
      http: { port: http, key },
      version: `NodeDB on Node.js ${process.version}`,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** @returns an API key of the client's user */
async function createClient(login: pg.ClientConfig, password: string): Promise<string> {
  const client = new pg.Client(login);
  await client.connect();
  try {
    await client.query(`CREATE USER IF NOT EXISTS ${clientUser} PASSWORD '${password}'`);
    // A key is shown once, and the front-end is started for each section.
    const name = `bench_${randomBytes(6).toString("hex")}`;
    const { rows } = await client.query(`CREATE API KEY ${name} FOR ${clientUser}`);
    return String(rows[0]?.api_key);
  } finally {
    await client.end();
  }
}

function nodeArguments({ profileDir }: BenchOptions): string[] {
  const profile = profileDir === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${profileDir}`];
  return ["--max-semi-space-size=4", ...profile];
}

/** The same room as PgBouncer has. */
function configuration(options: BenchOptions, tls: TlsFiles | undefined): string {
  const connections = maxUpstreamConnections(options);
  return `[server]
max_connections = ${connections}

[upstream]
pool_size = ${connections}
max_connections = ${connections}

[http]
requests_per_min = 0
statement_timeout = "10m"
${tls === undefined ? "" : `\n[server.tls]\ncert = "${tls.certPath}"\nkey = "${tls.keyPath}"\n`}`;
}

function upstreamUrl(options: BenchOptions, server: PostgresServer): string {
  const url = `postgres://postgres:${server.superuserPassword}@127.0.0.1:${server.port}/${database}`;
  return options.upstream === "unix" ? `${url}?host=${server.socketDir}` : url;
}

/** @returns no ports until the file has been written in full */
function readPorts(portsFile: string): { readonly pgwire?: number; readonly http?: number } {
  if (!existsSync(portsFile)) return {};
  try {
    return JSON.parse(readFileSync(portsFile, "utf8"));
  } catch {
    return {};
  }
}
