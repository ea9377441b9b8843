/** Custom roles and grants of roles, on the embedded PostgreSQL 18 and an external 15. */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { SqlError } from "../../src/errors/sql-error.ts";
import { bootstrap } from "../../src/exec/bootstrap.ts";
import { beginOpenTransaction } from "../../src/exec/context.ts";
import type { StatementResult } from "../../src/exec/result.ts";
import {
  type CatalogStack,
  makeMasterSecret,
  openCatalogStack,
  superuserPassword,
} from "../support/catalog-stack.ts";
import { hasDebianPostgres, startPostgres, type TestPostgres } from "../support/postgres.ts";
import { requireClient } from "../support/skips.ts";

const password = "PASSWORD 'long enough'";

/** The external ones with a login of the front-end that is no superuser. */
const upstreams = [
  { title: "the embedded PostgreSQL 18", version: "embedded", isEmbedded: true },
  { title: "an external 18", version: "embedded", isEmbedded: false },
  { title: "an external 15", version: "debian", isEmbedded: false },
] as const;

for (const { title, version, isEmbedded } of upstreams) {
  describe(`roles with ${title}`, () => {
    const isThere = version === "embedded" || requireClient("PostgreSQL 15 (Debian)", hasDebianPostgres);
    const test = it.skipIf(!isThere);
    let postgres: TestPostgres;
    let stack: CatalogStack;

    beforeAll(async () => {
      if (!isThere) return;
      postgres = await startPostgres({ version });
      if (!isEmbedded) await createLogin();
      stack = await openCatalogStack(
        postgres,
        isEmbedded ? { isEmbedded } : { isEmbedded, masterSecret: makeMasterSecret(), adminRole: "front" },
      );
      await as("root_user", "CREATE TENANT acme ID 7");
      await as("root_user", `CREATE USER boss ${password} ROLE admin`);
      await as("root_user", `CREATE USER chief ${password} ROLE admin`);
      await as("root_user", `CREATE USER worker ${password}`);
      await as("root_user", `CREATE USER acme_admin ${password} ROLE tenant_admin TENANT 7`);
      await as("root_user", `CREATE USER acme_user ${password} TENANT 7`);
    });

    afterAll(async () => {
      await stack?.close();
      await postgres?.dispose();
    });

    async function createLogin(): Promise<void> {
      const { Client } = await import("pg");
      const client = new Client({ host: postgres.socketDir, port: postgres.port, user: "postgres" });
      await client.connect();
      await client.query("CREATE ROLE front LOGIN CREATEROLE CREATEDB");
      await client.end();
    }

    function as(user: string, sql: string): Promise<StatementResult | "forward"> {
      return stack.run(user, sql);
    }

    async function rows(user: string, sql: string): Promise<readonly (readonly unknown[])[]> {
      const result = await as(user, sql);
      if (result === "forward") expect.fail("forwarded");
      return result.table?.rows ?? [];
    }

    /** Runs a statement that must be refused, and checks that it changed nothing. */
    async function refused(user: string, sql: string): Promise<SqlError> {
      const before = await stack.snapshot();
      const outcome = await as(user, sql).catch((error: unknown) => error);
      expect(outcome, sql).toBeInstanceOf(SqlError);
      expect(await stack.snapshot(), sql).toBe(before);
      return outcome as SqlError;
    }

    /** The roles of PostgreSQL that a role is a member of, as the upstream login does not count. */
    async function memberships(member: string): Promise<unknown> {
      return stack.sql(
        `SELECT g.rolname AS role, m.admin_option, to_jsonb(m) ->> 'inherit_option' AS inherit,
                to_jsonb(m) ->> 'set_option' AS set
           FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles u ON u.oid = m.member
          WHERE u.rolname = $1 ORDER BY 1`,
        [member],
      );
    }

    function member(role: string): unknown {
      const options = version === "debian" ? [null, null] : ["true", "false"];
      return { role, admin_option: false, inherit: options[0], set: options[1] };
    }

    describe("CREATE ROLE", () => {
      test("makes a NOLOGIN role of PostgreSQL in the creator's tenant, to which a table can be granted", async () => {
        expect(await as("boss", "CREATE ROLE analyst")).toEqual({ tag: "CREATE ROLE", notices: [] });
        const [role] = await stack.sql("SELECT * FROM pg_roles WHERE rolname = 'analyst'");
        expect(role).toMatchObject({ rolcanlogin: false, rolinherit: true, rolcreaterole: false });
        await stack.sql("CREATE TABLE public.figures (id int); GRANT SELECT ON public.figures TO analyst");
        await as("boss", `CREATE USER reader ${password} ROLE analyst`);
        expect(stack.catalog.cache.findByName("reader")).toMatchObject({
          roles: ["analyst"],
          effectiveRoles: ["analyst"],
        });
        const [privilege] = await stack.sql(
          "SELECT has_table_privilege('reader', 'figures', 'SELECT') AS has",
        );
        expect(privilege).toEqual({ has: true });
        expect(await memberships("reader")).toEqual([member("analyst")]);
      });

      test("inherits a built-in role, and another custom one", async () => {
        await as("boss", "CREATE ROLE lead INHERIT readonly");
        await as("boss", "CREATE ROLE chieftain INHERIT lead");
        expect(await memberships("lead")).toEqual([member("nodedb_readonly")]);
        expect(await memberships("chieftain")).toEqual([member("lead")]);
        await as("boss", `CREATE USER led ${password} ROLE chieftain`);
        const [has] = await stack.sql("SELECT pg_has_role('led', 'nodedb_readonly', 'USAGE') AS has");
        expect(has).toEqual({ has: true });
        expect(stack.catalog.cache.findByName("led")?.effectiveRoles).toEqual([
          "chieftain",
          "lead",
          "readonly",
        ]);
      });

      test("a custom role that inherits admin makes an admin, and its holder is out of reach of lower ones", async () => {
        await as("boss", "CREATE ROLE deputy INHERIT 'admin'");
        await as("boss", `CREATE USER vice ${password} ROLE deputy`);
        expect(await as("vice", `CREATE USER by_vice ${password}`)).toMatchObject({ tag: "CREATE USER" });
        await as("root_user", "CREATE ROLE lords INHERIT tenant_admin");
        await as("root_user", `CREATE USER lord ${password} ROLE lords`);
        expect(await refused("boss", "ALTER USER lord NOLOGIN")).toMatchObject({ sqlstate: "42501" });
        expect(await refused("boss", "GRANT lords TO worker")).toMatchObject({ sqlstate: "42501" });
        expect(await refused("boss", "DROP ROLE lords")).toMatchObject({ sqlstate: "42501" });
      });

      test.each([
        ["boss", "CREATE ROLE analyst", "42710"],
        ["boss", "CREATE ROLE readonly", "42710"],
        ["boss", "CREATE ROLE worker", "42710"],
        ["boss", "CREATE ROLE IF NOT EXISTS worker", "42710"],
        ["boss", "CREATE ROLE postgres", "42710"],
        ["acme_admin", "CREATE ROLE IF NOT EXISTS analyst", "42710"],
        ["boss", `CREATE USER analyst ${password}`, "42710"],
        ["boss", "ALTER USER worker RENAME TO analyst", "42710"],
        ["boss", "CREATE ROLE pg_x", "42939"],
        ["boss", "CREATE ROLE nodedb_x", "42939"],
        ["boss", "CREATE ROLE r1 INHERIT nowhere", "42704"],
        ["boss", "CREATE ROLE r1 INHERIT worker", "42704"],
        ["acme_admin", "CREATE ROLE r1 INHERIT analyst", "42704"],
        ["boss", "CREATE ROLE r1 INHERIT r1", "42P16"],
        ["boss", "CREATE ROLE r1 INHERIT tenant_admin", "42501"],
        ["boss", "CREATE ROLE r1 INHERIT 'superuser'", "42501"],
        ["root_user", "CREATE ROLE r1 INHERIT 'superuser'", "0A000"],
        ["worker", "CREATE ROLE r1", "42501"],
      ])("%s: %s is refused with %s", async (user, sql, sqlstate) => {
        expect(await refused(user, sql)).toMatchObject({ sqlstate });
      });

      test("skips what exists with IF NOT EXISTS", async () => {
        for (const name of ["analyst", "readonly"]) {
          expect(await as("boss", `CREATE ROLE IF NOT EXISTS ${name}`)).toEqual({
            tag: "CREATE ROLE",
            notices: [`role "${name}" already exists, skipping`],
          });
        }
      });

      test("of two administrators at once one succeeds and the other is told that the name is taken", async () => {
        const outcomes = await Promise.allSettled([
          as("boss", "CREATE ROLE twice"),
          as("chief", "CREATE ROLE twice INHERIT readonly"),
        ]);
        expect(outcomes.map((outcome) => outcome.status).sort()).toEqual(["fulfilled", "rejected"]);
        const failed = outcomes.find((outcome) => outcome.status === "rejected");
        expect(failed?.reason).toMatchObject({ sqlstate: "42710" });
        await as("boss", "DROP ROLE twice");
      });
    });

    describe("ALTER ROLE … SET INHERIT", () => {
      test("replaces the parent, and the holders' rights follow at once", async () => {
        await as("boss", "CREATE ROLE mover INHERIT readonly");
        await as("boss", `CREATE USER moved ${password} ROLE mover`);
        expect(await as("boss", "ALTER ROLE mover SET INHERIT admin")).toEqual({
          tag: "ALTER ROLE",
          notices: [],
        });
        expect(await memberships("mover")).toEqual([member("nodedb_admin")]);
        expect(stack.catalog.cache.findByName("moved")?.effectiveRoles).toEqual(["mover", "admin"]);
        expect(await as("moved", "CREATE ROLE by_moved")).toMatchObject({ tag: "CREATE ROLE" });
        await stack.catalog.rehearse(async (client) => {
          const transaction = beginOpenTransaction(client, { processId: 0 });
          await stack.run("boss", "ALTER ROLE mover SET INHERIT readonly", { transaction });
          expect([...transaction.touched]).toEqual([stack.catalog.cache.findByName("moved")?.id]);
        });
        await as("boss", "ALTER ROLE mover SET INHERIT readonly");
        expect(await refused("moved", "CREATE ROLE by_moved2")).toMatchObject({ sqlstate: "42501" });
      });

      test("refuses itself, a cycle, and more than eight steps", async () => {
        await as("boss", "CREATE ROLE c1");
        for (let n = 2; n <= 8; n += 1) await as("boss", `CREATE ROLE c${n} INHERIT c${n - 1}`);
        expect(await refused("boss", "ALTER ROLE c1 SET INHERIT c1")).toMatchObject({ sqlstate: "42P16" });
        expect(await refused("boss", "ALTER ROLE c1 SET INHERIT c8")).toMatchObject({ sqlstate: "42P16" });
        await as("boss", "CREATE ROLE c9 INHERIT c8");
        expect(await refused("boss", "CREATE ROLE c10 INHERIT c9")).toMatchObject({ sqlstate: "42P16" });
        expect(await refused("boss", "ALTER ROLE c1 SET INHERIT readonly")).toMatchObject({
          sqlstate: "42P16",
          position: 27,
        });
      });

      test.each([
        ["boss", "ALTER ROLE nowhere SET INHERIT readonly", "42704"],
        ["boss", "ALTER ROLE readwrite SET INHERIT admin", "42501"],
        ["boss", "ALTER ROLE worker SET INHERIT readonly", "42809"],
        ["acme_admin", "ALTER ROLE analyst SET INHERIT readonly", "42704"],
        ["worker", "ALTER ROLE analyst SET INHERIT readonly", "42501"],
        ["boss", "ALTER ROLE analyst SET INHERIT superuser", "42501"],
        ["boss", `ALTER ROLE analyst ${password}`, "42809"],
        ["root_user", "ALTER ROLE analyst RENAME TO other", "42809"],
        ["root_user", "DROP USER analyst", "42809"],
      ])("%s: %s is refused with %s", async (user, sql, sqlstate) => {
        expect(await refused(user, sql)).toMatchObject({ sqlstate });
      });
    });

    describe("DROP ROLE", () => {
      test("takes the role away with what was granted to it", async () => {
        await as("boss", "CREATE ROLE d1 INHERIT readonly");
        await stack.sql("CREATE TABLE public.d1_table (id int); GRANT SELECT ON public.d1_table TO d1");
        if (!isEmbedded) await stack.sql("ALTER TABLE public.d1_table OWNER TO front");
        expect(await as("boss", "DROP ROLE d1")).toEqual({ tag: "DROP ROLE", notices: [] });
        expect(await stack.sql("SELECT FROM pg_roles WHERE rolname = 'd1'")).toEqual([]);
        expect(await as("boss", "DROP ROLE IF EXISTS d1")).toEqual({
          tag: "DROP ROLE",
          notices: ['role "d1" does not exist, skipping'],
        });
      });

      test("refuses one that is held or inherited, and names by whom", async () => {
        await as("boss", "CREATE ROLE d2");
        await as("boss", "CREATE ROLE d3 INHERIT d2");
        await as("boss", `CREATE USER holder ${password} ROLE d2`);
        expect(await refused("boss", "DROP ROLE d2")).toMatchObject({
          sqlstate: "2BP01",
          detail: "held by holder\ninherited by role d3",
        });
        await as("boss", "REVOKE d2 FROM holder");
        expect(await as("boss", "DROP ROLE d2, d3")).toMatchObject({ tag: "DROP ROLE" });
      });

      test("means DROP USER for a user, and leaves PostgreSQL's own roles to PostgreSQL", async () => {
        await as("boss", `CREATE USER d4 ${password}`);
        expect(await as("boss", "DROP ROLE d4")).toEqual({ tag: "DROP ROLE", notices: [] });
        expect(stack.catalog.cache.findByName("d4")).toBeUndefined();
        await stack.sql("CREATE ROLE somebodys");
        expect(await as("boss", "DROP ROLE somebodys")).toBe("forward");
        expect(await refused("boss", "DROP ROLE analyst, somebodys")).toMatchObject({ sqlstate: "42809" });
        expect(await refused("boss", "DROP ROLE analyst, worker")).toMatchObject({ sqlstate: "42809" });
        await stack.sql("DROP ROLE somebodys");
      });

      test.each([
        ["boss", "DROP ROLE nowhere", "42704"],
        ["boss", "DROP ROLE readonly", "42939"],
        ["boss", "DROP ROLE nodedb_readonly", "42939"],
        ["acme_admin", "DROP ROLE analyst", "42704"],
        ["worker", "DROP ROLE analyst", "42501"],
      ])("%s: %s is refused with %s", async (user, sql, sqlstate) => {
        expect(await refused(user, sql)).toMatchObject({ sqlstate });
      });
    });

    test("SHOW ROLES lists the built-in roles, and the custom ones of the own tenant", async () => {
      await as("acme_admin", "CREATE ROLE acme_role INHERIT readonly");
      const shown = await rows("worker", "SHOW ROLES");
      expect(shown.slice(0, 5).map((row) => row.slice(0, 4))).toEqual([
        ["readonly", 0n, null, true],
        ["readwrite", 0n, "readonly", true],
        ["admin", 0n, "readwrite", true],
        ["tenant_admin", 0n, "admin", true],
        ["superuser", 0n, "tenant_admin", true],
      ]);
      expect(shown).toContainEqual(["lead", 1n, "readonly", false, expect.anything()]);
      expect(shown.map((row) => row[0])).not.toContain("acme_role");
      expect((await rows("acme_user", "SHOW ROLES")).map((row) => row[0])).not.toContain("analyst");
      expect((await rows("root_user", "SHOW ROLES")).map((row) => row[0])).toContain("acme_role");
    });

    test("the roles are made again when somebody dropped or changed them, and a second start changes nothing", async () => {
      const before = await stack.snapshot();
      await bootstrap(stack.deps, { superuserName: "root_user", superuserPassword });
      expect(await stack.snapshot()).toBe(before);
      await stack.sql("ALTER ROLE lead LOGIN; REVOKE lead FROM chieftain; DROP OWNED BY c9; DROP ROLE c9");
      await bootstrap(stack.deps, { superuserName: "root_user", superuserPassword });
      expect(await memberships("chieftain")).toEqual([member("lead")]);
      expect(await memberships("c9")).toEqual([member("c8")]);
      expect(await stack.sql("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'lead'")).toEqual([
        { rolcanlogin: false },
      ]);
    });

    describe("GRANT and REVOKE", () => {
      test("change the roles of several users, again without harm", async () => {
        await as("boss", `CREATE USER g1 ${password}`);
        await as("boss", `CREATE USER g2 ${password} ROLE readonly`);
        const granted = { tag: "GRANT ROLE", notices: [] };
        expect(await as("boss", "GRANT ROLE analyst, readonly TO g1, g2")).toEqual(granted);
        expect(await as("boss", "GRANT analyst TO g1")).toEqual(granted);
        expect(stack.catalog.cache.findByName("g1")?.roles).toEqual(["readwrite", "analyst", "readonly"]);
        expect(stack.catalog.cache.findByName("g2")?.roles).toEqual(["readonly", "analyst"]);
        expect(await memberships("g2")).toEqual([member("analyst"), member("nodedb_readonly")]);
        expect(await as("boss", "REVOKE analyst FROM g1, g2")).toEqual({ tag: "REVOKE ROLE", notices: [] });
        expect(await memberships("g2")).toEqual([member("nodedb_readonly")]);
        expect(stack.catalog.cache.findByName("g1")?.roles).toEqual(["readwrite", "readonly"]);
      });

      test.each([
        ["boss", "GRANT superuser TO worker", "42501"],
        ["boss", "GRANT tenant_admin TO worker", "42501"],
        ["boss", "GRANT readonly TO root_user", "42501"],
        ["boss", "REVOKE superuser FROM root_user", "42501"],
        ["boss", "REVOKE admin FROM acme_admin", "42704"],
        ["worker", "GRANT readonly TO worker", "42501"],
        ["worker", "REVOKE readwrite FROM worker", "42501"],
        ["root_user", "REVOKE superuser FROM root_user", "42501"],
        ["root_user", "REVOKE superuser FROM CURRENT_USER", "42501"],
        ["boss", "GRANT nowhere TO worker", "42704"],
        ["boss", "GRANT readonly TO nobody", "42704"],
        ["boss", "GRANT readonly TO acme_user", "42704"],
        ["boss", "GRANT acme_role TO worker", "42704"],
        ["root_user", "GRANT acme_role TO worker", "42501"],
        ["root_user", "GRANT analyst TO worker, acme_user", "42501"],
        ["boss", "REVOKE analyst FROM worker", "42704"],
        ["boss", "REVOKE readonly FROM worker", "42704"],
        ["boss", "GRANT readonly TO pg_monitor", "42809"],
        ["boss", "GRANT readonly TO analyst", "42809"],
        ["boss", "GRANT readonly, pg_monitor TO worker", "42809"],
        ["boss", "GRANT nodedb_superuser TO boss", "42501"],
        ["worker", "REVOKE nodedb_readonly FROM nodedb_admin", "42501"],
        ["worker", "GRANT pg_read_all_data TO nodedb_readonly", "42501"],
      ])("%s: %s is refused with %s", async (user, sql, sqlstate) => {
        expect(await refused(user, sql)).toMatchObject({ sqlstate });
      });

      test("leave PostgreSQL's own roles to PostgreSQL, which asks for ADMIN OPTION", async () => {
        for (const sql of ["GRANT pg_read_all_data TO worker", "REVOKE pg_monitor FROM postgres"]) {
          expect(await as("worker", sql)).toBe("forward");
        }
        const client = await stack.connectAs("worker");
        const outcome = await client.query("GRANT pg_read_all_data TO worker").catch((error) => error);
        await client.end();
        expect(outcome).toMatchObject({ code: "42501" });
      });

      test("a superuser may be made and unmade by another one, but the last one stays", async () => {
        await as("root_user", `CREATE USER second ${password}`);
        await as("root_user", "GRANT superuser TO second");
        const [role] = await stack.sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'second'");
        expect(role?.rolsuper).toBe(isEmbedded);
        await as("root_user", "REVOKE superuser FROM second");
        expect(await stack.sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'second'")).toEqual([
          { rolsuper: false },
        ]);
        expect(stack.catalog.cache.findByName("second")?.roles).toEqual(["readwrite"]);
        await as("root_user", "GRANT superuser TO second");
        await as("root_user", "ALTER USER root_user PASSWORD NULL");
        expect(await refused("root_user", "REVOKE superuser FROM second")).toMatchObject({
          sqlstate: "42501",
          message: "permission denied: this is the last superuser that can log in",
        });
        await as("root_user", `ALTER USER root_user ${password}`);
        await as("root_user", "REVOKE superuser FROM second");
      });

      test("two administrators at once both have their effect", async () => {
        await as("boss", "CREATE ROLE both1");
        await as("boss", "CREATE ROLE both2");
        await as("boss", `CREATE USER gboth ${password}`);
        await Promise.all([as("boss", "GRANT both1 TO gboth"), as("chief", "GRANT both2 TO gboth")]);
        expect([...(stack.catalog.cache.findByName("gboth")?.roles ?? [])].sort()).toEqual([
          "both1",
          "both2",
          "readwrite",
        ]);
      });
    });

    describe("SHOW GRANTS", () => {
      test("tells which roles are held, and which are inherited through which others", async () => {
        expect(await rows("led", "SHOW GRANTS")).toEqual([
          ["led", "chieftain", null],
          ["led", "lead", "chieftain"],
          ["led", "readonly", "lead"],
        ]);
        expect(await rows("boss", "SHOW GRANTS FOR worker")).toEqual([
          ["worker", "readwrite", null],
          ["worker", "readonly", "readwrite"],
        ]);
        expect(await rows("worker", "SHOW GRANTS FOR worker")).toHaveLength(2);
      });

      test.each([
        ["worker", "SHOW GRANTS FOR boss", "42501"],
        ["boss", "SHOW GRANTS FOR acme_user", "42704"],
        ["boss", "SHOW GRANTS FOR nobody", "42704"],
      ])("%s: %s is refused with %s", async (user, sql, sqlstate) => {
        expect(await refused(user, sql)).toMatchObject({ sqlstate });
      });
    });
  });
}
