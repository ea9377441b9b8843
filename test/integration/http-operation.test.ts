/** HTTP for those who run the program: health, metrics, documents, TLS, CORS. */

import { request as httpsRequest } from "node:https";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { makeServerCertificate } from "../support/certificates.ts";
import { createKey, type HttpClient, httpClient } from "../support/http.ts";
import { type Issuer, type IssuerKey, makeKey, startIssuer } from "../support/issuer.ts";
import { openStage, runOnce, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

let stage: Stage;
let http: HttpClient;
let key: string;
let adminKey: string;
let issuer: Issuer;
let deadIssuer: Issuer;
let signingKey: IssuerKey;

beforeAll(async () => {
  signingKey = await makeKey("ES256", "k1");
  [issuer, deadIssuer] = await Promise.all([startIssuer([signingKey]), startIssuer([])]);
  await deadIssuer.close();
  stage = await openStage({
    configuration: `
[http]
cors_origins = "https://app.example.com, https://other.example.com:8443"

[[auth.jwks.providers]]
name = "living"
issuer = "${issuer.issuer}"
audience = "api"

[[auth.jwks.providers]]
name = "dead"
issuer = "${deadIssuer.issuer}"
audience = "api"
`,
  });
  http = httpClient(`http://127.0.0.1:${stage.frontEnd.httpPort}`);
  key = await createKey(stage, "alice-key", "FOR alice");
  adminKey = await createKey(stage, "boss", "ROLE admin");
});

afterAll(async () => {
  await stage?.close();
  await issuer?.close();
});

test("the port is named at the start, in ports.json and on the terminal", () => {
  expect(stage.frontEnd.output()).toMatch(
    new RegExp(`^http {6}127\\.0\\.0\\.1:${stage.frontEnd.httpPort}$`, "m"),
  );
});

describe("/healthz and /readyz", () => {
  test("answer without a credential, to GET and HEAD", async () => {
    for (const [path, status] of [
      ["/healthz", "ok"],
      ["/readyz", "ready"],
    ] as const) {
      const answer = await http.get(path);
      expect([answer.status, answer.body]).toEqual([200, { status }]);
      const head = await http.get(path, { method: "HEAD" });
      expect([head.status, head.text]).toEqual([200, ""]);
    }
  });

  test("tell a process that is up from a PostgreSQL that is not", async () => {
    const lonely = await openStage();
    try {
      const client = httpClient(`http://127.0.0.1:${lonely.frontEnd.httpPort}`);
      expect((await client.get("/readyz")).status).toBe(200);
      await lonely.relay.close();
      await until(async () => (await client.get("/readyz")).status === 503, 15_000);
      const answer = await client.get("/readyz");
      expect(answer.headers.get("retry-after")).toBe("1");
      expect((await client.get("/healthz")).status).toBe(200);
    } finally {
      await lonely.close();
    }
  });
});

describe("/metrics", () => {
  test("are for admins, unless they are public", async () => {
    expect((await http.get("/metrics")).status).toBe(401);
    const refused = await http.get("/metrics", { token: key });
    expect([refused.status, refused.body.error.code]).toEqual([403, "42501"]);
    const open = await openStage({ configuration: "[metrics]\npublic = true\n" });
    try {
      const answer = await httpClient(`http://127.0.0.1:${open.frontEnd.httpPort}`).get("/metrics");
      expect(answer.status).toBe(200);
    } finally {
      await open.close();
    }
  });

  test("count sessions, logins, queries and requests", async () => {
    const client = await stage.connect("alice");
    await http.query(key, { sql: "SELECT 1" });
    await http.query(key, { sql: "SELECT 1/0" });
    await http.query("wrong", { sql: "SELECT 1" });
    await http.query(await issuer.sign(signingKey, { sub: "somebody" }), { sql: "SELECT 1" });
    await http.query(await issuer.sign(signingKey, { sub: "somebody", exp: 1 }), { sql: "SELECT 1" });
    await expect(stage.connect("alice", { password: "not hers" })).rejects.toThrow();
    await http.get("/no/such/place");
    const { text, headers, status } = await http.get("/metrics", { token: adminKey });
    expect(status).toBe(200);
    expect(headers.get("content-type")).toContain("text/plain");
    const value = (metric: string) => measured(text, metric);
    expect(value('nodedb_sessions{protocol="pgwire",state="idle"}')).toBe(1);
    expect(value('nodedb_upstream_connections{state="in use"}')).toBeGreaterThanOrEqual(1);
    expect(value("nodedb_upstream_waiting")).toBe(0);
    expect(value("nodedb_upstream_queue_seconds_count")).toBeGreaterThanOrEqual(3);
    expect(value('nodedb_http_query_seconds_count{outcome="ok"}')).toBe(2);
    expect(value('nodedb_http_query_seconds_count{outcome="error"}')).toBe(1);
    expect(value('nodedb_authentications_total{method="api-key",outcome="accepted"}')).toBeGreaterThanOrEqual(
      3,
    );
    for (const [method, outcome] of [
      ["api-key", "refused"],
      ["jwt", "accepted"],
      ["jwt", "refused"],
      ["scram-sha-256", "refused"],
    ]) {
      const metric = `nodedb_authentications_total{method="${method}",outcome="${outcome}"}`;
      expect(value(metric), metric).toBe(1);
    }
    expect(
      value('nodedb_authentications_total{method="scram-sha-256",outcome="accepted"}'),
    ).toBeGreaterThanOrEqual(1);
    expect(value('nodedb_http_request_seconds_count{route="/v1/query",method="POST",status="200"}')).toBe(2);
    expect(value('nodedb_http_request_seconds_count{route="none",method="GET",status="404"}')).toBe(1);
    expect(text).not.toContain("no/such/place");
    expect(text).toContain("process_cpu_seconds_total");
    await client.end();
  });

  test("say how old the keys of each issuer are, and where they cannot be had", async () => {
    await http.query(await issuer.sign(signingKey, { sub: "somebody" }), { sql: "SELECT 1" });
    const { text } = await http.get("/metrics", { token: adminKey });
    const age = measured(text, `nodedb_jwks_age_seconds{issuer="${issuer.issuer}"}`);
    expect(age).toBeGreaterThan(0);
    expect(age).toBeLessThan(300);
    expect(measured(text, `nodedb_jwks_failures{issuer="${issuer.issuer}"}`)).toBe(0);
    expect(text).not.toContain(`nodedb_jwks_age_seconds{issuer="${deadIssuer.issuer}"}`);
    expect(measured(text, `nodedb_jwks_failures{issuer="${deadIssuer.issuer}"}`)).toBeGreaterThan(0);
  });

  test("have no label that a client can choose, and name nobody", async () => {
    const client = await stage.connect("alice");
    const token = await issuer.sign(signingKey, { sub: "zz-subject" });
    await http.query(token, { sql: "SELECT 'zz-value'" }, { headers: { "x-request-id": "zz-request" } });
    for (const method of ["GET", "PUT", "DELETE", "PROPFIND"])
      await http.get("/v1/query/zz-path", { method });
    await http.query(key, { sql: "SELECT 1", database: "zz-database" });
    const { text } = await http.get("/metrics", { token: adminKey });
    await client.end();
    for (const word of ["zz-", "alice", "somebody", "living", "postgres", "127.0.0.1:", key.slice(0, 12)]) {
      const lines = text.split("\n").filter((line) => /^nodedb_(?!jwks)/.test(line));
      expect(lines.length).toBeGreaterThan(50);
      expect(lines.filter((line) => line.slice(line.indexOf("{")).includes(word))).toEqual([]);
    }
    const labels = new Set([...text.matchAll(/^nodedb_\w+\{([^}]*)\}/gm)].map(([, all = ""]) => all));
    const names = [...labels].flatMap((all) => [...all.matchAll(/(\w+)=/g)].map(([, name]) => name));
    expect([...new Set(names)].toSorted()).toEqual(
      ["issuer", "le", "method", "outcome", "protocol", "route", "state", "status"].toSorted(),
    );
  });
});

test("the documents are served", async () => {
  const document = await http.get("/v1/openapi.json");
  expect(document.body).toMatchObject({
    openapi: "3.1.0",
    paths: { "/v1/query": { post: expect.any(Object) } },
  });
  const page = await http.get("/v1/docs");
  expect(page.headers.get("content-type")).toBe("text/html; charset=utf-8");
  expect(page.headers.get("content-security-policy")).toMatch(
    /^default-src 'none'; style-src 'sha256-[^']+'/,
  );
});

describe("CORS", () => {
  test("allows the origins that are configured, and no other", async () => {
    for (const origin of ["https://app.example.com", "https://other.example.com:8443"]) {
      const { headers, status } = await http.query(key, { sql: "SELECT 1" }, { headers: { origin } });
      expect([status, headers.get("access-control-allow-origin"), headers.get("vary")]).toEqual([
        200,
        origin,
        "origin",
      ]);
      expect(headers.get("access-control-allow-credentials")).toBeNull();
    }
    for (const origin of [
      "https://evil.example.com",
      "null",
      "https://app.example.com.evil.com",
      "http://app.example.com",
    ]) {
      const { headers } = await http.query(key, { sql: "SELECT 1" }, { headers: { origin } });
      expect(headers.get("access-control-allow-origin"), origin).toBeNull();
    }
  });

  test("lets scripts read refusals, and tells caches what an answer depends on", async () => {
    const { status, headers } = await http.post(
      "/v1/query",
      { sql: "SELECT 1" },
      { headers: { origin: "https://app.example.com" } },
    );
    expect([status, headers.get("access-control-allow-origin")]).toEqual([401, "https://app.example.com"]);
    expect(headers.get("access-control-expose-headers")).toContain("www-authenticate");
    // Also without an origin, or a cache could give this answer to a script.
    expect((await http.get("/healthz")).headers.get("vary")).toBe("origin");
  });

  test("answers a preflight without a credential", async () => {
    const preflight = (origin: string) =>
      http.get("/v1/query", {
        method: "OPTIONS",
        headers: {
          origin,
          "access-control-request-method": "POST",
          "access-control-request-headers": "authorization",
        },
      });
    const allowed = await preflight("https://app.example.com");
    expect(allowed.status).toBe(204);
    expect(allowed.headers.get("access-control-allow-headers")).toContain("authorization");
    expect(allowed.headers.get("access-control-allow-methods")).toBe("GET, POST");
    expect(
      (await preflight("https://evil.example.com")).headers.get("access-control-allow-methods"),
    ).toBeNull();
  });
});

test("CORS for all origins is a wildcard, and never with credentials", async () => {
  const open = await openStage({ configuration: '[http]\ncors_origins = "*"\n', users: [] });
  try {
    const client = httpClient(`http://127.0.0.1:${open.frontEnd.httpPort}`);
    for (const [method, more] of [
      ["GET", {}],
      ["OPTIONS", { "access-control-request-method": "POST" }],
    ] as const) {
      const { headers } = await client.get("/v1/query", {
        method,
        headers: { origin: "https://any.example.com", ...more },
      });
      expect(headers.get("access-control-allow-origin")).toBe("*");
      expect(headers.get("access-control-allow-credentials")).toBeNull();
      expect(headers.get("vary")).toBeNull();
    }
  } finally {
    await open.close();
  }
});

describe("TLS", () => {
  test("and plain HTTP are served on one port; a body of any size comes through", async () => {
    await withTls("", async (port, certificate, token) => {
      const plain = httpClient(`http://127.0.0.1:${port}`);
      expect((await plain.query(token, { sql: "SELECT 1 AS one" })).body.rows).toEqual([{ one: 1 }]);
      const large = { sql: `SELECT length('${"x".repeat(500_000)}') AS n` };
      expect((await plain.query(token, large)).body.rows).toEqual([{ n: 500_000 }]);
      expect(JSON.parse((await secure(port, certificate, token, large)).text).rows).toEqual([{ n: 500_000 }]);
    });
  });

  test("can be required", async () => {
    await withTls("required = true\n", async (port, certificate, token) => {
      const refused = await httpClient(`http://127.0.0.1:${port}`).query(token, { sql: "SELECT 1" });
      expect([refused.status, refused.body.error.code]).toEqual([426, "NH426"]);
      expect((await secure(port, certificate, token, { sql: "SELECT 1" })).status).toBe(200);
    });
  });
});

test("HTTP can be switched off", async () => {
  const quiet = await openStage({ configuration: "[http]\nenabled = false\n" });
  try {
    expect(quiet.frontEnd.httpPort).toBe(0);
    expect(quiet.frontEnd.output()).not.toMatch(/^http /m);
  } finally {
    await quiet.close();
  }
});

async function withTls(
  more: string,
  work: (port: number, certificate: string, token: string) => Promise<void>,
): Promise<void> {
  const { certPath, keyPath, cert } = await makeServerCertificate();
  const secured = await openStage({
    configuration: `[server.tls]\ncert = ${JSON.stringify(certPath)}\nkey = ${JSON.stringify(keyPath)}\n${more}`,
    users: [],
  });
  try {
    const login = secured.login(secured.frontEnd.adminUser, { ssl: { ca: cert } });
    const { rows } = await runOnce(login, "CREATE API KEY 'tls' ROLE readonly");
    await work(secured.frontEnd.httpPort, cert, String(rows[0]?.api_key));
  } finally {
    await secured.close();
  }
}

function secure(
  port: number,
  certificate: string,
  token: string,
  body: object,
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const asked = httpsRequest(
      {
        host: "127.0.0.1",
        port,
        path: "/v1/query",
        method: "POST",
        ca: certificate,
        checkServerIdentity: () => undefined,
        agent: false,
        headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      },
      (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (chunk: string) => {
          text += chunk;
        });
        response.on("end", () => resolve({ status: response.statusCode ?? 0, text }));
      },
    );
    asked.on("error", reject);
    asked.end(JSON.stringify(body));
  });
}

function measured(page: string, metric: string): number {
  const line = page.split("\n").find((each) => each.startsWith(`${metric} `));
  return Number(line?.slice(metric.length + 1) ?? Number.NaN);
}
