/** The one PostgreSQL that every target leads to: its own cluster with pgbench's tables, on TCP and a unix socket. */

import { writeFileSync } from "node:fs";
import pg from "pg";
import { startPostgres } from "../support/postgres.ts";
import type { BenchOptions } from "./arguments.ts";
import { findProgram, runProgram } from "./child-process.ts";

export const database = "bench";
/** Name of the role that clients of PostgreSQL itself and of PgBouncer log in as. */
export const directUser = "bench_direct";

/** Upstream connections that each proxy may hold: a session pool needs one for every session. */
export function maxUpstreamConnections(options: BenchOptions): number {
  return options.sessions + 100;
}

/** For clients of PostgreSQL itself, and for administration. */
const directConnections = 200;

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
 * Starts a cluster and fills it with pgbench's tables.
 *
 * @param directPassword of {@link directUser}; a plain word, it stands in SQL text
 */
export async function startPostgresServer(
  options: BenchOptions,
  directPassword: string,
): Promise<PostgresServer> {
  const postgres = await startPostgres({
    version: options.postgres,
    tcp: true,
    settings: {
      max_connections: String(
        // Each proxy keeps what it has opened for a while.
        2 * maxUpstreamConnections(options) + directConnections,
      ),
      shared_buffers: "256MB",
      max_wal_size: "2GB",
    },
  });
  const { socketDir, port, superuserPassword } = postgres;
  const login = { host: socketDir, port, user: "postgres", password: superuserPassword };
  const query = (text: string) => queryOnce({ ...login, database }, text);
  const close = () => postgres.dispose();
  try {
    await queryOnce({ ...login, database: "postgres" }, `CREATE DATABASE ${database}`);
    await query(`CREATE ROLE ${directUser} LOGIN PASSWORD '${directPassword}'`);
    if (options.upstreamAuth === "scram") await requireScramOnSocket(query);
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
      { env: { PGPASSWORD: superuserPassword } },
    );
    await grantPgbenchTables({ query }, directUser);
    const { rows } = await query("SHOW server_version");
    return { port, socketDir, superuserPassword, version: String(rows[0]?.server_version), query, close };
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

async function requireScramOnSocket(query: PostgresServer["query"]): Promise<void> {
  const { rows } = await query("SHOW hba_file");
  writeFileSync(
    String(rows[0]?.hba_file),
    "local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n",
  );
  await query("SELECT pg_reload_conf()");
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
