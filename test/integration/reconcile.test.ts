/** PostgreSQL's roles and grants made to match the catalog, and repaired when they drift. */

import type { Client } from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { identityOf } from "../../src/auth/password.ts";
import { connectAdmin } from "../../src/catalog/connection.ts";
import { SqlError } from "../../src/errors/sql-error.ts";
import { bootstrap } from "../../src/exec/bootstrap.ts";
import { repairRole } from "../../src/exec/repair-role.ts";
import { desiredRoleOf } from "../../src/exec/run-statement.ts";
import {
  reconcileAccess,
  reconcileDefaultPrivileges,
  reconcileObjects,
} from "../../src/upstream/reconcile-database.ts";
import { reconcileGroups } from "../../src/upstream/reconcile-groups.ts";
import { reconcileRoles } from "../../src/upstream/reconcile-roles.ts";
import { deriveRoleCredential } from "../../src/upstream/role-credential.ts";
import {
  type CatalogStack,
  makeMasterSecret,
  openCatalogStack,
  superuserPassword,
} from "../support/catalog-stack.ts";
import { hasDebianPostgres, startPostgres, type TestPostgres } from "../support/postgres.ts";
import { requireClient } from "../support/skips.ts";

const password = "PASSWORD 'long enough'";

/** Each with a login of the front-end that is, or is not, a superuser upstream. */
const upstreams = [
  { title: "the embedded PostgreSQL 18", version: "embedded", isEmbedded: true, adminRole: undefined },
  { title: "an external 18 without superuser", version: "embedded", isEmbedded: false, adminRole: "front" },
  { title: "an external 15", version: "debian", isEmbedded: false, adminRole: undefined },
  { title: "an external 15 without superuser", version: "debian", isEmbedded: false, adminRole: "front" },
] as const;

for (const { title, version, isEmbedded, adminRole } of upstreams) {
  describe(`reconciling roles with ${title}`, () => {
    const isThere = version === "embedded" || requireClient("PostgreSQL 15 (Debian)", hasDebianPostgres);
    const test = it.skipIf(!isThere);
    const masterSecret = isEmbedded ? undefined : makeMasterSecret();
    let postgres: TestPostgres;
    let stack: CatalogStack;

    beforeAll(async () => {
      if (!isThere) return;
      postgres = await startPostgres({ version, settings: { log_statement: "all" } });
      if (adminRole !== undefined) {
        const superuser = await connectAdmin(
          { host: postgres.socketDir, port: postgres.port, user: postgres.superuser },
          "postgres",
        );
        await superuser.query(`CREATE ROLE ${adminRole} LOGIN CREATEROLE CREATEDB`);
        await superuser.end();
      }
      stack = await openCatalogStack(postgres, {
        isEmbedded,
        ...(masterSecret === undefined ? {} : { masterSecret }),
        ...(adminRole === undefined ? {} : { adminRole }),
      });
      for (const role of ["readonly", "readwrite", "admin"]) {
        await stack.run("root_user", `CREATE USER ${role}_user ${password} ROLE ${role}`);
      }
    });

    afterAll(async () => {
      await stack?.close();
      await postgres?.dispose();
    });

    /** Runs the reconciler as the start does. @returns how many statements it needed */
    function reconcileAll(): Promise<number> {
      const desired = [...stack.catalog.cache.all()].map(desiredRoleOf);
      return stack.catalog.write(
        async (client) =>
          (await reconcileGroups(client, stack.deps.roleOptions)) +
          (await reconcileRoles(client, desired, stack.deps.roleOptions)),
      );
    }

    async function prepare(user: string, database = "nodedb"): Promise<void> {
      const record = stack.catalog.cache.findByName(user);
      if (record === undefined) expect.fail("unknown user");
      await stack.deps.databases.prepare(database, identityOf(record, "scram-sha-256"));
    }

    async function sqlstate(client: Client, sql: string): Promise<string> {
      return client.query(sql).then(
        () => "00000",
        (error: { code?: string }) => error.code ?? String(error),
      );
    }

    test("a second run needs no statement, and a second start neither", async () => {
      expect(await reconcileAll()).toBe(0);
      const before = await stack.snapshot();
      const again = await bootstrap(stack.deps, { superuserName: "root_user", superuserPassword });
      expect(again).toEqual({
        superuserName: "root_user",
        isFirstStart: false,
        generatedPassword: undefined,
        unreconciled: [],
      });
      expect(await stack.snapshot()).toBe(before);
    });

    test("roles can log in and hold exactly their group, without a way to become it where PostgreSQL knows one", async () => {
      const client = await stack.connectAs("readonly_user");
      const members = await client.query(
        `SELECT m.roleid::regrole::text AS role, m.admin_option, to_jsonb(m) ->> 'set_option' AS set_option
           FROM pg_auth_members m WHERE member = 'readonly_user'::regrole`,
      );
      expect(members.rows).toEqual([
        { role: "nodedb_readonly", admin_option: false, set_option: version === "debian" ? null : "false" },
      ]);
      expect(await sqlstate(client, "SET ROLE nodedb_readonly")).toBe(
        version === "debian" ? "00000" : "42501",
      );
      expect(await sqlstate(client, "SELECT * FROM nodedb.principal")).toBe("42501");
      expect(await sqlstate(client, "SELECT * FROM pg_authid")).toBe("42501");
      await client.end();
    });

    test("repairs attributes and memberships that somebody changed", async () => {
      const before = await stack.snapshot();
      await stack.sql(
        "ALTER ROLE readwrite_user NOLOGIN CREATEDB CONNECTION LIMIT 0 VALID UNTIL '2001-01-01'",
      );
      await stack.sql("REVOKE nodedb_readwrite FROM readwrite_user CASCADE").catch(() => undefined);
      const grantor = adminRole === undefined || version === "debian" ? "" : ` GRANTED BY ${adminRole}`;
      await stack.sql(`REVOKE nodedb_readwrite FROM readwrite_user${grantor} CASCADE`);
      await stack.sql(`GRANT nodedb_admin TO readwrite_user${grantor}`);
      expect(await stack.snapshot()).not.toBe(before);
      expect(await reconcileAll()).toBeGreaterThan(0);
      const [role] = await stack.sql(
        `SELECT rolcanlogin, rolcreatedb, rolconnlimit, rolvaliduntil = 'infinity' AS forever,
                ARRAY(SELECT DISTINCT roleid::regrole::text FROM pg_auth_members WHERE member = r.oid) AS groups
           FROM pg_roles r WHERE rolname = 'readwrite_user'`,
      );
      expect(role).toEqual({
        rolcanlogin: true,
        rolcreatedb: false,
        rolconnlimit: -1,
        forever: true,
        groups: ["nodedb_readwrite"],
      });
      expect(await reconcileAll()).toBe(0);
    });

    test("a role that somebody made a superuser is made an ordinary one, or reported", async () => {
      await stack.sql("ALTER ROLE readonly_user SUPERUSER");
      const { unreconciled } = await bootstrap(stack.deps, { superuserName: "root_user", superuserPassword });
      const [role] = await stack.sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'readonly_user'");
      if (adminRole === undefined) {
        expect(unreconciled).toEqual([]);
        expect(role).toEqual({ rolsuper: false });
      } else {
        expect(unreconciled).toEqual(["readonly_user"]);
        await stack.sql("ALTER ROLE readonly_user NOSUPERUSER");
      }
    });

    test("makes a role again that was dropped in PostgreSQL", async () => {
      await stack.run("root_user", `CREATE USER lost ${password}`);
      const id = stack.catalog.cache.findByName("lost")?.id ?? 0;
      await stack.sql("DROP ROLE lost");
      expect(
        await stack.catalog.write((client) => repairRole(client, stack.deps.roleOptions, id)),
      ).toBeGreaterThan(0);
      await (await stack.connectAs("lost")).end();
      await stack.run("root_user", "DROP USER lost");
      expect(
        await stack.catalog.write((client) => repairRole(client, stack.deps.roleOptions, id)),
      ).toBeUndefined();
    });

    test("a user whose role was dropped in PostgreSQL can be dropped here", async () => {
      await stack.run("root_user", `CREATE USER lost_too ${password}`);
      await stack.sql("DROP ROLE lost_too");
      expect(await stack.run("root_user", "DROP USER lost_too")).toMatchObject({ tag: "DROP USER" });
    });

    if (!isEmbedded) {
      test("installs derived verifiers, over any password, and never in the log", async () => {
        const stored = async (name: string) =>
          (await stack.sql("SELECT rolpassword FROM pg_authid WHERE rolname = $1", [name]))[0]?.rolpassword;
        const derived = (name: string, roleVersion: number) =>
          deriveRoleCredential(masterSecret ?? Buffer.alloc(0), name, roleVersion).verifier;
        await stack.run("root_user", `CREATE USER keyed ${password}`);
        const record = stack.catalog.cache.findByName("keyed");
        expect(await stored("keyed")).toBe(derived("keyed", 1));
        await stack.sql("ALTER ROLE keyed PASSWORD 'my own'");
        await stack.catalog.write((client) =>
          repairRole(client, stack.deps.roleOptions, record?.id ?? 0, true),
        );
        expect(await stored("keyed")).toBe(derived("keyed", 1));
        await stack.run("root_user", "ALTER USER keyed RENAME TO rekeyed");
        expect(stack.catalog.cache.findByName("rekeyed")?.roleVersion).toBe(2);
        expect(await stored("rekeyed")).toBe(derived("rekeyed", 2));
        // A login that is no superuser may not change what is logged.
        if (adminRole === undefined) expect(postgres.readLog()).not.toContain(derived("rekeyed", 2));
        await stack.run("root_user", "DROP USER rekeyed");
      });
    } else {
      test("installs no password where nobody but the front-end reaches the socket", async () => {
        expect(await stack.sql("SELECT rolname FROM pg_authid WHERE rolpassword IS NOT NULL")).toEqual([
          { rolname: "postgres" },
        ]);
      });
    }

    test("gives the groups their grants on what is there, once", async () => {
      const creator = adminRole ?? postgres.superuser;
      const admin = await stack.connectAs(creator);
      await admin.query("CREATE SCHEMA app");
      await admin.query('CREATE TABLE app."Odd name" (id serial PRIMARY KEY)');
      await admin.query("CREATE FUNCTION app.f() RETURNS int LANGUAGE sql RETURN 1");
      await admin.query("CREATE FUNCTION app.as_owner() RETURNS int LANGUAGE sql SECURITY DEFINER RETURN 1");
      await admin.query("REVOKE EXECUTE ON FUNCTION app.f(), app.as_owner() FROM PUBLIC");
      await prepare("readonly_user");
      expect(await reconcileAccess(admin, { isEmbedded })).toBe(0);
      expect(await reconcileObjects(admin)).toBe(0);
      await admin.end();

      const expected = {
        readonly_user: ["00000", "42501", "42501", "42501", "42501"],
        readwrite_user: ["00000", "00000", "00000", "42501", "42501"],
        admin_user: ["00000", "00000", "00000", "00000", "00000"],
      };
      for (const [user, states] of Object.entries(expected)) {
        const client = await stack.connectAs(user);
        const actual: string[] = [];
        for (const sql of [
          'SELECT * FROM app."Odd name"',
          'INSERT INTO app."Odd name" DEFAULT VALUES',
          "SELECT app.f()",
          'TRUNCATE app."Odd name"',
          `CREATE TABLE app.${user}_table (id int)`,
        ]) {
          actual.push(await sqlstate(client, sql));
        }
        expect(actual, user).toEqual(states);
        expect(await sqlstate(client, "SELECT app.as_owner()")).toBe("42501");
        expect(
          await sqlstate(client, 'CREATE TRIGGER t BEFORE INSERT ON app."Odd name" EXECUTE FUNCTION app.f()'),
        ).toBe("42501");
        await client.end();
      }
    });

    test("what was revoked later stays revoked, and new objects of other roles are reached after a start", async () => {
      const creator = await stack.connectAs(adminRole ?? postgres.superuser);
      await creator.query("CREATE TABLE app.payroll (id int); CREATE TABLE app.of_login (id int)");
      await creator.query("REVOKE ALL ON app.payroll FROM nodedb_readonly");
      await creator.query("ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM nodedb_readonly");
      await creator.query("CREATE TABLE app.without_defaults (id int)");
      await creator.query("REVOKE SELECT ON app.without_defaults FROM nodedb_readonly");
      await creator.query(
        "ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM nodedb_readwrite, nodedb_admin",
      );
      await creator.query("CREATE TABLE app.untouched (id int)");
      stack.deps.databases.forget();
      await prepare("readonly_user");
      await creator.end();
      const reader = await stack.connectAs("readonly_user");
      expect(await sqlstate(reader, "SELECT * FROM app.payroll")).toBe("42501");
      expect(await sqlstate(reader, "SELECT * FROM app.without_defaults")).toBe("42501");
      expect(await sqlstate(reader, "SELECT * FROM app.of_login")).toBe("00000");
      expect(await sqlstate(reader, "SELECT * FROM app.untouched")).toBe("00000");
      await reader.end();
    });

    test("what an admin creates from then on is reached by the groups", async () => {
      await prepare("admin_user");
      const admin = await stack.connectAs("admin_user");
      await admin.query(
        "CREATE SCHEMA of_admin; CREATE TABLE of_admin.t (id serial); INSERT INTO of_admin.t VALUES (1)",
      );
      await admin.end();
      const reader = await stack.connectAs("readonly_user");
      expect(await sqlstate(reader, "SELECT * FROM of_admin.t")).toBe("00000");
      expect(await sqlstate(reader, "DELETE FROM of_admin.t")).toBe("42501");
      await reader.end();
      const writer = await stack.connectAs("readwrite_user");
      expect(await sqlstate(writer, "INSERT INTO of_admin.t DEFAULT VALUES")).toBe("00000");
      await writer.end();
      const check = await connectAdmin(stack.deps.adminConnection, "nodedb");
      expect(await reconcileDefaultPrivileges(check, "admin_user")).toBe(0);
      await check.end();
    });

    test("a user who becomes an admin later is prepared in the databases that are in use", async () => {
      await prepare("readonly_user");
      await stack.run("root_user", `CREATE USER promoted ${password}`);
      await stack.run("root_user", "ALTER USER promoted SET ROLE admin");
      const client = await stack.connectAs("promoted");
      await client.query("CREATE TABLE app.of_promoted (id int)");
      await client.end();
      const reader = await stack.connectAs("readonly_user");
      expect(await sqlstate(reader, "SELECT * FROM app.of_promoted")).toBe("00000");
      await reader.end();
    });

    test("an admin's user is dropped with all that it made, when that is given to another", async () => {
      expect(await stack.run("root_user", "DROP USER promoted REASSIGN OWNED TO admin_user")).toMatchObject({
        tag: "DROP USER",
      });
      expect(await stack.sql("SELECT tableowner FROM pg_tables WHERE tablename = 'of_promoted'")).toEqual([
        { tableowner: "admin_user" },
      ]);
    });

    test("only the embedded PostgreSQL is closed to PUBLIC, a database made later too", async () => {
      await stack.sql("CREATE DATABASE later_db", [], "postgres");
      await prepare("readonly_user", "later_db");
      const client = await stack
        .connectAs("readonly_user", "later_db")
        .catch((error: { code?: string }) => error.code);
      if (isEmbedded) {
        expect(client).toBe("42501");
        const own = await stack.connectAs("readonly_user");
        expect(await sqlstate(own, "CREATE TEMP TABLE t (id int)")).toBe("42501");
        await own.end();
        await stack.sql("GRANT CONNECT ON DATABASE later_db TO readonly_user", [], "postgres");
        await (await stack.connectAs("readonly_user", "later_db")).end();
      } else {
        await (client as Client).end();
      }
    });

    test("leaves a database that does not exist to PostgreSQL", async () => {
      await expect(prepare("readonly_user", "no_such_db")).resolves.toBeUndefined();
    });

    test("refuses a cluster in which a group's name is a role that logs in", async () => {
      await stack.sql("ALTER ROLE nodedb_readonly LOGIN");
      await expect(reconcileAll()).rejects.toThrow(SqlError);
      await stack.sql("ALTER ROLE nodedb_readonly NOLOGIN");
      expect(await reconcileAll()).toBe(0);
    });
  });
}

describe("an upstream login without rights", () => {
  it("is refused with what is missing", async () => {
    const postgres = await startPostgres();
    try {
      const superuser = await connectAdmin(
        { host: postgres.socketDir, port: postgres.port, user: postgres.superuser },
        "postgres",
      );
      await superuser.query("CREATE ROLE weak LOGIN");
      await superuser.end();
      const opening = openCatalogStack(postgres, {
        isEmbedded: false,
        masterSecret: makeMasterSecret(),
        adminRole: "weak",
      });
      await expect(opening).rejects.toMatchObject({
        sqlstate: "55000",
        message: 'upstream role "weak" may not create roles',
      });
    } finally {
      await postgres.dispose();
    }
  });
});
