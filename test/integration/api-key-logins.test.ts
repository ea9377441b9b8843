/** API keys as passwords on pgwire: whose, where, until when, and that a refusal tells nothing. */

import type pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { findPythonWith, isInstalled, isRunnable } from "../support/client-program.ts";
import { runProgram } from "../support/run-program.ts";
import { requireClient } from "../support/skips.ts";
import { endOf, openClient, openStage, passwordOf, runOnce, type Stage, stateOf } from "../support/stage.ts";
import { until } from "../support/until.ts";

let stage: Stage;
const open: pg.Client[] = [];

beforeAll(async () => {
  stage = await openStage({
    users: ["alice"],
    configuration: "[auth]\nlogin_attempts_per_ip_per_min = 0\nlogin_attempts_per_user_per_min = 0\n",
  });
  await stage.past("CREATE DATABASE a");
  await stage.past("CREATE DATABASE b");
  for (const database of ["a", "b"]) {
    await stage.past(`REVOKE CONNECT ON DATABASE ${database} FROM PUBLIC`);
    await stage.asAdmin(`GRANT CONNECT ON DATABASE ${database} TO alice`);
  }
  await stage.asAdmin("CREATE SERVICE ACCOUNT etl FOR DATABASE a, b, postgres");
});
afterEach(async () => {
  for (const client of open.splice(0)) await client.end().catch(() => undefined);
});
afterAll(() => stage?.close());

/** Creates a key. @returns the whole of it */
async function makeKey(statement: string): Promise<string> {
  const { rows } = await stage.asAdmin(statement);
  return String(rows[0].api_key);
}

async function connect(user: string, password: string, database = "postgres"): Promise<pg.Client> {
  const client = await openClient(stage.login(user, { password, database }));
  open.push(client);
  return client;
}

async function sessionOf(user: string, password: string, database?: string) {
  const client = await connect(user, password, database);
  const { rows } = await client.query("SHOW SESSION");
  return rows[0] as Record<string, unknown>;
}

const refusalOf = (user: string, password: string, database?: string) =>
  connect(user, password, database).then(
    () => undefined,
    ({ code, message, severity }: pg.DatabaseError) => ({ code, message, severity }),
  );

const wrong = (user: string) => ({
  code: "28P01",
  message: `password authentication failed for user "${user}"`,
  severity: "FATAL",
});

/** A key that nobody has, in the form of one. */
const foreignKey = `ndb_aaaaaaaaaaaa_${"A".repeat(43)}`;

describe("a key is the password of", () => {
  test("a user, besides its own", async () => {
    const key = await makeKey("CREATE API KEY u1 FOR alice");
    expect(await sessionOf("alice", key)).toMatchObject({ username: "alice", auth_method: "api-key" });
    expect(await sessionOf("alice", passwordOf("alice"))).toMatchObject({ auth_method: "scram-sha-256" });
  });

  test("a service account", async () => {
    const key = await makeKey("CREATE API KEY s1 FOR SERVICE ACCOUNT etl");
    const client = await connect("etl", key, "a");
    expect((await client.query("SELECT current_user AS u, session_user AS s")).rows).toEqual([
      { u: "etl", s: "etl" },
    ]);
  });

  test("the key itself where it belongs to nobody", async () => {
    const key = await makeKey("CREATE API KEY 'ci deploy' ROLE readonly");
    expect(await sessionOf("ci deploy", key)).toMatchObject({ username: "ci deploy", roles: "readonly" });
  });

  test("nobody else", async () => {
    const key = await makeKey("CREATE API KEY n1 FOR alice");
    for (const user of ["etl", "n1", "nobody_here", stage.frontEnd.adminUser]) {
      expect(await refusalOf(user, key)).toEqual(wrong(user));
    }
  });
});

test("several keys of one account work at the same time, through a rotation too", async () => {
  const keys = [await makeKey("CREATE API KEY r1 FOR etl"), await makeKey("CREATE API KEY r2 FOR etl")];
  keys.push(await makeKey("ALTER API KEY r1 ROTATE OVERLAP '1 hour'"));
  for (const key of keys) expect(await sessionOf("etl", key, "a")).toMatchObject({ username: "etl" });
  const last = await makeKey("ALTER API KEY r1 ROTATE");
  expect(await sessionOf("etl", last, "a")).toMatchObject({ username: "etl" });
  // Only one secret is kept besides the current one, and this rotation asked for no overlap.
  expect(await refusalOf("etl", keys[0] ?? "", "a")).toEqual(wrong("etl"));
  expect(await refusalOf("etl", keys[2] ?? "", "a")).toEqual(wrong("etl"));
  await stage.asAdmin("ALTER USER alice LOGIN");
});

test("a new password, and none at all, leaves the keys at work", async () => {
  await stage.asAdmin("CREATE USER carol PASSWORD 'first password'");
  const key = await makeKey("CREATE API KEY c1 FOR carol");
  await stage.asAdmin("ALTER USER carol PASSWORD 'second password'");
  expect(await sessionOf("carol", key)).toMatchObject({ auth_method: "api-key" });
  expect(await sessionOf("carol", "second password")).toMatchObject({ auth_method: "scram-sha-256" });
  expect(await refusalOf("carol", "first password")).toEqual(wrong("carol"));

  await stage.asAdmin("ALTER USER carol PASSWORD NULL");
  expect(await sessionOf("carol", key)).toMatchObject({ auth_method: "api-key" });
  expect(await refusalOf("carol", "second password")).toEqual(wrong("carol"));
});

describe("databases", () => {
  test("a key that is narrowed to one opens no session in another, whatever the pool holds", async () => {
    await stage.asAdmin("CREATE USER dora PASSWORD 'password of dora'");
    for (const database of ["a", "b"]) await stage.asAdmin(`GRANT CONNECT ON DATABASE ${database} TO dora`);
    const key = await makeKey("CREATE API KEY d1 FOR dora WITH DATABASES (a)");
    // Leaves an upstream connection of the same principal to b behind.
    const wide = await connect("dora", "password of dora", "b");
    const { rows } = await wide.query("SELECT pg_backend_pid() AS pid");
    await wide.end();
    await until(async () => (await stage.running("dora")).some(({ pid }) => pid === rows[0].pid));
    expect(await refusalOf("dora", key, "b")).toEqual({
      code: "42501",
      message: 'DATABASE_NOT_AUTHORIZED: permission denied for database "b"',
      severity: "FATAL",
    });
    const narrow = await connect("dora", key, "a");
    expect((await narrow.query("SELECT current_database() AS d")).rows).toEqual([{ d: "a" }]);
    const denied = await stage.asAdmin("SHOW AUDIT LOG WHERE event = 'AuthzDenied' LIMIT 1");
    expect(denied.rows[0]).toMatchObject({ username: "dora" });
  });

  test("a session that is in one when the key loses it is closed", async () => {
    const key = await makeKey("CREATE API KEY d2 FOR etl WITH DATABASES (a, b)");
    const [inA, inB] = [await connect("etl", key, "a"), await connect("etl", key, "b")];
    const ended = endOf(inB);
    await stage.asAdmin("ALTER API KEY d2 SET DATABASES (a)");
    expect((await ended).code).toBe("57P01");
    expect((await inA.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
  });
});

describe("the end of a key", () => {
  test.each(["REVOKE API KEY", "DROP API KEY"])(
    "%s closes its sessions and refuses the next login",
    async (verb) => {
      const { rows } = await stage.asAdmin("CREATE API KEY gone FOR etl");
      const { api_key: key, key_id: keyId } = rows[0];
      const other = await makeKey("CREATE API KEY stays FOR etl");
      const [closed, left] = [await connect("etl", key, "a"), await connect("etl", other, "a")];
      const ended = endOf(closed);
      await stage.asAdmin(verb === "REVOKE API KEY" ? `REVOKE API KEY '${keyId}'` : "DROP API KEY gone");
      expect((await ended).code).toBe("57P01");
      expect(await refusalOf("etl", key, "a")).toEqual(wrong("etl"));
      expect((await left.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
      await stage.asAdmin("DROP API KEY IF EXISTS gone");
      await stage.asAdmin("DROP API KEY stays");
    },
  );

  test("its expiry closes its sessions", async () => {
    const key = await makeKey("CREATE API KEY brief FOR etl EXPIRES 2");
    const client = await connect("etl", key, "a");
    expect((await endOf(client)).code).toBe("57P01");
    expect(await refusalOf("etl", key, "a")).toEqual(wrong("etl"));
  });
});

test("a key that is revoked while its login is under way opens no session", async () => {
  await stage.past("CREATE DATABASE late");
  const { rows } = await stage.asAdmin("CREATE API KEY overtaken FOR alice");
  const late = new URL(stage.postgres.url);
  late.pathname = "/late";
  const lock = await openClient({ connectionString: late.href });
  open.push(lock);
  // The grants in a database that is entered for the first time wait for this.
  await lock.query("BEGIN");
  await lock.query("LOCK pg_catalog.pg_namespace IN ACCESS EXCLUSIVE MODE");
  const attempt = refusalOf("alice", rows[0].api_key, "late");
  await until(async () => {
    const waiting = await stage.past("SELECT FROM pg_catalog.pg_locks WHERE NOT granted");
    return waiting.length > 0;
  });
  await stage.asAdmin(`REVOKE API KEY '${rows[0].key_id}'`);
  await lock.query("ROLLBACK");
  expect(await attempt).toEqual(wrong("alice"));
  const { rows: audit } = await stage.asAdmin("SHOW AUDIT LOG WHERE event = 'AuthFailure' LIMIT 1");
  expect(audit).toMatchObject([{ username: "alice", detail: "changed_meanwhile" }]);
});

test("its use is written down", async () => {
  const { rows } = await stage.asAdmin("CREATE API KEY used FOR etl");
  await connect("etl", rows[0].api_key, "a");
  const { rows: audit } = await stage.asAdmin(
    `SHOW AUDIT LOG WHERE event = 'KeyUsed' AND detail = 'key ${rows[0].key_id}'`,
  );
  expect(audit).toMatchObject([{ username: "etl" }]);
  await until(async () => {
    const shown = await stage.asAdmin("SHOW API KEYS FOR etl");
    return shown.rows.find(({ name }) => name === "used")?.last_used_at !== null;
  });
});

test("no key and no part of one stands in log, audit or statement texts", async () => {
  const key = await makeKey("CREATE API KEY secret FOR etl");
  await connect("etl", key, "a");
  await refusalOf("etl", `${key.slice(0, -1)}A`, "a");
  const secret = key.slice(17, -1);
  expect(stage.frontEnd.output()).not.toContain(secret);
  const { rows } = await stage.asAdmin("SHOW AUDIT LOG LIMIT 1000");
  expect(JSON.stringify(rows)).not.toContain(secret);
});

test("an application that logs in with its key does not clear the guesses at its user's password", async () => {
  await stage.asAdmin("CREATE USER erin PASSWORD 'password of erin'");
  const key = await makeKey("CREATE API KEY e1 FOR erin");
  for (let guess = 0; guess < 5; guess++) {
    expect(await refusalOf("erin", `guess ${guess}`)).toEqual(wrong("erin"));
    if (guess < 4) expect(await sessionOf("erin", key)).toMatchObject({ auth_method: "api-key" });
  }
  await until(async () => (await refusalOf("erin", "password of erin")) !== undefined);
  expect(await refusalOf("erin", "password of erin")).toEqual(wrong("erin"));
  expect(await refusalOf("erin", key)).toEqual(wrong("erin"));
});

test("the configuration takes the keys away, and leaves the passwords", async () => {
  const strict = await openStage({ configuration: "[auth.api_keys]\npgwire = false\n" });
  try {
    const { rows } = await strict.asAdmin("CREATE API KEY k FOR alice");
    const key = String(rows[0].api_key);
    expect(await stateOf(runOnce(strict.login("alice", { password: key }), "SELECT 1"))).toBe("28P01");
    expect(await stateOf(runOnce(strict.login("alice"), "SELECT 1"))).toBeUndefined();
    const standAlone = await strict.asAdmin("CREATE API KEY ci ROLE readonly");
    const password = String(standAlone.rows[0].api_key);
    expect(await stateOf(runOnce(strict.login("ci", { password }), "SELECT 1"))).toBe("28P01");
  } finally {
    await strict.close();
  }
});

test("keys, passwords and people in turn on connections that are used again: each is who it is", async () => {
  const few = await openStage({ users: ["alice", "bob"], configuration: "[upstream]\npool_size = 1\n" });
  try {
    await few.asAdmin("CREATE TENANT acme ID 42");
    await few.asAdmin("CREATE SERVICE ACCOUNT worker FOR DATABASE postgres ROLE readonly TENANT 42");
    const make = async (name: string, clause: string) =>
      String((await few.asAdmin(`CREATE API KEY ${name} ${clause}`)).rows[0].api_key);
    const alices = [await make("a1", "FOR alice"), await make("a2", "FOR alice WITH DATABASES (postgres)")];
    const ways = [
      { user: "alice", password: passwordOf("alice"), method: "scram-sha-256", role: "readwrite", tenant: 1 },
      { user: "alice", password: alices[0], method: "api-key", role: "readwrite", tenant: 1 },
      {
        user: "worker",
        password: await make("w", "FOR worker"),
        method: "api-key",
        role: "readonly",
        tenant: 42,
      },
      { user: "alice", password: alices[1], method: "api-key", role: "readwrite", tenant: 1 },
      { user: "bob", password: passwordOf("bob"), method: "scram-sha-256", role: "readwrite", tenant: 1 },
      {
        user: "ci",
        password: await make("ci", "ROLE readonly"),
        method: "api-key",
        role: "readonly",
        tenant: 1,
      },
    ];
    const backends = new Map<unknown, string>();
    let reused = 0;
    for (const { user, password, method, role, tenant } of [...ways, ...ways, ...ways.toReversed()]) {
      const client = await openClient(few.login(user, { password }));
      const [session] = (await client.query("SHOW SESSION")).rows;
      const { rows } = await client.query(
        `SELECT session_user AS u, current_user AS c, $auth.id AS id, $auth.role AS role, $auth.tenant_id AS tenant,
           pg_backend_pid() AS pid, current_setting('app.mark', true) AS mark`,
      );
      await client.query(`SELECT set_config('app.mark', '${user}', false)`);
      await client.end();
      const { pid, mark, ...who } = rows[0];
      expect([session.username, session.auth_method, session.roles]).toEqual([user, method, role]);
      expect(who).toEqual({ u: user, c: user, id: user, role, tenant: String(tenant) });
      expect(mark === null || mark === "").toBe(true);
      reused += backends.has(pid) ? 1 : 0;
      expect(backends.get(pid) ?? user).toBe(user);
      backends.set(pid, user);
    }
    expect(reused).toBeGreaterThan(ways.length);
  } finally {
    await few.close();
  }
});

describe("an account changes its key without downtime with", () => {
  const print = "print(%s('SELECT current_user || $$ $$ || current_database()')%s)";
  const psycopg = `import psycopg\n${print.replace("%s", "psycopg.connect('').execute").replace("%s", ".fetchone()[0]")}`;
  const asyncpg = `import asyncio, asyncpg
async def main(): ${print.replace("%s", "await (await asyncpg.connect()).fetchval").replace("%s", "")}
asyncio.run(main())`;
  const driver = "/usr/share/java/postgresql.jar";
  const withPsycopg = findPythonWith("psycopg");
  const withAsyncpg = findPythonWith("asyncpg");
  const query = "SELECT current_user || ' ' || current_database()";
  const clients: readonly [string, boolean, readonly string[]][] = [
    ["psql", isRunnable("psql", "--version"), ["psql", "-AtXc", query]],
    ["psycopg 3 (python3-psycopg)", withPsycopg !== undefined, [withPsycopg ?? "", "-c", psycopg]],
    ["asyncpg (python3-asyncpg)", withAsyncpg !== undefined, [withAsyncpg ?? "", "-c", asyncpg]],
    [
      "JDBC (libpostgresql-jdbc-java, default-jdk-headless)",
      isInstalled(driver) && isRunnable("javac", "-version"),
      ["java", "-cp", driver, "test/clients/programs/jdbc/LogIn.java"],
    ],
  ];
  /** What lets the client in at each step of a change, and what does not. */
  let steps: readonly { readonly key: string; readonly isTaken: boolean }[];

  beforeAll(async () => {
    const old = await makeKey("CREATE API KEY clients FOR etl");
    const beside = await makeKey("CREATE API KEY clients2 FOR etl");
    const rotated = await makeKey("ALTER API KEY clients ROTATE OVERLAP '1 hour'");
    const gone = await makeKey("CREATE API KEY clients3 FOR etl");
    await stage.asAdmin("DROP API KEY clients3");
    steps = [
      { key: old, isTaken: true },
      { key: beside, isTaken: true },
      { key: rotated, isTaken: true },
      { key: gone, isTaken: false },
      { key: foreignKey, isTaken: false },
    ];
  });

  for (const [name, isPresent, [program = "", ...args]] of clients) {
    test.skipIf(!requireClient(name, isPresent))(name, async () => {
      for (const { key, isTaken } of steps) {
        const { stdout, stderr, status } = await runProgram(program, args, {
          PATH: process.env.PATH,
          PGHOST: stage.frontEnd.host,
          PGPORT: String(stage.frontEnd.port),
          PGDATABASE: "a",
          PGUSER: "etl",
          PGPASSWORD: key,
          PGREQUIREAUTH: "scram-sha-256",
        });
        if (isTaken) expect([stdout, stderr]).toEqual(["etl a\n", ""]);
        else {
          expect([stdout, status === 0]).toEqual(["", false]);
          expect(stderr).toContain('password authentication failed for user "etl"');
        }
      }
    });
  }

  test("node-postgres", async () => {
    for (const { key, isTaken } of steps) {
      if (isTaken) expect(await sessionOf("etl", key, "a")).toMatchObject({ username: "etl" });
      else expect(await refusalOf("etl", key, "a")).toEqual(wrong("etl"));
    }
  });
});
