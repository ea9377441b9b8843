/**
 * What a client that may send any SQL tries against the claims' functions and their key. Where a defence can be taken out, the
 * attack is first shown to work without it.
 */

import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { workAs } from "../support/client-answers.ts";
import { hasDebianPostgres } from "../support/postgres.ts";
import { requireClient } from "../support/skips.ts";
import { openStage, type Stage, stateOf } from "../support/stage.ts";
import { bindingOf, installVariant, keyOf, sealWith } from "../support/unsafe-claims.ts";

describe("before PostgreSQL 18", () => describeAttacks("embedded", true));
describe("before PostgreSQL 15", () => {
  describeAttacks("debian", requireClient("PostgreSQL 15 (postgresql-15)", hasDebianPostgres));
});

/** PL/pgSQL that runs a statement whose text the front-end does not see. */
function hidden(statement: string): string {
  return `DO $do$ BEGIN EXECUTE convert_from('\\x${Buffer.from(statement).toString("hex")}', 'UTF8'); END $do$`;
}

function describeAttacks(version: "embedded" | "debian", isThere: boolean): void {
  const it = test.skipIf(!isThere);
  let stage: Stage;

  beforeAll(async () => {
    if (!isThere) return;
    stage = await openStage({
      postgres: { version },
      users: ["alice", "bob"],
      configuration: '[auth]\nclaims_lifetime = "2s"\n',
    });
    await stage.asAdmin("CREATE USER boss PASSWORD 'bossboss' ROLE admin");
    await stage.asAdmin("CREATE TABLE note (id int, user_id text); GRANT SELECT ON note TO alice, bob");
    await stage.asAdmin(
      "INSERT INTO note SELECT n, CASE n % 2 WHEN 0 THEN 'alice' ELSE 'bob' END FROM generate_series(1, 10) AS n",
    );
    await stage.asAdmin("INSERT INTO note VALUES (0, NULL)");
  });
  afterAll(() => stage?.close());

  const as = <T>(user: string, work: (client: pg.Client) => Promise<T>): Promise<T> =>
    workAs(stage, user, work);

  async function idOf(client: pg.Client, schema = "auth"): Promise<string | undefined> {
    let id: string | undefined;
    const state = await stateOf(
      client.query(`SELECT ${schema}.id() AS id`).then(({ rows }) => {
        id = rows[0].id;
      }),
    );
    return state ?? id;
  }

  /** Rows of the key's table that code of the client's has got hold of. */
  async function loot(client: pg.Client): Promise<number> {
    return (await client.query("SELECT count(*)::int AS n FROM pg_temp.loot")).rows[0].n;
  }

  describe("code of the client's in the place of what the functions name", () => {
    it("a temporary domain with the name of a type runs nothing", async () => {
      await installVariant(stage, "open_types", [
        [/::pg_catalog\.jsonb/, "::jsonb"],
        ["SET search_path = pg_catalog, pg_temp\nAS", "SET search_path = pg_catalog\nAS"],
      ]);
      await as("alice", async (client) => {
        await client.query(`
          CREATE TEMP TABLE loot (kid text);
          GRANT ALL ON pg_temp.loot TO PUBLIC;
          CREATE FUNCTION pg_temp.steal(value pg_catalog.jsonb, schema text) RETURNS bool LANGUAGE plpgsql AS $$
            BEGIN EXECUTE format('INSERT INTO pg_temp.loot SELECT kid FROM %I.claims_key', schema); RETURN true;
            EXCEPTION WHEN insufficient_privilege THEN RETURN true; END $$`);
        const steal = (schema: string) =>
          `CREATE DOMAIN pg_temp.jsonb AS pg_catalog.jsonb CHECK (pg_temp.steal(VALUE, '${schema}'))`;
        await client.query(steal("open_types"));
        // A function that is STABLE writes nothing; one that it calls may.
        await stateOf(client.query("SELECT open_types.session()"));
        expect(await loot(client)).toBe(1);
        await client.query("DROP DOMAIN pg_temp.jsonb; DELETE FROM pg_temp.loot");
        for (const type of ["jsonb", "text", "bytea", "int4", "numeric"]) {
          await client.query(
            `CREATE DOMAIN pg_temp."${type}" AS pg_catalog.${type} CHECK (pg_temp.steal('{}', 'auth'))`,
          );
        }
        await client.query("SET search_path = pg_temp, public");
        expect(await idOf(client)).toBe("alice");
        expect((await client.query("SELECT auth.roles() AS roles, auth.tenant_id() AS t")).rows).toEqual([
          { roles: ["readwrite"], t: "1" },
        ]);
        expect(await loot(client)).toBe(0);
      });
    });

    it("functions and operators that the client's search_path finds first are not called", async () => {
      await installVariant(stage, "open_names", [
        ["SET search_path = pg_catalog, pg_temp\nAS", "AS"],
        ["OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()", "= pg_catalog.pg_backend_pid()"],
        [
          /pg_catalog\.sha256\(v_outer_pad OPERATOR\(pg_catalog\.\|\|\)/,
          "sha256(v_outer_pad OPERATOR(pg_catalog.||)",
        ],
      ]);
      await stage.asAdmin("GRANT CREATE ON DATABASE postgres TO boss");
      await as("boss", async (client) => {
        await client.query(`
          CREATE SCHEMA evil;
          GRANT USAGE ON SCHEMA evil TO PUBLIC;
          CREATE FUNCTION evil.sha256(value bytea) RETURNS bytea LANGUAGE plpgsql AS $$
            BEGIN RAISE NOTICE 'seen %', octet_length(value); RETURN '\\x00'; END $$;
          CREATE FUNCTION evil.same(int, int) RETURNS bool LANGUAGE sql RETURN true;
          CREATE OPERATOR evil.= (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.same);
          SET search_path = evil, pg_catalog`);
        const seen: string[] = [];
        client.on("notice", (notice) => seen.push(notice.message ?? ""));
        const elsewhere = sealWith(keyOf(stage), await bindingOf(client), { pid: 1 });
        await client.query("SELECT set_config('nodedb.session', $1, false)", [elsewhere]);
        expect(await idOf(client, "open_names")).toBe("mallory");
        expect(seen.length).toBeGreaterThan(0);
        seen.length = 0;
        expect(await idOf(client)).toBe("28000");
        await client.query("RESET ALL; SET search_path = evil, pg_catalog");
        await client.query("SET search_path = evil, pg_catalog");
        expect(await idOf(client)).toBe("boss");
        expect(seen).toEqual([]);
      });
    });

    it("settings of the client's that change how code is read change nothing", async () => {
      for (const setting of [
        "search_path = pg_temp",
        "search_path = ''",
        "standard_conforming_strings = off",
        "backslash_quote = on",
        "transform_null_equals = on",
        "plpgsql.extra_errors = 'all'",
        "plpgsql.check_asserts = off",
        "row_security = off",
        "bytea_output = escape",
        "DateStyle = 'SQL, DMY'",
        "TimeZone = 'Asia/Kathmandu'",
        "IntervalStyle = sql_standard",
        "extra_float_digits = -15",
        "client_encoding = LATIN1",
        "plan_cache_mode = force_generic_plan",
        "default_transaction_read_only = on",
        "quote_all_identifiers = on",
        "array_nulls = off",
        "enable_seqscan = off",
        "jit_above_cost = 0",
        "debug_parallel_query = on",
        "force_parallel_mode = on",
      ]) {
        await as("alice", async (client) => {
          const isKnown = (await stateOf(client.query(`SET ${setting}`))) === undefined;
          expect(isKnown || /parallel/.test(setting), setting).toBe(true);
          expect(await idOf(client), setting).toBe("alice");
          expect((await client.query("SELECT auth.roles() AS roles")).rows, setting).toEqual([
            { roles: ["readwrite"] },
          ]);
          await client.query("SET nodedb.session = 'x'");
          expect(await idOf(client), setting).toBe("28000");
        });
      }
    });

    it("another current role says nothing about who the session is", async () => {
      await stage.past(`
        CREATE SCHEMA by_role;
        GRANT USAGE ON SCHEMA by_role TO PUBLIC;
        CREATE FUNCTION by_role.id() RETURNS text LANGUAGE sql STABLE RETURN current_user::text`);
      await as("boss", (client) =>
        client.query(`
          CREATE SCHEMA borrowed; GRANT USAGE ON SCHEMA borrowed TO PUBLIC;
          CREATE FUNCTION borrowed.ids(OUT by_role text, OUT auth text) LANGUAGE sql SECURITY DEFINER
          AS 'SELECT by_role.id(), auth.id()'`),
      );
      await as("alice", async (client) => {
        expect((await client.query("SELECT * FROM borrowed.ids()")).rows).toEqual([
          { by_role: "boss", auth: "alice" },
        ]);
        for (const statement of [
          "SET ROLE boss",
          "SET SESSION AUTHORIZATION boss",
          hidden("SET ROLE nodedb_auth"),
        ]) {
          expect(await stateOf(client.query(statement)), statement).toBe("42501");
        }
      });
      const admin = await stage.connect(stage.frontEnd.adminUser);
      await admin.query("SET SESSION AUTHORIZATION alice");
      expect(await idOf(admin)).toBe("28000");
      await admin.query("RESET SESSION AUTHORIZATION");
      await admin.query("SET ROLE alice");
      expect(await idOf(admin)).toBe(stage.frontEnd.adminUser);
      await admin.end();
    });
  });

  describe("what policies rest on", () => {
    it("a plan that is kept shows no rows of the claims from before", async () => {
      await installVariant(stage, "kept_plans", [["STABLE", "IMMUTABLE"]]);
      await as("alice", async (client) => {
        const binding = await bindingOf(client);
        const become = (id: string) =>
          client.query("SELECT set_config('nodedb.session', $1, false)", [
            sealWith(keyOf(stage), binding, { claims: { id } }),
          ]);
        await client.query("SET plan_cache_mode = force_generic_plan");
        await become("alice");
        const owners = async (schema: string) => {
          const { rows } = await client.query({
            name: schema,
            text: `SELECT DISTINCT user_id FROM note WHERE user_id = ${schema}.id()`,
          });
          return rows.map((row) => row.user_id);
        };
        for (const schema of ["kept_plans", "auth"]) expect(await owners(schema)).toEqual(["alice"]);
        await become("bob");
        expect(await owners("kept_plans")).toEqual(["alice"]);
        expect(await owners("auth")).toEqual(["bob"]);
      });
    });

    it("without claims nothing is compared with NULL: the statement fails", async () => {
      await installVariant(stage, "no_error", [
        [/RAISE EXCEPTION USING ERRCODE[\s\S]*?;\n/, "RETURN NULL;\n"],
      ]);
      await as("alice", async (client) => {
        await client.query("SET nodedb.session = ''");
        const rowsBy = (schema: string) =>
          client.query(`SELECT id FROM note WHERE user_id IS NOT DISTINCT FROM ${schema}.id()`);
        expect((await rowsBy("no_error")).rows).toEqual([{ id: 0 }]);
        expect(await stateOf(rowsBy("auth"))).toBe("28000");
      });
    });

    it("$auth is worked out once a statement, and a bare call for each row", async () => {
      await stage.past("ALTER ROLE alice SET track_functions = 'all'");
      await stage.past("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'alice'");
      await as("alice", async (client) => {
        const calls = async (condition: string) => {
          await client.query("BEGIN");
          const before = await counted(client);
          await client.query(
            `SELECT count(*) FROM generate_series(1, 1000) AS n WHERE n::text <> ${condition}`,
          );
          const after = await counted(client);
          await client.query("COMMIT");
          return after - before;
        };
        // Once more to plan it.
        expect(await calls("auth.id()")).toBeGreaterThanOrEqual(1000);
        expect(await calls("$auth.id")).toBe(1);
        expect(await calls("ALL ($auth.roles)")).toBe(1);
        expect(await calls("$auth.id AND NOT $auth.scopes CONTAINS 'x'")).toBe(2);
      });
      await stage.past("ALTER ROLE alice RESET track_functions");
    });

    async function counted(client: pg.Client): Promise<number> {
      const { rows } = await client.query(
        "SELECT coalesce(sum(calls), 0)::int AS n FROM pg_stat_xact_user_functions WHERE schemaname = 'auth' AND funcname = 'session'",
      );
      return rows[0].n;
    }

    it("an error of the client's does not bring back what was there before its claims", async () => {
      // The unsafe way: the setting in the same Sync as a statement of the client's.
      const { socketDir, port } = stage.postgres;
      const direct = await stage.connect("alice", { host: socketDir, port });
      await direct.query("SELECT set_config('nodedb.session', 'of before', false)");
      await stateOf(direct.query("SELECT set_config('nodedb.session', 'of now', false); SELECT 1 / 0"));
      expect((await direct.query("SELECT current_setting('nodedb.session') AS s")).rows).toEqual([
        { s: "of before" },
      ]);
      await direct.end();
      await as("bob", async (client) => {
        await stage.asAdmin("ALTER USER bob SET ROLE readonly");
        expect(await stateOf(client.query("SELECT 1 / 0"))).toBe("22012");
        expect((await client.query("SELECT $auth.roles AS roles")).rows).toEqual([{ roles: ["readonly"] }]);
        await stage.asAdmin("ALTER USER bob SET ROLE readwrite");
        expect(await stateOf(client.query("BEGIN; SELECT 1 / 0; COMMIT"))).toBe("22012");
        await client.query("ROLLBACK");
        expect((await client.query("SELECT $auth.roles AS roles")).rows).toEqual([{ roles: ["readwrite"] }]);
      });
    });

    it("claims that were taken away do not come back by an envelope that a client has kept", async () => {
      await installVariant(stage, "kept_envelopes", [
        [/AND NOT EXISTS \(\n *SELECT FROM [\s\S]*?'iat'\)::pg_catalog\.numeric\)\n/, "\n"],
      ]);
      await stage.asAdmin("ALTER USER bob SET ROLE admin");
      await as("bob", async (client) => {
        const envelope = async () =>
          (await client.query("SELECT current_setting('nodedb.session') AS e")).rows[0].e as string;
        const kept = await envelope();
        for (const role of ["readonly", "readwrite"]) {
          await stage.asAdmin(`ALTER USER bob SET ROLE ${role}`);
          expect((await client.query("SELECT $auth.roles AS roles")).rows).toEqual([{ roles: [role] }]);
          const good = await envelope();
          await client.query("SELECT set_config('nodedb.session', $1, false)", [kept]);
          expect((await client.query("SELECT kept_envelopes.role() AS role")).rows).toEqual([
            { role: "admin" },
          ]);
          expect(await stateOf(client.query("SELECT auth.role()"))).toBe("28000");
          await client.query("SELECT set_config('nodedb.session', $1, false)", [good]);
          expect((await client.query("SELECT auth.role() AS role")).rows).toEqual([{ role }]);
        }
      });
    });

    it("a connection is lent only to who has the very claims that it was opened for", async () => {
      const processId = (user: string) => as(user, async (client) => (await bindingOf(client)).processId);
      const first = await processId("alice");
      expect(await processId("bob")).not.toBe(first);
      await expect.poll(() => processId("alice")).toBe(first);
      await as("alice", (client) => client.query("SET nodedb.session = 'left behind'"));
      expect(await as("alice", idOf)).toBe("alice");
      await stage.asAdmin("ALTER USER alice SET ROLE readonly");
      expect(await processId("alice")).not.toBe(first);
      await stage.asAdmin("ALTER USER alice SET ROLE readwrite");
      // One whose claims have changed while it was lent goes to nobody.
      const changed = await as("alice", async (client) => {
        const { processId: own } = await bindingOf(client);
        await stage.asAdmin("ALTER USER alice SET ROLE readonly");
        expect((await client.query("SELECT $auth.roles AS roles")).rows).toEqual([{ roles: ["readonly"] }]);
        return own;
      });
      await expect
        .poll(async () => (await stage.running("alice")).map(({ pid }) => pid))
        .not.toContain(changed);
      await stage.asAdmin("ALTER USER alice SET ROLE readwrite");
    });
  });
}
