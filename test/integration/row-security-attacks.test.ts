/**
 * What a client that may send any SQL tries in order to see or change rows that policies by `$auth` keep from it. Where a
 * defence can be left out, the attack is first shown to work without it.
 */

import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { noticesOf, valuesOf, workAs } from "../support/client-answers.ts";
import { hasDebianPostgres } from "../support/postgres.ts";
import { RawClient } from "../support/raw-client.ts";
import { requireClient } from "../support/skips.ts";
import { openStage, passwordOf, type Stage, stateOf } from "../support/stage.ts";
import { bindingOf, installVariant, keyOf, sealWith } from "../support/unsafe-claims.ts";

describe("before PostgreSQL 18", () => describeAttacks("embedded", true));
describe("before PostgreSQL 15", () => {
  describeAttacks("debian", requireClient("PostgreSQL 15 (postgresql-15)", hasDebianPostgres));
});

function describeAttacks(version: "embedded" | "debian", isThere: boolean): void {
  const it = test.skipIf(!isThere);
  let stage: Stage;

  beforeAll(async () => {
    if (!isThere) return;
    stage = await openStage({ postgres: { version }, users: ["alice", "bob"] });
    await stage.asAdmin(`CREATE USER boss PASSWORD '${passwordOf("boss")}' ROLE admin`);
    // The same rows twice: `open_note` is what a table is without a policy.
    for (const table of ["note", "open_note"]) {
      await stage.asAdmin(`CREATE TABLE ${table} (id int PRIMARY KEY, user_id text, body text)`);
      await stage.asAdmin(
        `INSERT INTO ${table} SELECT n, CASE n % 2 WHEN 0 THEN 'alice' ELSE 'bob' END, 'secret of ' || n % 2
           FROM generate_series(1, 2000) AS n`,
      );
    }
    await stage.asAdmin("CREATE RLS POLICY own ON note FOR ALL USING (user_id = $auth.id)");
    await stage.asAdmin("ANALYZE note; ANALYZE open_note");
  });
  afterAll(() => stage?.close());

  const as = <T>(user: string, work: (client: pg.Client) => Promise<T>): Promise<T> =>
    workAs(stage, user, work);

  describe("plans that are kept", () => {
    /** Makes the session's claims those of somebody else, as the front-end does when it seals them anew. */
    async function become(client: pg.Client, id: string): Promise<void> {
      const envelope = sealWith(keyOf(stage), await bindingOf(client), { claims: { id } });
      await client.query("SELECT set_config('nodedb.session', $1, false)", [envelope]);
    }

    it.each([
      [
        "a function",
        (schema: string) => `CREATE FUNCTION pg_temp.of_${schema}() RETURNS SETOF text LANGUAGE plpgsql AS $$
          BEGIN RETURN QUERY SELECT user_id FROM open_note WHERE user_id = (SELECT ${schema}.id()); END $$`,
        (schema: string) => `SELECT pg_temp.of_${schema}()`,
      ],
      [
        "a view",
        (schema: string) => `CREATE VIEW pg_temp.v_${schema} AS
          SELECT user_id FROM open_note WHERE user_id = (SELECT ${schema}.id());
          PREPARE p_${schema} AS SELECT user_id FROM pg_temp.v_${schema}`,
        (schema: string) => `EXECUTE p_${schema}`,
      ],
      [
        "a prepared statement",
        (schema: string) =>
          `PREPARE s_${schema} AS SELECT user_id FROM open_note WHERE user_id = (SELECT ${schema}.id())`,
        (schema: string) => `EXECUTE s_${schema}`,
      ],
      [
        "a function that runs as its owner",
        (
          schema: string,
        ) => `CREATE FUNCTION pg_temp.definer_${schema}() RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER AS $$
          BEGIN RETURN QUERY SELECT user_id FROM open_note WHERE user_id = (SELECT ${schema}.id()); END $$`,
        (schema: string) => `SELECT pg_temp.definer_${schema}()`,
      ],
    ])("of %s hold nobody's claims", async (name, create, ask) => {
      const unsafe = `immutable_${name.replaceAll(" ", "_").slice(0, 16)}`;
      await installVariant(stage, unsafe, [["STABLE", "IMMUTABLE"]]);
      await as("alice", async (client) => {
        await client.query("SET plan_cache_mode = force_generic_plan");
        await become(client, "alice");
        for (const schema of [unsafe, "auth"]) {
          await client.query(create(schema));
          for (let turn = 0; turn < 7; turn += 1) {
            expect(await valuesOf(client, ask(schema)), schema).toEqual(["alice"]);
          }
        }
        await become(client, "bob");
        expect(await valuesOf(client, ask(unsafe))).toEqual(["alice"]);
        expect(await valuesOf(client, ask("auth"))).toEqual(["bob"]);
        await client.query("SET nodedb.session = ''");
        expect(await stateOf(client.query(ask("auth")))).toBe("28000");
      });
    });

    it("an index or a generated column cannot keep them", async () => {
      await installVariant(stage, "immutable_index", [["STABLE", "IMMUTABLE"]]);
      await as("boss", async (client) => {
        await client.query("CREATE TABLE kept (n int)");
        const attempts = (schema: string) => [
          `CREATE INDEX ON kept ((${schema}.id()))`,
          `ALTER TABLE kept ADD COLUMN ${schema}_id text GENERATED ALWAYS AS (${schema}.id()) STORED`,
        ];
        for (const attempt of attempts("immutable_index")) await client.query(attempt);
        for (const attempt of attempts("auth")) {
          expect(await stateOf(client.query(attempt)), attempt).toBe("42P17");
        }
      });
    });
  });

  it("parallel workers, which are other processes, do not read the claims for the session", async () => {
    await installVariant(stage, "in_workers", [["PARALLEL RESTRICTED", "PARALLEL SAFE"]]);
    await as("alice", async (client) => {
      for (const setting of [
        "parallel_setup_cost = 0",
        "parallel_tuple_cost = 0",
        "min_parallel_table_scan_size = 0",
        "max_parallel_workers_per_gather = 2",
        "parallel_leader_participation = off",
      ]) {
        await client.query(`SET ${setting}`);
      }
      const count = (schema: string) => `SELECT count(*)::int FROM open_note WHERE user_id = ${schema}.id()`;
      const isParallel = async (sql: string) =>
        JSON.stringify((await client.query(`EXPLAIN (FORMAT JSON) ${sql}`)).rows).includes("Workers Planned");
      expect(await isParallel(count("in_workers"))).toBe(true);
      // A worker has another process id: it is refused, and the statement fails.
      expect(await stateOf(client.query(count("in_workers")))).toBe("28000");
      expect(await valuesOf(client, count("auth"))).toEqual([1000]);
      const once = "SELECT count(*)::int FROM open_note WHERE user_id = $auth.id";
      expect(
        await isParallel("SELECT count(*)::int FROM open_note WHERE user_id = (SELECT 'alice'::text)"),
      ).toBe(true);
      expect(await valuesOf(client, once)).toEqual([1000]);
      expect(await valuesOf(client, "SELECT count(*)::int FROM note")).toEqual([1000]);
    });
  });

  describe("functions that tell what they are given", () => {
    const leak = `
      CREATE FUNCTION pg_temp.leak(text, text) RETURNS bool LANGUAGE plpgsql COST 0.0000001 AS $$
        BEGIN RAISE NOTICE '%', $1; RETURN true; END $$;
      CREATE OPERATOR pg_temp.~~~ (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_temp.leak)`;

    it("are shown no row before a policy has let it through, nor by a view that is a barrier", async () => {
      await stage.asAdmin(`
        CREATE VIEW plain_view AS SELECT * FROM open_note WHERE user_id = $auth.id;
        CREATE VIEW barrier_view WITH (security_barrier) AS SELECT * FROM open_note WHERE user_id = $auth.id`);
      await as("alice", async (client) => {
        await client.query(leak);
        const both = new Set(["alice", "bob"]);
        for (const condition of ["pg_temp.leak(user_id, body)", "user_id OPERATOR(pg_temp.~~~) body"]) {
          const told = (table: string) =>
            noticesOf(client, `SELECT count(*) FROM ${table} WHERE ${condition}`);
          // What a view without a barrier is worth.
          expect(await told("plain_view"), condition).toEqual(both);
          expect(await told("barrier_view"), condition).toEqual(new Set(["alice"]));
          expect(await told("note"), condition).toEqual(new Set(["alice"]));
          expect(
            await told("note AS a JOIN open_note AS b USING (id, user_id, body)"),
            condition,
          ).not.toEqual(new Set());
        }
        expect(await noticesOf(client, "SELECT * FROM note ORDER BY pg_temp.leak(user_id, body)")).toEqual(
          new Set(["alice"]),
        );
        expect(
          await noticesOf(client, "UPDATE note SET body = body WHERE pg_temp.leak(user_id, body)"),
        ).toEqual(new Set(["alice"]));
        expect(
          await noticesOf(client, "DELETE FROM note WHERE id < 0 AND pg_temp.leak(user_id, body)"),
        ).toEqual(new Set());
      });
    });

    it("nor by an error in a condition of the client's", async () => {
      const fail = (table: string) => `SELECT count(*) FROM ${table} WHERE pg_temp.fail(user_id)`;
      await as("alice", async (client) => {
        await client.query(`CREATE FUNCTION pg_temp.fail(text) RETURNS bool LANGUAGE plpgsql COST 0.0000001 AS $$
          BEGIN RETURN 1 / (CASE $1 WHEN 'bob' THEN 0 ELSE 1 END) = 1; END $$`);
        expect(await stateOf(client.query(fail("plain_view")))).toBe("22012");
        expect(await stateOf(client.query(fail("note")))).toBeUndefined();
      });
    });
  });

  it("row_security = off is an error, and no way around", async () => {
    await as("alice", async (client) => {
      await client.query("SET row_security = off");
      expect(await stateOf(client.query("SELECT * FROM note"))).toBe("42501");
      await client.query("RESET row_security");
      expect(await valuesOf(client, "SELECT user_id FROM note")).toEqual(["alice"]);
    });
    await as("boss", async (client) => {
      for (const attempt of [
        "ALTER TABLE note DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE note NO FORCE ROW LEVEL SECURITY",
        "DROP POLICY own ON note",
        "ALTER POLICY own ON note USING (true)",
        "CREATE POLICY mine ON note USING (true)",
        "ALTER TABLE note OWNER TO boss",
        "ALTER ROLE boss BYPASSRLS",
      ]) {
        expect(await stateOf(client.query(attempt)), attempt).toMatch(/^(42501|0A000)$/);
      }
      expect(await valuesOf(client, "SELECT user_id FROM note")).toEqual([]);
    });
  });

  it("every other way to a table's rows goes through its policies as well", async () => {
    const ways = [
      "TABLE %",
      "SELECT * FROM ONLY %",
      "SELECT t.* FROM % AS t TABLESAMPLE SYSTEM (100)",
      "SELECT * FROM % FOR UPDATE",
      "WITH t AS MATERIALIZED (SELECT * FROM %) SELECT * FROM t",
      "WITH t AS (UPDATE % SET id = id RETURNING *) SELECT * FROM t",
      "SELECT a.* FROM % AS a, LATERAL (SELECT * FROM % AS b WHERE b.id = a.id OFFSET 0) AS c",
      "SELECT * FROM % UNION SELECT * FROM %",
      "SELECT query_to_xml('TABLE %', true, false, '')::text",
      "SELECT table_to_xml('%', true, false, '')::text",
      "SELECT array_agg(t)::text FROM % AS t",
      "SELECT (SELECT json_agg(t) FROM % AS t)::text",
      "MERGE INTO % AS t USING open_note AS o ON t.id = o.id WHEN MATCHED AND t.user_id = 'bob' THEN DELETE",
    ];
    await as("alice", async (client) => {
      const told = async (way: string, table: string) => {
        await client.query("BEGIN");
        const { rows, rowCount } = await client.query(way.replaceAll("%", table));
        await client.query("ROLLBACK");
        return way.startsWith("MERGE") ? (rowCount ?? 0) > 0 : JSON.stringify(rows).includes("bob");
      };
      for (const way of ways) {
        expect(await told(way, "open_note"), way).toBe(true);
        expect(await told(way, "note"), way).toBe(false);
      }
      await client.query("BEGIN; DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT user_id FROM note; COMMIT");
      expect(await valuesOf(client, "FETCH ALL FROM c")).toEqual(["alice"]);
    });
  });

  it("COPY out holds what the policy lets through, and COPY in is refused", async () => {
    const { host, port } = stage.frontEnd;
    const client = await RawClient.open({ host, port });
    await client.logIn({ user: "alice", password: passwordOf("alice"), database: "postgres" });
    const copied = async (sql: string) => {
      const messages = await client.query(sql);
      const lines = messages.filter(({ type }) => type === "d").map(({ body }) => body.toString("utf8"));
      return new Set(lines.map((line) => line.split("\t")[1]));
    };
    for (const [form, seen] of [
      ["COPY open_note TO STDOUT", ["bob", "alice"]],
      ["COPY note TO STDOUT", ["alice"]],
      ["COPY (SELECT * FROM note) TO STDOUT", ["alice"]],
      ["COPY (WITH t AS (TABLE note) SELECT * FROM t) TO STDOUT", ["alice"]],
    ] as const) {
      expect(await copied(form), form).toEqual(new Set(seen));
    }
    client.close();
    await as("alice", async (other) => {
      expect(await stateOf(other.query("COPY note FROM STDIN"))).toBe("0A000");
    });
  });

  it("plans and statistics show no value of a hidden row", async () => {
    await as("alice", async (client) => {
      const statistics = (table: string) =>
        client.query(
          "SELECT most_common_vals::text AS v FROM pg_stats WHERE tablename = $1 AND attname = 'user_id'",
          [table],
        );
      expect(JSON.stringify((await statistics("open_note")).rows)).toContain("bob");
      expect((await statistics("note")).rows).toEqual([]);
      const { rows } = await client.query("EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM note");
      const plan = JSON.stringify(rows);
      expect(plan).toContain("Filter");
      // Neither who the session is, nor anybody else.
      expect(plan).not.toMatch(/alice|bob/);
    });
  });

  it("names of the client's do not take the place of $auth", async () => {
    await stage.asAdmin("GRANT CREATE ON DATABASE postgres TO boss");
    await as("boss", (client) =>
      client.query(`
        CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC;
        CREATE FUNCTION evil.id() RETURNS text LANGUAGE sql STABLE RETURN 'bob';
        CREATE FUNCTION evil.session() RETURNS jsonb LANGUAGE sql STABLE RETURN '{"id": "bob"}'::jsonb;
        CREATE FUNCTION evil.claim(text) RETURNS text LANGUAGE sql STABLE RETURN 'bob';
        CREATE FUNCTION evil.steal(jsonb, text) RETURNS text LANGUAGE sql RETURN 'bob';
        CREATE OPERATOR evil.->> (LEFTARG = jsonb, RIGHTARG = text, FUNCTION = evil.steal);
        CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq)`),
    );
    await as("alice", async (client) => {
      await client.query("SET search_path = evil, pg_temp, public, pg_catalog");
      expect(await valuesOf(client, "SELECT id()")).toEqual(["bob"]);
      expect(await valuesOf(client, `SELECT '{"id": "alice"}'::jsonb ->> 'id'::text`)).toEqual(["bob"]);
      for (const sql of [
        "SELECT $auth.id",
        "SELECT $auth.id FROM (SELECT 'bob' AS id, 'bob' AS session) AS auth",
        "WITH auth AS (SELECT 'bob' AS id) SELECT $auth.id FROM auth",
        "SELECT auth.id() FROM (VALUES ('bob')) AS auth (id)",
        "SELECT auth.jwt() OPERATOR(pg_catalog.->>) 'sub'",
        "SELECT user_id FROM note",
      ]) {
        expect(await valuesOf(client, sql), sql).toEqual(["alice"]);
      }
    });
  });

  it("dblink lets nobody in as somebody else, unless it is told not to ask", async () => {
    await stage.past("CREATE EXTENSION dblink");
    const { socketDir, port } = stage.postgres;
    const target = `host=${socketDir} port=${port} user=postgres dbname=postgres`;
    const ask = "SELECT * FROM dblink('t', 'SELECT session_user::text') AS r (u text)";
    await as("alice", async (client) => {
      for (const login of [target, `${target} password=x`, target.replace("user=postgres", "user=alice")]) {
        expect(await stateOf(client.query("SELECT dblink_connect('t', $1)", [login])), login).toBe("2F003");
      }
      expect(await stateOf(client.query("SELECT dblink_connect_u('t', $1)", [target]))).toBe("42501");
      // This socket trusts everybody, as the private one of the embedded PostgreSQL does.
      await stage.past("GRANT EXECUTE ON FUNCTION dblink_connect_u(text, text) TO alice");
      await client.query("SELECT dblink_connect_u('t', $1)", [target]);
      expect(await valuesOf(client, ask)).toEqual(["postgres"]);
    });
    await stage.past("DROP EXTENSION dblink");
  });

  it("a foreign table lets nobody in as somebody else, unless it is told not to ask", async () => {
    const { socketDir, port } = stage.postgres;
    await stage.past(`
      CREATE EXTENSION postgres_fdw;
      CREATE SERVER here FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '${socketDir}', port '${port}', dbname 'postgres');
      GRANT USAGE ON FOREIGN SERVER here TO alice;
      CREATE FOREIGN TABLE far (user_id text) SERVER here OPTIONS (table_name 'note'); GRANT SELECT ON far TO alice`);
    await as("alice", async (client) => {
      await client.query("CREATE USER MAPPING FOR alice SERVER here OPTIONS (user 'postgres', password 'x')");
      const seen = "SELECT DISTINCT user_id FROM far ORDER BY 1";
      expect(await stateOf(client.query(seen))).toBe("2F003");
      const trusted = "ALTER USER MAPPING FOR alice SERVER here OPTIONS (ADD password_required 'false')";
      expect(await stateOf(client.query(trusted))).toBe("42501");
      await stage.past(trusted);
      expect(await valuesOf(client, seen)).toEqual(["alice", "bob"]);
    });
    await stage.past("DROP EXTENSION postgres_fdw CASCADE");
  });
}
