/** What a client that may send any SQL tries in order to be somebody else. */

import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type FrontEnd, startFrontEnd } from "../support/front-end.ts";
import { hasDebianPostgres, startPostgres, type TestPostgres } from "../support/postgres.ts";
import { requireClient } from "../support/skips.ts";
import { openClient, passwordOf, runOnce, stateOf } from "../support/stage.ts";

describe("before the embedded PostgreSQL", () => describeIsolation("embedded", true));
describe("before PostgreSQL 15", () => {
  describeIsolation("debian", requireClient("PostgreSQL 15 (postgresql-15)", hasDebianPostgres));
});

/** PL/pgSQL that runs a statement whose text the front-end does not see. */
function hidden(statement: string): string {
  return `DO $do$ BEGIN EXECUTE convert_from('\\x${Buffer.from(statement).toString("hex")}', 'UTF8'); END $do$`;
}

function describeIsolation(kind: "embedded" | "debian", isThere: boolean): void {
  const users = { alice: "readwrite", bob: "readwrite", reader: "readonly", boss: "admin" };
  let postgres: TestPostgres | undefined;
  let frontEnd: FrontEnd;
  let adminRole: string;

  beforeAll(async () => {
    if (!isThere) return;
    if (kind === "debian") postgres = await startPostgres({ version: "debian", tcp: true });
    frontEnd = await startFrontEnd(postgres === undefined ? {} : { upstreamUrl: postgres.url });
    adminRole = postgres === undefined ? "nodedb_admin_login" : "postgres";
    for (const [user, role] of Object.entries(users)) {
      await runOnce(
        as(frontEnd.adminUser),
        `CREATE USER ${user} PASSWORD '${passwordOf(user)}' ROLE ${role}`,
      );
    }
    await runOnce(as("boss"), "CREATE TABLE shared (n int); INSERT INTO shared VALUES (1)");
  });
  afterAll(async () => {
    await frontEnd?.close();
    await postgres?.dispose();
  });

  function as(user: string): pg.ClientConfig {
    const { host, port, database, adminUser, adminPassword } = frontEnd;
    return { host, port, database, user, password: user === adminUser ? adminPassword : passwordOf(user) };
  }

  async function whoIs(client: pg.Client): Promise<unknown> {
    return (await client.query("SELECT session_user, current_user")).rows[0];
  }

  test.skipIf(!isThere)("has nothing to reset to, and no role to become", async () => {
    const client = await openClient(as("alice"));
    const alice = { session_user: "alice", current_user: "alice" };
    for (const harmless of [
      "RESET ROLE",
      "SET ROLE NONE",
      "RESET SESSION AUTHORIZATION",
      "SET SESSION AUTHORIZATION DEFAULT",
      "SET SESSION AUTHORIZATION alice",
      "RESET ALL",
      "DISCARD ALL",
    ]) {
      await client.query(harmless);
      expect(await whoIs(client), harmless).toEqual(alice);
      if (harmless !== "DISCARD ALL") {
        await client.query(hidden(harmless));
        expect(await whoIs(client), `hidden ${harmless}`).toEqual(alice);
      }
    }
    await client.query(
      "CREATE FUNCTION pg_temp.become(r text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('role', r, false); RETURN current_user; END $$",
    );
    await client.query(
      "CREATE FUNCTION pg_temp.be(r text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('session_authorization', r, false); RETURN session_user; END $$",
    );
    const targets = ["bob", "boss", frontEnd.adminUser, adminRole, "nodedb_superuser", "nodedb_admin"];
    for (const target of targets) {
      for (const attempt of [
        `SET SESSION AUTHORIZATION "${target}"`,
        hidden(`SET SESSION AUTHORIZATION "${target}"`),
        `SELECT pg_temp.be('${target}')`,
        `SET ROLE "${target}"`,
        hidden(`SET LOCAL ROLE "${target}"`),
        `SELECT pg_temp.become('${target}')`,
        `SELECT set_config('role', '${target}', false)`,
      ]) {
        expect(await stateOf(client.query(attempt)), attempt).toMatch(/^(42501|22023|42704)$/);
        expect(await whoIs(client), attempt).toEqual(alice);
      }
    }
    await client.end();
  });

  test.skipIf(!isThere)(
    "on PostgreSQL 16 and later a client cannot become its own group either",
    async () => {
      const client = await openClient(as("alice"));
      const version = (await client.query("SELECT current_setting('server_version_num')::int AS v")).rows[0]
        ?.v;
      const groups = await client.query<{ name: string }>(
        "SELECT g.rolname::text AS name FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = current_user::regrole",
      );
      expect(groups.rows).toHaveLength(1);
      const state = await stateOf(client.query(`SET ROLE "${groups.rows[0]?.name}"`));
      expect(state).toBe(version >= 160000 ? "42501" : undefined);
      await client.end();
    },
  );

  test.skipIf(!isThere)("reads no verifier, and nothing in the catalog's schema", async () => {
    for (const user of ["alice", "reader", "boss"]) {
      const client = await openClient(as(user));
      for (const attempt of [
        "SELECT * FROM nodedb.principal",
        "SELECT * FROM nodedb.principal_role",
        "SELECT 'nodedb.principal'::regclass::text, (SELECT count(*) FROM nodedb.principal)",
        "COPY nodedb.principal TO STDOUT",
        hidden("CREATE TABLE stolen AS SELECT * FROM nodedb.principal"),
        "CREATE TABLE nodedb.mine (n int)",
        hidden("LOCK TABLE nodedb.principal IN ACCESS SHARE MODE"),
        "DELETE FROM nodedb.principal",
        "SELECT rolpassword FROM pg_authid",
        "SELECT passwd FROM pg_shadow",
        "SELECT * FROM pg_statistic",
        "SELECT pg_read_file('pg_hba.conf')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT lo_import('/etc/passwd')",
      ]) {
        expect(await stateOf(client.query(attempt)), `${user}: ${attempt}`).toBe("42501");
      }
      expect((await client.query("SELECT DISTINCT rolpassword FROM pg_roles")).rows).toEqual([
        { rolpassword: "********" },
      ]);
      await client.end();
    }
  });

  test.skipIf(!isThere)("makes no role, and gives itself no right, past the front-end", async () => {
    for (const user of ["alice", "boss"]) {
      const client = await openClient(as(user));
      for (const attempt of [
        hidden("CREATE ROLE sneaked LOGIN PASSWORD 'sneakedsneaked'"),
        hidden("CREATE USER sneaked"),
        hidden("CREATE ROLE sneaked"),
        hidden("CREATE GROUP sneaked"),
        hidden(`ALTER ROLE ${user} SUPERUSER`),
        hidden(`ALTER ROLE ${user} CREATEROLE`),
        hidden(`ALTER ROLE ${user} BYPASSRLS`),
        hidden(`ALTER ROLE ${frontEnd.adminUser} PASSWORD 'taken over'`),
        hidden(`ALTER ROLE bob PASSWORD 'taken over'`),
        hidden(`DROP ROLE bob`),
        hidden(`GRANT ${frontEnd.adminUser} TO ${user}`),
        hidden(`GRANT bob TO ${user}`),
        hidden(`GRANT "nodedb_superuser" TO ${user}`),
        hidden(`GRANT pg_read_all_data TO ${user}`),
        hidden(`ALTER ROLE bob SET search_path = evil`),
        hidden(`ALTER ROLE ALL SET search_path = evil`),
        `ALTER SYSTEM SET work_mem = '5MB'`,
        hidden(`REASSIGN OWNED BY ${frontEnd.adminUser} TO ${user}`),
        hidden(`DROP OWNED BY ${frontEnd.adminUser}`),
        "CREATE EXTENSION dblink",
        "CREATE EXTENSION file_fdw",
        "CREATE FUNCTION c_code() RETURNS int LANGUAGE c AS 'libc', 'getpid'",
      ]) {
        // 42704: no such role here; 58P01 and 0A000: the extension is not even there.
        expect(await stateOf(client.query(attempt)), `${user}: ${attempt}`).toMatch(
          /^(42501|42704|58P01|0A000)$/,
        );
      }
      await client.end();
    }
    const { rows } = await runOnce(
      as(frontEnd.adminUser),
      "SELECT rolname FROM pg_roles WHERE rolname = 'sneaked'",
    );
    expect(rows).toEqual([]);
  });

  test.skipIf(!isThere)("an admin cannot take over a superuser with the statements of ours", async () => {
    const client = await openClient(as("boss"));
    const superuser = frontEnd.adminUser;
    for (const attempt of [
      `ALTER USER ${superuser} PASSWORD 'taken over now'`,
      `ALTER USER ${superuser} SET PASSWORD 'taken over now'`,
      `ALTER USER ${superuser} NOLOGIN`,
      `ALTER USER ${superuser} RENAME TO other`,
      `ALTER USER ${superuser} SET ROLE readonly`,
      `DROP USER ${superuser}`,
      `DROP USER bob REASSIGN OWNED TO ${superuser}`,
      `ALTER USER boss SET ROLE superuser`,
      `ALTER USER boss SUPERUSER`,
      `CREATE USER mine PASSWORD 'minemine' ROLE superuser`,
      `ALTER ROLE ${adminRole} PASSWORD 'taken over now'`,
      `GRANT ${superuser} TO boss`,
      `GRANT superuser TO boss`,
      `ALTER ROLE "nodedb_superuser" RENAME TO x`,
      `DROP ROLE "nodedb_readonly"`,
    ]) {
      expect(await stateOf(client.query(attempt)), attempt).toMatch(/^(42501|42704|42939|42601|0A000)$/);
    }
    await client.end();
    const { rows } = await runOnce(as(superuser), "SHOW SESSION");
    expect(JSON.stringify(rows)).toContain("superuser");
    expect(await stateOf(openClient({ ...as("boss"), user: "mine", password: "minemine" }))).toBe("28P01");
  });

  test.skipIf(!isThere)(
    "startup parameters neither change who a session is nor what the front-end decides",
    async () => {
      for (const options of [
        "-c role=boss",
        "-c session_authorization=boss",
        "-c row_security=off",
        "-c nodedb.session=x",
        "--nodedb.session=x",
        "-c local_preload_libraries=x",
        "-c ROLE=boss",
        "-c session_preload_libraries=x",
      ]) {
        expect(await stateOf(openClient({ ...as("alice"), options })), options).toBe("42501");
      }
    },
  );

  test.skipIf(!isThere)("readonly reads, and writes nothing and nowhere", async () => {
    const client = await openClient(as("reader"));
    expect((await client.query("SELECT n FROM shared")).rows).toEqual([{ n: 1 }]);
    for (const attempt of [
      "INSERT INTO shared VALUES (2)",
      "UPDATE shared SET n = 2",
      "DELETE FROM shared",
      "TRUNCATE shared",
      "DROP TABLE shared",
      "SELECT n FROM shared FOR UPDATE",
      "CREATE TABLE mine (n int)",
      "CREATE SCHEMA mine",
      "COPY shared FROM STDIN",
      "SELECT n INTO mine FROM shared",
      ...(kind === "embedded" ? ["CREATE TEMP TABLE mine (n int)"] : []),
    ]) {
      expect(await stateOf(client.query(attempt)), attempt).toBe("42501");
    }
    await client.end();
  });
}
