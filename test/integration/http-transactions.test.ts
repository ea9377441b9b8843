/** Several statements of one HTTP request: all or none, PostgreSQL's and ours alike, and reads that cannot write. */

import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { createKey, type HttpClient, httpClient } from "../support/http.ts";
import { openStage, type Stage } from "../support/stage.ts";

let stage: Stage;
let http: HttpClient;
let key: string;
let adminKey: string;

const together = (token: string, sqls: readonly string[], more: object = {}) =>
  http.query(token, { queries: sqls.map((sql) => ({ sql })), ...more });
const names = async () => (await stage.asAdmin("SHOW USERS")).rows.map(({ username }) => String(username));
const roleExists = async (name: string) =>
  (await stage.past("SELECT FROM pg_roles WHERE rolname = $1", [name])).length === 1;
const ids = async () => (await stage.past("SELECT id FROM item ORDER BY id")).map(({ id }) => id);

beforeAll(async () => {
  stage = await openStage();
  http = httpClient(`http://127.0.0.1:${stage.frontEnd.httpPort}`);
  await stage.asAdmin("CREATE TABLE item (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)");
  await stage.asAdmin("CREATE SEQUENCE ids");
  await stage.asAdmin("GRANT ALL ON item TO alice");
  await stage.asAdmin("GRANT ALL ON SEQUENCE ids TO alice");
  key = await createKey(stage, "alice-key", "FOR alice");
  adminKey = await createKey(stage, "boss", "ROLE superuser");
});

beforeEach(() => stage.past("DELETE FROM item"));

afterAll(() => stage?.close());

describe("queries", () => {
  test("run in one transaction and answer one result each", async () => {
    const { status, body } = await http.query(key, {
      queries: [
        { sql: "INSERT INTO item VALUES ($1)", params: [1] },
        { sql: "SELECT id FROM item" },
        { sql: "SELECT pg_current_xact_id() = pg_current_xact_id() AS same, txid_current()::text AS xid" },
        { sql: "SELECT txid_current()::text AS xid" },
      ],
    });
    expect(status).toBe(200);
    expect(body.results[0]).toMatchObject({ command: "INSERT", rowCount: 1 });
    expect(body.results[1].rows).toEqual([{ id: 1 }]);
    expect(body.results[2].rows[0].xid).toBe(body.results[3].rows[0].xid);
    expect(await ids()).toEqual([1]);
  });

  test("undo everything when one fails, and say which", async () => {
    const { status, body } = await together(key, [
      "INSERT INTO item VALUES (1)",
      "SELECT 1/0",
      "INSERT INTO item VALUES (2)",
    ]);
    expect([status, body.error.code, body.error.query]).toEqual([400, "22012", 1]);
    expect(await ids()).toEqual([]);
  });

  test("undo everything when COMMIT fails", async () => {
    const { status, body } = await together(key, [
      "INSERT INTO item VALUES (1)",
      "INSERT INTO item VALUES (1)",
    ]);
    expect([status, body.error.code]).toEqual([409, "23505"]);
    expect(await ids()).toEqual([]);
  });

  test("run nothing when one of them cannot be run at all", async () => {
    for (const [sql, code] of [
      ["COMMIT", "0A000"],
      ["/* c */ ROLLBACK", "0A000"],
      ["SAVEPOINT a", "0A000"],
      ["SELECT 1; COMMIT", "42601"],
      ["CREATE USER", "42601"],
    ] as const) {
      const { body } = await together(key, [
        "INSERT INTO item VALUES (1)",
        sql,
        "INSERT INTO item VALUES (2)",
      ]);
      expect([body.error.code, body.error.query], sql).toEqual([code, 1]);
      expect(await ids()).toEqual([]);
    }
  });

  test("cannot be ended from inside a procedure or a block", async () => {
    await stage.asAdmin("CREATE PROCEDURE ends() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$");
    for (const sql of ["DO $$ BEGIN COMMIT; END $$", "CALL ends()", "DO $$ BEGIN EXECUTE 'COMMIT'; END $$"]) {
      const { body } = await together(key, ["INSERT INTO item VALUES (1)", sql]);
      expect(["2D000", "0A000"], sql).toContain(body.error.code);
      expect(await ids()).toEqual([]);
    }
  });

  test("have the isolation level that is asked for", async () => {
    for (const isolationLevel of ["read committed", "repeatable read", "serializable"]) {
      const { body } = await together(key, ["SHOW transaction_isolation"], { isolationLevel });
      expect(body.results[0].rows).toEqual([{ transaction_isolation: isolationLevel }]);
    }
    expect(
      (await together(key, ["SELECT 1"], { isolationLevel: "serializable; DROP TABLE item" })).status,
    ).toBe(400);
  });

  test("hold statements of ours and PostgreSQL's together", async () => {
    const { status, body } = await together(adminKey, [
      "CREATE USER dora PASSWORD 'dora dora'",
      "INSERT INTO item VALUES (5)",
      "GRANT SELECT ON item TO dora",
      "SHOW USERS",
    ]);
    expect(status).toBe(200);
    expect(body.results.map(({ command }: { command: string }) => command)).toEqual([
      "CREATE USER",
      "INSERT",
      "GRANT",
      "SHOW",
    ]);
    expect(body.results[3].rows.map(({ username }: { username: string }) => username)).toContain("dora");
    expect(await names()).toContain("dora");
    expect(await ids()).toEqual([5]);
    const dora = await stage.connect("dora", { password: "dora dora" });
    expect((await dora.query("SELECT id FROM item")).rows).toEqual([{ id: 5 }]);
    await dora.end();
  });

  test("make a key that holds with the rest, or is no key", async () => {
    const failed = await together(adminKey, ["CREATE API KEY 'lost' ROLE readonly", "SELECT 1/0"]);
    expect(failed.body.error.code).toBe("22012");
    expect(failed.text).not.toContain("api_key");
    const { body } = await together(adminKey, ["CREATE API KEY 'kept' ROLE readonly", "SELECT 1"]);
    const [kept] = body.results[0].rows;
    expect((await http.query(kept.api_key, { sql: "SELECT 1" })).status).toBe(200);
    const keys = (await stage.asAdmin("SHOW API KEYS")).rows.map((row) => JSON.stringify(row)).join();
    expect(keys).toContain("kept");
    expect(keys).not.toContain("lost");
  });

  test.each([
    [
      "PostgreSQL's fails",
      ["CREATE USER eve PASSWORD 'eve eve eve'", "INSERT INTO item VALUES (1)", "SELECT 1/0"],
      "22012",
    ],
    [
      "ours fails",
      [
        "INSERT INTO item VALUES (1)",
        "CREATE USER eve PASSWORD 'eve eve eve'",
        "CREATE USER alice PASSWORD 'alice alice'",
      ],
      "42710",
    ],
    [
      "COMMIT fails",
      [
        "CREATE USER eve PASSWORD 'eve eve eve'",
        "INSERT INTO item VALUES (1)",
        "INSERT INTO item VALUES (1)",
      ],
      "23505",
    ],
  ])("leave neither when %s", async (_what, sqls, code) => {
    const { body } = await together(adminKey, sqls);
    expect(body.error.code).toBe(code);
    expect(await names()).not.toContain("eve");
    expect(await roleExists("eve")).toBe(false);
    expect(await ids()).toEqual([]);
  });

  test("drop a user with the client's own changes, or not at all", async () => {
    await stage.asAdmin("CREATE USER frank PASSWORD 'frank frank'");
    const refused = await together(adminKey, [
      "INSERT INTO item VALUES (1)",
      "DROP USER frank",
      "INSERT INTO item VALUES (1)",
    ]);
    expect(refused.body.error.code).toBe("23505");
    expect(await names()).toContain("frank");
    expect(await roleExists("frank")).toBe(true);
    const { status } = await together(adminKey, ["INSERT INTO item VALUES (1)", "DROP USER frank"]);
    expect(status).toBe(200);
    expect(await names()).not.toContain("frank");
    expect(await roleExists("frank")).toBe(false);
    expect(await ids()).toEqual([1]);
  });

  test("refuse what is a transaction of its own", async () => {
    const { status, body } = await together(adminKey, [
      "INSERT INTO item VALUES (1)",
      "CREATE DATABASE of_its_own",
    ]);
    expect([status, body.error.code]).toEqual([409, "25001"]);
    expect(await ids()).toEqual([]);
  });

  test("cannot change the encoding in which they are read", async () => {
    for (const encoding of ["LATIN1", "SJIS"]) {
      const { body } = await together(key, [
        `SET client_encoding = '${encoding}'`,
        "INSERT INTO item VALUES (1)",
      ]);
      expect(body.error).toMatchObject({ code: "0A000", query: 0 });
    }
    expect(
      (await http.query(key, { sql: "SELECT set_config('client_encoding', 'LATIN1', false)" })).body.error
        .code,
    ).toBe("0A000");
    expect(await ids()).toEqual([]);
    expect((await http.query(key, { sql: "SHOW client_encoding" })).body.rows).toEqual([
      { client_encoding: "UTF8" },
    ]);
  });

  test("cannot change how the strings of those after them are read to slip something through", async () => {
    const { body } = await together(key, [
      "SET standard_conforming_strings = off",
      String.raw`SELECT 'it\'s; COMMIT; $auth.nothing' AS text`,
    ]);
    // Read as it stands it holds several statements; that is refused before the first is run.
    expect(body.error).toMatchObject({ code: "42601", query: 1 });
    const whole = await together(key, [
      "SET standard_conforming_strings = off",
      String.raw`SELECT 'it\'' AS text`,
    ]);
    expect(whole.body.results[1].rows).toEqual([{ text: "it'" }]);
    expect(await ids()).toEqual([]);
  });
});

describe("readOnly", () => {
  const attempts: readonly (readonly string[])[] = [
    ["INSERT INTO item VALUES (1)"],
    ["SET TRANSACTION READ WRITE", "INSERT INTO item VALUES (1)"],
    ["SET transaction_read_only = off", "INSERT INTO item VALUES (1)"],
    ["SET LOCAL transaction_read_only TO DEFAULT", "INSERT INTO item VALUES (1)"],
    ["RESET transaction_read_only", "INSERT INTO item VALUES (1)"],
    ["RESET ALL", "INSERT INTO item VALUES (1)"],
    ["SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "INSERT INTO item VALUES (1)"],
    ["SELECT set_config('transaction_read_only', 'off', true)", "INSERT INTO item VALUES (1)"],
    ["WITH w AS (INSERT INTO item VALUES (1) RETURNING id) SELECT * FROM w"],
    ["DO $$ BEGIN SET LOCAL transaction_read_only = off; INSERT INTO item VALUES (1); END $$"],
    ["DO $$ BEGIN COMMIT; INSERT INTO item VALUES (1); END $$"],
    ["EXPLAIN ANALYZE INSERT INTO item VALUES (1)"],
    ["PREPARE p AS INSERT INTO item VALUES (1)", "EXECUTE p"],
    ["COMMIT", "INSERT INTO item VALUES (1)"],
    ["SELECT 1; COMMIT; INSERT INTO item VALUES (1)"],
    ["SELECT nextval('ids')"],
    ["CREATE TABLE other (a int)"],
  ];

  test.each(attempts)("cannot be escaped: %s", async (...sqls) => {
    const all = await together(key, sqls, { readOnly: true });
    expect(all.body.status).toBe("error");
    for (const sql of sqls) await http.query(key, { sql, readOnly: true });
    for (const sql of sqls) await http.post("/v1/query/stream", { sql, readOnly: true }, { token: key });
    expect(await ids()).toEqual([]);
    expect(
      await stage.past("SELECT to_regclass('other') AS other, (SELECT is_called FROM ids) AS called"),
    ).toEqual([{ other: null, called: false }]);
  });

  test("would be escaped without the snapshot that is taken first", async () => {
    const client = await stage.connect("alice");
    await client.query("BEGIN READ ONLY");
    await client.query("SET TRANSACTION READ WRITE");
    await client.query("INSERT INTO item VALUES (1)");
    await client.query("ROLLBACK");
    await client.end();
  });

  test("reads, and shows what is ours, but changes no user", async () => {
    expect((await http.query(key, { sql: "SELECT 1 AS one", readOnly: true })).body.rows).toEqual([
      { one: 1 },
    ]);
    expect((await http.query(adminKey, { sql: "SHOW USERS", readOnly: true })).body.status).toBe("ok");
    const refused = await http.query(adminKey, {
      sql: "CREATE USER eve PASSWORD 'eve eve eve'",
      readOnly: true,
    });
    expect([refused.status, refused.body.error.code]).toEqual([409, "25006"]);
    expect(await names()).not.toContain("eve");
  });
});
