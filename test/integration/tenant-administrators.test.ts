/** Admins own what the members of their tenant create, through membership, and nothing beyond that. */

import type { Client } from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { connectAdmin } from "../../src/catalog/connection.ts";
import { bootstrap } from "../../src/exec/bootstrap.ts";
import { repairRole } from "../../src/exec/repair-role.ts";
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

const upstreams = [
  { title: "the embedded PostgreSQL 18", version: "embedded", isEmbedded: true, adminRole: undefined },
  { title: "an external 18 without superuser", version: "embedded", isEmbedded: false, adminRole: "front" },
  { title: "an external 15", version: "debian", isEmbedded: false, adminRole: undefined },
  { title: "an external 15 without superuser", version: "debian", isEmbedded: false, adminRole: "front" },
] as const;

for (const { title, version, isEmbedded, adminRole } of upstreams) {
  describe(`a tenant's administrators on ${title}`, () => {
    const isThere = version === "embedded" || requireClient("PostgreSQL 15 (Debian)", hasDebianPostgres);
    const test = it.skipIf(!isThere);
    let postgres: TestPostgres;
    let stack: CatalogStack;
    const open: Client[] = [];

    beforeAll(async () => {
      if (!isThere) return;
      postgres = await startPostgres({ version });
      if (adminRole !== undefined)
        await past(`CREATE ROLE ${adminRole} LOGIN CREATEROLE CREATEDB`, "postgres");
      stack = await openCatalogStack(postgres, {
        isEmbedded,
        ...(isEmbedded ? {} : { masterSecret: makeMasterSecret() }),
        ...(adminRole === undefined ? {} : { adminRole }),
      });
      await run("CREATE TENANT acme ID 7");
      for (const [user, role, tenant] of [
        ["maker", "readwrite", 1],
        ["reader", "readonly", 1],
        ["ann", "admin", 1],
        ["ben", "admin", 1],
        ["tess", "tenant_admin", 1],
        ["maker_7", "readwrite", 7],
        ["ann_7", "admin", 7],
      ]) {
        await run(`CREATE USER ${user} ${password} ROLE ${role} TENANT ${tenant}`);
      }
      await past("CREATE SCHEMA works; GRANT ALL ON SCHEMA works TO PUBLIC");
    });

    afterAll(async () => {
      await Promise.all(open.map((client) => client.end()));
      await stack?.close();
      await postgres?.dispose();
    });

    function run(sql: string, user = "root_user"): Promise<StatementResult | "forward"> {
      return stack.run(user, sql);
    }

    /** Past the front-end, as the cluster's superuser. */
    async function past(sql: string, database = "nodedb"): Promise<void> {
      const client = await connectAdmin(
        { host: postgres.socketDir, port: postgres.port, user: postgres.superuser },
        database,
      );
      await client.query(sql);
      await client.end();
    }

    async function as(user: string, database?: string): Promise<Client> {
      const client = await stack.connectAs(user, database);
      open.push(client);
      return client;
    }

    async function stateOf(client: Client, sql: string): Promise<string> {
      return client.query(sql).then(
        () => "ok",
        (error: { code?: string }) => error.code ?? String(error),
      );
    }

    /** Who is a member of which tenant's group, and which roles the group is a member of. */
    async function edges(tenantId = 1): Promise<{ in: string[]; behind: string[] }> {
      const [row] = await stack.sql(
        `SELECT ARRAY(SELECT DISTINCT r.rolname::text FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member
                       WHERE m.roleid = g.oid AND r.rolname <> $2 ORDER BY 1) AS "in",
                ARRAY(SELECT DISTINCT r.rolname::text FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid
                       WHERE m.member = g.oid ORDER BY 1) AS behind
           FROM pg_roles g WHERE g.rolname = $1`,
        [`nodedb_admin_${tenantId}`, adminRole ?? ""],
      );
      return row as { in: string[]; behind: string[] };
    }

    function restart(): Promise<{ unreconciled: readonly string[] }> {
      return bootstrap(stack.deps, { superuserName: "root_user", superuserPassword });
    }

    test("the group has the admins in it and everybody below them behind it, and nobody else", async () => {
      expect(await edges(1)).toEqual({ in: ["ann", "ben", "tess"], behind: ["maker", "reader"] });
      expect(await edges(7)).toEqual({ in: ["ann_7"], behind: ["maker_7"] });
      const options = await stack.sql(
        `SELECT DISTINCT m.admin_option, to_jsonb(m) ->> 'inherit_option' AS inherit, to_jsonb(m) ->> 'set_option' AS set
           FROM pg_auth_members m JOIN pg_roles g ON 'nodedb_admin_1' IN (g.rolname) AND g.oid IN (m.roleid, m.member)
          WHERE m.member::regrole::text <> $1`,
        [adminRole ?? ""],
      );
      const isPlain = version === "debian";
      expect(options).toEqual([
        { admin_option: false, inherit: isPlain ? null : "true", set: isPlain ? null : "false" },
      ]);
      const [group] = await stack.sql(
        "SELECT rolcanlogin, shobj_description(oid, 'pg_authid') AS text FROM pg_roles WHERE rolname = 'nodedb_admin_1'",
      );
      expect(group).toEqual({
        rolcanlogin: false,
        text: "administrators of tenant 1, who own what its other members create",
      });
      const before = await stack.snapshot();
      expect((await restart()).unreconciled).toEqual([]);
      expect(await stack.snapshot()).toBe(before);
    });

    test("an admin alters, grants and drops what a member created, in every database", async () => {
      await past("CREATE DATABASE elsewhere", "postgres");
      await past("CREATE SCHEMA works; GRANT ALL ON SCHEMA works TO PUBLIC", "elsewhere");
      if (adminRole !== undefined) await past(`ALTER DATABASE elsewhere OWNER TO ${adminRole}`);
      await past(
        "REVOKE CONNECT ON DATABASE elsewhere FROM PUBLIC; GRANT CONNECT ON DATABASE elsewhere TO maker",
      );
      for (const database of ["nodedb", "elsewhere"]) {
        const maker = await as("maker", database);
        await maker.query("CREATE TABLE works.made (id int); CREATE FUNCTION works.f() RETURNS int RETURN 1");
        await maker.query("REVOKE ALL ON works.made FROM PUBLIC; INSERT INTO works.made VALUES (1)");
        for (const outsider of ["reader", "ann_7", "maker_7"]) {
          if (database === "elsewhere") continue;
          const client = await as(outsider, database);
          expect(await stateOf(client, "ALTER TABLE works.made ADD bad int"), outsider).toBe("42501");
          expect(await stateOf(client, "DROP FUNCTION works.f()"), outsider).toBe("42501");
        }
        const ann = await as("ann", database);
        for (const sql of [
          "ALTER TABLE works.made ADD more int",
          "GRANT SELECT ON works.made TO reader",
          "CREATE INDEX ON works.made (id)",
          "ALTER DEFAULT PRIVILEGES FOR ROLE maker GRANT SELECT ON TABLES TO reader",
          "DROP FUNCTION works.f()",
        ]) {
          expect(await stateOf(ann, sql), sql).toBe("ok");
        }
        const tess = await as("tess", database);
        expect(await stateOf(tess, "DROP TABLE works.made")).toBe("ok");
      }
    });

    test("an admin takes over what a member created, and gives it to nobody who may not have it", async () => {
      const maker = await as("maker");
      await maker.query("CREATE TABLE works.given (id int)");
      const ann = await as("ann");
      expect(await stateOf(ann, "ALTER TABLE works.given OWNER TO root_user")).toBe("42501");
      expect(await stateOf(ann, "ALTER TABLE works.given OWNER TO ben")).toBe("42501");
      expect(await stateOf(ann, "ALTER TABLE works.given OWNER TO ann")).toBe("ok");
      expect(await stateOf(maker, "DROP TABLE works.given")).toBe("42501");
      expect(await stateOf(await as("ben"), "DROP TABLE works.given")).toBe("42501");
      await ann.query("DROP TABLE works.given");
    });

    test("what admins and superusers own stays theirs", async () => {
      const ann = await as("ann");
      await ann.query("CREATE TABLE works.of_ann (id int)");
      const root = await as("root_user");
      await root.query("CREATE TABLE works.of_root (id int)");
      for (const user of ["ben", "tess", "maker"]) {
        const client = await as(user);
        expect(await stateOf(client, "ALTER TABLE works.of_ann ADD bad int"), user).toBe("42501");
        expect(await stateOf(client, "DROP TABLE works.of_root"), user).toBe("42501");
      }
      await ann.query("DROP TABLE works.of_ann");
      await root.query("DROP TABLE works.of_root");
    });

    test("no admin becomes a superuser, an admin or a principal of another tenant by it", async () => {
      const ann = await as("ann");
      for (const role of [
        "root_user",
        "ben",
        "tess",
        "maker_7",
        "ann_7",
        "nodedb_superuser",
        "nodedb_admin_7",
      ]) {
        expect(await stateOf(ann, `SET ROLE ${role}`), role).toBe("42501");
        const [row] = (
          await ann.query("SELECT pg_has_role($1, 'USAGE') AS uses, pg_has_role($1, 'MEMBER') AS member", [
            role,
          ])
        ).rows;
        expect(row, role).toEqual({ uses: false, member: false });
      }
      // PostgreSQL 15 has no SET option: there an admin can also become whom it administers.
      expect(await stateOf(ann, "SET ROLE maker")).toBe(version === "debian" ? "ok" : "42501");
      await ann.query("RESET ROLE");
      for (const sql of [
        "GRANT nodedb_admin_1 TO maker",
        "GRANT maker TO maker_7",
        "GRANT nodedb_admin_1 TO ann WITH ADMIN OPTION",
        "ALTER ROLE maker CREATEROLE",
        "ALTER ROLE maker PASSWORD 'x'",
        "DROP ROLE maker",
        "DROP ROLE nodedb_admin_1",
      ]) {
        expect(await stateOf(ann, sql), sql).toBe("42501");
      }
    });

    test("a member gains nothing by being administered", async () => {
      const ann = await as("ann");
      await ann.query("CREATE TABLE works.of_ann (id int)");
      const maker = await as("maker");
      for (const sql of [
        "TRUNCATE works.of_ann",
        "GRANT SELECT ON works.of_ann TO maker",
        "GRANT ann TO maker",
      ]) {
        expect(await stateOf(maker, sql), sql).toBe("42501");
      }
      expect(await stateOf(maker, "SET ROLE ann")).toBe("42501");
      expect(await stateOf(maker, "SET ROLE nodedb_admin_1")).toBe("42501");
      await ann.query("DROP TABLE works.of_ann");
    });

    test("who changes rank changes sides, and what it made as an admin is then its admins' too", async () => {
      await run(`CREATE USER climber ${password}`);
      expect((await edges()).behind).toContain("climber");
      await run("GRANT admin TO climber");
      expect(await edges()).toEqual({ in: ["ann", "ben", "climber", "tess"], behind: ["maker", "reader"] });
      const climber = await as("climber");
      await climber.query("CREATE TABLE works.of_climber (id int)");
      const ann = await as("ann");
      expect(await stateOf(ann, "ALTER TABLE works.of_climber ADD bad int")).toBe("42501");
      await run("ALTER USER climber SET ROLE superuser");
      expect(await edges()).toEqual({ in: ["ann", "ben", "tess"], behind: ["maker", "reader"] });
      expect(await stateOf(ann, "ALTER TABLE works.of_climber ADD bad int")).toBe("42501");
      await run("ALTER USER climber SET ROLE readonly");
      expect((await edges()).behind).toEqual(["climber", "maker", "reader"]);
      expect(await stateOf(ann, "ALTER TABLE works.of_climber ADD good int")).toBe("ok");
      await ann.query("DROP TABLE works.of_climber");
      await run("DROP USER climber");
      expect((await edges()).behind).toEqual(["maker", "reader"]);
    });

    test("a custom role that comes to inherit admin moves those who hold it", async () => {
      await run("CREATE ROLE lifts");
      await run(`CREATE USER holder ${password} ROLE lifts`);
      expect((await edges()).behind).toContain("holder");
      await run("ALTER ROLE lifts SET INHERIT admin");
      expect((await edges()).behind).not.toContain("holder");
      expect((await edges()).in).toContain("holder");
      await run("ALTER ROLE lifts SET INHERIT readonly");
      expect((await edges()).behind).toContain("holder");
      await run("DROP USER holder");
      await run("DROP ROLE lifts");
    });

    test("service accounts and stand-alone keys are members as well", async () => {
      await run("CREATE SERVICE ACCOUNT robot FOR DATABASE nodedb");
      await run("CREATE SERVICE ACCOUNT chief_robot FOR DATABASE nodedb ROLE admin");
      await run("CREATE API KEY 'lone' ROLE readonly");
      expect(await edges()).toEqual({
        in: ["ann", "ben", "chief_robot", "tess"],
        behind: ["lone", "maker", "reader", "robot"],
      });
      await run("DROP SERVICE ACCOUNT robot");
      await run("DROP SERVICE ACCOUNT chief_robot");
      await run("DROP API KEY 'lone'");
    });

    test("a service account with admin keeps its databases when those whom it administers lose theirs", async () => {
      await run("GRANT CONNECT ON DATABASE elsewhere TO maker");
      await run("CREATE SERVICE ACCOUNT chief_robot FOR DATABASE elsewhere ROLE admin");
      await run("REVOKE CONNECT ON DATABASE elsewhere FROM maker");
      await (await stack.connectAs("chief_robot", "elsewhere")).end();
      await run("DROP SERVICE ACCOUNT chief_robot");
    });

    test("nobody of the system's tenant is in it or behind it", async () => {
      await run(`CREATE USER internal ${password} TENANT 0`);
      await run(`CREATE USER internal_admin ${password} ROLE admin TENANT 0`);
      expect(await stack.sql("SELECT FROM pg_roles WHERE rolname = 'nodedb_admin_0'")).toEqual([]);
      expect(JSON.stringify([await edges(1), await edges(7)])).not.toContain("internal");
      await run("DROP USER internal, internal_admin");
    });

    test("repairs what somebody granted and revoked behind the front-end's back", async () => {
      const before = [await edges(1), await edges(7)];
      // Since PostgreSQL 16 the grants of a superuser stay, where the front-end's login is none.
      const grantedBy = version === "debian" || adminRole === undefined ? "" : ` GRANTED BY ${adminRole}`;
      await past(`REVOKE maker FROM nodedb_admin_1${grantedBy}`);
      await past(`GRANT maker_7 TO nodedb_admin_1${grantedBy}`);
      await past(`GRANT nodedb_superuser TO nodedb_admin_7${grantedBy}`);
      await past(`GRANT nodedb_admin_7 TO ann${grantedBy}`);
      expect([await edges(1), await edges(7)]).not.toEqual(before);
      await restart();
      expect([await edges(1), await edges(7)]).toEqual(before);
    });

    test("a cycle made by hand keeps nobody from being promoted, demoted or started", async () => {
      await run(`CREATE USER friend ${password} ROLE admin`);
      // Only a superuser of PostgreSQL may.
      expect(await stateOf(await as("ann"), "GRANT ann TO friend")).toBe("42501");
      await past("GRANT ann TO friend");
      await run("ALTER USER friend SET ROLE readonly");
      expect((await edges()).behind).not.toContain("friend");
      expect((await edges()).in).not.toContain("friend");
      expect((await restart()).unreconciled).toEqual([]);
      await past("REVOKE ann FROM friend CASCADE");
      await restart();
      expect((await edges()).behind).toContain("friend");
      await run("DROP USER friend");
    });

    test("a repair at the login puts the edges right as well", async () => {
      const grantedBy = version === "debian" || adminRole === undefined ? "" : ` GRANTED BY ${adminRole}`;
      await past(`REVOKE maker FROM nodedb_admin_1${grantedBy}`);
      const id = stack.catalog.cache.findByName("maker")?.id ?? 0;
      await stack.catalog.write((client) => repairRole(client, stack.deps.roleOptions, id));
      expect((await edges()).behind).toContain("maker");
    });

    test("DROP USER takes a member who owns things, and DROP TENANT the group", async () => {
      await run(`CREATE USER gone_7 ${password} TENANT 7`);
      await (await stack.connectAs("gone_7")).query("CREATE TABLE works.left_behind (id int)");
      await expect(run("DROP USER gone_7", "ann_7")).rejects.toMatchObject({ sqlstate: "2BP01" });
      await run("DROP USER gone_7 REASSIGN OWNED TO maker_7", "ann_7");
      expect(await stateOf(await as("ann_7"), "DROP TABLE works.left_behind")).toBe("ok");
      await run("CREATE TENANT brief ID 9");
      await run(`CREATE USER short_lived ${password} TENANT 9`);
      expect((await edges(9)).behind).toEqual(["short_lived"]);
      await run("DROP USER short_lived");
      await run("DROP TENANT brief");
      expect(await stack.sql("SELECT FROM pg_roles WHERE rolname = 'nodedb_admin_9'")).toEqual([]);
    });

    test("refuses a cluster in which the group's name is a role that logs in", async () => {
      await past("CREATE ROLE nodedb_admin_11 LOGIN");
      await run("CREATE TENANT taken ID 11");
      await expect(run(`CREATE USER nobody_11 ${password} TENANT 11`)).rejects.toMatchObject({
        sqlstate: "55000",
        message: 'role "nodedb_admin_11" exists and is not a group of NodeDB',
      });
      await past("DROP ROLE nodedb_admin_11");
    });
  });
}
