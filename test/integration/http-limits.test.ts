/** What an HTTP request may take: rows, bytes, time, places; who goes away and who is sent away. */

import { connect } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createKey, type HttpClient, httpClient } from "../support/http.ts";
import { openStage, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

let stage: Stage;
let http: HttpClient;
let key: string;

const isRunning = async (marker: string) =>
  (
    await stage.past(
      "SELECT FROM pg_stat_activity WHERE usename = 'alice' AND state = 'active' AND query LIKE $1",
      [`%${marker}%`],
    )
  ).length > 0;

beforeAll(async () => {
  stage = await openStage({
    users: ["alice", "bob", "carol"],
    configuration: `
[http]
max_rows = 100
max_response = "64KiB"
statement_timeout = "10s"
requests_per_min = 200

[upstream]
pool_size = 4
`,
  });
  http = httpClient(`http://127.0.0.1:${stage.frontEnd.httpPort}`);
  await stage.asAdmin("CREATE TABLE item (id int)");
  await stage.asAdmin("GRANT ALL ON item TO alice");
  key = await createKey(stage, "alice-key", "FOR alice");
});

afterAll(() => stage?.close());

describe("the size of an answer", () => {
  test("is max_rows at most, and a statement with more is undone", async () => {
    expect((await http.query(key, { sql: "SELECT generate_series(1, 100)" })).body.rowCount).toBe(100);
    const select = await http.query(key, { sql: "SELECT generate_series(1, 101)" });
    expect([select.status, select.body.error.code]).toEqual([413, "54000"]);
    expect(select.body.error.message).toContain("100 rows");
    const insert = { sql: "INSERT INTO item SELECT generate_series(1, 101) RETURNING id" };
    expect((await http.query(key, insert)).status).toBe(413);
    expect(
      (await http.query(key, { queries: [{ sql: "INSERT INTO item VALUES (1)" }, insert] })).status,
    ).toBe(413);
    expect(await stage.past("SELECT FROM item")).toEqual([]);
  });

  test("is max_response at most, in one row or in many", async () => {
    for (const sql of ["SELECT repeat('x', 70000)", "SELECT repeat('x', 7000) FROM generate_series(1, 20)"]) {
      const { status, body } = await http.query(key, { sql });
      expect([status, body.error.code], sql).toEqual([413, "54000"]);
    }
    const insert = "INSERT INTO item SELECT generate_series(1, 50) RETURNING repeat('x', 7000)";
    expect((await http.query(key, { sql: insert })).status).toBe(413);
    expect(await stage.past("SELECT FROM item")).toEqual([]);
    expect((await http.query(key, { sql: "SELECT repeat('x', 60000) AS x" })).status).toBe(200);
  });
});

describe("the time of a statement", () => {
  test("is timeoutMs, and not more than is configured", async () => {
    const startedAt = performance.now();
    const { status, body } = await http.query(key, { sql: "SELECT pg_sleep(60)", timeoutMs: 200 });
    expect([status, body.error.code, body.error.message]).toEqual([
      408,
      "57014",
      "canceling statement due to statement timeout",
    ]);
    expect(performance.now() - startedAt).toBeLessThan(5_000);
    expect(await isRunning("pg_sleep(60)")).toBe(false);
    expect((await http.query(key, { sql: "SELECT 1", timeoutMs: 10_001 })).status).toBe(400);
  });

  test("cannot be made longer by the statement", async () => {
    const queries = [{ sql: "SET statement_timeout = 0" }, { sql: "SELECT pg_sleep(60)" }];
    expect((await http.query(key, { queries, timeoutMs: 200 })).body.error.code).toBe("57014");
  });

  test("undoes what came before it", async () => {
    const queries = [{ sql: "INSERT INTO item VALUES (1)" }, { sql: "SELECT pg_sleep(60)" }];
    expect((await http.query(key, { queries, timeoutMs: 200 })).body.error).toMatchObject({
      code: "57014",
      query: 1,
    });
    expect(await stage.past("SELECT FROM item")).toEqual([]);
  });
});

describe("who goes away", () => {
  test("takes the statement along", async () => {
    const gone = new AbortController();
    const asked = http
      .query(key, { sql: "SELECT pg_sleep(61)" }, { signal: gone.signal })
      .catch(() => "gone");
    await until(() => isRunning("pg_sleep(61)"));
    gone.abort();
    expect(await asked).toBe("gone");
    await until(async () => !(await isRunning("pg_sleep(61)")));
  });

  test("leaves the queue as well", async () => {
    const gone = new AbortController();
    const busy = Array.from({ length: 4 }, () =>
      http.query(key, { sql: "SELECT pg_sleep(62)" }, { signal: gone.signal }).catch(() => "gone"),
    );
    await until(
      async () =>
        (
          await stage.past(
            "SELECT FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(62)%' AND usename = 'alice'",
          )
        ).length === 4,
    );
    const queued = new AbortController();
    const waiting = http
      .query(key, { sql: "INSERT INTO item VALUES (63)" }, { signal: queued.signal })
      .catch(() => "gone");
    await until(async () =>
      (await stage.asAdmin("SHOW SESSIONS")).rows.some(({ state }) => state === "waiting"),
    );
    queued.abort();
    expect(await waiting).toBe("gone");
    await until(
      async () => !(await stage.asAdmin("SHOW SESSIONS")).rows.some(({ state }) => state === "waiting"),
    );
    gone.abort();
    await Promise.all(busy);
    expect((await http.query(key, { sql: "SELECT count(*)::int AS n FROM item" })).body.rows).toEqual([
      { n: 0 },
    ]);
  });
});

describe("a request as a session", () => {
  test("is listed, and KILL SESSION ends it", async () => {
    const asked = http.query(key, { sql: "SELECT pg_sleep(64)" });
    await until(() => isRunning("pg_sleep(64)"));
    const rows = (await stage.asAdmin("SHOW SESSIONS")).rows;
    const session = rows.find(({ protocol }) => protocol === "http");
    expect(session).toMatchObject({
      username: "alice",
      auth_method: "api-key",
      client_addr: "127.0.0.1",
      database: "postgres",
      state: "active",
    });
    await stage.asAdmin(`KILL SESSION '${session?.session_id}'`);
    const { status, body } = await asked;
    expect([status, body.error.code]).toEqual([503, "57P01"]);
    await until(async () => !(await isRunning("pg_sleep(64)")));
  });

  test("ends after its statement when its key is revoked", async () => {
    const second = await createKey(stage, "second", "FOR alice");
    const asked = http.query(second, {
      queries: [
        { sql: "INSERT INTO item VALUES (65)" },
        { sql: "SELECT pg_sleep(1.5)" },
        { sql: "SELECT 1" },
      ],
    });
    await until(() => isRunning("pg_sleep(1.5)"));
    await stage.asAdmin("DROP API KEY 'second'");
    const { status, body } = await asked;
    expect([status, body.error.code, body.error.query]).toEqual([503, "57P01", 2]);
    expect(await stage.past("SELECT FROM item")).toEqual([]);
    expect((await http.query(second, { sql: "SELECT 1" })).status).toBe(401);
  });

  test("counts against the owner's connection limit", async () => {
    await stage.asAdmin("ALTER USER carol CONNECTION LIMIT 1");
    const carol = await createKey(stage, "carol-key", "FOR carol");
    const client = await stage.connect("carol");
    const { status, body, headers } = await http.query(carol, { sql: "SELECT 1" });
    expect([status, body.error.code, headers.get("retry-after")]).toEqual([503, "53300", "1"]);
    await client.end();
    await until(async () => (await http.query(carol, { sql: "SELECT 1" })).status === 200);
  });
});

test("never lends one identity's connection to another", async () => {
  const bob = await createKey(stage, "bob-key", "FOR bob");
  const tokens = [key, bob, key, bob];
  const answers = await Promise.all(
    Array.from({ length: 40 }, (_, index) =>
      http.query(tokens[index % 4] ?? key, {
        sql: "SELECT session_user AS su, current_user AS cu, $auth.id AS id, pg_backend_pid() AS pid",
      }),
    ),
  );
  const pids = { alice: new Set<number>(), bob: new Set<number>() };
  for (const [index, { body }] of answers.entries()) {
    const name = index % 2 === 0 ? "alice" : "bob";
    expect(body.rows[0]).toMatchObject({ su: name, cu: name, id: name });
    pids[name].add(body.rows[0].pid);
  }
  expect([...pids.alice].filter((pid) => pids.bob.has(pid))).toEqual([]);
});

test("requests beyond the rate get 429, of one identity only", async () => {
  const eager = await createKey(stage, "eager", "ROLE readonly");
  let refused = 0;
  for (let count = 0; count < 210; count += 1) {
    const { status, headers } = await http.query(eager, { sql: "SELECT 1" });
    if (status === 429) {
      refused += 1;
      expect(Number(headers.get("retry-after"))).toBeGreaterThan(0);
    }
  }
  expect(refused).toBe(10);
  expect((await http.query(key, { sql: "SELECT 1" })).status).toBe(200);
});

test("a client that dawdles over its header or body is dropped", async () => {
  const slow = await openStage({ configuration: 'server.authentication_timeout = "1s"\n' });
  try {
    for (const beginning of ["", "POST /v1/query HTTP/1.1\r\nHost: x\r\n"]) {
      const socket = connect(slow.frontEnd.httpPort, "127.0.0.1");
      socket.write(beginning);
      let answer = "";
      socket.on("data", (chunk) => {
        answer += chunk;
      });
      await new Promise((resolve) => socket.once("close", resolve));
      if (beginning !== "") expect(answer).toContain("408 Request Timeout");
    }
  } finally {
    await slow.close();
  }
});
