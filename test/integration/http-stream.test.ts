/** POST /v1/query/stream: lines as the rows come, a slow reader holds PostgreSQL back, and how it ends. */

import { readFileSync } from "node:fs";
import { type IncomingMessage, request } from "node:http";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createKey, type HttpClient, httpClient } from "../support/http.ts";
import { openStage, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

let stage: Stage;
let http: HttpClient;
let key: string;

const stream = (body: object) => http.post("/v1/query/stream", body, { token: key });
const linesOf = (text: string) => {
  expect(text.endsWith("\n")).toBe(true);
  return text
    .slice(0, -1)
    .split("\n")
    .map((line) => JSON.parse(line));
};
const activity = async (marker: string) =>
  (await stage.past(
    "SELECT state, wait_event FROM pg_stat_activity WHERE usename = 'alice' AND state = 'active' AND query LIKE $1",
    [`%${marker}%`],
  )) as { state: string; wait_event: string | null }[];

beforeAll(async () => {
  stage = await openStage({
    configuration: '[http]\nmax_rows = 10\nmax_response = "1MiB"\nstatement_timeout = "20s"\n',
  });
  http = httpClient(`http://127.0.0.1:${stage.frontEnd.httpPort}`);
  await stage.asAdmin("CREATE TABLE item (id int)");
  await stage.asAdmin("GRANT ALL ON item TO alice");
  await stage.asAdmin("CREATE TYPE mood AS ENUM ('sad')");
  key = await createKey(stage, "alice-key", "FOR alice");
});

afterAll(() => stage?.close());

describe("the lines", () => {
  test("are meta, rows and end", async () => {
    const { status, text, headers } = await stream({
      sql: "SELECT $1::int AS a, 'sad'::mood AS b",
      params: [1],
    });
    expect(status).toBe(200);
    expect(headers.get("content-type")).toBe("application/x-ndjson; charset=utf-8");
    const [meta, ...rest] = linesOf(text);
    expect(meta.meta.fields).toMatchObject([
      { name: "a", oid: 23, type: "int4" },
      { name: "b", type: "mood" },
    ]);
    expect(rest).toEqual([{ row: { a: 1, b: "sad" } }, { end: { command: "SELECT", rowCount: 1 } }]);
  });

  test("are as many as there are rows, beyond every limit of an answer", async () => {
    const { text } = await stream({
      sql: "SELECT n, repeat('x', 100) FROM generate_series(1, 50000) n",
      rowMode: "array",
    });
    const lines = linesOf(text);
    expect(lines.length).toBe(50_002);
    expect(lines[1].row[0]).toBe(1);
    expect(lines[50_000].row[0]).toBe(50_000);
    expect(lines[50_001].end).toEqual({ command: "SELECT", rowCount: 50_000 });
  });

  test("stay lines when a json value holds line feeds", async () => {
    const { text } = await stream({ sql: `SELECT E'{\\n"a":\\r\\n1, "b": "x\\\\ny"}'::json AS j` });
    expect(linesOf(text)[1]).toEqual({ row: { j: { a: 1, b: "x\ny" } } });
    const several = await stream({ sql: `SELECT E'line\nfeed' AS t, ARRAY[E'[1,\n2]']::json[] AS j` });
    expect(linesOf(several.text)[1]).toEqual({ row: { t: "line\nfeed", j: [[1, 2]] } });
    await stage.asAdmin("CREATE DOMAIN document AS json");
    const domain = await stream({ sql: `SELECT E'[1,\n2]'::document AS j` });
    expect(linesOf(domain.text)[1]).toEqual({ row: { j: [1, 2] } });
  });

  test("serve commands and statements of ours as well", async () => {
    expect(linesOf((await stream({ sql: "INSERT INTO item VALUES (1)" })).text)).toEqual([
      { meta: { fields: [] } },
      { end: { command: "INSERT", rowCount: 1 } },
    ]);
    const lines = linesOf((await stream({ sql: "SHOW SESSION" })).text);
    expect(lines[1].row).toMatchObject({ username: "alice" });
    expect(lines[2].end).toEqual({ command: "SHOW", rowCount: 1 });
  });

  test("rewrite $auth", async () => {
    expect(linesOf((await stream({ sql: "SELECT $auth.id AS id" })).text)[1]).toEqual({
      row: { id: "alice" },
    });
  });
});

describe("an error", () => {
  test("before the first row is an answer with its own status", async () => {
    for (const [sql, status, code] of [
      ["SELECT nothing", 400, "42703"],
      ["SELEC", 400, "42601"],
      ["SELECT 1 AS a, 2 AS a", 400, "42701"],
      ["COPY item TO STDOUT", 501, "0A000"],
      ["CREATE USER x PASSWORD 'xxxxxxxx'", 403, "42501"],
      ["SELECT 1 / (n - 1) FROM generate_series(1, 5) n", 400, "22012"],
      ["DO $$ BEGIN RAISE unique_violation; END $$", 409, "23505"],
    ] as const) {
      const answer = await stream({ sql });
      expect([answer.status, answer.body.error.code], sql).toEqual([status, code]);
    }
  });

  test("after it is the last line", async () => {
    // PostgreSQL sends rows when it has 8 KiB of them.
    const { status, text } = await stream({
      sql: "SELECT 1 / (3 - n) AS q, repeat('x', 10000) FROM generate_series(1, 5) n",
    });
    expect(status).toBe(200);
    const lines = linesOf(text);
    expect(lines.at(-1)).toMatchObject({ error: { code: "22012", message: "division by zero" } });
    expect(lines.filter(({ row }) => row !== undefined).length).toBe(2);
  });

  test("is what a statement ends with that takes too long, or is killed", async () => {
    const late = await stream({
      sql: "SELECT n, repeat('x', 10000), pg_sleep(n - 1) FROM generate_series(1, 60) n",
      timeoutMs: 300,
    });
    expect(late.status).toBe(200);
    expect(linesOf(late.text).at(-1).error.code).toBe("57014");
    const asked = stream({
      sql: "SELECT n, repeat('x', 10000), pg_sleep(n * 10 - 10) AS killed FROM generate_series(1, 60) n",
    });
    await until(async () => (await activity("AS killed")).length > 0);
    const session = (await stage.asAdmin("SHOW SESSIONS")).rows.find(({ protocol }) => protocol === "http");
    await stage.asAdmin(`KILL SESSION '${session?.session_id}'`);
    expect(linesOf((await asked).text).at(-1).error.code).toBe("57P01");
  });

  test("is a row that is larger than an answer may be", async () => {
    const lines = linesOf(
      (
        await stream({
          sql: "SELECT repeat('x', CASE n WHEN 1 THEN 10000 ELSE 2000000 END) AS x FROM generate_series(1, 2) n",
        })
      ).text,
    );
    expect(lines.at(-1).error.code).toBe("54000");
    expect((await stream({ sql: "SELECT 1 AS a" })).status).toBe(200);
  });
});

test("a reader that waits holds PostgreSQL back, and one that goes ends it", async () => {
  const marker = "0.000001 AS slow";
  const sql = `SELECT repeat('x', 10000) AS x, ${marker} FROM generate_series(1, 100000)`;
  const asked = request(`${http.base}/v1/query/stream`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
  });
  asked.on("error", () => undefined);
  asked.end(JSON.stringify({ sql }));
  const response = await new Promise<IncomingMessage>((resolve) => asked.once("response", resolve));
  response.pause();
  // The sockets on the way fill up first, so PostgreSQL waits for short times before it waits for good.
  let inARow = 0;
  await until(async () => {
    inARow = (await activity(marker))[0]?.wait_event === "ClientWrite" ? inARow + 1 : 0;
    return inARow === 50;
  });
  // It stays so: nobody takes what PostgreSQL has, neither this reader nor the front-end's memory.
  const looks: (string | null | undefined)[] = [];
  for (let look = 0; look < 200; look += 1) looks.push((await activity(marker))[0]?.wait_event);
  expect(new Set(looks)).toEqual(new Set(["ClientWrite"]));
  expect(residentBytes()).toBeLessThan(300 * 1024 * 1024);
  // It goes on when the reader does.
  let seen = 0;
  response.on("data", (chunk: Buffer) => {
    seen += chunk.length;
    if (seen > 20_000_000) response.pause();
  });
  response.resume();
  await until(() => seen > 20_000_000);
  await until(async () => (await activity(marker))[0]?.wait_event === "ClientWrite");
  response.destroy();
  await until(async () => (await activity(marker)).length === 0);
});

test("a reader that is slow at first gets everything in the end", async () => {
  const asked = request(`${http.base}/v1/query/stream`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
  });
  asked.end(
    JSON.stringify({ sql: "SELECT n, repeat('y', 1000) AS paused FROM generate_series(1, 20000) n" }),
  );
  const response = await new Promise<IncomingMessage>((resolve) => asked.once("response", resolve));
  response.pause();
  await until(async () => (await activity("AS paused"))[0]?.wait_event === "ClientWrite");
  let text = "";
  response.setEncoding("utf8");
  for await (const chunk of response) text += chunk;
  const lines = linesOf(text);
  expect(lines.length).toBe(20_002);
  expect(lines.at(-1).end.rowCount).toBe(20_000);
});

function residentBytes(): number {
  const pages = Number(readFileSync(`/proc/${stage.frontEnd.processId}/statm`, "utf8").split(" ")[1]);
  return pages * 4096;
}
