/** The claims' functions in databases that are somebody else's, copied, restored, older, or entered by two front-ends at once. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type FrontEnd, type FrontEndOptions, startFrontEnd } from "../support/front-end.ts";
import { hasDebianPostgres, startPostgres, type TestPostgres } from "../support/postgres.ts";
import { requireClient } from "../support/skips.ts";
import { openClient, runOnce, stateOf } from "../support/stage.ts";

describe("before PostgreSQL 18", () => describeInstallation("embedded", true));
describe("before PostgreSQL 15", () => {
  describeInstallation("debian", requireClient("PostgreSQL 15 (postgresql-15)", hasDebianPostgres));
});

function describeInstallation(version: "embedded" | "debian", isThere: boolean): void {
  const it = test.skipIf(!isThere);
  const whoAmI = "SELECT auth.id() AS id";
  const itself = [{ id: "nodedb" }];
  const directories: string[] = [];
  let postgres: TestPostgres;
  let dataDir: string;

  beforeAll(async () => {
    if (!isThere) return;
    postgres = await startPostgres({ version, tcp: true });
    dataDir = newDirectory();
    // The first start makes the superuser; its password is that of the first start's environment.
    await withFrontEnd({}, (frontEnd) => runOnce(asAdmin(frontEnd), whoAmI));
  });
  afterAll(async () => {
    await postgres?.dispose();
    for (const directory of directories) rmSync(directory, { recursive: true, force: true });
  });

  function newDirectory(): string {
    const directory = mkdtempSync(join(tmpdir(), "nodedb-claims-"));
    directories.push(directory);
    return directory;
  }

  const environment = { NODEDB_SUPERUSER_PASSWORD: "correct horse battery" };

  async function withFrontEnd<T>(
    options: FrontEndOptions,
    work: (frontEnd: FrontEnd) => Promise<T>,
  ): Promise<T> {
    const frontEnd = await startFrontEnd({ dataDir, upstreamUrl: postgres.url, environment, ...options });
    try {
      return await work(frontEnd);
    } finally {
      await frontEnd.close();
    }
  }

  function asAdmin({ host, port }: FrontEnd, database = "postgres"): pg.ClientConfig {
    return { host, port, database, user: "nodedb", password: environment.NODEDB_SUPERUSER_PASSWORD };
  }

  async function past(sql: string, database = "postgres"): Promise<Record<string, unknown>[]> {
    return (await runOnce({ host: postgres.socketDir, port: postgres.port, user: "postgres", database }, sql))
      .rows;
  }

  it("a schema of that name that is somebody else's is left alone, and $auth is refused there", async () => {
    await past("CREATE DATABASE taken");
    await past(
      "CREATE SCHEMA auth; CREATE FUNCTION auth.id() RETURNS text LANGUAGE sql RETURN 'theirs'",
      "taken",
    );
    await withFrontEnd({}, async (frontEnd) => {
      const client = await openClient(asAdmin(frontEnd, "taken"));
      expect((await client.query(whoAmI)).rows).toEqual([{ id: "theirs" }]);
      for (const text of ["SELECT $auth.id", "CREATE POLICY p ON t USING ($auth.id = '')"]) {
        await expect(client.query(text), text).rejects.toMatchObject({
          code: "55000",
          hint: expect.stringContaining("auth.schema"),
        });
        await expect(client.query({ text, values: [] }), text).rejects.toMatchObject({ code: "55000" });
      }
      await client.query("CREATE TABLE t (n text)");
      expect(await stateOf(client.query("CREATE RLS POLICY p ON t FOR ALL USING (n = $auth.id)"))).toBe(
        "55000",
      );
      expect((await client.query("SELECT '$auth.id' AS text")).rows).toEqual([{ text: "$auth.id" }]);
      await client.end();
      expect(frontEnd.output()).toContain("cannot install the functions that $auth stands for");
    });
    expect(
      await past("SELECT proname::text FROM pg_proc WHERE pronamespace = 'auth'::regnamespace", "taken"),
    ).toEqual([{ proname: "id" }]);
  });

  it("another schema from the configuration takes its place", async () => {
    await withFrontEnd({ configuration: '[auth]\nschema = "Who is it"\n' }, async (frontEnd) => {
      const client = await openClient(asAdmin(frontEnd, "taken"));
      expect((await client.query("SELECT $auth.id AS id, auth.id() AS theirs")).rows).toEqual([
        { id: "nodedb", theirs: "theirs" },
      ]);
      await client.end();
    });
  });

  it("functions of an older release are replaced, and keys that are not this database's removed", async () => {
    await past(`
      CREATE OR REPLACE FUNCTION auth.id() RETURNS text LANGUAGE sql STABLE RETURN 'old';
      INSERT INTO auth.claims_key VALUES ('0123456789abcdef', '', '');
      COMMENT ON SCHEMA auth IS 'of an older release'`);
    const [before] = await past("SELECT 'auth.session'::regproc::oid AS oid");
    await withFrontEnd({}, async (frontEnd) => {
      expect((await runOnce(asAdmin(frontEnd), whoAmI)).rows).toEqual(itself);
    });
    expect(await past("SELECT count(*)::int AS n FROM auth.claims_key")).toEqual([{ n: 1 }]);
    // Replaced, not made anew: policies go on with it.
    expect(await past("SELECT 'auth.session'::regproc::oid AS oid")).toEqual([before]);
  });

  it.each([
    ["a key was added", "INSERT INTO auth.claims_key VALUES ('0123456789abcdef', '', '')"],
    ["the table of connections was lost", "DROP TABLE auth.claims_withdrawn"],
    ["a dump was restored without the key", "DELETE FROM auth.claims_key"],
    ["it was dropped", "DROP SCHEMA auth CASCADE"],
  ])("the next start puts right what was changed: %s", async (_name, change) => {
    await past(change);
    await withFrontEnd({}, async (frontEnd) => {
      expect((await runOnce(asAdmin(frontEnd), whoAmI)).rows).toEqual(itself);
    });
    expect(await past("SELECT count(*)::int AS n FROM auth.claims_key")).toEqual([{ n: 1 }]);
  });

  it("a start that finds all as it is changes nothing", async () => {
    const state = () =>
      past(
        "SELECT oid, xmin::text AS xmin FROM pg_proc WHERE pronamespace = 'auth'::regnamespace ORDER BY oid",
      );
    const before = await state();
    await withFrontEnd({}, async (frontEnd) => {
      expect((await runOnce(asAdmin(frontEnd), whoAmI)).rows).toEqual(itself);
    });
    expect(await state()).toEqual(before);
  });

  it("the groups' first grants on everything in a database pass the key by", async () => {
    await past("DROP OWNED BY nodedb_readonly, nodedb_readwrite, nodedb_admin");
    await past("CREATE TABLE of_before (n int)");
    await withFrontEnd({}, (frontEnd) => runOnce(asAdmin(frontEnd), whoAmI));
    const readable =
      "SELECT has_table_privilege('nodedb_admin', 'of_before', 'SELECT') AS other, has_table_privilege('nodedb_admin', 'auth.claims_key', 'SELECT') AS key, has_schema_privilege('nodedb_admin', 'auth', 'CREATE') AS creates";
    expect(await past(readable)).toEqual([{ other: true, key: false, creates: false }]);
  });

  it("two front-ends that enter new databases at once both open sessions with claims in them", async () => {
    await withFrontEnd({}, (first) =>
      withFrontEnd({ dataDir: newDirectory(), besides: dataDir }, async (second) => {
        for (let turn = 0; turn < 4; turn += 1) {
          const database = `entered_${turn}`;
          await past(`CREATE DATABASE ${database}`);
          const answers = await Promise.all(
            [first, second, first, second].map(
              async (frontEnd) => (await runOnce(asAdmin(frontEnd, database), whoAmI)).rows,
            ),
          );
          expect(answers).toEqual([itself, itself, itself, itself]);
        }
      }),
    );
  });

  describe("where the upstream login is no superuser", () => {
    let url: string;
    let directory: string;

    beforeAll(async () => {
      if (!isThere) return;
      await past("CREATE ROLE manager LOGIN CREATEROLE PASSWORD 'of the manager'");
      await past("DROP SCHEMA nodedb CASCADE");
      for (const database of ["managed", "not_managed"]) await past(`CREATE DATABASE ${database}`);
      await past("ALTER DATABASE managed OWNER TO manager");
      const parsed = new URL(postgres.url);
      parsed.username = "manager";
      parsed.password = encodeURIComponent("of the manager");
      parsed.pathname = "/managed";
      url = parsed.href;
      directory = newDirectory();
      // What the superuser's front-end has made is in the way of another one.
      await past(`DO $$ DECLARE r name; d name; BEGIN
        FOR r IN SELECT rolname FROM pg_roles WHERE rolname LIKE 'nodedb%' LOOP EXECUTE format('ALTER ROLE %I RENAME TO %I', r, 'former_' || r); END LOOP; END $$`);
    });

    it("it works in a database in which it may create schemas", async () => {
      await withFrontEnd({ upstreamUrl: url, dataDir: directory }, async (frontEnd) => {
        const client = await openClient(asAdmin(frontEnd, "managed"));
        expect((await client.query("SELECT $auth.id AS id, $auth.roles AS roles")).rows).toEqual([
          { id: "nodedb", roles: ["superuser"] },
        ]);
        // This built-in superuser is none of PostgreSQL's.
        for (const attempt of [
          "SELECT * FROM auth.claims_key",
          "SET ROLE nodedb_auth",
          "CREATE OR REPLACE FUNCTION auth.id() RETURNS text LANGUAGE sql RETURN 'x'",
        ]) {
          expect(await stateOf(client.query(attempt)), attempt).toBe("42501");
        }
        await client.end();
      });
    });

    it("elsewhere $auth is refused, with what is missing, and everything else works", async () => {
      await withFrontEnd({ upstreamUrl: url, dataDir: directory }, async (frontEnd) => {
        const client = await openClient(asAdmin(frontEnd, "not_managed"));
        await expect(client.query("SELECT $auth.id")).rejects.toMatchObject({
          code: "55000",
          hint: expect.stringContaining("create schemas"),
        });
        expect((await client.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
        await client.end();
        expect(frontEnd.output()).toContain("cannot install the functions that $auth stands for");
      });
    });
  });
}
