/** How the front-end itself connects to PostgreSQL: fixed settings on every administrative connection. */

import { Client, type ClientConfig, Pool, type QueryConfig } from "pg";
import { SqlError } from "../errors/sql-error.ts";

/**
 * Sent at startup, so that neither a role's nor a database's own defaults can change them: planted
 * functions and temporary types never shadow what our SQL names (design: the catalog is trusted less than the code), and
 * the owner of a database decides neither as whom we work there nor for how long.
 */
export const fixedSettings: ReadonlyMap<string, string> = new Map([
  ["search_path", "pg_catalog,pg_temp"],
  ["default_transaction_isolation", "read committed"],
  ["default_transaction_read_only", "off"],
  ["role", "none"],
  ["statement_timeout", "0"],
  ["lock_timeout", "0"],
  ["idle_in_transaction_session_timeout", "0"],
  ["idle_session_timeout", "0"],
  ["standard_conforming_strings", "on"],
  ["row_security", "on"],
]);

/** For a connection, and for one of the pool to become free. */
const connectTimeoutMs = 15_000;

/**
 * Gives its password to nobody: node-postgres would send it in clear text, or as an MD5 hash that is as good, to whoever
 * asks at the upstream's address. SCRAM proves that one knows it, and makes the server prove so as well.
 */
class ScramOnlyClient extends Client {
  // What node-postgres calls on such a request.
  _handleAuthCleartextPassword(): void {
    this.#refuse();
  }

  _handleAuthMD5Password(): void {
    this.#refuse();
  }

  #refuse(): void {
    const { connection } = this;
    const error = new SqlError(
      "connection_failure",
      "the upstream asks for a password without SCRAM-SHA-256",
      {
        detail: "It was not sent.",
        hint: "Give the administrative role a password with password_encryption = 'scram-sha-256', and let pg_hba.conf ask for scram-sha-256.",
      },
    );
    connection.emit("error", error);
    connection.stream.destroy();
  }
}

/** An administrative query that takes longer has lost its upstream; whoever waits for it is told, in ms. */
const queryTimeoutMs = 60_000;

/** The same of a query that a login waits for, whose client will not wait as long. */
const loginQueryTimeoutMs = 5_000;

/** A query as node-postgres takes it; its types do not know of a timeout of one query. */
export interface TimedQuery extends QueryConfig {
  readonly query_timeout: number;
}

/** A query of a login: it fails as a connection error when the upstream keeps silent. */
export function loginQuery(text: string, values: unknown[] = []): TimedQuery {
  return { text, values, query_timeout: loginQueryTimeoutMs };
}

/** Adds the fixed settings to a connection's configuration. */
export function adminConnectionConfig(connection: ClientConfig): ClientConfig {
  return {
    application_name: "nodedb",
    keepAlive: true,
    connectionTimeoutMillis: connectTimeoutMs,
    query_timeout: queryTimeoutMs,
    ...connection,
    options: [...fixedSettings].map(([name, value]) => `-c ${name}=${value.replace(" ", "\\ ")}`).join(" "),
  };
}

/** Pool for the catalog's database; the caller ends it after `Catalog.close()`. An idle connection that breaks is dropped quietly. */
export function createAdminPool(connection: ClientConfig, maxConnections: number): Pool {
  const pool = new Pool({
    ...adminConnectionConfig(connection),
    Client: ScramOnlyClient,
    max: maxConnections,
    idleTimeoutMillis: 60_000,
  });
  // Without a listener a connection that breaks while idle would end the process.
  pool.on("error", () => undefined);
  return pool;
}

/**
 * Opens one administrative connection to a database; the caller ends it.
 *
 * @throws SqlError character_not_in_repertoire for a name with a NUL
 */
export async function connectAdmin(connection: ClientConfig, database: string): Promise<Client> {
  // A client may have named it. The startup packet is a list of strings that end with NUL (PostgreSQL manual 54.7): what follows
  // one would be settings of this connection, a search_path that leads to the client's own operators among them.
  if (database.includes("\0")) {
    throw new SqlError("character_not_in_repertoire", 'invalid byte sequence for encoding "UTF8": 0x00');
  }
  const { connectionString, ...rest } = connection;
  const base: ClientConfig =
    connectionString === undefined ? rest : { ...rest, ...fromUrl(connectionString) };
  const client = new ScramOnlyClient(adminConnectionConfig({ ...base, database }));
  client.on("error", () => undefined);
  let majorVersion = 0;
  client.connection.on("parameterStatus", ({ parameterName, parameterValue }) => {
    if (parameterName === "server_version") majorVersion = Number.parseInt(parameterValue, 10);
  });
  await client.connect();
  // A startup parameter that a release does not know is an error; as a utility statement it is done before any timeout.
  if (majorVersion >= 17) await client.query("SET transaction_timeout = 0");
  return client;
}

/** The parts of a URL one by one, so that the database can be another one than the URL names. */
function fromUrl(connectionString: string): ClientConfig {
  const { host, port, user, password, ssl } = new Client({ connectionString });
  return {
    host,
    port,
    ...(user === undefined ? {} : { user }),
    ...(password === undefined || password === null ? {} : { password }),
    ssl,
  };
}

/** The SQLSTATE of an error that PostgreSQL raised; undefined for anything else. */
export function sqlstateOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error) || !("severity" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

/** True when the error says that PostgreSQL cannot be reached or is going away, and not that it refused a statement. */
export function isConnectionError(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const state = sqlstateOf(error);
  if (state !== undefined) return state.startsWith("08") || state.startsWith("57P") || state.startsWith("53");
  const code = "code" in error ? error.code : undefined;
  return (
    (typeof code === "string" && /^E[A-Z]+$/.test(code)) ||
    /^(Connection terminated|timeout ex|Query read timeout|Client has encountered a connection error)/.test(
      error.message,
    )
  );
}

/** What the client is told when the catalog cannot be reached. */
export function catalogUnavailable(cause: unknown): SqlError {
  return new SqlError("cannot_connect_now", "the catalog is not available", { cause });
}
