/** Who is to be kept out cannot prevent that by what its own sessions do; others' transactions are not ended for it. */

import type pg from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { endOf, openStage, passwordOf, runOnce, type Stage, stateOf } from "../support/stage.ts";
import { until } from "../support/until.ts";

const alterSelf = "DO $$ BEGIN ALTER ROLE alice PASSWORD NULL; END $$";

let stage: Stage;
const clients: pg.Client[] = [];

async function connect(user: string): Promise<pg.Client> {
  const client = await stage.connect(user);
  clients.push(client);
  return client;
}

async function canLogIn(): Promise<boolean> {
  const [role] = await stage.past("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'alice'");
  return role?.rolcanlogin === true;
}

beforeAll(async () => {
  stage = await openStage({ users: ["bob"] });
});
beforeEach(async () => {
  await stage.asAdmin(`CREATE USER alice PASSWORD '${passwordOf("alice")}'`);
  await stage.asAdmin("CREATE SCHEMA hers AUTHORIZATION alice");
});
afterEach(async () => {
  // A session that goes on after all must not be waited for.
  await stage.past("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'alice'");
  await Promise.all(clients.splice(0).map((client) => client.end().catch(() => undefined)));
  await stage.asAdmin("DROP USER IF EXISTS alice REASSIGN OWNED TO bob");
  await stage.asAdmin("DROP SCHEMA hers CASCADE");
});
afterAll(() => stage?.close());

describe.each([
  ["NOLOGIN", "ALTER USER alice NOLOGIN"],
  ["DROP USER", "DROP USER alice REASSIGN OWNED TO bob"],
])("%s holds", (_, sql) => {
  test("although a transaction of the user's has its role locked", async () => {
    const client = await connect("alice");
    await client.query("BEGIN");
    await client.query(alterSelf);
    const ended = endOf(client);
    await stage.asAdmin(sql);
    expect((await ended).code).toBe("57P01");
    expect(await canLogIn()).toBe(false);
  });

  test("although the user's sessions change its role all the time", async () => {
    const spinners = await Promise.all(["", "", "", ""].map(() => connect("alice")));
    const outcomes = spinners.map((client) =>
      stateOf(
        client.query(`DO $$ BEGIN
          LOOP BEGIN ALTER ROLE alice PASSWORD NULL; EXCEPTION WHEN OTHERS THEN NULL; END; COMMIT; END LOOP;
        END $$`),
      ),
    );
    await until(async () => (await stage.running("alice")).filter((r) => r.state === "active").length === 4);
    await stage.asAdmin(sql);
    expect(await canLogIn()).toBe(false);
    await stage.past(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'alice' OR query LIKE '%ALTER ROLE alice%' AND pid <> pg_backend_pid()",
    );
    await Promise.all(outcomes);
  });
});

test("DROP USER takes over what a transaction of the user's has locked", async () => {
  const client = await connect("alice");
  await client.query("CREATE TABLE hers.t (id int)");
  await client.query("BEGIN; LOCK TABLE hers.t");
  await stage.asAdmin("DROP USER alice REASSIGN OWNED TO bob");
  const [table] = await stage.past(
    "SELECT relowner::regrole::text AS owner FROM pg_class WHERE relname = 't'",
  );
  expect(table?.owner).toBe("bob");
});

test("a user that was dropped in a transaction goes, though a statement of its own locks what it owns", async () => {
  const client = await connect("alice");
  await client.query("CREATE TABLE hers.t (id int)");
  const outcome = stateOf(client.query("BEGIN; LOCK TABLE hers.t; SELECT pg_sleep(3600)"));
  await until(async () => (await stage.running("alice")).some((r) => r.state === "active"));
  await stage.asAdmin("BEGIN; DROP USER alice REASSIGN OWNED TO bob; COMMIT");
  expect(await outcome).toBe("57P01");
  const isGone = async () =>
    (await stage.past("SELECT FROM pg_roles WHERE rolname LIKE 'nodedb_dropped_%'")).length === 0;
  await until(isGone, 20_000);
}, 40_000);

test("another user's transaction that is in the way is refused to, and not ended", async () => {
  await connect("alice");
  const client = await connect("bob");
  await stage.asAdmin("CREATE SCHEMA his AUTHORIZATION bob");
  await client.query("BEGIN");
  await client.query("GRANT USAGE ON SCHEMA his TO alice");
  expect(await stateOf(stage.asAdmin("DROP USER alice REASSIGN OWNED TO bob"))).toBe("55000");
  await client.query("ROLLBACK");
}, 40_000);

test("a role whose name is not ASCII is kept out too, whatever encoding is the default of the front-end's own login", async () => {
  await stage.past("ALTER ROLE postgres SET client_encoding = 'LATIN1'");
  await stage.past(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'nodedb'",
  );
  await stage.asAdmin(`CREATE USER "Grüße" PASSWORD '${passwordOf("Grüße")}'`);
  await stage.asAdmin("CREATE DATABASE closed");
  const logIn = async () =>
    (await runOnce(stage.login("Grüße", { database: "closed" }), "SELECT session_user AS me")).rows;
  expect(await logIn()).toEqual([{ me: "Grüße" }]);
  await stage.past("REVOKE CONNECT ON DATABASE closed FROM PUBLIC, nodedb_readwrite");
  expect(await stateOf(logIn())).toBe("42501");
  await stage.past("ALTER ROLE postgres RESET client_encoding");
  await stage.asAdmin("DROP DATABASE closed");
  await stage.asAdmin('DROP USER "Grüße"');
});

describe("the settings of a database", () => {
  beforeAll(async () => {
    await stage.asAdmin("CREATE DATABASE planted");
    for (const setting of [
      "role = 'bob'",
      "statement_timeout = '1ms'",
      "lock_timeout = '1ms'",
      "transaction_timeout = '1ms'",
      "idle_in_transaction_session_timeout = '1ms'",
    ]) {
      await stage.past(`ALTER DATABASE planted SET ${setting}`);
    }
  });

  test("do not keep a user in that holds something there", async () => {
    const owner = await stage.connect(stage.frontEnd.adminUser, {
      database: "planted",
      options: "-c transaction_timeout=0 -c statement_timeout=0 -c idle_in_transaction_session_timeout=0",
    });
    await owner.query("CREATE TABLE t (id int); GRANT SELECT ON t TO alice");
    await owner.end();
    await stage.asAdmin("DROP USER alice REASSIGN OWNED TO bob");
    expect(await stage.past("SELECT FROM pg_roles WHERE rolname = 'alice'")).toEqual([]);
  });
});
