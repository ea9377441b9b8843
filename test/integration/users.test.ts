/** The Users section of the auth SQL contract, on the embedded PostgreSQL 18 and an external 15. */

import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { lookupScramLogin } from "../../src/auth/scram-login.ts";
import { SqlError } from "../../src/errors/sql-error.ts";
import type { StatementResult } from "../../src/exec/result.ts";
import { createScramVerifierSync, formatScramVerifier } from "../../src/scram/verifier.ts";
import { type CatalogStack, startCatalogStack } from "../support/catalog-stack.ts";
import { hasDebianPostgres } from "../support/postgres.ts";
import { requireClient } from "../support/skips.ts";

const password = "PASSWORD 'long enough'";
const mock = { secret: Buffer.alloc(32, 7), iterations: 4096 };

for (const version of ["embedded", "debian"] as const) {
  describe(`users on PostgreSQL (${version})`, () => {
    const isThere = version === "embedded" || requireClient("PostgreSQL 15 (Debian)", hasDebianPostgres);
    let stack: CatalogStack;

    function login(name: string) {
      const { cache } = stack.catalog;
      return lookupScramLogin({ cache, mock, areKeysPasswords: true }, name, new Date());
    }

    beforeAll(async () => {
      if (!isThere) return;
      stack = await startCatalogStack(version);
      await stack.run("root_user", `CREATE USER boss ${password} ROLE admin`);
      await stack.run("root_user", `CREATE USER worker ${password}`);
      await stack.sql("INSERT INTO nodedb.tenant (id, name) VALUES (7, 'acme')");
      await stack.run("root_user", `CREATE USER acme_admin ${password} ROLE tenant_admin TENANT 7`);
      await stack.run("root_user", `CREATE USER acme_user ${password} TENANT acme`);
    });

    afterAll(() => stack?.close());

    const test = it.skipIf(!isThere);

    function as(user: string, sql: string): Promise<StatementResult | "forward"> {
      return stack.run(user, sql);
    }

    async function tagOf(user: string, sql: string): Promise<string> {
      const result = await as(user, sql);
      return result === "forward" ? "forward" : result.tag;
    }

    /** Runs a statement that must be refused, and checks that it changed nothing. */
    async function refused(user: string, sql: string): Promise<SqlError> {
      const before = await stack.snapshot();
      let outcome: unknown;
      try {
        outcome = await as(user, sql);
      } catch (error) {
        outcome = error;
      }
      expect(outcome, sql).toBeInstanceOf(SqlError);
      expect(await stack.snapshot()).toBe(before);
      return outcome as SqlError;
    }

    async function pgRole(name: string): Promise<Record<string, unknown> | undefined> {
      const [row] = await stack.sql("SELECT * FROM pg_authid WHERE rolname = $1", [name]);
      return row;
    }

    async function owner(database: string, table: string): Promise<unknown> {
      const [row] = await stack.sql(
        "SELECT tableowner FROM pg_tables WHERE tablename = $1",
        [table],
        database,
      );
      return row?.tableowner;
    }

    async function createTable(user: string, database: string, table: string): Promise<void> {
      const client = await stack.connectAs(user, database);
      await client.query(`CREATE TABLE public.${table} (id int)`);
      await client.end();
    }

    describe("CREATE USER", () => {
      test("makes a user that can log in at once, with role readwrite in the creator's tenant", async () => {
        expect(await as("boss", `CREATE USER c1 WITH ${password}`)).toEqual({
          tag: "CREATE USER",
          notices: [],
        });
        expect(login("c1")).toMatchObject({ reason: undefined });
        expect(stack.catalog.cache.findByName("c1")).toMatchObject({ tenantId: 1, roles: ["readwrite"] });
        expect(await pgRole("c1")).toMatchObject({
          rolcanlogin: true,
          rolsuper: false,
          rolcreaterole: false,
        });
        const client = await stack.connectAs("c1");
        expect((await client.query("SELECT pg_has_role('nodedb_readwrite', 'USAGE') AS has")).rows).toEqual([
          { has: true },
        ]);
        await client.end();
      });

      test("keeps no clear text and takes a SCRAM verifier as it is", async () => {
        const verifier = formatScramVerifier(
          createScramVerifierSync("s3cret-s3cret", { iterations: 5000, salt: Buffer.alloc(16, 1) }),
        );
        await as("boss", `CREATE USER c2 PASSWORD '${verifier}'`);
        await as("boss", `CREATE USER c2b ${password}`);
        expect(stack.catalog.cache.findByName("c2")?.scramVerifier).toBe(verifier);
        expect(stack.catalog.cache.findByName("c2b")?.scramVerifier).toMatch(/^SCRAM-SHA-256\$4096:/);
      });

      test("without a password nobody can log in with one", async () => {
        await as("boss", "CREATE USER c3");
        const credential = login("c3");
        expect(credential).toMatchObject({ reason: "no_password" });
      });

      test("CREATE ROLE … LOGIN is the same with its own tag", async () => {
        expect(await tagOf("boss", `CREATE ROLE c4 LOGIN ${password}`)).toBe("CREATE ROLE");
        expect(stack.catalog.cache.findByName("c4")?.canLogin).toBe(true);
      });

      test("sets tenant, expiry, connection limit and several roles", async () => {
        await as(
          "root_user",
          `CREATE USER c5 ${password} ROLE admin, readonly TENANT 7 VALID UNTIL '2099-01-02' CONNECTION LIMIT 3`,
        );
        expect(stack.catalog.cache.findByName("c5")).toMatchObject({
          tenantId: 7,
          roles: ["admin", "readonly"],
          validUntil: new Date("2099-01-02T00:00:00Z"),
          connectionLimit: 3,
        });
      });

      test("reads VALID UNTIL as the caller's session does", async () => {
        await stack.run("boss", `CREATE USER c6 ${password} VALID UNTIL '02/03/2099 12:00'`, {
          dateStyle: "SQL, DMY",
          timeZone: "America/New_York",
        });
        expect(stack.catalog.cache.findByName("c6")?.validUntil).toEqual(new Date("2099-03-02T17:00:00Z"));
        await as("boss", "ALTER USER c6 VALID UNTIL 'infinity'");
        expect(stack.catalog.cache.findByName("c6")?.validUntil).toBeUndefined();
      });

      test("refuses a name that exists, and skips it with IF NOT EXISTS", async () => {
        const error = await refused("boss", `CREATE USER worker ${password}`);
        expect(error).toMatchObject({
          sqlstate: "42710",
          message: 'role "worker" already exists',
          position: 13,
        });
        expect(error.hint).toMatch(/IF NOT EXISTS/);
        expect(await as("boss", `CREATE USER IF NOT EXISTS worker ${password}`)).toEqual({
          tag: "CREATE USER",
          notices: ['role "worker" already exists, skipping'],
        });
      });

      test("never adopts a role that somebody made in PostgreSQL, with IF NOT EXISTS neither", async () => {
        await stack.sql("CREATE ROLE somebodys LOGIN");
        for (const condition of ["", "IF NOT EXISTS "]) {
          const error = await refused("boss", `CREATE USER ${condition}somebodys ${password}`);
          expect(error).toMatchObject({ sqlstate: "42710", message: 'role "somebodys" already exists' });
          expect(error.hint).toBeDefined();
        }
        expect(await refused("boss", `CREATE USER postgres ${password}`)).toMatchObject({
          sqlstate: "42710",
        });
      });

      test.each(["pg_x", "nodedb_admin", "nodedb_x", "readonly", "superuser", '"none"', '"public"'])(
        "refuses the reserved name %s",
        async (name) => {
          expect(await refused("boss", `CREATE USER ${name} ${password}`)).toMatchObject({
            sqlstate: "42939",
            // PostgreSQL's grammar refuses the quoted two, and says no more of them.
            detail: name.startsWith('"') ? undefined : expect.stringContaining('"nodedb_"'),
          });
        },
      );

      test("refuses a name that PostgreSQL would cut", async () => {
        expect(await refused("boss", `CREATE USER ${"x".repeat(64)} ${password}`)).toMatchObject({
          sqlstate: "22023",
        });
        expect(await tagOf("boss", `CREATE USER ${"x".repeat(63)} ${password}`)).toBe("CREATE USER");
      });

      test.each([
        ["CREATE USER r1 PASSWORD ''", "22023"],
        ["CREATE USER r1 PASSWORD 'short'", "22023"],
        ["CREATE USER r1 PASSWORD 'md5a3556571e93b0d20722ba62be61e8c2d'", "22023"],
        ["CREATE USER r1 PASSWORD 'SCRAM-SHA-256$nonsense'", "22023"],
        [`CREATE USER r1 ${password} VALID UNTIL 'soon'`, "22007"],
        [`CREATE USER r1 ${password} VALID UNTIL '2099-13-45'`, "22007"],
        [`CREATE USER r1 ${password} ROLE pilot`, "42704"],
        [`CREATE USER r1 ${password} TENANT 99`, "42704"],
        [`CREATE USER r1 ${password} TENANT nobody`, "42704"],
      ])("refuses %s with %s and the place", async (sql, sqlstate) => {
        const error = await refused("root_user", sql);
        expect(error.sqlstate).toBe(sqlstate);
        expect(error.position).toBeGreaterThan(16);
        expect(error.message).not.toContain("a3556571");
      });

      test("is for admins, within their own rank and tenant", async () => {
        expect(await refused("worker", `CREATE USER g1 ${password}`)).toMatchObject({
          sqlstate: "42501",
          message: "permission denied: only an admin may create users",
        });
        expect(await refused("boss", `CREATE USER g1 ${password} SUPERUSER`)).toMatchObject({
          sqlstate: "42501",
          message: expect.stringContaining("only superuser"),
        });
        expect(await refused("boss", `CREATE USER g1 ${password} ROLE tenant_admin`)).toMatchObject({
          sqlstate: "42501",
        });
        expect(await refused("boss", `CREATE USER g1 ${password} TENANT 7`)).toMatchObject({
          sqlstate: "42501",
        });
        await as("acme_admin", `CREATE USER g1 ${password} ROLE tenant_admin`);
        expect(stack.catalog.cache.findByName("g1")).toMatchObject({ tenantId: 7 });
      });

      test("when two administrators create the same user, one gets a clean 42710", async () => {
        const outcomes = await Promise.allSettled([
          as("boss", `CREATE USER twin ${password}`),
          as("root_user", `CREATE USER twin ${password}`),
        ]);
        const failures = outcomes.filter((outcome) => outcome.status === "rejected");
        expect(failures.map((failure) => (failure.reason as SqlError).sqlstate)).toEqual(["42710"]);
      });

      test("superusers are SUPERUSER where the front-end's own login is one", async () => {
        await as("root_user", `CREATE USER su1 ${password} SUPERUSER`);
        expect(await pgRole("su1")).toMatchObject({ rolsuper: true, rolbypassrls: false });
        await as("root_user", "ALTER USER su1 SET ROLE readonly");
        expect(await pgRole("su1")).toMatchObject({ rolsuper: false, rolbypassrls: false });
      });
    });

    describe("ALTER USER", () => {
      test("lets users change their own password without being an admin", async () => {
        const before = stack.catalog.cache.findByName("worker")?.scramVerifier;
        expect(await tagOf("worker", "ALTER USER worker PASSWORD 'another password'")).toBe("ALTER USER");
        const between = stack.catalog.cache.findByName("worker")?.scramVerifier;
        expect(await tagOf("worker", "ALTER USER CURRENT_USER SET PASSWORD 'yet another one'")).toBe(
          "ALTER USER",
        );
        const after = stack.catalog.cache.findByName("worker")?.scramVerifier;
        expect(new Set([before, between, after]).size).toBe(3);
        expect(await refused("worker", "ALTER USER worker PASSWORD 'short'")).toMatchObject({
          sqlstate: "22023",
        });
      });

      test.each([
        "ALTER USER boss PASSWORD 'another password'",
        "ALTER USER nobody PASSWORD 'another password'",
        "ALTER USER worker CONNECTION LIMIT 5",
        "ALTER USER worker VALID UNTIL 'infinity'",
        "ALTER USER CURRENT_USER LOGIN",
        "ALTER USER worker SET ROLE admin",
        "ALTER USER boss SET DEFAULT DATABASE nodedb",
        "ALTER USER boss RENAME TO chief",
        "ALTER USER worker RENAME TO chief",
      ])("refuses a user who is no admin: %s", async (sql) => {
        expect(await refused("worker", sql)).toMatchObject({
          sqlstate: "42501",
          message: expect.stringMatching(/^permission denied: /),
        });
      });

      test("replaces the roles, in the catalog and in PostgreSQL", async () => {
        await as("boss", `CREATE USER a1 ${password}`);
        expect(await tagOf("boss", "ALTER USER a1 SET ROLE readonly, admin")).toBe("ALTER USER");
        expect(stack.catalog.cache.findByName("a1")?.roles).toEqual(["readonly", "admin"]);
        await as("boss", "ALTER USER a1 SET ROLE readonly");
        const groups = await stack.sql(
          "SELECT roleid::regrole::text AS role FROM pg_auth_members WHERE member = 'a1'::regrole",
        );
        expect(groups).toEqual([{ role: "nodedb_readonly" }]);
      });

      test("nobody raises oneself, and nobody changes a user above oneself", async () => {
        expect(await refused("boss", "ALTER USER boss SET ROLE readonly")).toMatchObject({
          sqlstate: "42501",
        });
        expect(await refused("boss", "ALTER USER worker SET ROLE superuser")).toMatchObject({
          sqlstate: "42501",
        });
        for (const change of ["PASSWORD 'another password'", "NOLOGIN", "SET ROLE readonly", "RENAME TO x"]) {
          expect(await refused("boss", `ALTER USER root_user ${change}`)).toMatchObject({
            sqlstate: "42501",
          });
        }
      });

      test("a user of another tenant looks like one that does not exist", async () => {
        const other = await refused("boss", "ALTER USER acme_user NOLOGIN");
        const missing = await refused("boss", "ALTER USER acme_xxxx NOLOGIN");
        expect(other).toMatchObject({
          sqlstate: "42704",
          message: 'role "acme_user" does not exist',
          position: 12,
        });
        expect({ ...missing, message: missing.message.replace("xxxx", "user") }).toEqual({
          ...other,
          message: other.message,
        });
        expect(await tagOf("acme_admin", "ALTER USER acme_user CONNECTION LIMIT 2")).toBe("ALTER USER");
      });

      test("NOLOGIN refuses logins, closes sessions and shuts the PostgreSQL role; LOGIN opens it", async () => {
        await as("boss", `CREATE USER a2 ${password}`);
        const id = stack.catalog.cache.findByName("a2")?.id;
        await as("boss", "ALTER USER a2 NOLOGIN");
        expect(login("a2")).toMatchObject({ reason: "login_disabled" });
        const closing = stack.closed.find((entry) => entry.id === id);
        expect(closing?.error).toMatchObject({ sqlstate: "57P01", severity: "FATAL" });
        expect(await pgRole("a2")).toMatchObject({ rolcanlogin: false });
        await as("boss", "ALTER USER a2 LOGIN");
        expect(await pgRole("a2")).toMatchObject({ rolcanlogin: true });
      });

      test("a VALID UNTIL that has passed refuses logins and closes sessions", async () => {
        await as("boss", `CREATE USER a3 ${password}`);
        const id = stack.catalog.cache.findByName("a3")?.id;
        await as("boss", "ALTER USER a3 VALID UNTIL '2001-01-01'");
        expect(login("a3")).toMatchObject({ reason: "expired" });
        expect(stack.closed.some((entry) => entry.id === id)).toBe(true);
      });

      test("sets the default database, also one's own, and knows when there is none", async () => {
        expect(await tagOf("worker", "ALTER USER worker SET DEFAULT DATABASE postgres")).toBe("ALTER USER");
        expect(stack.catalog.cache.findByName("worker")?.defaultDatabase).toBe("postgres");
        expect(await refused("worker", "ALTER USER worker SET DEFAULT DATABASE nowhere")).toMatchObject({
          sqlstate: "3D000",
          message: 'database "nowhere" does not exist',
          position: 40,
        });
      });

      test("renames the PostgreSQL role too; password and grants stay", async () => {
        await as("boss", `CREATE USER a4 ${password}`);
        await stack.sql("CREATE TABLE public.granted (id int)");
        await stack.sql("GRANT TRIGGER ON public.granted TO a4");
        const before = stack.catalog.cache.findByName("a4");
        expect(await tagOf("boss", "ALTER USER a4 RENAME TO a4_new")).toBe("ALTER USER");
        const after = stack.catalog.cache.findByName("a4_new");
        expect(stack.catalog.cache.findByName("a4")).toBeUndefined();
        expect(after).toMatchObject({ id: before?.id, scramVerifier: before?.scramVerifier });
        expect(
          await stack.sql("SELECT has_table_privilege('a4_new', 'public.granted', 'TRIGGER') AS has"),
        ).toEqual([{ has: true }]);
        await as("boss", "DROP USER a4_new");
      });

      test("refuses to rename to a taken or reserved name, or the session's own user", async () => {
        expect(await refused("boss", "ALTER USER worker RENAME TO c1")).toMatchObject({ sqlstate: "42710" });
        expect(await refused("boss", "ALTER USER worker RENAME TO postgres")).toMatchObject({
          sqlstate: "42710",
        });
        expect(await refused("boss", "ALTER USER worker RENAME TO pg_worker")).toMatchObject({
          sqlstate: "42939",
        });
        expect(await refused("boss", "ALTER USER boss RENAME TO chief")).toMatchObject({
          sqlstate: "0A000",
          message: "session user cannot be renamed",
        });
      });

      test("a revoked right holds at once, whatever the session's identity said", async () => {
        await as("root_user", `CREATE USER a5 ${password} ROLE admin`);
        const identity = stack.catalog.cache.findByName("a5");
        await stack.sql(`DELETE FROM nodedb.principal_role WHERE principal_id = ${identity?.id}`);
        expect(await refused("a5", `CREATE USER a6 ${password}`)).toMatchObject({ sqlstate: "42501" });
      });

      test("keeps the last superuser able to log in", async () => {
        for (const change of ["NOLOGIN", "SET ROLE admin", "PASSWORD NULL", "VALID UNTIL '2001-01-01'"]) {
          expect(await refused("root_user", `ALTER USER root_user ${change}`)).toMatchObject({
            sqlstate: "42501",
            message: expect.stringContaining("last superuser"),
          });
        }
      });

      test("two superusers cannot take the right from each other at once", async () => {
        await as("root_user", `CREATE USER su2 ${password} SUPERUSER`);
        const outcomes = await Promise.allSettled([
          as("root_user", "ALTER USER su2 SET ROLE readonly"),
          as("su2", "ALTER USER root_user SET ROLE readonly"),
        ]);
        expect(outcomes.map((outcome) => outcome.status).sort()).toEqual(["fulfilled", "rejected"]);
        const winner = outcomes[0]?.status === "fulfilled" ? "root_user" : "su2";
        await as(winner, "ALTER USER root_user SET ROLE superuser");
        await as("root_user", "DROP USER su2");
      });

      test("hands PostgreSQL's own roles to PostgreSQL, and guards its groups and the front-end's login", async () => {
        await stack.sql("CREATE ROLE app_group");
        expect(await as("boss", "ALTER ROLE app_group CONNECTION LIMIT 3")).toBe("forward");
        expect(await as("boss", "DROP ROLE app_group")).toBe("forward");
        for (const sql of [
          "ALTER ROLE nodedb_admin NOLOGIN",
          "DROP ROLE nodedb_readonly",
          "DROP ROLE pg_monitor",
        ]) {
          expect(await refused("root_user", sql)).toMatchObject({ sqlstate: "42939" });
        }
        for (const sql of ["ALTER ROLE postgres NOLOGIN", "DROP USER postgres"]) {
          expect(await refused("root_user", sql)).toMatchObject({ sqlstate: "42501" });
        }
      });
    });

    describe("DROP USER", () => {
      test("removes the user and its role, and closes its sessions", async () => {
        await as("boss", `CREATE USER d1 ${password}`);
        const id = stack.catalog.cache.findByName("d1")?.id;
        expect(await tagOf("boss", "DROP USER d1")).toBe("DROP USER");
        expect(await pgRole("d1")).toBeUndefined();
        expect(login("d1")).toMatchObject({ reason: "unknown_user" });
        expect(stack.closed.find((entry) => entry.id === id)?.error.sqlstate).toBe("57P01");
        expect(await refused("boss", "DROP USER d1")).toMatchObject({
          sqlstate: "42704",
          message: 'role "d1" does not exist',
          position: 11,
        });
        expect(await as("boss", "DROP USER IF EXISTS d1")).toEqual({
          tag: "DROP USER",
          notices: ['role "d1" does not exist, skipping'],
        });
      });

      test("refuses one's own user, a higher one, another tenant's, and callers who are no admin", async () => {
        expect(await refused("boss", "DROP USER boss")).toMatchObject({
          sqlstate: "42501",
          message: expect.stringContaining("cannot drop your own"),
        });
        expect(await refused("root_user", "DROP USER root_user")).toMatchObject({ sqlstate: "42501" });
        expect(await refused("boss", "DROP USER root_user")).toMatchObject({ sqlstate: "42501" });
        expect(await refused("boss", "DROP USER acme_user")).toMatchObject({ sqlstate: "42704" });
        expect(await refused("worker", "DROP USER c1")).toMatchObject({ sqlstate: "42501" });
      });

      test("drops several or none", async () => {
        await as("boss", `CREATE USER d2 ${password}`);
        await as("boss", `CREATE USER d3 ${password}`);
        expect(await refused("boss", "DROP USER d2, nobody, d3")).toMatchObject({ sqlstate: "42704" });
        expect(await tagOf("boss", "DROP USER d2, d3, d2")).toBe("DROP USER");
        expect(stack.catalog.cache.findByName("d3")).toBeUndefined();
      });

      test("lists what the user owns in every database, and reassigns all of it", async () => {
        await stack.sql("CREATE DATABASE other_db", [], "postgres");
        await as("boss", `CREATE USER d4 ${password}`);
        await as("boss", `CREATE USER d5 ${password}`);
        for (const database of ["nodedb", "other_db"]) {
          await stack.sql("GRANT CREATE ON SCHEMA public TO d4", [], database);
          await stack.sql(`GRANT CONNECT ON DATABASE ${database} TO d4`, [], database);
          await createTable("d4", database, "d4_table");
          await stack.sql("CREATE TABLE public.of_others (id int)", [], database);
          await stack.sql("GRANT SELECT ON public.of_others TO d4", [], database);
          await stack.sql(
            "ALTER DEFAULT PRIVILEGES FOR ROLE d4 GRANT SELECT ON TABLES TO worker",
            [],
            database,
          );
        }
        await stack.sql("CREATE DATABASE of_d4 OWNER d4", [], "postgres");
        const error = await refused("boss", "DROP USER d5, d4");
        expect(error).toMatchObject({
          sqlstate: "2BP01",
          message: 'role "d4" cannot be dropped because some objects depend on it',
        });
        expect(error.detail?.split("\n")).toEqual([
          "owner of database of_d4",
          "owner of table public.d4_table",
          "owner of table public.d4_table in database other_db",
        ]);
        expect(error.hint).toMatch(/REASSIGN OWNED/);
        expect(await tagOf("boss", "DROP USER d4 REASSIGN OWNED TO d5")).toBe("DROP USER");
        expect(await owner("nodedb", "d4_table")).toBe("d5");
        expect(await owner("other_db", "d4_table")).toBe("d5");
        expect(await pgRole("d4")).toBeUndefined();
        await stack.sql("DROP DATABASE of_d4", [], "postgres");
      });

      test("drops what was granted to the user, everywhere, and nothing else", async () => {
        await as("boss", `CREATE USER d6 ${password}`);
        await stack.sql("CREATE DATABASE third_db", [], "postgres");
        await stack.sql("CREATE TABLE public.kept (id int); GRANT ALL ON public.kept TO d6", [], "third_db");
        await stack.sql("CREATE POLICY p ON public.kept TO d6, worker USING (true)", [], "third_db");
        await stack.sql("GRANT ALL ON DATABASE third_db TO d6", [], "postgres");
        expect(await tagOf("boss", "DROP USER d6")).toBe("DROP USER");
        expect(await owner("third_db", "kept")).toBe("postgres");
      });

      test("temporary tables of a live session are no reason to keep the user", async () => {
        await as("boss", `CREATE USER d7 ${password}`);
        await stack.sql("GRANT TEMPORARY ON DATABASE nodedb TO d7");
        const client = await stack.connectAs("d7");
        await client.query("CREATE TEMP TABLE scratch (id int)");
        expect(await tagOf("boss", "DROP USER d7")).toBe("DROP USER");
        await client.end();
      });

      test("never drops what the user creates while it is being dropped", async () => {
        await as("boss", `CREATE USER d10 ${password}`);
        await stack.sql("GRANT CREATE ON SCHEMA public TO d10");
        // Stops the statement after it has seen that nothing is owned, just before grants are dropped.
        await stack.sql(
          `CREATE FUNCTION public.pause() RETURNS event_trigger LANGUAGE plpgsql
             AS $$ BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(42); END $$;
           CREATE EVENT TRIGGER pause ON ddl_command_start WHEN TAG IN ('DROP OWNED')
             EXECUTE FUNCTION public.pause();`,
        );
        const gate = await stack.connectAs("postgres");
        await gate.query("SELECT pg_advisory_lock(42)");
        const dropping = as("boss", "DROP USER d10").catch((error: unknown) => error);
        await vi.waitFor(async () =>
          expect(
            await stack.sql(
              "SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted",
            ),
          ).toHaveLength(1),
        );
        await createTable("d10", "nodedb", "just_made");
        await gate.end();
        expect(await dropping).toMatchObject({ sqlstate: "40001" });
        expect(await owner("nodedb", "just_made")).toBe("d10");
        await stack.sql("DROP EVENT TRIGGER pause");
        expect(await refused("boss", "DROP USER d10")).toMatchObject({
          sqlstate: "2BP01",
          detail: "owner of table public.just_made",
        });
      });

      test("refuses to give objects to a missing, dropped, foreign or higher role", async () => {
        await as("boss", `CREATE USER d8 ${password}`);
        await as("boss", `CREATE USER d9 ${password}`);
        expect(await refused("boss", "DROP USER d8 REASSIGN OWNED TO nobody")).toMatchObject({
          sqlstate: "42704",
          position: 32,
        });
        expect(await refused("boss", "DROP USER d8, d9 REASSIGN OWNED TO d9")).toMatchObject({
          sqlstate: "22023",
        });
        expect(await refused("boss", "DROP USER d8 REASSIGN OWNED TO somebodys")).toMatchObject({
          sqlstate: "42809",
        });
        expect(await refused("boss", "DROP USER d8 REASSIGN OWNED TO root_user")).toMatchObject({
          sqlstate: "42501",
        });
        await stack.sql("CREATE ROLE elsewhere");
        expect(await refused("boss", "DROP ROLE d8, elsewhere")).toMatchObject({ sqlstate: "42809" });
      });
    });

    describe("SHOW", () => {
      test("SHOW USERS gives a superuser everybody and others their own tenant", async () => {
        const all = await as("root_user", "SHOW USERS");
        const own = await as("acme_user", "SHOW USERS");
        if (all === "forward" || own === "forward") expect.fail("forwarded");
        expect(all.tag).toBe("SHOW");
        expect(all.table?.columns.map((column) => `${column.name} ${column.type}`)).toEqual([
          "username text",
          "tenant_id int8",
          "roles text",
          "is_superuser bool",
          "default_database text",
          "can_login bool",
          "valid_until timestamptz",
          "last_login_at timestamptz",
          "created_at timestamptz",
        ]);
        const names = all.table?.rows.map((row) => row[0]);
        expect(names).toContain("root_user");
        expect(names).toContain("acme_admin");
        expect(new Set(own.table?.rows.map((row) => row[1]))).toEqual(new Set([7n]));
      });

      test("timestamps are PostgreSQL's text in the session's format, and microseconds", async () => {
        await stack.run("boss", `CREATE USER s1 ${password} VALID UNTIL '2030-05-06 07:08:09.000001+00'`);
        const result = await stack.run("boss", "SHOW USERS", {
          dateStyle: "German",
          timeZone: "Europe/Berlin",
        });
        if (result === "forward") expect.fail("forwarded");
        const row = result.table?.rows.find((values) => values[0] === "s1");
        expect(row?.[6]).toEqual({
          text: "06.05.2030 09:08:09.000001 CEST",
          micros:
            BigInt(Date.parse("2030-05-06T07:08:09Z") - Date.parse("2000-01-01T00:00:00Z")) * 1000n + 1n,
        });
        await stack.run("boss", "ALTER USER s1 VALID UNTIL 'infinity'");
        const again = await stack.run("boss", "SHOW USERS");
        if (again === "forward") expect.fail("forwarded");
        const changed = again.table?.rows.find((values) => values[0] === "s1");
        expect(changed?.[6]).toEqual({ text: "infinity", micros: 9223372036854775807n });
      });

      test("SHOW USERS shows a login as soon as it was noted", async () => {
        stack.catalog.recordLogin(stack.catalog.cache.findByName("boss")?.id ?? 0);
        const result = await as("boss", "SHOW USERS");
        if (result === "forward") expect.fail("forwarded");
        const row = result.table?.rows.find((values) => values[0] === "boss");
        expect(row?.[7]).not.toBeNull();
      });

      test("SHOW SESSION tells who one is", async () => {
        await as("root_user", `CREATE USER s2 ${password} ROLE readonly VALID UNTIL '2031-01-01 00:00+00'`);
        const result = await as("s2", "SHOW SESSION");
        if (result === "forward") expect.fail("forwarded");
        expect(result.table?.rows).toEqual([
          [
            "s2",
            1n,
            "readonly",
            "scram-sha-256",
            false,
            "nodedb",
            "session-1",
            { text: "2031-01-01 00:00:00+00", micros: 978307200000000n },
          ],
        ]);
      });
    });
  });
}
