/** A front-end before a PostgreSQL of the test's own, with one user: what most fault and pool tests stand on. */

import pg from "pg";
import { type FrontEnd, type FrontEndOptions, startFrontEnd } from "./front-end.ts";
import { startPostgres, type TestPostgres, type TestPostgresOptions } from "./postgres.ts";
import { startRelay, type TcpRelay } from "./relay.ts";

export interface Stage {
  readonly postgres: TestPostgres;
  readonly frontEnd: FrontEnd;
  /** Between the two, when asked for. */
  readonly relay: TcpRelay;
  /** How a user of the front-end logs in; the password is the user's name, twice. */
  login(user: string, more?: pg.ClientConfig): pg.ClientConfig;
  connect(user: string, more?: pg.ClientConfig): Promise<pg.Client>;
  /** Runs SQL as the front-end's superuser, through it. */
  asAdmin(sql: string): Promise<pg.QueryResult>;
  /** Runs SQL as PostgreSQL's superuser, past the front-end. */
  past(sql: string, values?: unknown[]): Promise<Record<string, unknown>[]>;
  /** What the server is running, by process id, of one user. */
  running(user: string): Promise<{ pid: number; state: string; query: string }[]>;
  close(): Promise<void>;
}

export interface StageOptions extends Omit<FrontEndOptions, "upstreamUrl"> {
  readonly postgres?: TestPostgresOptions;
  /** Through the socket of PostgreSQL instead of TCP. */
  readonly viaSocket?: boolean;
  /** What the front-end logs in as: PostgreSQL's superuser, or a role that may create others and cannot read passwords. */
  readonly upstreamLogin?: "superuser" | "creator of roles";
  readonly users?: readonly string[];
}

export function passwordOf(user: string): string {
  return `${user}${user}`.padEnd(8, "-");
}

export async function openStage(options: StageOptions = {}): Promise<Stage> {
  const postgres = await startPostgres({ tcp: true, ...options.postgres });
  const asOwner = { host: postgres.socketDir, port: postgres.port, user: "postgres", database: "postgres" };
  const relay = await startRelay(postgres.port);
  const url = new URL(postgres.url);
  url.port = String(relay.port);
  if (options.upstreamLogin === "creator of roles") {
    url.username = "front";
    await runOnce(
      asOwner,
      `CREATE ROLE front LOGIN CREATEROLE CREATEDB PASSWORD '${url.password}'; GRANT CREATE ON DATABASE postgres TO front`,
    );
  }
  const throughSocket = `postgresql://postgres@localhost/postgres?host=${encodeURIComponent(postgres.socketDir)}&port=${postgres.port}`;
  let frontEnd: FrontEnd;
  try {
    frontEnd = await startFrontEnd({
      ...options,
      upstreamUrl: options.viaSocket === true ? throughSocket : url.href,
    });
  } catch (error) {
    await relay.close();
    await postgres.dispose();
    throw error;
  }
  const login = (user: string, more: pg.ClientConfig = {}): pg.ClientConfig => ({
    host: frontEnd.host,
    port: frontEnd.port,
    database: "postgres",
    user,
    password: user === frontEnd.adminUser ? frontEnd.adminPassword : passwordOf(user),
    ...more,
  });
  const connect = (user: string, more?: pg.ClientConfig) => openClient(login(user, more));
  const stage: Stage = {
    postgres,
    frontEnd,
    relay,
    login,
    connect,
    asAdmin: (sql) => runOnce(login(frontEnd.adminUser), sql),
    past: async (sql, values) => (await runOnce(asOwner, sql, values)).rows,
    running: async (user) =>
      (await stage.past("SELECT pid, state, query FROM pg_stat_activity WHERE usename = $1 ORDER BY pid", [
        user,
      ])) as {
        pid: number;
        state: string;
        query: string;
      }[],
    close: async () => {
      await frontEnd.close();
      await relay.close();
      await postgres.dispose();
    },
  };
  for (const user of options.users ?? ["alice"]) {
    await stage.asAdmin(`CREATE USER ${user} PASSWORD '${passwordOf(user)}'`);
  }
  return stage;
}

/** Connects; an error of the idle connection is for the test that looks for it, and breaks no other. */
export async function openClient(config: pg.ClientConfig): Promise<pg.Client> {
  const client = new pg.Client(config);
  client.on("error", () => {});
  await client.connect();
  return client;
}

export async function runOnce(
  config: pg.ClientConfig,
  sql: string,
  values?: unknown[],
): Promise<pg.QueryResult> {
  const client = await openClient(config);
  try {
    return await client.query(sql, values);
  } finally {
    await client.end().catch(() => {});
  }
}

/** The SQLSTATE that a promise rejects with; a resolved one gives undefined. */
export async function stateOf(work: Promise<unknown>): Promise<string | undefined> {
  try {
    await work;
    return undefined;
  } catch (error) {
    return error instanceof Error && "code" in error ? String(error.code) : `no SQLSTATE: ${String(error)}`;
  }
}

/** The error that ends an idle connection. */
export function endOf(client: pg.Client): Promise<{ code?: string; message: string }> {
  return new Promise((resolve) => client.once("error", (error: Error & { code?: string }) => resolve(error)));
}
