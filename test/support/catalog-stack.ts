/** Catalog, executor and reconciler over a PostgreSQL of the test's own, without any client connection. */

import { createHash, randomBytes } from "node:crypto";
import { Client, type ClientConfig } from "pg";
import type { LiveSession } from "../../src/auth/live-session.ts";
import { identityOf } from "../../src/auth/password.ts";
import { AuditLog } from "../../src/catalog/audit-log.ts";
import { type Catalog, openCatalog } from "../../src/catalog/catalog.ts";
import { connectAdmin, createAdminPool } from "../../src/catalog/connection.ts";
import { parseStatement } from "../../src/ddl/parse-statement.ts";
import type { SqlError } from "../../src/errors/sql-error.ts";
import { type BootstrapResult, bootstrap } from "../../src/exec/bootstrap.ts";
import type { ExecutionContext, ExecutorDependencies } from "../../src/exec/context.ts";
import { createDatabasePreparer } from "../../src/exec/databases.ts";
import { createExecutor, type Executor } from "../../src/exec/execute.ts";
import type { StatementResult } from "../../src/exec/result.ts";
import { RoleReaper } from "../../src/exec/role-reaper.ts";
import { createLog } from "../../src/observe/log.ts";
import { startPostgres, type TestPostgres } from "./postgres.ts";

export const superuserPassword = "correct horse battery";

export interface CatalogStackOptions {
  readonly isEmbedded: boolean;
  readonly masterSecret?: Buffer;
  /** The administrative login; the cluster's superuser when absent. */
  readonly adminRole?: string;
}

export interface CatalogStack {
  readonly catalog: Catalog;
  readonly deps: ExecutorDependencies;
  readonly executor: Executor;
  readonly started: BootstrapResult;
  /** Ids of principals whose sessions were closed, with the error. */
  readonly closed: { id: number; error: SqlError }[];
  /** Sessions that a test says are open; statements take them out when they would be closed. */
  readonly live: Set<LiveSession>;
  /** Runs a statement as a user of the catalog. */
  run(user: string, sql: string, context?: Partial<ExecutionContext>): Promise<StatementResult | "forward">;
  /** A connection to PostgreSQL as any role; the socket trusts. */
  connectAs(role: string, database?: string): Promise<Client>;
  /** Runs SQL as the cluster's superuser, past the front-end. */
  sql(text: string, values?: unknown[], database?: string): Promise<Record<string, unknown>[]>;
  /** All that a refused statement must leave as it was. */
  snapshot(): Promise<string>;
  close(): Promise<void>;
}

/** Opens catalog "nodedb" of the cluster, creating the database at the first call. */
export async function openCatalogStack(
  postgres: TestPostgres,
  options: CatalogStackOptions,
): Promise<CatalogStack> {
  const server: ClientConfig = { host: postgres.socketDir, port: postgres.port };
  const connectAs = async (role: string, database = "nodedb") => {
    const client = new Client({ ...server, user: role, database });
    client.on("error", () => undefined);
    await client.connect();
    return client;
  };
  const sql = async (text: string, values: unknown[] = [], database = "nodedb") => {
    const client = await connectAs(postgres.superuser, database);
    try {
      return (await client.query<Record<string, unknown>>(text, values)).rows;
    } finally {
      await client.end();
    }
  };
  const present = await sql("SELECT FROM pg_database WHERE datname = 'nodedb'", [], "postgres");
  if (present.length === 0) {
    await sql(`CREATE DATABASE nodedb OWNER ${options.adminRole ?? postgres.superuser}`, [], "postgres");
  }

  const log = createLog({ level: "silent", format: "json" });
  const adminConnection: ClientConfig = {
    ...server,
    user: options.adminRole ?? postgres.superuser,
    database: "nodedb",
  };
  const pool = createAdminPool(adminConnection, 4);
  const roleOptions = {
    isEmbedded: options.isEmbedded,
    masterSecret: options.masterSecret,
    defaultDatabase: "nodedb",
  };
  const closed: { id: number; error: SqlError }[] = [];
  const live = new Set<LiveSession>();
  let catalog: Catalog;
  try {
    catalog = await openCatalog({
      pool,
      connectListener: () => connectAdmin(adminConnection, "nodedb"),
      masterSecretFingerprint: createHash("sha256")
        .update(options.masterSecret ?? "none")
        .digest(),
      cancelBackend: async () => undefined,
      log,
      reloadSpacingMs: 5,
    });
  } catch (error) {
    await pool.end();
    throw error;
  }
  const audit = new AuditLog({
    pool,
    changes: catalog.changes,
    key: createHash("sha256")
      .update(options.masterSecret ?? "audit chain")
      .digest(),
    level: "full",
    log,
  });
  await audit.open();
  const deps: ExecutorDependencies = {
    catalog,
    adminConnection,
    roleOptions,
    databases: createDatabasePreparer({
      connect: (database) => connectAdmin(adminConnection, database),
      roleOptions,
      claims: { schema: "auth", masterSecret: options.masterSecret ?? Buffer.alloc(32, 6) },
      log,
    }),
    sessions: {
      closeSessionsOf: (id, error, mayStay) => {
        if (mayStay === undefined) closed.push({ id, error });
        for (const session of [...live]) {
          if (session.identity.principal.id !== id || mayStay?.(session) === true) continue;
          live.delete(session);
        }
      },
    },
    sessionTable: { flush: async () => undefined, change: (work) => catalog.write(work) },
    reaper: new RoleReaper({ catalog, adminConnection, roleOptions, log }),
    audit,
    log,
    authFunctions: { schema: "auth", claims: new Set() },
    minPasswordLength: 8,
    scramIterations: 4096,
    apiKeySaltSecret: Buffer.alloc(32, 5),
    areKeysPasswords: true,
  };
  let started: BootstrapResult;
  try {
    started = await bootstrap(deps, { superuserName: "root_user", superuserPassword });
  } catch (error) {
    await catalog.close();
    await pool.end();
    throw error;
  }
  const executor = createExecutor(deps);

  return {
    catalog,
    deps,
    executor,
    started,
    closed,
    live,
    connectAs,
    sql,
    run: async (user, text, context = {}) => {
      const record = catalog.cache.findByName(user);
      if (record === undefined) throw new Error(`the test names an unknown user ${user}`);
      const statement = parseStatement(text);
      if (statement === "forward") return "forward";
      return executor.execute(statement, {
        identity: identityOf(record, "scram-sha-256"),
        sessionId: "session-1",
        database: "nodedb",
        dateStyle: "ISO, MDY",
        timeZone: "UTC",
        materials: new Map(),
        ...context,
      });
    },
    snapshot: async () => {
      const rows = await sql(
        `SELECT (SELECT json_agg(to_jsonb(p) - 'last_login_at' ORDER BY id) FROM nodedb.principal p) AS principals,
                (SELECT json_agg(r ORDER BY principal_id, role) FROM nodedb.principal_role r) AS roles,
                (SELECT json_agg(l ORDER BY principal_id, database) FROM nodedb.principal_database l) AS lists,
                (SELECT json_agg(to_jsonb(k) - 'last_used_at' ORDER BY id) FROM nodedb.api_key k) AS keys,
                (SELECT json_agg(o ORDER BY id) FROM nodedb.oidc_provider o) AS providers,
                (SELECT json_agg(c ORDER BY id) FROM nodedb.role c) AS custom_roles,
                (SELECT json_agg(t ORDER BY id) FROM nodedb.tenant t) AS tenants,
                (SELECT json_agg(a ORDER BY oid) FROM pg_authid a) AS pg_roles,
                (SELECT json_agg(m ORDER BY roleid, member) FROM pg_auth_members m) AS members,
                (SELECT json_agg(d ORDER BY oid) FROM pg_database d) AS databases`,
      );
      return JSON.stringify(rows, undefined, 1);
    },
    close: async () => {
      await audit.close();
      await catalog.close();
      await pool.end();
    },
  };
}

/**
 * A PostgreSQL of its own and the catalog on it, as the front-end has them: 18 is the embedded one, 15 somebody else's. Both are
 * closed together.
 */
export async function startCatalogStack(version: "embedded" | "debian"): Promise<CatalogStack> {
  const postgres = await startPostgres({ version });
  const isEmbedded = version === "embedded";
  const stack = await openCatalogStack(
    postgres,
    isEmbedded ? { isEmbedded } : { isEmbedded, masterSecret: makeMasterSecret() },
  );
  return {
    ...stack,
    close: async () => {
      await stack.close();
      await postgres.dispose();
    },
  };
}

/** A master secret as an external upstream has one. */
export function makeMasterSecret(): Buffer {
  return randomBytes(32);
}
