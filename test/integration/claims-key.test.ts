/** The key of the claims and the functions that use it: who may read it, where it might show, and who may change what. */

import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { isRunnable } from "../support/client-program.ts";
import { hasDebianPostgres } from "../support/postgres.ts";
import { runProgram } from "../support/run-program.ts";
import { requireClient } from "../support/skips.ts";
import { openStage, passwordOf, type Stage, stateOf } from "../support/stage.ts";
import { bindingOf, installVariant, keyOf, sealWith } from "../support/unsafe-claims.ts";
import { until } from "../support/until.ts";

describe("before PostgreSQL 18", () => describeKey("embedded", true));
describe("before PostgreSQL 15", () => {
  describeKey("debian", requireClient("PostgreSQL 15 (postgresql-15)", hasDebianPostgres));
});

/** PL/pgSQL that runs a statement whose text the front-end does not see. */
function hidden(statement: string): string {
  return `DO $do$ BEGIN EXECUTE convert_from('\\x${Buffer.from(statement).toString("hex")}', 'UTF8'); END $do$`;
}

function describeKey(version: "embedded" | "debian", isThere: boolean): void {
  const it = test.skipIf(!isThere);
  const users = { alice: "readwrite", boss: "admin", owner: "admin" };
  let stage: Stage;

  beforeAll(async () => {
    if (!isThere) return;
    // All that PostgreSQL can log of a statement.
    const settings = {
      log_statement: "all",
      log_min_duration_statement: "0",
      log_duration: "on",
      log_min_error_statement: "debug5",
      log_parameter_max_length_on_error: "-1",
    };
    stage = await openStage({
      postgres: { version, settings },
      users: [],
      configuration: '[auth]\nclaims_lifetime = "2s"\n',
    });
    for (const [user, role] of Object.entries(users)) {
      await stage.asAdmin(`CREATE USER ${user} PASSWORD '${passwordOf(user)}' ROLE ${role}`);
    }
    await stage.asAdmin("CREATE DATABASE owned OWNER owner");
  });
  afterAll(() => stage?.close());

  async function as<T>(
    user: string,
    work: (client: pg.Client) => Promise<T>,
    database = "postgres",
  ): Promise<T> {
    const client = await stage.connect(user, { database });
    try {
      return await work(client);
    } finally {
      await client.end();
    }
  }

  /** Spellings under which the key of a database might show up. */
  function traces(database = "postgres"): string[] {
    const { secret, innerPad, outerPad } = keyOf(stage, database);
    return [secret, innerPad, outerPad].flatMap((bytes) => [
      bytes.toString("hex"),
      bytes.toString("base64"),
      inPlan(bytes.subarray(0, 32)),
    ]);
  }

  /** Bytes as a plan prints them, with their sign, when its blanks are taken out: it breaks lines inside of numbers. */
  function inPlan(bytes: Buffer): string {
    return [...bytes].map((byte) => (byte << 24) >> 24).join("");
  }

  it("nobody reads the table, whatever role and whatever way", async () => {
    const readers = [
      "SELECT * FROM auth.claims_key",
      "SELECT count(*) FROM auth.claims_key",
      "TABLE auth.claims_key",
      "COPY auth.claims_key TO STDOUT",
      "COPY (SELECT * FROM auth.claims_key) TO STDOUT",
      "SELECT * FROM auth.claims_key FOR UPDATE",
      hidden("LOCK TABLE auth.claims_key IN ACCESS SHARE MODE"),
      "CREATE TABLE pg_temp.stolen AS SELECT * FROM auth.claims_key",
      "SELECT query_to_xml('SELECT * FROM auth.claims_key', true, false, '')",
      "SELECT table_to_xml('auth.claims_key', true, false, '')",
      "EXPLAIN ANALYZE SELECT * FROM auth.claims_key",
      "SELECT * FROM auth.claims_key TABLESAMPLE SYSTEM (100)",
      "ANALYZE VERBOSE pg_statistic; SELECT * FROM pg_statistic",
      hidden("SELECT kid FROM auth.claims_key"),
      hidden("GRANT SELECT ON auth.claims_key TO PUBLIC"),
      "INSERT INTO auth.claims_key VALUES ('0000000000000000', '', '')",
      "UPDATE auth.claims_key SET kid = kid",
      "DELETE FROM auth.claims_key",
      "TRUNCATE auth.claims_key",
      "CREATE TRIGGER spy BEFORE INSERT ON auth.claims_key EXECUTE FUNCTION suppress_redundant_updates_trigger()",
      "CREATE POLICY spy ON auth.claims_key USING (true)",
      "CREATE TABLE pg_temp.child () INHERITS (auth.claims_key)",
      "CREATE INDEX ON auth.claims_key (kid)",
      "CREATE STATISTICS pg_temp.spy ON kid, inner_pad FROM auth.claims_key",
      "CREATE PUBLICATION spy FOR TABLE auth.claims_key",
      "SELECT * FROM auth.claims_withdrawn",
      "INSERT INTO auth.claims_withdrawn VALUES (1, 1, 1)",
      "UPDATE auth.claims_withdrawn SET until = 0",
      "DELETE FROM auth.claims_withdrawn",
      "TRUNCATE auth.claims_withdrawn",
      "DROP TABLE auth.claims_withdrawn",
      "ALTER TABLE auth.claims_withdrawn ENABLE ROW LEVEL SECURITY",
      "CREATE RULE spy AS ON INSERT TO auth.claims_withdrawn DO INSTEAD NOTHING",
    ];
    for (const [user, database] of [
      ["alice", "postgres"],
      ["boss", "postgres"],
      ["owner", "owned"],
    ] as const) {
      await as(
        user,
        async (client) => {
          for (const reader of readers) {
            expect(await stateOf(client.query(reader)), `${user}: ${reader}`).toMatch(/^(42501|42809)$/);
          }
          await client.query("CREATE VIEW pg_temp.v AS SELECT * FROM auth.claims_key");
          expect(await stateOf(client.query("SELECT * FROM pg_temp.v")), user).toBe("42501");
        },
        database,
      );
    }
  });

  it("the statistics hold nothing of it, even after ANALYZE", async () => {
    await stage.past("ANALYZE auth.claims_key");
    const seen = await stage.past(
      "SELECT stavalues1::text FROM pg_statistic WHERE starelid = 'auth.claims_key'::regclass AND stavalues1 IS NOT NULL",
    );
    expect(seen).toEqual([]);
  });

  it("no default privilege, grant or group of the front-end's reaches the schema", async () => {
    const acl = await stage.past(
      `SELECT a.grantee::regrole::text AS grantee, a.privilege_type AS privilege FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.relnamespace = 'auth'::regnamespace AND c.relkind = 'r' AND a.grantee <> c.relowner`,
    );
    expect(acl).toEqual([]);
    const onSchema = await stage.past(
      `SELECT a.grantee, a.privilege_type AS privilege FROM pg_namespace n, aclexplode(n.nspacl) a
        WHERE n.nspname = 'auth' AND a.grantee <> n.nspowner`,
    );
    expect(onSchema).toEqual([{ grantee: 0, privilege: "USAGE" }]);
    const owner = await stage.past(
      "SELECT rolcanlogin, rolsuper, rolcreaterole, rolbypassrls, rolcreatedb, rolreplication FROM pg_roles WHERE rolname = 'nodedb_auth'",
    );
    expect(Object.values(owner[0] ?? { missing: true })).toEqual([false, false, false, false, false, false]);
  });

  it("the functions are what they have to be", async () => {
    const functions = await stage.past(
      `SELECT proname::text AS name, provolatile::text AS volatile, proparallel::text AS parallel, prosecdef AS definer,
              coalesce(array_to_string(proconfig, ';'), '') AS config, proowner::regrole::text AS owner
         FROM pg_proc WHERE pronamespace = 'auth'::regnamespace ORDER BY proname`,
    );
    const reader = { volatile: "s", parallel: "r", definer: false, config: "", owner: "nodedb_auth" };
    const names = [
      "claim",
      "email",
      "has_scope",
      "id",
      "jwt",
      "org_id",
      "role",
      "roles",
      "scopes",
      "session",
      "tenant_id",
      "uid",
    ];
    expect(functions).toEqual(
      names.map((name) =>
        name === "session"
          ? { ...reader, name, definer: true, config: "search_path=pg_catalog, pg_temp" }
          : { ...reader, name },
      ),
    );
  });

  it("nobody changes, replaces or adds a function, nor owns the schema", async () => {
    const changes = [
      "CREATE FUNCTION auth.uid() RETURNS text LANGUAGE sql RETURN 'x'",
      "CREATE OR REPLACE FUNCTION auth.id() RETURNS text LANGUAGE sql RETURN 'x'",
      "CREATE FUNCTION auth.id(int DEFAULT 1) RETURNS text LANGUAGE sql RETURN 'x'",
      "CREATE TABLE auth.mine (n int)",
      "CREATE VIEW auth.mine AS SELECT 1",
      "CREATE TYPE auth.mine AS (n int)",
      "CREATE OPERATOR auth.+ (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl)",
      "ALTER FUNCTION auth.id() OWNER TO CURRENT_USER",
      "ALTER FUNCTION auth.id() IMMUTABLE",
      "ALTER FUNCTION auth.session() SECURITY INVOKER",
      "ALTER FUNCTION auth.session() RESET search_path",
      "ALTER FUNCTION auth.session() RENAME TO other",
      "ALTER FUNCTION auth.session() SET SCHEMA public",
      "DROP FUNCTION auth.id()",
      "DROP FUNCTION auth.session() CASCADE",
      "DROP SCHEMA auth CASCADE",
      "ALTER SCHEMA auth RENAME TO other",
      "ALTER SCHEMA auth OWNER TO CURRENT_USER",
      "COMMENT ON SCHEMA auth IS 'mine'",
      "GRANT CREATE ON SCHEMA auth TO PUBLIC",
      "REVOKE EXECUTE ON FUNCTION auth.session() FROM PUBLIC",
      "ALTER DEFAULT PRIVILEGES FOR ROLE nodedb_auth GRANT ALL ON TABLES TO PUBLIC",
      "REASSIGN OWNED BY nodedb_auth TO CURRENT_USER",
      "DROP OWNED BY nodedb_auth",
      hidden("GRANT nodedb_auth TO CURRENT_USER"),
      "CREATE EVENT TRIGGER spy ON ddl_command_end EXECUTE FUNCTION suppress_redundant_updates_trigger()",
      "CREATE CAST (jsonb AS bytea) WITH INOUT AS IMPLICIT",
      "SECURITY LABEL ON FUNCTION auth.session() IS 'x'",
    ];
    for (const [user, database] of [
      ["alice", "postgres"],
      ["boss", "postgres"],
      ["owner", "owned"],
    ] as const) {
      await as(
        user,
        async (client) => {
          for (const change of changes) {
            const state = await stateOf(client.query(change));
            // A grant that grants nothing is a warning in PostgreSQL; 22023: no provider of security labels.
            if (/^(GRANT CREATE|REVOKE EXECUTE)/.test(change) && state === undefined) continue;
            expect(state, `${user}: ${change}`).toMatch(/^(42501|22023|42P17)$/);
          }
          expect((await client.query("SELECT auth.id() AS id")).rows).toEqual([{ id: user }]);
          expect(await stateOf(client.query("CREATE TABLE auth.mine (n int)"))).toBe("42501");
        },
        database,
      );
    }
  });

  it("no plan and no message that a client can ask for shows it, nor the code of what it would forge", async () => {
    // A variant whose expression is planned with the key's value in it.
    await installVariant(stage, "planned", [[/v_mac := ([\s\S]*?'hex'\));/, "SELECT $1 INTO v_mac;"]]);
    await as("alice", async (client) => {
      const told: string[] = [];
      client.on("notice", ({ message, detail, where }) =>
        told.push([message, detail, where].join().replaceAll(/\s/g, "")),
      );
      await client.query("SET client_min_messages = debug5");
      for (const what of ["parse", "rewritten", "plan"]) await client.query(`SET debug_print_${what} = on`);
      const good = sealWith(keyOf(stage), await bindingOf(client), {});
      const code = good.slice(0, 64);
      const forged = `${"0".repeat(64)}${good.slice(64)}`;
      await client.query("SELECT set_config('nodedb.session', $1, false)", [forged]);
      const shows = (text: string) =>
        [...traces(), code, inPlan(Buffer.from(code))].some((trace) => text.includes(trace));
      for (let turn = 0; turn < 3; turn += 1) await stateOf(client.query("SELECT planned.session()"));
      expect(told.some(shows)).toBe(true);
      told.length = 0;
      for (let turn = 0; turn < 8; turn += 1) {
        expect(await stateOf(client.query("SELECT auth.session()"))).toBe("28000");
      }
      await client.query("RESET nodedb.session");
      const explained = await client.query(
        "EXPLAIN (ANALYZE, VERBOSE, FORMAT JSON) SELECT auth.session(), auth.roles()",
      );
      told.push(JSON.stringify(explained.rows));
      expect(told.length).toBeGreaterThan(8);
      expect(told.filter(shows)).toEqual([]);
    });
  });

  it("PostgreSQL's log and views hold neither the key nor an envelope, though they hold every statement", async () => {
    // The unsafe way: a bound parameter.
    const { socketDir, port } = stage.postgres;
    const direct = await stage.connect("alice", { host: socketDir, port });
    const loggedBefore = stage.postgres.readLog().length;
    await direct.query("SELECT pg_catalog.set_config('nodedb.session', $1, false)", [
      "parameter of the unsafe way",
    ]);
    expect(stage.postgres.readLog()).toContain("parameter of the unsafe way");
    await direct.end();
    await as("alice", async (client) => {
      const envelope = async () =>
        (await client.query("SELECT current_setting('nodedb.session') AS e")).rows[0].e as string;
      const first = await envelope();
      await until(async () => (await envelope()) !== first);
      const codes = [first, await envelope()].map((text) => text.slice(0, 64));
      await stateOf(client.query("SELECT 1 / 0"));
      const log = stage.postgres.readLog();
      expect(log).toContain('fastpath function call: "set_config"');
      expect(log).toContain("CREATE OR REPLACE FUNCTION");
      for (const trace of [...codes, ...traces(), ...traces("owned")])
        expect(log.includes(trace), trace).toBe(false);
      // Other tests have sealed envelopes of their own, and sent them as clients do.
      expect(log.slice(loggedBefore)).not.toContain("nodedb-session");
      const seen = await stage.past("SELECT query FROM pg_stat_activity");
      for (const code of codes) expect(JSON.stringify(seen)).not.toContain(code);
    });
  });

  const hasPgDump =
    version === "debian" &&
    requireClient("pg_dump (postgresql-client-15)", isRunnable("pg_dump", "--version"));
  test.skipIf(!isThere || !hasPgDump)(
    "pg_dump of a client fails at it, and dumps the rest without it",
    async () => {
      const { host, port } = stage.frontEnd;
      const environment = {
        PATH: process.env.PATH,
        PGHOST: host,
        PGPORT: String(port),
        PGUSER: "owner",
        PGPASSWORD: passwordOf("owner"),
        PGDATABASE: "owned",
      };
      await as("owner", (client) => client.query("CREATE TABLE public.mine (n int)"), "owned");
      const whole = await runProgram("pg_dump", [], environment);
      expect(whole.status).toBe(1);
      expect(whole.stderr).toContain("permission denied");
      const rest = await runProgram("pg_dump", ["-N", "auth"], environment);
      expect(rest).toMatchObject({ status: 0, stderr: "" });
      expect(rest.stdout).toContain("CREATE TABLE public.mine");
    },
  );
}
