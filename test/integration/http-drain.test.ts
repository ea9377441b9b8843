/** What becomes of HTTP requests when the process is told to end: they are finished or told so, never cut off in silence. */

import { type IncomingMessage, request } from "node:http";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createKey, type HttpClient, httpClient } from "../support/http.ts";
import { openStage, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

let stage: Stage;
let http: HttpClient;
let key: string;

async function open(shutdownTimeout: string): Promise<void> {
  stage = await openStage({ configuration: `server.shutdown_timeout = "${shutdownTimeout}"\n` });
  http = httpClient(`http://127.0.0.1:${stage.frontEnd.httpPort}`);
  key = await createKey(stage, "alice-key", "FOR alice");
}

const isActive = async () => (await stage.running("alice")).some(({ state }) => state === "active");
const noNewConnection = () =>
  until(async () =>
    http.get("/healthz").then(
      () => false,
      () => true,
    ),
  );

/** A stream that is being read, or waits to be. */
async function openStream(sql: string): Promise<IncomingMessage> {
  const asked = request(`${http.base}/v1/query/stream`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
  });
  asked.end(JSON.stringify({ sql }));
  return new Promise<IncomingMessage>((resolve, reject) => {
    asked.once("response", resolve);
    asked.once("error", reject);
  });
}

async function lastLine(response: IncomingMessage): Promise<{ end?: unknown; error?: { code: string } }> {
  let text = "";
  for await (const chunk of response.setEncoding("utf8")) text += chunk;
  expect(response.complete).toBe(true);
  return JSON.parse(text.trimEnd().split("\n").at(-1) ?? "");
}

afterEach(() => stage?.close());

describe("within the time for it", () => {
  beforeEach(() => open("20s"));

  test("a request is answered, and the process ends with it", async () => {
    const asked = http.query(key, { sql: "SELECT pg_sleep(1.5), 'whole' AS answer" });
    await until(isActive);
    stage.frontEnd.signal("SIGTERM");
    await noNewConnection();
    expect((await asked).body.rows[0].answer).toBe("whole");
    expect(await stage.frontEnd.exited).toBe(0);
  });

  test("a stream comes to its end", async () => {
    const response = await openStream(
      "SELECT n, repeat('x', 10000), pg_sleep(0.02) FROM generate_series(1, 100) n",
    );
    stage.frontEnd.signal("SIGTERM");
    await noNewConnection();
    expect(await lastLine(response)).toEqual({ end: { command: "SELECT", rowCount: 100 } });
    expect(await stage.frontEnd.exited).toBe(0);
  });

  test("several statements are all run", async () => {
    const asked = http.query(key, {
      queries: [
        { sql: "CREATE TEMP TABLE t (n int)" },
        { sql: "SELECT pg_sleep(1)" },
        { sql: "SELECT 7 AS n" },
      ],
    });
    await until(isActive);
    stage.frontEnd.signal("SIGTERM");
    expect((await asked).body.results[2].rows).toEqual([{ n: 7 }]);
    expect(await stage.frontEnd.exited).toBe(0);
  });

  test("the answer tells that the connection is at its end, so that nobody sends more on it", async () => {
    const before = await http.query(key, { sql: "SELECT 1" });
    expect(before.headers.get("connection")).toBe("keep-alive");
    const asked = http.query(key, { sql: "SELECT pg_sleep(1.5)" });
    const response = await openStream(
      "SELECT n, repeat('x', 10000), pg_sleep(0.02) FROM generate_series(1, 100) n",
    );
    await until(isActive);
    stage.frontEnd.signal("SIGTERM");
    await noNewConnection();
    expect((await asked).headers.get("connection")).toBe("close");
    // Its header had been sent before: the connection is closed after it all the same, or the process would stay.
    expect(await lastLine(response)).toHaveProperty("end");
    expect(await stage.frontEnd.exited).toBe(0);
  });
});

describe("when the time is over", () => {
  beforeEach(() => open("500ms"));

  test("a request gets 503 with 57P01, and PostgreSQL gives its statement up", async () => {
    const asked = http.query(key, { sql: "SELECT pg_sleep(60)" });
    await until(isActive);
    stage.frontEnd.signal("SIGTERM");
    const { status, body, headers } = await asked;
    expect([status, body.error.code, headers.get("retry-after")]).toEqual([503, "57P01", "1"]);
    expect(await stage.frontEnd.exited).toBe(0);
    expect(await isActive()).toBe(false);
  });

  test("a stream ends with an error as its last line", async () => {
    const response = await openStream(
      "SELECT n, repeat('x', 10000), pg_sleep(n / 10) FROM generate_series(1, 100) n",
    );
    stage.frontEnd.signal("SIGTERM");
    expect(await lastLine(response)).toMatchObject({ error: { code: "57P01" } });
    expect(await stage.frontEnd.exited).toBe(0);
    expect(await isActive()).toBe(false);
  });

  test("a stream that nobody reads does not keep the process", async () => {
    const response = await openStream("SELECT repeat('x', 10000) FROM generate_series(1, 100000)");
    response.pause();
    await until(async () =>
      (
        await stage.past(
          "SELECT wait_event FROM pg_stat_activity WHERE usename = 'alice' AND state = 'active'",
        )
      ).some(({ wait_event: event }) => event === "ClientWrite"),
    );
    stage.frontEnd.signal("SIGTERM");
    expect(await stage.frontEnd.exited).toBe(0);
    // What it has got cannot be taken for the whole.
    await expect(lastLine(response)).rejects.toThrow("aborted");
    expect(await isActive()).toBe(false);
  });
});
