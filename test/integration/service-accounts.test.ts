/** The Service accounts section of the auth SQL contract, on the embedded PostgreSQL 18 and an external 15. */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { identityOf } from "../../src/auth/password.ts";
import { lookupScramLogin } from "../../src/auth/scram-login.ts";
import { SqlError } from "../../src/errors/sql-error.ts";
import type { StatementResult, Value } from "../../src/exec/result.ts";
import { type CatalogStack, makeMasterSecret, openCatalogStack } from "../support/catalog-stack.ts";
import { hasDebianPostgres, startPostgres, type TestPostgres } from "../support/postgres.ts";
import { requireClient } from "../support/skips.ts";

const password = "PASSWORD 'long enough'";
const mock = { secret: Buffer.alloc(32, 7), iterations: 4096 };

for (const version of ["embedded", "debian"] as const) {
  describe(`service accounts on PostgreSQL (${version})`, () => {
    const isThere = version === "embedded" || requireClient("PostgreSQL 15 (Debian)", hasDebianPostgres);
    let postgres: TestPostgres;
    let stack: CatalogStack;

    function login(name: string) {
      const { cache } = stack.catalog;
      return lookupScramLogin({ cache, mock, areKeysPasswords: true }, name, new Date());
    }

    beforeAll(async () => {
      if (!isThere) return;
      postgres = await startPostgres({ version });
      stack = await openCatalogStack(
        postgres,
        version === "embedded"
          ? { isEmbedded: true }
          : { isEmbedded: false, masterSecret: makeMasterSecret() },
      );
      await stack.sql("CREATE DATABASE reports", [], "postgres");
      await stack.sql("REVOKE CONNECT ON DATABASE reports FROM PUBLIC", [], "postgres");
      await stack.sql("INSERT INTO nodedb.tenant (id, name) VALUES (7, 'acme')");
      await run("root_user", `CREATE USER boss ${password} ROLE admin`);
      await run("root_user", `CREATE USER worker ${password}`);
      await run("root_user", `CREATE USER acme_admin ${password} ROLE tenant_admin TENANT 7`);
    });

    afterAll(async () => {
      await stack?.close();
      await postgres?.dispose();
    });

    const test = it.skipIf(!isThere);

    async function run(user: string, sql: string): Promise<StatementResult> {
      const result = await stack.run(user, sql);
      if (result === "forward") expect.fail(`forwarded: ${sql}`);
      return result;
    }

    async function rows(user: string, sql: string): Promise<readonly (readonly Value[])[]> {
      return (await run(user, sql)).table?.rows ?? [];
    }

    /** Runs a statement that must be refused, and checks that it changed nothing. */
    async function refused(user: string, sql: string): Promise<SqlError> {
      const before = await stack.snapshot();
      const outcome = await stack.run(user, sql).catch((error: unknown) => error);
      expect(outcome, sql).toBeInstanceOf(SqlError);
      expect(await stack.snapshot()).toBe(before);
      return outcome as SqlError;
    }

    const account = (name: string) => stack.catalog.cache.findByName(name);

    async function mayConnect(role: string, database: string): Promise<unknown> {
      const [row] = await stack.sql("SELECT has_database_privilege($1, $2, 'CONNECT') AS may", [
        role,
        database,
      ]);
      return row?.may;
    }

    function openSession(name: string, database: string): void {
      const record = account(name);
      if (record === undefined) expect.fail(`there is no ${name}`);
      stack.live.add({ identity: identityOf(record, "scram-sha-256"), database });
    }

    test("CREATE makes a principal without a password, let into its databases only", async () => {
      expect(await run("boss", "CREATE SERVICE ACCOUNT 'etl' FOR DATABASE reports")).toEqual({
        tag: "CREATE SERVICE ACCOUNT",
        notices: [],
      });
      expect(account("etl")).toMatchObject({
        kind: "service_account",
        tenantId: 1,
        roles: ["readwrite"],
        databases: ["reports"],
        scramVerifier: undefined,
      });
      expect(login("etl")).toMatchObject({ reason: "no_password" });
      expect(await mayConnect("etl", "reports")).toBe(true);
      const client = await stack.connectAs("etl", "reports");
      await client.end();
    });

    test("takes several databases, roles, and from a superuser a tenant", async () => {
      await run(
        "root_user",
        "CREATE SERVICE ACCOUNT s2 FOR DATABASE nodedb, reports, nodedb ROLE readonly TENANT 7",
      );
      expect(account("s2")).toMatchObject({
        tenantId: 7,
        roles: ["readonly"],
        databases: ["nodedb", "reports"],
      });
      expect(await refused("boss", "CREATE SERVICE ACCOUNT s3 FOR DATABASE nodedb TENANT 7")).toMatchObject({
        sqlstate: "42501",
      });
      await run("root_user", "DROP SERVICE ACCOUNT s2");
    });

    test("refuses duplicates of any kind, unknown databases, undefined roles, and callers who are no admin", async () => {
      const create = (name: string, rest = "FOR DATABASE nodedb") => `CREATE SERVICE ACCOUNT ${name} ${rest}`;
      expect(await refused("boss", create("'etl'"))).toMatchObject({
        sqlstate: "42710",
        message: 'service account "etl" already exists',
      });
      expect(await refused("boss", create("worker"))).toMatchObject({ sqlstate: "42710" });
      expect(await refused("boss", create("IF NOT EXISTS worker"))).toMatchObject({ sqlstate: "42710" });
      expect(await refused("boss", create("postgres"))).toMatchObject({ sqlstate: "42710" });
      expect(await refused("boss", create("admin"))).toMatchObject({ sqlstate: "42939" });
      expect(await refused("boss", create("s4", "FOR DATABASE nodedb, nowhere"))).toMatchObject({
        sqlstate: "3D000",
        message: 'database "nowhere" does not exist',
        position: 48,
      });
      expect(await refused("boss", create("s4", "FOR DATABASE nodedb ROLE nothing"))).toMatchObject({
        sqlstate: "42704",
      });
      expect(await refused("boss", create("s4", "FOR DATABASE nodedb ROLE superuser"))).toMatchObject({
        sqlstate: "42501",
      });
      expect(await refused("worker", create("s4"))).toMatchObject({ sqlstate: "42501" });
      expect(await run("boss", create("IF NOT EXISTS etl"))).toEqual({
        tag: "CREATE SERVICE ACCOUNT",
        notices: ['service account "etl" already exists, skipping'],
      });
      expect(await refused("boss", `CREATE USER etl ${password}`)).toMatchObject({ sqlstate: "42710" });
    });

    test("is no user: ALTER USER and DROP USER are 42809, and the other way round", async () => {
      for (const change of [
        password,
        "NOLOGIN",
        "SET ROLE readonly",
        "SET DEFAULT DATABASE nodedb",
        "RENAME TO x9",
      ]) {
        expect(await refused("boss", `ALTER USER etl ${change}`)).toMatchObject({ sqlstate: "42809" });
      }
      expect(await refused("etl", `ALTER USER CURRENT_USER ${password}`)).toMatchObject({
        sqlstate: "42809",
      });
      const error = await refused("boss", "DROP USER etl");
      expect(error.sqlstate).toBe("42809");
      expect(error.hint).toContain("DROP SERVICE ACCOUNT");
      const other = await refused("boss", "DROP SERVICE ACCOUNT worker");
      expect(other.sqlstate).toBe("42809");
      expect(other.hint).toContain("DROP USER");
      expect(await refused("boss", "ALTER SERVICE ACCOUNT worker SET DATABASES (nodedb)")).toMatchObject({
        sqlstate: "42809",
      });
      expect(await refused("boss", "ALTER SERVICE ACCOUNT worker SET ROLE readonly")).toMatchObject({
        sqlstate: "42809",
      });
    });

    test("SET DATABASES gives and takes, and closes the sessions in a database that was lost", async () => {
      await run("boss", "CREATE SERVICE ACCOUNT s5 FOR DATABASE nodedb, reports");
      openSession("s5", "reports");
      openSession("s5", "nodedb");
      expect((await run("boss", "ALTER SERVICE ACCOUNT s5 SET DATABASES (nodedb)")).tag).toBe(
        "ALTER SERVICE ACCOUNT",
      );
      expect(account("s5")?.databases).toEqual(["nodedb"]);
      expect(await mayConnect("s5", "reports")).toBe(false);
      expect([...stack.live].map((session) => session.database)).toEqual(["nodedb"]);
      stack.live.clear();
      expect(await refused("boss", "ALTER SERVICE ACCOUNT s5 SET DATABASES (nowhere)")).toMatchObject({
        sqlstate: "3D000",
      });
      expect(await refused("boss", "ALTER SERVICE ACCOUNT nobody SET DATABASES (nodedb)")).toMatchObject({
        sqlstate: "42704",
      });
      expect(await refused("worker", "ALTER SERVICE ACCOUNT s5 SET DATABASES (nodedb)")).toMatchObject({
        sqlstate: "42501",
      });
      await run("boss", "ALTER SERVICE ACCOUNT s5 SET DATABASES (reports, nodedb)");
      expect(await mayConnect("s5", "reports")).toBe(true);
    });

    test("what the list says is put right at the next start when somebody changed it behind our back", async () => {
      await stack.sql("REVOKE CONNECT ON DATABASE reports FROM s5", [], "postgres");
      const again = await openCatalogStack(postgres, {
        isEmbedded: version === "embedded",
        ...(stack.deps.roleOptions.masterSecret === undefined
          ? {}
          : { masterSecret: stack.deps.roleOptions.masterSecret }),
      });
      await again.close();
      expect(await mayConnect("s5", "reports")).toBe(true);
    });

    test("SET ROLE replaces the roles", async () => {
      await run("boss", "ALTER SERVICE ACCOUNT s5 SET ROLE readonly");
      expect(account("s5")?.roles).toEqual(["readonly"]);
      expect(await refused("boss", "ALTER SERVICE ACCOUNT s5 SET ROLE superuser")).toMatchObject({
        sqlstate: "42501",
      });
      expect(await refused("boss", "ALTER SERVICE ACCOUNT s5 SET ROLE nothing")).toMatchObject({
        sqlstate: "42704",
      });
    });

    test("another tenant's does not exist for an admin", async () => {
      expect(await refused("acme_admin", "ALTER SERVICE ACCOUNT s5 SET ROLE readonly")).toMatchObject({
        sqlstate: "42704",
      });
      expect(await refused("acme_admin", "DROP SERVICE ACCOUNT s5")).toMatchObject({ sqlstate: "42704" });
      expect(await rows("acme_admin", "SHOW SERVICE ACCOUNTS")).toEqual([]);
    });

    test("an admin opens no database to its tenant that belongs to another one", async () => {
      await stack.sql("CREATE DATABASE of_default", [], "postgres");
      await stack.sql("REVOKE CONNECT ON DATABASE of_default FROM PUBLIC", [], "postgres");
      await run("root_user", "CREATE SERVICE ACCOUNT s6 FOR DATABASE of_default");
      expect(await refused("acme_admin", "CREATE SERVICE ACCOUNT s7 FOR DATABASE of_default")).toMatchObject({
        sqlstate: "42501",
      });
      await run("root_user", "DROP SERVICE ACCOUNT s6");
    });

    test("DROP lists what it owns, and REASSIGN gives that away", async () => {
      await stack.sql("GRANT CREATE ON SCHEMA public TO s5");
      const client = await stack.connectAs("s5");
      await client.query("CREATE TABLE public.s5_table (id int)");
      await client.end();
      expect(await refused("boss", "DROP SERVICE ACCOUNT s5")).toMatchObject({
        sqlstate: "2BP01",
        detail: "owner of table public.s5_table",
        hint: expect.stringContaining("REASSIGN OWNED TO"),
      });
      expect(await refused("boss", "DROP SERVICE ACCOUNT s5 REASSIGN OWNED TO nobody")).toMatchObject({
        sqlstate: "42704",
      });
      openSession("s5", "nodedb");
      expect((await run("boss", "DROP SERVICE ACCOUNT s5 REASSIGN OWNED TO worker")).tag).toBe(
        "DROP SERVICE ACCOUNT",
      );
      expect(stack.live.size).toBe(0);
      expect(account("s5")).toBeUndefined();
      expect(await stack.sql("SELECT FROM pg_roles WHERE rolname = 's5'")).toEqual([]);
      expect(
        await stack.sql("SELECT FROM pg_tables WHERE tablename = 's5_table' AND tableowner = 'worker'"),
      ).toHaveLength(1);
      expect(await refused("boss", "DROP SERVICE ACCOUNT s5")).toMatchObject({
        sqlstate: "42704",
        message: 'service account "s5" does not exist',
      });
      expect(await run("boss", "DROP SERVICE ACCOUNT IF EXISTS s5")).toEqual({
        tag: "DROP SERVICE ACCOUNT",
        notices: ['service account "s5" does not exist, skipping'],
      });
      expect(await refused("worker", "DROP SERVICE ACCOUNT etl")).toMatchObject({ sqlstate: "42501" });
    });

    test("an admin's account administers like its creator, and cannot drop itself", async () => {
      await run("boss", "CREATE SERVICE ACCOUNT deployer FOR DATABASE nodedb ROLE admin");
      await run("deployer", `CREATE USER made_by_deployer ${password}`);
      expect(await refused("deployer", "DROP SERVICE ACCOUNT deployer")).toMatchObject({ sqlstate: "42501" });
      expect(await refused("deployer", "ALTER SERVICE ACCOUNT deployer SET ROLE readonly")).toMatchObject({
        sqlstate: "42501",
      });
    });

    test("two administrators at once: one makes it, the other one is told", async () => {
      const outcomes = await Promise.allSettled([
        run("boss", "CREATE SERVICE ACCOUNT twin FOR DATABASE nodedb"),
        run("root_user", "CREATE SERVICE ACCOUNT twin FOR DATABASE reports"),
      ]);
      expect(outcomes.map((outcome) => outcome.status).sort()).toEqual(["fulfilled", "rejected"]);
      const lost = outcomes.find((outcome) => outcome.status === "rejected");
      expect(lost?.reason).toMatchObject({ sqlstate: "42710" });
    });

    test("SHOW lists them for admins, with the last use of any of their keys", async () => {
      const before = await run("boss", "SHOW SERVICE ACCOUNTS");
      expect(before.tag).toBe("SHOW");
      expect(before.table?.columns.map((column) => `${column.name} ${column.type}`)).toEqual([
        "name text",
        "tenant_id int8",
        "roles text",
        "databases text",
        "created_at timestamptz",
        "last_used_at timestamptz",
      ]);
      expect(before.table?.rows.find((row) => row[0] === "etl")).toMatchObject([
        "etl",
        1n,
        "readwrite",
        "reports",
        {},
        null,
      ]);
      const [created] = await rows("boss", "CREATE API KEY 'etl key' FOR SERVICE ACCOUNT etl");
      stack.catalog.recordKeyUse(String(created?.[1]));
      const after = await rows("boss", "SHOW SERVICE ACCOUNTS");
      expect(after.find((row) => row[0] === "etl")?.[5]).not.toBeNull();
      expect((await rows("boss", "SHOW USERS")).map((row) => row[0])).not.toContain("etl");
      const denied = await stack.run("worker", "SHOW SERVICE ACCOUNTS").catch((error: unknown) => error);
      expect(denied).toMatchObject({ sqlstate: "42501" });
    });
  });
}
