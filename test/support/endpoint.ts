/** The server that a client test logs in to: the front-end, or PostgreSQL itself to prove the test. */

import { randomBytes } from "node:crypto";
import pg from "pg";
import { startFrontEnd } from "./front-end.ts";
import { startPostgres } from "./postgres.ts";

/** Where to log in, as an administrator and as an ordinary user that may read and write tables. */
export interface Endpoint {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly adminUser: string;
  readonly adminPassword: string;
  readonly user: string;
  readonly password: string;
  /** Makes an empty database that belongs to the administrator. */
  createDatabase(name: string): Promise<void>;
  close(): Promise<void>;
}

type Login = Pick<Endpoint, "host" | "port" | "database" | "adminUser" | "adminPassword">;

type Server = Login & Pick<Endpoint, "createDatabase" | "close">;

/** The PostgreSQL at the far end: `embedded` is 18, from npm; `debian` is 15. */
export type Upstream = "embedded" | "debian";

/**
 * Starts a server, and makes the ordinary user and the table `public.account` with one row in it.
 * Behind the front-end `embedded` is its own PostgreSQL, `debian` an external one. NODEDB_TEST_ENDPOINT asks for another
 * kind of server:
 * - `direct`: PostgreSQL without the front-end. What passes there must pass through the front-end unchanged.
 * - `postgres://admin:password@host:port/database`: one that runs already, in a database of its own.
 */
export async function openEndpoint(upstream: Upstream = "embedded"): Promise<Endpoint> {
  const server = await openServer(process.env.NODEDB_TEST_ENDPOINT ?? "front-end", upstream);
  const endpoint = {
    ...server,
    user: `app_${randomBytes(4).toString("hex")}`,
    // Not ASCII, so that SASLprep and quoting of every client are in use.
    password: `Päss 'wörd' ${randomBytes(8).toString("hex")}`,
  };
  try {
    await createUser(endpoint, endpoint.user, endpoint.password);
    await runAsAdmin(endpoint, accountTable);
    await runAsAdmin(endpoint, `GRANT SELECT, INSERT, UPDATE, DELETE ON account TO ${endpoint.user}`);
  } catch (error) {
    await server.close();
    throw error;
  }
  return endpoint;
}

const accountTable = `
  CREATE TABLE public.account (
    id int PRIMARY KEY,
    owner text NOT NULL,
    balance numeric(12,2) NOT NULL DEFAULT 0,
    CONSTRAINT account_balance_not_negative CHECK (balance >= 0)
  );
  INSERT INTO public.account VALUES (1, 'first', 10)`;

/** Makes a user with the statement that PostgreSQL and the front-end both know. */
export async function createUser(endpoint: Endpoint, name: string, password: string): Promise<void> {
  await runAsAdmin(endpoint, `CREATE USER ${name} PASSWORD ${pg.escapeLiteral(password)}`);
}

/** Runs SQL as the administrator in the endpoint's database or the named one; several statements may stand in it. */
export async function runAsAdmin(
  server: Login,
  sql: string,
  database = server.database,
): Promise<pg.QueryResult> {
  const client = new pg.Client({
    host: server.host,
    port: server.port,
    database,
    user: server.adminUser,
    password: server.adminPassword,
  });
  await client.connect();
  try {
    return await client.query(sql);
  } finally {
    await client.end();
  }
}

/** The environment that libpq and the drivers that imitate it take their connection from. */
export function libpqEnvironment(endpoint: Endpoint, as: "user" | "admin" = "user"): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("PG"));
  return {
    ...Object.fromEntries(inherited),
    LC_ALL: "C.UTF-8",
    PGHOST: endpoint.host,
    PGPORT: String(endpoint.port),
    PGDATABASE: endpoint.database,
    PGUSER: as === "user" ? endpoint.user : endpoint.adminUser,
    PGPASSWORD: as === "user" ? endpoint.password : endpoint.adminPassword,
    PGCONNECT_TIMEOUT: "30",
  };
}

async function openServer(kind: string, upstream: Upstream): Promise<Server> {
  if (kind === "front-end") {
    return upstream === "embedded" ? openFrontEnd() : openFrontEndOnDebian();
  }
  if (kind === "direct") {
    return openPostgres(upstream);
  }
  if (/^postgres(ql)?:/.test(kind)) {
    return openDatabaseOf(new URL(kind));
  }
  throw new Error(`NODEDB_TEST_ENDPOINT=${kind} is unknown`);
}

async function openFrontEnd(): Promise<Server> {
  const frontEnd = await startFrontEnd();
  return { ...frontEnd, createDatabase: (name) => createDatabaseAsAdmin(frontEnd, name) };
}

async function createDatabaseAsAdmin(login: Login, name: string): Promise<void> {
  await runAsAdmin(login, `CREATE DATABASE ${name}`);
}

async function openFrontEndOnDebian(): Promise<Server> {
  const postgres = await startPostgres({ version: "debian", tcp: true });
  const frontEnd = await startFrontEnd({ upstreamUrl: postgres.url });
  return {
    ...frontEnd,
    createDatabase: (name) => createDatabaseAsAdmin(frontEnd, name),
    close: async () => {
      await frontEnd.close();
      await postgres.dispose();
    },
  };
}

async function openPostgres(upstream: Upstream): Promise<Server> {
  const postgres = await startPostgres({ version: upstream, tcp: true });
  const login = {
    host: "127.0.0.1",
    port: postgres.port,
    database: "postgres",
    adminUser: postgres.superuser,
    adminPassword: postgres.superuserPassword,
  };
  return {
    ...login,
    createDatabase: (name) => createDatabaseAsAdmin(login, name),
    close: () => postgres.dispose(),
  };
}

async function openDatabaseOf(url: URL): Promise<Server> {
  const database = `clients_${randomBytes(4).toString("hex")}`;
  const given = {
    host: url.hostname,
    port: Number(url.port),
    database: url.pathname.slice(1),
    adminUser: decodeURIComponent(url.username),
    adminPassword: decodeURIComponent(url.password),
  };
  const databases: string[] = [];
  const createDatabase = async (name: string): Promise<void> => {
    await createDatabaseAsAdmin(given, name);
    databases.push(name);
  };
  await createDatabase(database);
  return {
    ...given,
    database,
    createDatabase,
    close: async () => {
      for (const name of databases) {
        await runAsAdmin(given, `DROP DATABASE ${name}`);
      }
    },
  };
}
