/** Every answer that the OpenAPI document promises occurs, and looks as it says; docs/http.md names every header of one. */

import { readFileSync } from "node:fs";
import { Ajv2020 } from "ajv/dist/2020.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openApiDocument } from "../../src/http/openapi.ts";
import type { JsonObject } from "../../src/http/openapi-answers.ts";
import { makeServerCertificate } from "../support/certificates.ts";
import { type Answer, createKey, type HttpClient, httpClient } from "../support/http.ts";
import { openStage, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

interface Response {
  readonly content?: Readonly<Record<string, { readonly schema?: JsonObject }>>;
  readonly headers?: JsonObject;
}

const document = openApiDocument("1.2.3") as {
  readonly paths: Readonly<
    Record<string, Readonly<Record<string, { responses: Record<string, Response | { $ref: string }> }>>>
  >;
  readonly components: { readonly responses: Readonly<Record<string, Response>> };
};

const promised = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).flatMap(([method, { responses }]) =>
    Object.entries(responses)
      .filter(([status]) => status !== "default")
      .map(([status, response]) => ({
        name: `${method.toUpperCase()} ${path} ${status}`,
        method: method.toUpperCase(),
        path,
        status: Number(status),
        response:
          "$ref" in response
            ? (document.components.responses[response.$ref.replace("#/components/responses/", "")] ?? {})
            : response,
      })),
  ),
);

const ajv = new Ajv2020({ strict: false });
ajv.addSchema(closed({ $id: "document", components: document.components }) as JsonObject);

let stage: Stage;
let withoutUpstream: Stage;
let withTls: Stage;
let http: HttpClient;
/** Alice's, one of hers for one database only, an admin's, and one of a user who is at her connection limit. */
let key: string;
let scopedKey: string;
let adminKey: string;
let fullKey: string;
const headersSeen = new Set<string>();

beforeAll(async () => {
  const { certPath, keyPath } = await makeServerCertificate();
  [stage, withoutUpstream, withTls] = await Promise.all([
    openStage({
      users: ["alice", "carol"],
      configuration:
        '[http]\nmax_body = "64KiB"\nrequests_per_min = 100\ncors_origins = "https://app.example.com"\n',
    }),
    openStage({ users: [] }),
    openStage({
      users: [],
      configuration: `[server.tls]\ncert = ${JSON.stringify(certPath)}\nkey = ${JSON.stringify(keyPath)}\nrequired = true\n`,
    }),
  ]);
  await withoutUpstream.relay.close();
  http = httpClient(`http://127.0.0.1:${stage.frontEnd.httpPort}`);
  await stage.asAdmin("CREATE TABLE item (id int PRIMARY KEY)");
  await stage.asAdmin("CREATE TABLE hidden (id int)");
  await stage.asAdmin("REVOKE ALL ON hidden FROM nodedb_readwrite, nodedb_readonly");
  await stage.asAdmin("GRANT ALL ON item TO alice");
  await stage.asAdmin("ALTER USER carol CONNECTION LIMIT 1");
  key = await createKey(stage, "alice-key", "FOR alice");
  scopedKey = await createKey(stage, "scoped", "FOR alice WITH DATABASES (postgres)");
  adminKey = await createKey(stage, "boss", "ROLE admin");
  fullKey = await createKey(stage, "carol-key", "FOR carol");
  await stage.connect("carol");
}, 120_000);

afterAll(async () => {
  await Promise.all([stage?.close(), withoutUpstream?.close(), withTls?.close()]);
});

/** How each status comes about; of the two that run statements they are the same but for the path. */
const statements: Readonly<Record<number, (path: string) => Promise<Answer>>> = {
  200: (path) => ask(path, { sql: "SELECT 1 AS one" }),
  400: (path) => ask(path, { sql: "SELEC 1" }),
  401: (path) => ask(path, { sql: "SELECT 1" }, "wrong"),
  403: (path) => ask(path, { sql: "SELECT * FROM hidden" }),
  404: (path) => ask(path, { sql: "SELECT * FROM missing" }),
  408: (path) => ask(path, { sql: "SELECT pg_sleep(60)", timeoutMs: 100 }),
  409: (path) => ask(path, { sql: "INSERT INTO item VALUES (1), (1)" }),
  413: (path) => ask(path, { sql: `SELECT '${"x".repeat(65_536)}'` }),
  415: (path) => http.post(path, "SELECT 1", { token: key, headers: { "content-type": "text/plain" } }),
  426: (path) => overTlsOnly(path),
  429: (path) => tooOften((token) => ask(path, { sql: "SELECT 1" }, token)),
  500: (path) => ask(path, { sql: "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '58030'; END $$" }),
  501: (path) => ask(path, { sql: "BEGIN" }),
  503: (path) => ask(path, { sql: "SELECT 1" }, fullKey),
};

const others: Readonly<Record<string, () => Promise<Answer>>> = {
  "GET /v1/query 200": () => http.get("/v1/query", { token: key }),
  "GET /v1/query 400": () => http.get("/v1/query", { token: key, headers: { "x-nodedb-database": " " } }),
  "GET /v1/query 401": () => http.get("/v1/query"),
  "GET /v1/query 403": () =>
    http.get("/v1/query", { token: scopedKey, headers: { "x-nodedb-database": "template1" } }),
  "GET /v1/query 404": () =>
    http.get("/v1/query", { token: adminKey, headers: { "x-nodedb-database": "missing" } }),
  "GET /v1/query 426": () => overTlsOnly("/v1/query"),
  "GET /v1/query 429": () => tooOften((token) => http.get("/v1/query", { token })),
  "GET /v1/query 503": () => http.get("/v1/query", { token: fullKey }),
  "GET /healthz 200": () => http.get("/healthz"),
  "GET /healthz 426": () => overTlsOnly("/healthz"),
  "GET /readyz 200": () => http.get("/readyz"),
  "GET /readyz 426": () => overTlsOnly("/readyz"),
  "GET /readyz 503": async () => {
    const client = httpClient(`http://127.0.0.1:${withoutUpstream.frontEnd.httpPort}`);
    await until(async () => (await client.get("/readyz")).status !== 200, 15_000);
    return client.get("/readyz");
  },
  "GET /metrics 200": () => http.get("/metrics", { token: adminKey }),
  "GET /metrics 401": () => http.get("/metrics"),
  "GET /metrics 403": () => http.get("/metrics", { token: key }),
  "GET /metrics 426": () => overTlsOnly("/metrics"),
  "GET /metrics 429": () => tooOften((token) => http.get("/metrics", { token })),
  "GET /v1/openapi.json 200": () => http.get("/v1/openapi.json"),
  "GET /v1/openapi.json 426": () => overTlsOnly("/v1/openapi.json"),
  "GET /v1/docs 200": () => http.get("/v1/docs"),
  "GET /v1/docs 426": () => overTlsOnly("/v1/docs"),
};

function ask(path: string, body: object, token = key): Promise<Answer> {
  return http.post(path, body, { token, headers: { origin: "https://app.example.com" } });
}

function overTlsOnly(path: string): Promise<Answer> {
  return httpClient(`http://127.0.0.1:${withTls.frontEnd.httpPort}`).get(path);
}

let keys = 0;

/** One identity of its own until it is told to wait. */
async function tooOften(request: (token: string) => Promise<Answer>): Promise<Answer> {
  keys += 1;
  const token = await createKey(stage, `eager-${keys}`, "ROLE readonly");
  for (let count = 0; count < 100; count += 1) {
    const answer = await request(token);
    if (answer.status === 429) return answer;
  }
  return request(token);
}

describe("the OpenAPI document", () => {
  test.each(promised)("$name", async ({ name, method, path, status, response }) => {
    const provoke =
      others[name] ??
      (method === "POST" && path.startsWith("/v1/query")
        ? () => statements[status]?.(path) ?? Promise.reject(new Error(`nothing provokes ${name}`))
        : undefined);
    if (provoke === undefined) throw new Error(`nothing provokes ${name}`);
    const answer = await provoke();
    expect(answer.status, answer.text).toBe(status);
    for (const header of answer.headers.keys()) headersSeen.add(header);
    for (const header of Object.keys(response.headers ?? {})) {
      expect(answer.headers.get(header), header).not.toBeNull();
    }
    const [[type, { schema }] = ["", {}]] = Object.entries(response.content ?? {});
    expect(answer.headers.get("content-type")).toContain(type);
    if (schema === undefined) return;
    const isValid = ajv.compile(closed(absolute(schema)) as JsonObject);
    const texts = type === "application/x-ndjson" ? answer.text.trimEnd().split("\n") : [answer.text];
    for (const text of texts) {
      expect(isValid(JSON.parse(text)), `${text} ${JSON.stringify(isValid.errors)}`).toBe(true);
    }
  });

  test("promises nothing that is not tried here, and the other way round", () => {
    const tried = [
      ...Object.keys(others),
      ...Object.keys(statements).flatMap((status) => [
        `POST /v1/query ${status}`,
        `POST /v1/query/stream ${status}`,
      ]),
    ];
    expect(promised.map(({ name }) => name).toSorted()).toEqual(tried.toSorted());
  });

  test("describes several results, notices, and an error in full", async () => {
    await stage.asAdmin("CREATE TABLE checked (n int CHECK (n > 0))");
    await stage.asAdmin("GRANT ALL ON checked TO alice");
    const isResult = ajv.compile(closed({ oneOf: references("Result", "Results") }) as JsonObject);
    const isError = ajv.compile(closed(references("Error")[0]) as JsonObject);
    const notice = "DO $$ BEGIN RAISE NOTICE 'heard'; END $$";
    const good = await ask("/v1/query", { queries: [{ sql: notice }, { sql: "SELECT ARRAY[1] AS a" }] });
    expect(isResult(good.body), JSON.stringify(isResult.errors)).toBe(true);
    expect(good.body.results[0].notices).toEqual([expect.stringContaining("heard")]);
    const bad = await ask("/v1/query", { queries: [{ sql: "INSERT INTO checked VALUES (0)" }] });
    expect(isError(bad.body), JSON.stringify(isError.errors)).toBe(true);
    expect(bad.body.error).toMatchObject({
      code: "23514",
      schema: "public",
      table: "checked",
      constraint: "checked_n_check",
      query: 0,
      detail: expect.any(String),
    });
    const line = ajv.compile(closed(references("Line")[0]) as JsonObject);
    const streamed = await ask("/v1/query/stream", { sql: notice });
    for (const text of streamed.text.trimEnd().split("\n")) expect(line(JSON.parse(text)), text).toBe(true);
    expect(JSON.parse(streamed.text.trimEnd().split("\n")[1] ?? "").end.notices.length).toBe(1);
  });
});

test("docs/http.md names every header that an answer has", () => {
  const page = readFileSync(new URL("../../docs/http.md", import.meta.url), "utf8");
  const [, table = ""] = /<!-- answer headers -->\n([\s\S]*?)<!-- \/answer headers -->/.exec(page) ?? [];
  const named = [...table.matchAll(/^\| `([A-Za-z-]+)`/gm)].map(([, name = ""]) => name.toLowerCase());
  // HTTP's own.
  for (const name of ["connection", "content-length", "date", "keep-alive", "transfer-encoding"]) {
    headersSeen.delete(name);
  }
  expect([...headersSeen].toSorted()).toEqual(named.toSorted());
});

function references(...names: string[]): { $ref: string }[] {
  return names.map((name) => ({ $ref: `document#/components/schemas/${name}` }));
}

function absolute(schema: unknown): unknown {
  return JSON.parse(JSON.stringify(schema).replaceAll('"#/', '"document#/'));
}

/** The schema with no other names in its objects than those that it has. */
function closed(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(closed);
  if (typeof schema !== "object" || schema === null) return schema;
  const inner = Object.fromEntries(Object.entries(schema).map(([name, part]) => [name, closed(part)]));
  return "properties" in schema && "type" in schema ? { ...inner, additionalProperties: false } : inner;
}
