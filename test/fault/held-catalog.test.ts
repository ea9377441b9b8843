/** What one client's transaction can hold up, for how long, and what it cannot. */

import type pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type FrontEnd, startFrontEnd } from "../support/front-end.ts";
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

describe("with a second front-end on the same PostgreSQL", () => {
  let second: FrontEnd;

  beforeAll(async () => {
    second = await startFrontEnd({ upstreamUrl: stage.postgres.url, besides: stage.frontEnd.dataDir });
  });
  afterAll(() => second?.close());

  test("open transactions with statements of ours hold no lock that another administrator could wait for", async () => {
    const setUp = await connect();
    for (const sql of [
      "CREATE USER altered PASSWORD 'long enough to be taken'",
      "CREATE USER dropped PASSWORD 'long enough to be taken'",
      "CREATE ROLE inherited",
      "CREATE SERVICE ACCOUNT 'robot' FOR DATABASE postgres",
    ]) {
      await setUp.query(sql);
    }
    /** Every kind of change, each in an open block of its own, and what others do meanwhile, through either front-end. */
    const changes = [
      [
        "CREATE USER one PASSWORD 'long enough to be taken'",
        "CREATE USER two PASSWORD 'long enough to be taken'",
      ],
      ["ALTER USER altered CONNECTION LIMIT 3", "ALTER USER altered CONNECTION LIMIT 4"],
      ["ALTER USER altered SET ROLE readonly", "ALTER USER altered SET ROLE readwrite"],
      ["GRANT inherited TO altered", "GRANT inherited TO altered"],
      ["GRANT CONNECT ON DATABASE postgres TO altered", "GRANT CONNECT ON DATABASE postgres TO altered"],
      ["CREATE ROLE three", "CREATE ROLE four"],
      ["ALTER ROLE inherited SET INHERIT readonly", "ALTER ROLE inherited SET INHERIT readwrite"],
      ["CREATE TENANT five", "CREATE TENANT six"],
      ["CREATE API KEY 'seven' FOR altered", "CREATE API KEY 'eight' FOR altered"],
      ["DROP SERVICE ACCOUNT 'robot'", "ALTER SERVICE ACCOUNT 'robot' SET ROLE readonly"],
      ["DROP USER dropped", "ALTER USER dropped RENAME TO renamed"],
    ] as const;
    for (const [held] of changes) {
      const client = await connect();
      await client.query("BEGIN");
      await client.query(held);
    }
    const open =
      "SELECT FROM pg_stat_activity WHERE usename = 'postgres' AND state LIKE 'idle in transaction%'";
    expect(await stage.past(open)).toEqual([]);
    const others = [await connect(stage.frontEnd.adminUser, { port: second.port }), await connect()];
    // One that had to wait would be refused after three seconds.
    for (const [index, [, sql]] of changes.entries()) {
      expect(await outcomeOf(others[index % 2]?.query(sql) ?? Promise.reject()), sql).toBe(sql.split(" ")[0]);
    }
  }, 60_000);
});
