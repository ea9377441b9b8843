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
  stage = await openStage({ users: ["alice"] });
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

describe("foreign clients log in with a key", () => {
  const python = findPythonWith("psycopg");
  const driver = "/usr/share/java/postgresql.jar";
  let environment: Record<string, string>;

  beforeAll(async () => {
    const key = await makeKey("CREATE API KEY clients FOR etl");
    await makeKey("CREATE API KEY clients2 FOR etl");
    environment = {
      PGHOST: stage.frontEnd.host,
      PGPORT: String(stage.frontEnd.port),
      PGDATABASE: "a",
      PGUSER: "etl",
      PGPASSWORD: key,
      PGREQUIREAUTH: "scram-sha-256",
    };
  });

  test.skipIf(!requireClient("psql", isRunnable("psql", "--version")))("psql", async () => {
    const query = "SELECT current_user || ' ' || current_database()";
    const { stdout, stderr } = await runProgram("psql", ["-AtXc", query], environment);
    expect([stdout, stderr]).toEqual(["etl a\n", ""]);
    const refused = await runProgram("psql", ["-AtXc", query], { ...environment, PGPASSWORD: foreignKey });
    expect(refused.stderr).toContain('password authentication failed for user "etl"');
    expect(refused.status).toBe(2);
  });

  test.skipIf(!requireClient("psycopg 3 (python3-psycopg)", python !== undefined))("psycopg", async () => {
    const program = "import psycopg\nprint(psycopg.connect('').execute('SELECT current_user').fetchone()[0])";
    const { stdout, stderr } = await runProgram(python ?? "", ["-c", program], environment);
    expect([stdout, stderr]).toEqual(["etl\n", ""]);
  });

  const hasJdbc = isInstalled(driver) && isRunnable("javac", "-version");
  test.skipIf(!requireClient("JDBC (libpostgresql-jdbc-java, default-jdk-headless)", hasJdbc))(
    "JDBC",
    async () => {
      const source = "test/clients/programs/jdbc/LogIn.java";
      const { stdout, stderr } = await runProgram("java", ["-cp", driver, source], environment);
      expect([stdout, stderr]).toEqual(["etl\n", ""]);
    },
  );
});
