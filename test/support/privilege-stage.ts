/** Callers of every built-in role, and in two tenants one target of each kind: what statements of a table of privileges are run on. */

import { randomUUID } from "node:crypto";
import type { Client } from "pg";
import { parseStatement } from "../../src/ddl/parse-statement.ts";
import type { Statement } from "../../src/ddl/statement.ts";
import { SqlError } from "../../src/errors/sql-error.ts";
import { beginOpenTransaction, type ExecutionContext } from "../../src/exec/context.ts";
import type { StatementResult } from "../../src/exec/result.ts";
import { type BuiltInRole, builtInRoles } from "../../src/upstream/built-in-groups.ts";
import { UpstreamError } from "../../src/upstream/upstream-error.ts";
import { type CatalogStack, openCatalogStack } from "./catalog-stack.ts";
import { clientConnection } from "./client-connection.ts";
import { startPostgres } from "./postgres.ts";

/** The callers' tenant, and another one. */
export type Target = "own" | "other";

export interface PrivilegeStage {
  /** The statement's text for this caller: `{user}` is a user of the tenant, `{my_key}` a key of the caller, and so on. */
  fill(template: string, caller: BuiltInRole, target: Target): string;
  /**
   * Runs a statement and leaves everything as it was: one that is allowed in a transaction that is rolled back, or on
   * something that is made again; one that is refused for real as well.
   *
   * @returns the result, or the SQLSTATE of the refusal
   */
  attempt(sql: string, caller: BuiltInRole): Promise<StatementResult | "forward" | string>;
  /** @throws Error when a refused statement has changed the catalog, a PostgreSQL role, a session or a policy */
  checkUnchanged(): Promise<void>;
  close(): Promise<void>;
}

const tenants = { own: 1, other: 7 } as const;
const password = "PASSWORD 'long enough'";

/** Kinds that cannot be rolled back or do not run in a transaction, as they also change other databases. */
const notRehearsed: ReadonlySet<Statement["kind"]> = new Set([
  "drop_user",
  "drop_role",
  "drop_service_account",
  "drop_api_key",
]);
/** Kinds that change something on the caller's own connection. */
const onConnection: ReadonlySet<Statement["kind"]> = new Set(["create_rls_policy", "drop_rls_policy"]);

const callerOf = (role: BuiltInRole) => `calling_${role}`;

export async function openPrivilegeStage(): Promise<PrivilegeStage> {
  const postgres = await startPostgres({ version: "embedded" });
  let stack: CatalogStack | undefined;
  const connections = new Map<BuiltInRole | "observer", Client>();
  const close = async () => {
    await Promise.all([...connections.values()].map((client) => client.end()));
    await stack?.close();
    await postgres.dispose();
  };
  try {
    stack = await openCatalogStack(postgres, { isEmbedded: true });
    const values = await populate(stack);
    for (const role of builtInRoles) connections.set(role, await stack.connectAs(callerOf(role)));
    const observer = await stack.connectAs(postgres.superuser);
    connections.set("observer", observer);
    const checks = createChecks(stack, observer);
    await checks.accept();
    return {
      fill: (...args) => fill(values, ...args),
      attempt: createAttempt(stack, connections, checks),
      checkUnchanged: checks.checkUnchanged,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** @returns what the placeholders stand for that no rule gives: ids */
async function populate(stack: CatalogStack): Promise<ReadonlyMap<string, string>> {
  const run = (sql: string) => stack.run("root_user", sql);
  const values = new Map<string, string>();
  const frontEnd = randomUUID();
  await stack.sql("INSERT INTO nodedb.front_end (id, heartbeat_at) VALUES ($1, 'infinity')", [frontEnd]);
  const openSession = async (user: string, tenant: number) => {
    const id = randomUUID();
    await stack.sql(
      `INSERT INTO nodedb.session (id, instance_id, principal_id, username, database, tenant_id, auth_method, protocol,
                                   state, connected_at, last_active_at)
       SELECT $1, $2, p.id, p.name, 'nodedb', $4, 'scram-sha-256', 'pgwire', 'idle', now(), now()
         FROM nodedb.principal p WHERE p.name = $3`,
      [id, frontEnd, user, String(tenant)],
    );
    return id;
  };
  const createTable = (name: string, policy: string, owner: string) =>
    stack.sql(
      `CREATE TABLE public.${name} (id int); ALTER TABLE public.${name} OWNER TO ${owner};
       CREATE POLICY ${policy} ON public.${name} USING (true)`,
    );
  const createKey = async (name: string, owner: string) => {
    const result = await run(`CREATE API KEY '${name}' FOR ${owner}`);
    const row = result === "forward" ? undefined : result.table?.rows[0];
    return String(row?.[1]);
  };

  await run("CREATE TENANT acme ID 7");
  await run("CREATE TENANT empty ID 8");
  for (const [target, tenant] of Object.entries(tenants)) {
    const inTenant = `TENANT ${tenant}`;
    await run(`CREATE USER user_${tenant} ${password} ROLE readwrite ${inTenant}`);
    for (const role of builtInRoles.slice(2)) {
      await run(`CREATE USER ${role}_${tenant} ${password} ROLE ${role} ${inTenant}`);
    }
    await stack.sql(`CREATE DATABASE database_${tenant}`, [], "postgres");
    await stack.sql(`REVOKE CONNECT ON DATABASE database_${tenant} FROM PUBLIC`, [], "postgres");
    await run(`GRANT CONNECT ON DATABASE database_${tenant} TO user_${tenant}`);
    await run(`CREATE SERVICE ACCOUNT account_${tenant} FOR DATABASE database_${tenant} ${inTenant}`);
    await run(
      `CREATE OIDC PROVIDER provider_${tenant} WITH (issuer = 'https://${tenant}.example', tenant = ${tenant})`,
    );
    // Roles and stand-alone keys are their creator's tenant's.
    const creator = `superuser_${tenant}`;
    await stack.run(creator, `CREATE ROLE role_${tenant}`);
    await stack.run(creator, `CREATE API KEY 'alone_${tenant}' ROLE readonly`);
    values.set(`${target} key_id`, await createKey(`key_${tenant}`, `user_${tenant}`));
    values.set(`${target} session`, await openSession(`user_${tenant}`, tenant));
    await run(`CREATE USER chief_${tenant} ${password} ROLE superuser ${inTenant}`);
    values.set(`${target} chief_session`, await openSession(`chief_${tenant}`, tenant));
    await createTable(`table_${tenant}`, `policy_${tenant}`, `user_${tenant}`);
    for (const kind of ["user", "account", "role", "alone", "key"]) await stack.run(...spare(kind, tenant));
  }
  for (const role of builtInRoles) {
    const name = callerOf(role);
    await run(`CREATE USER ${name} ${password} ROLE ${role}`);
    values.set(`${role} my_key_id`, await createKey(`key_of_${role}`, name));
    await createKey(`spare_key_of_${role}`, name);
    values.set(`${role} my_session`, await openSession(name, tenants.own));
    await createTable(`table_of_${role}`, `policy_of_${role}`, name);
  }
  return values;
}

/** Who makes a target that is there to be dropped, and how. */
function spare(kind: string, tenant: number): [user: string, sql: string] {
  const creator = `superuser_${tenant}`;
  switch (kind) {
    case "user":
      return [creator, `CREATE USER spare_user_${tenant} ${password}`];
    case "account":
      return [creator, `CREATE SERVICE ACCOUNT spare_account_${tenant} FOR DATABASE nodedb`];
    case "role":
      return [creator, `CREATE ROLE spare_role_${tenant}`];
    case "alone":
      return [creator, `CREATE API KEY 'spare_alone_${tenant}' ROLE readonly`];
    default:
      return ["root_user", `CREATE API KEY 'spare_key_${tenant}' FOR user_${tenant}`];
  }
}

/** The statement that makes again what a statement has dropped, and its user. */
function restoring(sql: string, caller: BuiltInRole): [user: string, sql: string] {
  const spared = /\bspare_(\w+)_([17])\b/.exec(sql);
  if (spared !== null) return spare(spared[1] ?? "", Number(spared[2]));
  if (sql.includes(`spare_key_of_${caller}`)) {
    return ["root_user", `CREATE API KEY 'spare_key_of_${caller}' FOR ${callerOf(caller)}`];
  }
  const user = /^DROP USER (\w+)_([17])$/.exec(sql);
  if (user === null) throw new Error(`what this drops is not made again: ${sql}`);
  const [, role, tenant] = user;
  return ["root_user", `CREATE USER ${role}_${tenant} ${password} ROLE ${role} TENANT ${tenant}`];
}

function fill(values: ReadonlyMap<string, string>, template: string, caller: BuiltInRole, target: Target) {
  return template.replace(/\{(\w+)\}/g, (_, name: string) => {
    const mine = /^my_(\w+)/.exec(name);
    if (mine !== null) return values.get(`${caller} ${name}`) ?? `${mine[1]}_of_${caller}`;
    if (name === "tenant") return String(tenants[target]);
    return values.get(`${target} ${name}`) ?? `${name}_${tenants[target]}`;
  });
}

interface Checks {
  /** Takes what is there now for what has to stay. */
  accept(): Promise<void>;
  hasChanged(): Promise<boolean>;
  checkUnchanged(): Promise<void>;
}

function createChecks(stack: CatalogStack, observer: Client): Checks {
  const snapshot = async () => {
    const rest = await observer.query(
      `SELECT (SELECT json_agg(s ORDER BY id) FROM (SELECT id, killed_by FROM nodedb.session) s) AS sessions,
              (SELECT json_agg(p ORDER BY oid) FROM pg_policy p) AS policies,
              (SELECT json_agg(relrowsecurity ORDER BY oid) FROM pg_class WHERE relkind = 'r') AS row_security`,
    );
    return JSON.stringify([await stack.snapshot(), rest.rows]);
  };
  let before: string | undefined;
  const hasChanged = async () => {
    const now = await snapshot();
    before ??= now;
    return now !== before;
  };
  const accept = async () => {
    before = await snapshot();
  };
  return {
    accept,
    hasChanged,
    checkUnchanged: async () => {
      if (!(await hasChanged())) return;
      await accept();
      throw new Error("a refused statement has changed something");
    },
  };
}

function createAttempt(
  stack: CatalogStack,
  connections: ReadonlyMap<BuiltInRole | "observer", Client>,
  checks: Checks,
): PrivilegeStage["attempt"] {
  return async (sql, role) => {
    const statement = parseStatement(sql);
    if (statement === "forward") throw new Error(`not a statement of ours: ${sql}`);
    const client = connections.get(role);
    if (client === undefined) throw new Error(`no connection for ${role}`);
    const run = (transaction?: ExecutionContext["transaction"]) =>
      outcomeOf(() =>
        stack.run(callerOf(role), sql, {
          sessionId: randomUUID(),
          connection: clientConnection(client),
          ...(transaction === undefined ? {} : { transaction }),
        }),
      );

    if (notRehearsed.has(statement.kind)) {
      const outcome = await run();
      if (typeof outcome === "string") await checks.checkUnchanged();
      else if (await checks.hasChanged()) {
        await stack.run(...restoring(sql, role));
        await checks.accept();
      }
      return outcome;
    }
    if (onConnection.has(statement.kind)) await client.query("BEGIN");
    const rehearsed = await stack.catalog.rehearse((pooled) =>
      run(beginOpenTransaction(pooled, { processId: 0 })),
    );
    if (onConnection.has(statement.kind)) await client.query("ROLLBACK");
    if (typeof rehearsed !== "string" || rehearsed === "forward") return rehearsed;
    const outcome = await run();
    if (outcome !== rehearsed) throw new Error(`not refused alike outside of a transaction: ${sql}`);
    return outcome;
  };
}

async function outcomeOf(
  work: () => Promise<StatementResult | "forward">,
): Promise<StatementResult | "forward" | string> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof SqlError || error instanceof UpstreamError) return error.sqlstate;
    throw error;
  }
}
