/** POST /v1/query: what comes back for PostgreSQL's statements and ours, in which form, and as whom they run. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createKey, type HttpClient, httpClient } from "../support/http.ts";
import { openStage, type Stage } from "../support/stage.ts";

let stage: Stage;
let http: HttpClient;
let key: string;
let adminKey: string;

const run = (sql: string, params: unknown[] = [], more: object = {}) =>
  http.query(key, { sql, params, ...more });
/** The one value of a query. */
const value = async (sql: string, params: unknown[] = []) => {
  const { status, body } = await run(sql, params, { rowMode: "array" });
  expect(body).toMatchObject({ status: "ok" });
  expect(status).toBe(200);
  return body.rows[0][0];
};

beforeAll(async () => {
  stage = await openStage();
  http = httpClient(`http://127.0.0.1:${stage.frontEnd.httpPort}`);
  await stage.asAdmin("CREATE TABLE item (id int PRIMARY KEY, name text, price numeric)");
  await stage.asAdmin("GRANT ALL ON item TO alice");
  key = await createKey(stage, "alice-key", "FOR alice");
  adminKey = await createKey(stage, "boss", "ROLE superuser");
});

afterAll(() => stage?.close());

describe("POST /v1/query", () => {
  test("runs a statement as the key's owner and answers with fields and rows", async () => {
    const { status, body, headers } = await run("SELECT current_user AS me, 1 AS one, 2::int8 AS two");
    expect(status).toBe(200);
    expect(headers.get("content-type")).toBe("application/json; charset=utf-8");
    expect(body).toEqual({
      status: "ok",
      command: "SELECT",
      rowCount: 1,
      fields: [
        { name: "me", oid: 19, type: "name" },
        { name: "one", oid: 23, type: "int4" },
        { name: "two", oid: 20, type: "int8" },
      ],
      rows: [{ me: "alice", one: 1, two: "2" }],
    });
  });

  test("counts the rows of commands, and names those without", async () => {
    expect((await run("INSERT INTO item VALUES (1, 'a', 1.50), (2, 'b', 2)")).body).toEqual({
      status: "ok",
      command: "INSERT",
      rowCount: 2,
      fields: [],
      rows: [],
    });
    expect((await run("UPDATE item SET name = 'c' RETURNING id, price")).body).toMatchObject({
      command: "UPDATE",
      rowCount: 2,
      rows: [
        { id: 1, price: "1.50" },
        { id: 2, price: "2" },
      ],
    });
    expect((await run("DELETE FROM item")).body).toMatchObject({ command: "DELETE", rowCount: 2 });
    expect((await run("SET work_mem = '8MB'")).body).toMatchObject({ command: "SET", rowCount: null });
    expect((await run("")).body).toMatchObject({ command: "", rowCount: null, rows: [] });
    expect((await run("DO $$ BEGIN RAISE NOTICE 'heard'; END $$")).body).toMatchObject({
      notices: ["heard"],
    });
  });

  test.each([
    ["true", true],
    ["NULL::bool", null],
    ["32767::int2", 32767],
    ["'-2147483648'::int4", -2147483648],
    ["9223372036854775807::int8", "9223372036854775807"],
    ["0.1::numeric", "0.1"],
    ["'NaN'::numeric", "NaN"],
    ["1e300::float8", 1e300],
    ["0.1::float4", 0.1],
    ["'-0'::float8", -0],
    ["'NaN'::float8", "NaN"],
    ["'-Infinity'::float8", "-Infinity"],
    ["'Infinity'::float4", "Infinity"],
    ["date '2024-02-29'", "2024-02-29"],
    ["timestamptz '2024-02-29 12:00:00.5+00'", "2024-02-29 12:00:00.5+00"],
    ["interval '1 day 2 hours'", "1 day 02:00:00"],
    ["'\\xdeadbeef'::bytea", "\\xdeadbeef"],
    ["'{\"a\": [1, null]}'::jsonb", { a: [1, null] }],
    ["'{\"big\": 12345678901234567890}'::json::text", '{"big": 12345678901234567890}'],
    ["'null'::json", null],
    ["E'line\\nfeed \"quoted\" \\\\ back'", 'line\nfeed "quoted" \\ back'],
    ["'ä€😀'", "ä€😀"],
    ["'00000000-0000-4000-8000-000000000000'::uuid", "00000000-0000-4000-8000-000000000000"],
    ["'{}'::int[]", []],
    ["'{1,NULL,3}'::int[]", [1, null, 3]],
    ["'[0:1]={1,2}'::int[]", [1, 2]],
    [
      "'{{1,2},{3,4}}'::int8[]",
      [
        ["1", "2"],
        ["3", "4"],
      ],
    ],
    [
      "ARRAY['NULL', NULL, '', 'a,b', '{x}', E'q\"uote', E'back\\\\slash']",
      ["NULL", null, "", "a,b", "{x}", 'q"uote', "back\\slash"],
    ],
    ["ARRAY[true, false]", [true, false]],
    ["ARRAY['{\"a\": 1}', '[2]']::jsonb[]", [{ a: 1 }, [2]]],
    ["ARRAY['NaN', 1.5]::float8[]", ["NaN", 1.5]],
    ["ARRAY['(1,2),(3,4)'::box, '(0,0),(1,1)']", ["(3,4),(1,2)", "(1,1),(0,0)"]],
    ["'1 2 3'::int2vector", "1 2 3"],
    ["'[1,3)'::int4range", "[1,3)"],
    ["ARRAY['[1,3)', 'empty']::int4range[]", ["[1,3)", "empty"]],
    ["'{[1,3),[5,7)}'::int4multirange", "{[1,3),[5,7)}"],
    ["'infinity'::date", "infinity"],
    ["timestamp '0044-03-15 12:00 BC'", "0044-03-15 12:00:00 BC"],
    ["time '24:00'", "24:00:00"],
    ["4294967295::oid", 4294967295],
    ["'pg_class'::regclass", "pg_class"],
    ["'x'::name", "x"],
    ["'ab'::char(4)", "ab  "],
    ["B'101'", "101"],
    ["'10.0.0.0/8'::cidr", "10.0.0.0/8"],
    ["'(1,2)'::point", "(1,2)"],
    ["'a:1'::tsvector", "'a':1"],
    ['\'{"a": "\\u0000"}\'::json', { a: "\0" }],
    ["-9007199254740993::int8", "-9007199254740993"],
    ["'1e-400'::numeric = 0", false],
    ["5e-324::float8", 5e-324],
    ["ROW(1, 'x')", "(1,x)"],
  ])("gives %s as JSON", async (sql, expected) => {
    expect(await value(`SELECT ${sql}`)).toEqual(expected);
  });

  test("gives json as PostgreSQL has it, byte for byte", async () => {
    const { text } = await run(`SELECT '{"b":12345678901234567890,  "a":1,"a":2}'::json AS j`);
    expect(text).toContain(`"rows":[{"j":{"b":12345678901234567890,  "a":1,"a":2}}]`);
  });

  test("knows types that were made in the database, and arrays of them", async () => {
    await stage.asAdmin("CREATE TYPE mood AS ENUM ('sad', 'a, b')");
    await stage.asAdmin("CREATE DOMAIN positive AS int CHECK (VALUE > 0)");
    await stage.asAdmin("CREATE DOMAIN more_positive AS positive");
    await stage.asAdmin("CREATE TYPE pair AS (a int, b text)");
    const { body } = await run(
      "SELECT 'sad'::mood AS e, ARRAY['sad', 'a, b']::mood[] AS es, 1::positive AS d, ARRAY[1, 2]::more_positive[] AS ds, ROW(1, 'x')::pair AS c",
    );
    expect(body.rows).toEqual([{ e: "sad", es: ["sad", "a, b"], d: 1, ds: [1, 2], c: "(1,x)" }]);
    expect(body.fields.map(({ type }: { type: string }) => type)).toEqual([
      "mood",
      "mood[]",
      "int4",
      "more_positive[]",
      "pair",
    ]);
  });

  test("binds parameters, whose types PostgreSQL infers", async () => {
    expect(await value("SELECT $1::int + $2", [1, 2])).toBe(3);
    expect(await value("SELECT $1::text", ["'; DROP TABLE item; --"])).toBe("'; DROP TABLE item; --");
    expect(await value("SELECT $1::bool", [false])).toBe(false);
    expect(await value("SELECT $1::text IS NULL", [null])).toBe(true);
    expect(await value("SELECT $1::numeric", ["12345678901234567890.123"])).toBe("12345678901234567890.123");
    expect(await value("SELECT $1::int[]", [[1, null, 3]])).toEqual([1, null, 3]);
    expect(await value("SELECT $1::text[]", [["NULL", null, 'a"b', "c\\d", "{}", ""]])).toEqual([
      "NULL",
      null,
      'a"b',
      "c\\d",
      "{}",
      "",
    ]);
    expect(
      await value("SELECT $1::int[]", [
        [
          [1, 2],
          [3, 4],
        ],
      ]),
    ).toEqual([
      [1, 2],
      [3, 4],
    ]);
    expect(await value("SELECT $1::jsonb", [{ a: [1, { b: null }] }])).toEqual({ a: [1, { b: null }] });
    expect(await value("SELECT $1::jsonb", [[1, "x"]])).toEqual([1, "x"]);
    expect(await value("SELECT $1::jsonb[]", [[{ a: 1 }, "text", [2]]])).toEqual([{ a: 1 }, "text", [2]]);
    expect(await value("SELECT count(*) FROM item WHERE id = ANY ($1)", [[1, 2]])).toBe("0");
  });

  test("refuses parameters that it cannot pass on as they are", async () => {
    expect((await run("SELECT $1::text", [{ a: 1 }])).body.error).toMatchObject({ code: "22023" });
    expect(
      (await http.query(key, '{"sql": "SELECT $1::int8", "params": [9007199254740993]}')).body.error,
    ).toMatchObject({ code: "22003" });
    expect((await run("SELECT $1::text", ["a\0b"])).body.error).toMatchObject({ code: "22021" });
    expect(
      (await http.query(key, '{"sql": "SELECT $1::text", "params": ["\\ud800"]}')).body.error,
    ).toMatchObject({ code: "22021" });
    expect((await run("SELECT 1", [1])).body.error).toMatchObject({ code: "08P01" });
    expect((await run("SELECT $1::int", ["x"])).body.error).toMatchObject({ code: "22P02" });
  });

  test("tells columns of one name apart in arrays only, and undoes what it cannot show", async () => {
    expect((await run("SELECT 1 AS a, 2 AS a", [], { rowMode: "array" })).body.rows).toEqual([[1, 2]]);
    const { status, body } = await run("INSERT INTO item VALUES (7, 'x', 1) RETURNING id, id");
    expect([status, body.error.code]).toEqual([400, "42701"]);
    expect(await value("SELECT count(*) FROM item WHERE id = 7")).toBe("0");
  });

  test("runs one statement only", async () => {
    for (const sql of ["SELECT 1; SELECT 2", "SELECT 1; DROP TABLE item", "SHOW USERS; SELECT 1"]) {
      const { status, body } = await run(sql);
      expect([status, body.error.code]).toEqual([400, "42601"]);
      expect(body.error.hint).toContain("queries");
    }
    expect(await value("SELECT 1;")).toBe(1);
    expect(await value("SELECT ';' -- ; comment")).toBe(";");
  });

  test.each([
    ["BEGIN", "0A000"],
    ["/* x */ start transaction", "0A000"],
    ["COMMIT", "0A000"],
    ["END", "0A000"],
    ["ROLLBACK TO a", "0A000"],
    ["SAVEPOINT a", "0A000"],
    ["PREPARE TRANSACTION 'x'", "0A000"],
    ["COPY item TO STDOUT", "0A000"],
    ["COPY item FROM STDIN", "0A000"],
    ["LISTEN x", "0A000"],
  ])("refuses %s, which needs a session that lasts", async (sql, code) => {
    const { status, body } = await run(sql);
    expect([status, body.error.code]).toEqual([501, code]);
  });

  test("leaves nothing of one request to the next", async () => {
    const settings = ["work_mem = '9MB'", "search_path = pg_catalog", "ROLE NONE", "TimeZone = 'Asia/Tokyo'"];
    for (const setting of settings) await run(`SET ${setting}`);
    await run("CREATE TEMP TABLE left_over (a int)");
    await run("PREPARE p AS SELECT 1");
    await run("SELECT pg_advisory_lock(1)");
    for (let again = 0; again < 5; again += 1) {
      expect(await value("SELECT current_setting('work_mem')")).toBe("4MB");
      expect(await value("SELECT to_regclass('left_over')")).toBeNull();
      expect(await value("SELECT count(*) FROM pg_prepared_statements WHERE name = 'p'")).toBe("0");
      expect(await value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")).toBe("0");
    }
  });

  test("runs the front-end's own statements", async () => {
    const created = await http.query(adminKey, { sql: "CREATE USER carol PASSWORD 'carol carol'" });
    expect(created.body).toEqual({
      status: "ok",
      command: "CREATE USER",
      rowCount: null,
      fields: [],
      rows: [],
    });
    const shown = await http.query(adminKey, { sql: "SHOW USERS" });
    expect(shown.body.fields[0]).toEqual({ name: "username", oid: 25, type: "text" });
    expect(shown.body.rows.map(({ username }: { username: string }) => username)).toContain("carol");
    const made = await run("CREATE API KEY 'second' FOR alice");
    expect(made.body).toMatchObject({ command: "CREATE API KEY", rowCount: 1 });
    const second = made.body.rows[0].api_key;
    expect((await http.query(second, { sql: "SELECT current_user AS me" })).body.rows).toEqual([
      { me: "alice" },
    ]);
    await run("DROP API KEY 'second'");
    expect((await http.query(second, { sql: "SELECT 1" })).status).toBe(401);
    const refused = await run("CREATE USER mallory PASSWORD 'mallory mallory'");
    expect([refused.status, refused.body.error.code]).toEqual([403, "42501"]);
    expect((await run("SHOW SESSION")).body.rows[0]).toMatchObject({
      username: "alice",
      auth_method: "api-key",
    });
  });

  test("rewrites $auth", async () => {
    expect((await run("SELECT $auth.id AS id, $auth.role AS role")).body.rows).toEqual([
      { id: "alice", role: "readwrite" },
    ]);
  });

  test("words PostgreSQL's errors with their fields", async () => {
    await run("INSERT INTO item VALUES (1, 'a', 1)");
    const { status, body } = await run("INSERT INTO item VALUES (1, 'a', 1)");
    expect(status).toBe(409);
    expect(body).toEqual({
      status: "error",
      error: {
        code: "23505",
        message: 'duplicate key value violates unique constraint "item_pkey"',
        detail: "Key (id)=(1) already exists.",
        schema: "public",
        table: "item",
        constraint: "item_pkey",
        requestId: expect.stringMatching(/^[0-9a-f-]{36}$/),
      },
    });
    expect((await run("SELECT 'ä', nothing")).body.error).toMatchObject({ code: "42703", position: 13 });
  });
});
