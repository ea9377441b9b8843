/** Roles changed in PostgreSQL itself, past the front-end: put right at the next login, and written down. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loginLookQuery } from "../../src/upstream/role-fingerprint.ts";
import { startFrontEnd } from "../support/front-end.ts";
import { createKey, httpClient } from "../support/http.ts";
import { hasDebianPostgres } from "../support/postgres.ts";
import { requireClient } from "../support/skips.ts";
import { openClient, openStage, runOnce, type Stage, stateOf } from "../support/stage.ts";
import { until } from "../support/until.ts";

describe("PostgreSQL 18", () => describeDrift("embedded", true));
describe("PostgreSQL 15", () => {
  describeDrift("debian", requireClient("PostgreSQL 15 (postgresql-15)", hasDebianPostgres));
});

/** All that PostgreSQL has of a user's role, its oid aside, and of the custom one. */
const everythingOf = (user: string) => `
  SELECT a.rolsuper, a.rolinherit, a.rolcreaterole, a.rolcreatedb, a.rolcanlogin, a.rolreplication, a.rolbypassrls,
         a.rolconnlimit, coalesce(a.rolvaliduntil::text, 'infinity') AS until, a.rolpassword,
         ARRAY(SELECT m.roleid::regrole::text FROM pg_auth_members m WHERE m.member = a.oid ORDER BY 1) AS groups,
         ARRAY(SELECT s.setconfig::text FROM pg_db_role_setting s WHERE s.setrole = a.oid ORDER BY 1) AS settings
    FROM pg_authid a WHERE a.rolname IN ('${user}', 'analysts') ORDER BY a.rolname`;

function describeDrift(version: "embedded" | "debian", isThere: boolean): void {
  let stage: Stage;
  const users = ["alice", "bob"];

  beforeAll(async () => {
    if (!isThere) return;
    stage = await openStage({ postgres: { version }, users });
    await stage.asAdmin("CREATE ROLE analysts INHERIT readonly");
    await stage.asAdmin("GRANT analysts TO alice");
  });
  afterAll(() => stage?.close());

  /** What the audit log says of changes to a user's role since a sequence number. */
  const entriesOf = async (user: string, since: string) =>
    (
      await stage.asAdmin(
        `SHOW AUDIT LOG WHERE seq > '${since}' AND event = 'PrivilegeChange' AND username = '${user}'`,
      )
    ).rows.map(({ detail }) => detail);
  const lastSeq = async () => String((await stage.asAdmin("SHOW AUDIT LOG LIMIT 1")).rows[0]?.seq ?? 0);
  const logIn = async (user: string) =>
    (await runOnce(stage.login(user), "SELECT session_user AS me")).rows[0]?.me;
  const hidden = (user: string, statement: string) =>
    runOnce(stage.login(user), `DO $do$ BEGIN EXECUTE '${statement.replaceAll("'", "''")}'; END $do$`);
  const wasPutRight = (what: string) =>
    `the PostgreSQL role was not as the catalog has it (${what}) and has been put right`;

  const past = (sql: string) => () => stage.past(sql);
  const changes: readonly (readonly [string, string, () => Promise<unknown>])[] = [
    ["dropped", "it was dropped", past("DROP OWNED BY alice; DROP ROLE alice")],
    ["given another password", "password", past("ALTER ROLE alice PASSWORD 'of somebody else'")],
    [
      "given another password by itself",
      "password",
      () => hidden("alice", "ALTER ROLE current_user PASSWORD 'mine'"),
    ],
    ["made a member of a built-in group", "memberships", past("GRANT nodedb_superuser TO alice")],
    ["made more through its custom role", "memberships", past("GRANT nodedb_admin TO analysts")],
    ["taken out of its group", "memberships", past("REVOKE nodedb_readwrite FROM alice")],
    [
      "given a library to load, by itself",
      "settings",
      () => hidden("alice", "ALTER ROLE alice SET local_preload_libraries = 'no_such_library'"),
    ],
    [
      "given a library to load in one database",
      "settings",
      past("ALTER ROLE alice IN DATABASE postgres SET local_preload_libraries = 'no_such_library'"),
    ],
    ["given another role to begin as", "settings", past("ALTER ROLE alice SET role = 'bob'")],
    ["made a superuser", "attributes", past("ALTER ROLE alice SUPERUSER CREATEROLE BYPASSRLS")],
    ["made NOLOGIN", "attributes", past("ALTER ROLE alice NOLOGIN")],
    [
      "given an end and a limit",
      "attributes",
      past("ALTER ROLE alice VALID UNTIL '2001-01-01' CONNECTION LIMIT 0"),
    ],
  ];

  test.skipIf(!isThere).each(changes)("a role that was %s", async (_name, what, change) => {
    expect(await logIn("alice")).toBe("alice");
    const before = await stage.past(everythingOf("alice"));
    const since = await lastSeq();
    await change();
    expect(await stage.past(everythingOf("alice"))).not.toEqual(what === "memberships" ? undefined : before);
    // The connection of the last login waits in the pool, and is the wrong one now.
    expect(await logIn("alice")).toBe("alice");
    expect(await stage.past(everythingOf("alice"))).toEqual(before);
    expect(await stateOf(runOnce(stage.login("alice"), "SELECT * FROM pg_authid"))).toBe("42501");
    expect(await entriesOf("alice", since)).toEqual([wasPutRight(what)]);
  });

  test.skipIf(!isThere)("over HTTP as well", async () => {
    const http = httpClient(`http://${stage.frontEnd.host}:${stage.frontEnd.httpPort}`);
    const key = await createKey(stage, "drift", "FOR bob");
    const since = await lastSeq();
    await stage.past("GRANT nodedb_superuser TO bob");
    expect((await http.query(key, { sql: "SELECT session_user AS me" })).status).toBe(200);
    expect(await entriesOf("bob", since)).toEqual([wasPutRight("memberships")]);
    const groups = await stage.past(
      "SELECT roleid::regrole::text AS name FROM pg_auth_members WHERE member = 'bob'::regrole",
    );
    expect(groups).toEqual([{ name: "nodedb_readwrite" }]);
  });

  test.skipIf(!isThere)("what our own statements change, and what may stay, is no drift", async () => {
    const since = await lastSeq();
    await stage.asAdmin("GRANT admin TO bob");
    await logIn("bob");
    await stage.asAdmin("REVOKE admin FROM bob");
    await stage.asAdmin("ALTER USER bob CONNECTION LIMIT 7");
    await stage.past("ALTER ROLE bob SET search_path = 'public'");
    await stage.past("ALTER ROLE bob IN DATABASE postgres SET statement_timeout = '1min'");
    await stage.past("GRANT pg_monitor TO bob");
    const before = await stage.past(everythingOf("bob"));
    await logIn("bob");
    await logIn("bob");
    expect(await stage.past(everythingOf("bob"))).toEqual(before);
    expect((await entriesOf("bob", since)).filter((detail) => detail.includes("catalog"))).toEqual([]);
  });

  test.skipIf(!isThere)("several logins at once put a role right once", async () => {
    const since = await lastSeq();
    await stage.past("GRANT nodedb_superuser TO alice");
    expect(await Promise.all(Array.from({ length: 10 }, () => logIn("alice")))).toEqual(
      Array.from({ length: 10 }, () => "alice"),
    );
    expect(await entriesOf("alice", since)).toEqual([wasPutRight("memberships")]);
  });

  describe("CONNECT", () => {
    const logInTo = (database: string, user: string, password?: string) =>
      runOnce(stage.login(user, { database, ...(password === undefined ? {} : { password }) }), "SELECT 1");
    const pooled = async (user: string) =>
      (
        await stage.past("SELECT datname FROM pg_stat_activity WHERE usename = $1 ORDER BY datname", [user])
      ).map(({ datname }) => datname);

    beforeAll(async () => {
      if (!isThere) return;
      await stage.asAdmin("CREATE DATABASE ours");
      await stage.past("REVOKE CONNECT ON DATABASE ours FROM PUBLIC, nodedb_readwrite");
    });

    test.skipIf(!isThere)("that was revoked keeps out whoever has a connection in the pool", async () => {
      await stage.asAdmin("GRANT CONNECT ON DATABASE ours TO bob");
      for (const database of ["ours", "postgres"]) await logInTo(database, "bob");
      expect(await pooled("bob")).toEqual(["ours", "postgres"]);
      await stage.past("REVOKE CONNECT ON DATABASE ours FROM bob");
      const since = await lastSeq();
      expect(await stateOf(logInTo("ours", "bob"))).toBe("42501");
      await until(async () => (await pooled("bob")).join() === "postgres");
      expect(await stateOf(logInTo("postgres", "bob"))).toBeUndefined();
      await stage.past("GRANT CONNECT ON DATABASE ours TO bob");
      expect(await stateOf(logInTo("ours", "bob"))).toBeUndefined();
      expect(await entriesOf("bob", since)).toEqual([]);
    });

    test.skipIf(!isThere)("that an account's list says is granted again, each time", async () => {
      await stage.asAdmin("CREATE SERVICE ACCOUNT etl FOR DATABASE ours");
      const key = await createKey(stage, "etl", "FOR etl");
      for (let time = 0; time < 2; time += 1) {
        await logInTo("ours", "etl", key);
        const since = await lastSeq();
        await stage.past("REVOKE CONNECT ON DATABASE ours FROM etl");
        expect(await stateOf(logInTo("ours", "etl", key))).toBeUndefined();
        expect(await entriesOf("etl", since)).toEqual([wasPutRight("databases")]);
      }
    });
  });

  test.skipIf(!isThere).each([true, false])(
    "the query of a login is not planned anew each time (passwords: %s)",
    async (withPasswords) => {
      const { socketDir: host, port } = stage.postgres;
      const client = await openClient({ host, port, user: "postgres", database: "postgres" });
      const query = loginLookQuery([{ role: "bob", database: "postgres" }], withPasswords);
      for (let time = 0; time < 10; time += 1) expect((await client.query(query)).rows).toHaveLength(1);
      const { rows } = await client.query("SELECT generic_plans FROM pg_prepared_statements");
      await client.end();
      expect(rows).toEqual([{ generic_plans: "5" }]);
    },
  );

  test.skipIf(!isThere)(
    "what a start puts right is written down, and the next start writes nothing",
    async () => {
      await stage.asAdmin("CREATE SERVICE ACCOUNT robot FOR DATABASE postgres");
      const since = await lastSeq();
      await stage.past("GRANT nodedb_superuser TO alice; ALTER ROLE bob SUPERUSER");
      await stage.past("GRANT CONNECT ON DATABASE template1 TO robot");
      for (let start = 0; start < 2; start += 1) {
        const another = await startFrontEnd({
          upstreamUrl: stage.postgres.url,
          besides: stage.frontEnd.dataDir,
        });
        await another.close();
      }
      expect(await entriesOf("alice", since)).toEqual([wasPutRight("memberships")]);
      expect(await entriesOf("bob", since)).toEqual([wasPutRight("attributes")]);
      expect(await entriesOf("robot", since)).toEqual([wasPutRight("databases")]);
      expect(await stage.past("SELECT rolname FROM pg_roles WHERE rolname = 'bob' AND rolsuper")).toEqual([]);
    },
  );

  describe("where the front-end's login is no superuser", () => {
    let limited: Stage;
    const entries = async (since: string) =>
      (await limited.asAdmin(`SHOW AUDIT LOG WHERE seq > '${since}' AND event = 'PrivilegeChange'`)).rows.map(
        ({ username, detail }) => `${username}: ${detail}`,
      );
    const last = async () => String((await limited.asAdmin("SHOW AUDIT LOG LIMIT 1")).rows[0]?.seq ?? 0);
    const logInAsBob = () => runOnce(limited.login("bob"), "SELECT session_user AS me");

    beforeAll(async () => {
      if (isThere)
        limited = await openStage({ postgres: { version }, upstreamLogin: "creator of roles", users });
    });
    afterAll(() => limited?.close());

    test.skipIf(!isThere)("a login that finds nothing writes nothing", async () => {
      const since = await last();
      await logInAsBob();
      await logInAsBob();
      expect(await entries(since)).toEqual([]);
    });

    test.skipIf(!isThere)("a password is replaced when PostgreSQL asks for another one", async () => {
      const since = await last();
      await limited.past("ALTER ROLE bob PASSWORD 'of somebody else'");
      await limited.past(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'bob'",
      );
      await logInAsBob();
      expect(await entries(since)).toEqual([`bob: ${wasPutRight("password")}`]);
    });

    test.skipIf(!isThere)("a role that may not be put right is written down once, and let in", async () => {
      const since = await last();
      await limited.past("ALTER ROLE bob SUPERUSER");
      for (let login = 0; login < 2; login += 1) {
        expect((await logInAsBob()).rows).toEqual([{ me: "bob" }]);
      }
      expect(await entries(since)).toEqual([
        "bob: the PostgreSQL role is not as the catalog has it and cannot be put right",
      ]);
    });
  });
}
