/** What one client's transaction can hold up, for how long, and what it cannot. */

import type pg from "pg";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { openStage, passwordOf, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

let stage: Stage;
const clients: pg.Client[] = [];

async function connect(user = stage.frontEnd.adminUser, more: pg.ClientConfig = {}): Promise<pg.Client> {
  const client = await stage.connect(user, more);
  clients.push(client);
  return client;
}

/** The SQLSTATE of an error, or the result's command. */
function outcomeOf(query: Promise<pg.QueryResult>): Promise<string> {
  return query.then(
    ({ command }) => command,
    (error: unknown) => (error as { code?: string }).code ?? String(error),
  );
}

async function timeOf(work: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await work();
  return performance.now() - startedAt;
}

/** An ordinary user's COMMIT, which changes the own password and then sleeps, whatever cancels it. */
async function holdCatalog(): Promise<{ sessionId: string; outcome: Promise<string> }> {
  const client = await connect("alice");
  const pid = (await client.query("SELECT pg_backend_pid() AS pid")).rows[0].pid;
  const sessionId = (await client.query("SHOW SESSION")).rows[0].session_id;
  for (const sql of [
    "BEGIN",
    "CREATE TEMP TABLE x (i int)",
    `CREATE FUNCTION pg_temp.f() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN
       LOOP BEGIN PERFORM pg_sleep(3600); EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(0.01); END; END LOOP;
     END $f$`,
    `CREATE CONSTRAINT TRIGGER z AFTER INSERT ON x DEFERRABLE INITIALLY DEFERRED
       FOR EACH ROW EXECUTE FUNCTION pg_temp.f()`,
    "INSERT INTO x VALUES (1)",
    `ALTER USER alice PASSWORD '${passwordOf("alice")}'`,
  ]) {
    await client.query(sql);
  }
  const outcome = outcomeOf(client.query("COMMIT"));
  await until(async () => {
    const rows = await stage.past(
      "SELECT FROM pg_stat_activity WHERE pid = $1 AND state = 'active' AND wait_event = 'PgSleep'",
      [pid],
    );
    return rows.length === 1;
  });
  return { sessionId, outcome };
}

beforeAll(async () => {
  stage = await openStage();
});
afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.end().catch(() => undefined)));
});
afterAll(() => stage?.close());

test("a COMMIT that is held up keeps no reader, no login and no KILL SESSION waiting, however many administrators wait", async () => {
  const administrators = await Promise.all(Array.from({ length: 6 }, () => connect()));
  const killer = await connect();
  const held = await holdCatalog();
  const waiting = administrators.map((client, index) =>
    outcomeOf(client.query(`CREATE USER waiting_${index} PASSWORD 'long enough to be taken'`)),
  );
  expect(await timeOf(() => killer.query("SHOW USERS"))).toBeLessThan(1_000);
  expect(await timeOf(() => killer.query("SHOW SESSIONS"))).toBeLessThan(1_000);
  expect(await timeOf(() => connect())).toBeLessThan(1_000);
  expect(await timeOf(() => killer.query(`KILL SESSION '${held.sessionId}'`))).toBeLessThan(1_000);
  const endedIn = await timeOf(async () => expect(await held.outcome).toBe("57P01"));
  expect(endedIn).toBeLessThan(1_000);
  // Either their turn came, or they were told within three seconds that it did not.
  expect(["55000", "CREATE"]).toEqual(expect.arrayContaining([...new Set(await Promise.all(waiting))]));
  await until(async () => (await outcomeOf(killer.query("CREATE ROLE after_it"))) !== "55000", 5_000);
  const entries = await stage.past(
    "SELECT detail FROM nodedb.audit_outbox UNION ALL SELECT detail FROM nodedb.audit_log",
  );
  expect(entries.map(({ detail }) => detail)).toContain(`KILL SESSION ${held.sessionId}`);
});

test("a COMMIT that nobody ends is over after some seconds, with FATAL", async () => {
  const held = await holdCatalog();
  const administrator = await connect();
  const endedIn = await timeOf(async () => expect(await held.outcome).toBe("57014"));
  expect(endedIn).toBeLessThan(6_000);
  await until(
    async () => (await outcomeOf(administrator.query("CREATE ROLE after_that"))) !== "55000",
    5_000,
  );
});

test.each([
  ["simple", (client: pg.Client, sql: string) => client.query(sql)],
  [
    "extended",
    (client: pg.Client, sql: string) => client.query({ text: sql, values: [], ...{ queryMode: "extended" } }),
  ],
] as const)(
  "a statement of ours that needs what its own transaction has locked is refused (%s)",
  async (_, run) => {
    const [client, other] = [await connect(), await connect()];
    await run(client, "BEGIN");
    await run(client, "GRANT CREATE ON DATABASE postgres TO alice");
    let refusal = "";
    const refusedIn = timeOf(async () => {
      refusal = await outcomeOf(run(client, "GRANT CONNECT ON DATABASE postgres TO alice"));
    });
    // Another one's waits for no longer either.
    const others = outcomeOf(other.query("ALTER USER alice CONNECTION LIMIT 7"));
    expect(await refusedIn).toBeLessThan(5_000);
    expect(refusal).toBe("55000");
    expect(["ALTER", "55000"]).toContain(await others);
    expect(await outcomeOf(run(client, "SELECT 1"))).toBe("25P02");
    await run(client, "ROLLBACK");
    expect(await outcomeOf(run(client, "GRANT CONNECT ON DATABASE postgres TO alice"))).toBe("GRANT");
    await run(client, "REVOKE CONNECT ON DATABASE postgres FROM alice");
  },
);

test("a COMMIT that waits for what its own transaction has locked is refused, with both parts", async () => {
  const client = await connect();
  await client.query("CREATE TABLE written (id int)");
  await client.query("BEGIN");
  await client.query("GRANT CONNECT ON DATABASE postgres TO alice");
  await client.query("GRANT TEMPORARY ON DATABASE postgres TO alice");
  await client.query("INSERT INTO written VALUES (1)");
  let refusal = "";
  expect(
    await timeOf(async () => {
      refusal = await outcomeOf(client.query("COMMIT"));
    }),
  ).toBeLessThan(5_000);
  expect(refusal).toBe("55000");
  expect((await client.query("SELECT FROM written")).rowCount).toBe(0);
  const granted = await stage.past("SELECT datacl::text AS acl FROM pg_database WHERE datname = 'postgres'");
  expect(granted[0]?.acl).not.toContain("alice");
});
