/** Who is let in over HTTP and with what; and what is made of requests that are wrong, or meant to be. */

import { connect } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createKey, type HttpClient, httpClient } from "../support/http.ts";
import { openStage, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

let stage: Stage;
let http: HttpClient;
let key: string;

const one = { sql: "SELECT 1 AS one" };

/** Sends bytes as they are. @returns everything that comes back until the other side closes, or the answer's end */
function sendRaw(text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(stage.frontEnd.httpPort, "127.0.0.1");
    let answer = "";
    socket.setTimeout(2_000, () => socket.end());
    socket.on("data", (chunk) => {
      answer += chunk.toString("latin1");
    });
    socket.on("error", reject);
    socket.on("close", () => resolve(answer));
    socket.write(Buffer.from(text, "latin1"));
  });
}

const rawQuery = (headers: string, body = JSON.stringify(one)) =>
  `POST /v1/query HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\nConnection: close\r\n${headers}\r\n${body}`;

beforeAll(async () => {
  stage = await openStage({
    users: ["alice", "bob"],
    configuration: '[auth]\nlogin_attempts_per_ip_per_min = 0\n[log]\nlevel = "debug"\n',
  });
  http = httpClient(`http://127.0.0.1:${stage.frontEnd.httpPort}`);
  key = await createKey(stage, "alice-key", "FOR alice");
  await stage.past("CREATE DATABASE other");
  await stage.past('CREATE DATABASE "größe"');
});

afterAll(() => stage?.close());

describe("the credential", () => {
  test("must be there", async () => {
    const { status, body, headers } = await http.post("/v1/query", one);
    expect([status, body.error.code]).toEqual([401, "28000"]);
    expect(headers.get("www-authenticate")).toMatch(/^Bearer/);
  });

  test("gets the same answer however it is wrong", async () => {
    const { body: created } = await http.query(key, { sql: "CREATE API KEY 'lost' FOR alice" });
    const lost: string = created.rows[0].api_key;
    await stage.asAdmin("DROP API KEY 'lost'");
    const wrong = [
      `Bearer ${lost}`,
      `Bearer ${key.slice(0, -1)}${key.endsWith("A") ? "E" : "A"}`,
      `Bearer ndb_aaaaaaaaaaaa_${"A".repeat(43)}`,
      "Bearer x",
      "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.",
      `Bearer ${"x".repeat(10_000)}`,
      "Bearer",
      "Bearer ",
      `Token ${key}`,
      `Basic ${Buffer.from("alice:alicealice").toString("base64")}`,
      key,
      `Bearer ${key} ${key}`,
    ];
    for (const authorization of wrong) {
      const { status, body, headers } = await http.post("/v1/query", one, { headers: { authorization } });
      expect(status, authorization).toBe(401);
      expect(headers.get("www-authenticate")).toMatch(/^Bearer/);
      expect(body).toEqual({
        status: "error",
        error: { code: "28000", message: "authentication failed", requestId: expect.any(String) },
      });
    }
    expect(stage.frontEnd.output()).not.toContain(key.slice(17));
  });

  test("is read from one header only, and from nowhere else", async () => {
    expect(
      await sendRaw(rawQuery(`Authorization: Bearer ${key}\r\nAuthorization: Bearer ${key}\r\n`)),
    ).toMatch(/^HTTP\/1.1 400 /);
    for (const path of [`/v1/query?access_token=${key}`, `/v1/query?token=${key}`]) {
      expect((await http.post(path, one)).status).toBe(401);
    }
    const { status } = await http.post("/v1/query", { ...one, access_token: key });
    expect(status).toBe(401);
    expect(
      (await http.post("/v1/query", one, { headers: { cookie: `token=${key}`, "x-api-key": key } })).status,
    ).toBe(401);
  });

  test("is asked for before the body is read", async () => {
    const { status } = await http.post("/v1/query", "x".repeat(2_000_000));
    expect(status).toBe(401);
  });

  test("is of its owner, whoever a header says the client is", async () => {
    const headers = {
      "x-forwarded-for": "10.1.2.3",
      "x-forwarded-user": "nodedb",
      "x-remote-user": "nodedb",
      "x-nodedb-user": "nodedb",
      forwarded: "for=10.1.2.3",
      "x-real-ip": "10.1.2.3",
      "x-forwarded-proto": "https",
    };
    const { body } = await http.query(key, { sql: "SELECT session_user AS su" }, { headers });
    expect(body.rows).toEqual([{ su: "alice" }]);
    const refused = await http.post("/v1/query", one, { headers: { ...headers, authorization: "Bearer x" } });
    expect(refused.status).toBe(401);
    await until(async () =>
      (await stage.asAdmin("SHOW AUDIT LOG WHERE event = 'AuthFailure'")).rows.every(
        ({ source }) => source === "127.0.0.1",
      ),
    );
  });
});

describe("failed logins", () => {
  test("are limited per address, whoever they claim to be", async () => {
    const limited = await openStage({ configuration: "[auth]\nlogin_attempts_per_ip_per_min = 3\n" });
    try {
      const client = httpClient(`http://127.0.0.1:${limited.frontEnd.httpPort}`);
      const good = await createKey(limited, "good", "FOR alice");
      const statuses: number[] = [];
      for (let count = 0; count < 5; count += 1) {
        const { status } = await client.query("ndb_x", one, {
          headers: { "x-forwarded-for": `10.0.0.${count}` },
        });
        statuses.push(status);
      }
      expect(statuses).toEqual([401, 401, 401, 429, 429]);
      const { status, headers } = await client.query(good, one);
      expect([status, headers.get("retry-after")]).toEqual([429, "60"]);
    } finally {
      await limited.close();
    }
  });
});

describe("the database", () => {
  test("is the body's, the header's, or the identity's default", async () => {
    const where = { sql: "SELECT current_database() AS d" };
    expect((await http.query(key, where)).body.rows).toEqual([{ d: "postgres" }]);
    await stage.asAdmin("GRANT CONNECT ON DATABASE other TO alice");
    await stage.asAdmin('GRANT CONNECT ON DATABASE "größe" TO alice');
    expect((await http.query(key, { ...where, database: "other" })).body.rows).toEqual([{ d: "other" }]);
    const byHeader = { headers: { "x-nodedb-database": "other" } };
    expect((await http.query(key, where, byHeader)).body.rows).toEqual([{ d: "other" }]);
    expect((await http.query(key, { ...where, database: "other" }, byHeader)).status).toBe(200);
    expect((await http.query(key, { ...where, database: "postgres" }, byHeader)).status).toBe(400);
    const utf8 = Buffer.from("größe", "utf8").toString("latin1");
    expect((await http.query(key, where, { headers: { "x-nodedb-database": utf8 } })).body.rows).toEqual([
      { d: "größe" },
    ]);
    expect(
      await sendRaw(
        rawQuery(
          `Authorization: Bearer ${key}\r\nX-NodeDB-Database: other\r\nX-NodeDB-Database: postgres\r\n`,
        ),
      ),
    ).toMatch(/^HTTP\/1.1 400 /);
  });

  test("must be one that the key may use", async () => {
    const scoped = await createKey(stage, "scoped", "FOR alice WITH DATABASES (postgres)");
    await stage.asAdmin("GRANT CONNECT ON DATABASE other TO alice");
    for (const [body, headers] of [
      [{ ...one, database: "other" }, {}],
      [one, { "x-nodedb-database": "other" }],
    ] as const) {
      const answer = await http.query(scoped, body, { headers });
      expect(answer.status).toBe(403);
      expect(answer.body.error).toMatchObject({
        code: "42501",
        message: 'DATABASE_NOT_AUTHORIZED: permission denied for database "other"',
      });
    }
    expect((await http.query(scoped, one)).status).toBe(200);
  });

  test("must exist", async () => {
    const { status, body } = await http.query(key, { ...one, database: "nowhere" });
    expect([status, body.error.code]).toEqual([404, "3D000"]);
  });
});

describe("a request that is wrong", () => {
  test.each([
    ["no JSON", "{", 400],
    ["an empty body", "", 400],
    ["a JSON text of another kind", "[1]", 400],
    ["null", "null", 400],
    ["no sql", "{}", 400],
    ["an unknown property", { ...one, more: 1 }, 400],
    ["an unknown property in a query", { queries: [{ ...one, rowMode: "array" }] }, 400],
    ["sql and queries", { ...one, queries: [one] }, 400],
    ["no queries", { queries: [] }, 400],
    ["sql that is no text", { sql: 1 }, 400],
    ["params that are no array", { ...one, params: { a: 1 } }, 400],
    ["a rowMode that there is not", { ...one, rowMode: "csv" }, 400],
    ["a timeout of 0", { ...one, timeoutMs: 0 }, 400],
    ["a timeout that is text", { ...one, timeoutMs: "5" }, 400],
    ["isolationLevel for one statement", { ...one, isolationLevel: "serializable" }, 400],
    ["a name twice", '{"sql": "SELECT 1", "sql": "SELECT 2"}', 400],
    ["a name twice, once escaped", '{"sql": "SELECT 1", "s\\u0071l": "SELECT 2"}', 400],
    ["a name twice in a parameter", '{"sql": "SELECT $1::json", "params": [{"a": 1, "a": 2}]}', 400],
    ["deep nesting", `{"sql": "SELECT 1", "params": ${"[".repeat(100_000)}${"]".repeat(100_000)}}`, 400],
    ["a NUL in sql", { sql: "SELECT 1\0" }, 400],
    ["half a character in sql", '{"sql": "SELECT \'\\ud800\'"}', 400],
    ["a body over the limit", { sql: `SELECT '${"x".repeat(1024 * 1024)}'` }, 413],
  ])("gets its answer: %s", async (_what, body, expected) => {
    const answer = await http.query(key, body);
    expect(answer.status).toBe(expected);
    expect(answer.body).toMatchObject({
      status: "error",
      error: { code: expect.any(String), requestId: expect.any(String) },
    });
    expect(answer.headers.get("content-type")).toContain("application/json");
  });

  test("gets 415 for another content type, and 404 and 405 for other places", async () => {
    for (const type of [
      "text/plain",
      "application/x-www-form-urlencoded",
      "multipart/form-data; boundary=x",
      "text/json",
    ]) {
      const answer = await http.query(key, one, { headers: { "content-type": type } });
      expect([answer.status, answer.body.error.code], type).toEqual([415, "NH415"]);
    }
    expect(
      (await http.query(key, one, { headers: { "content-type": "application/json; charset=utf-8" } })).status,
    ).toBe(200);
    for (const path of [
      "/",
      "/v1",
      "/v1/query/",
      "/v2/query",
      "/v1/query/../../etc/passwd",
      "/%2e%2e/x",
      "/v1/query%00",
    ]) {
      const answer = await http.get(path, { token: key });
      expect([answer.status, answer.body.error.code], path).toEqual([404, "NH404"]);
      expect(answer.body.error.hint, path).toContain("/v1/docs");
    }
    const wrongMethod = await http.get("/v1/query", { token: key, method: "DELETE" });
    expect([wrongMethod.status, wrongMethod.headers.get("allow")]).toEqual([405, "GET, HEAD, POST, OPTIONS"]);
    const options = await http.get("/v1/query", { method: "OPTIONS" });
    expect([options.status, options.headers.get("allow"), options.text]).toEqual([
      204,
      "GET, HEAD, POST, OPTIONS",
      "",
    ]);
    expect(options.headers.get("access-control-allow-origin")).toBeNull();
  });

  test("is not let through in two readings: lengths, encodings, line ends", async () => {
    const smuggled = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    const head = `POST /v1/query HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}\r\nContent-Type: application/json\r\n`;
    const attacks = [
      `${head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`,
      `${head}Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}   ${smuggled}`,
      `${head}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n${smuggled}`,
      `${head}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n${smuggled}`,
      `${head}Content-Length : 5\r\n\r\n{}   ${smuggled}`,
      `${head}Content-Length: +5\r\n\r\n{}   ${smuggled}`,
      `${head}X: a\nContent-Length: 0\r\n\r\n${smuggled}`,
      "GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n",
      "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
      `GET /healthz HTTP/1.1\r\nHost: x\r\nX: ${"x".repeat(20_000)}\r\n\r\n`,
      `GET /${"x".repeat(20_000)} HTTP/1.1\r\nHost: x\r\n\r\n`,
    ];
    for (const attack of attacks) {
      const answer = await sendRaw(attack);
      const statuses = [...answer.matchAll(/HTTP\/1\.1 (\d{3})/g)].map(([, status]) => status);
      expect(statuses.length, attack.slice(0, 300)).toBe(1);
      expect(["400", "431"], attack.slice(0, 300)).toContain(statuses[0]);
      expect(answer).toContain("Connection: close");
      const { error } = JSON.parse(answer.slice(answer.indexOf("\r\n\r\n")));
      expect(answer).toContain(`X-Request-Id: ${error.requestId}`);
    }
  });

  test("gets no answer that could be taken for the one to the request before it", async () => {
    const body = JSON.stringify({ sql: "SELECT pg_sleep(60)" });
    const before = `POST /v1/query HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
    for (const more of [
      "this is no request\r\n\r\n",
      " Folded: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    ]) {
      expect(await sendRaw(before + more)).toBe("");
    }
    await until(async () => !(await stage.running("alice")).some(({ state }) => state === "active"));
    const rows = JSON.stringify({ sql: "SELECT repeat('x', 100000) FROM generate_series(1, 20000)" });
    const socket = connect(stage.frontEnd.httpPort, "127.0.0.1");
    let received = "";
    let isWrong = false;
    socket.on("data", (chunk) => {
      const text = chunk.toString("latin1");
      if (!isWrong && text.includes('"row"')) {
        isWrong = true;
        socket.write("this is no request\r\n\r\n");
      }
      received = (received + text).slice(-1000);
    });
    socket.on("error", () => undefined);
    socket.write(
      `POST /v1/query/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}\r\nContent-Type: application/json\r\nContent-Length: ${rows.length}\r\n\r\n${rows}`,
    );
    await new Promise((resolve) => socket.once("close", resolve));
    expect(isWrong).toBe(true);
    expect(received).not.toContain("HTTP/1.1 400");
  });

  test("gets an id that can be found in the log, and breaks out of nothing", async () => {
    const { headers, body } = await http.query(
      key,
      { sql: "SELECT nothing" },
      { headers: { "x-request-id": "my.id-1:2" } },
    );
    expect([headers.get("x-request-id"), body.error.requestId]).toEqual(["my.id-1:2", "my.id-1:2"]);
    await until(() => stage.frontEnd.output().includes('"requestId":"my.id-1:2"'));
    for (const id of ["a b", 'x"y', "<script>", "x".repeat(65), "ä", "a\tb"]) {
      const value = Buffer.from(id, "utf8").toString("latin1");
      const answer = await sendRaw(rawQuery(`Authorization: Bearer ${key}\r\nX-Request-Id: ${value}\r\n`));
      expect(answer).toMatch(/x-request-id: [0-9a-f-]{36}\r\n/i);
      expect(answer).not.toContain(value);
    }
    const split = await sendRaw(
      rawQuery(`Authorization: Bearer ${key}\r\nX-Request-Id: a\rSet-Cookie: b=c\r\n`),
    );
    expect(split).not.toContain("Set-Cookie");
  });
});

test("every answer is one that a browser neither keeps, guesses at nor frames, and names no server", async () => {
  for (const answer of [
    await http.query(key, one),
    await http.post("/v1/query", one),
    await http.get("/nothing"),
    await http.query(key, "{"),
  ]) {
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      "cache-control": "no-store",
      "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
      "referrer-policy": "no-referrer",
      "x-content-type-options": "nosniff",
      "x-request-id": expect.any(String),
    });
    expect(answer.headers.get("server")).toBeNull();
    expect(answer.headers.get("x-powered-by")).toBeNull();
    expect(answer.headers.get("set-cookie")).toBeNull();
  }
});

test("logins are in the audit log, and neither key nor values are in audit or log", async () => {
  await http.query(key, { sql: "SELECT $1::text AS secret", params: ["a very secret value"] });
  await until(async () =>
    (await stage.asAdmin("SHOW AUDIT LOG WHERE event = 'AuthSuccess' LIMIT 1000")).rows.some(
      ({ username, detail }) => username === "alice" && String(detail).includes("api-key"),
    ),
  );
  const everything =
    JSON.stringify((await stage.asAdmin("SHOW AUDIT LOG LIMIT 10000")).rows) + stage.frontEnd.output();
  expect(everything).not.toContain("a very secret value");
  expect(everything).not.toContain(key.slice(17));
});
