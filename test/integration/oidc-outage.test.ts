/** The front-end while its OpenID provider is away, hangs or lies, and after its own restart meanwhile. */

import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import type { RequestListener } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import {
  type AuthorizationServer,
  resource,
  startAuthorizationServer,
} from "../support/authorization-server.ts";
import { type FrontEnd, startFrontEnd } from "../support/front-end.ts";
import { httpClient } from "../support/http.ts";
import { type IssuerKey, makeKey } from "../support/issuer.ts";
import { startPostgres, type TestPostgres } from "../support/postgres.ts";
import { runOnce } from "../support/stage.ts";
import { until } from "../support/until.ts";

let postgres: TestPostgres;
let dataDir: string;
let key: IssuerKey;
let server: AuthorizationServer;
let frontEnd: FrontEnd;
let apiKey: string;
/** Good for five minutes. */
let token: string;

const jwksDir = () => join(dataDir, "jwks");

async function start(more = ""): Promise<void> {
  frontEnd = await startFrontEnd({
    upstreamUrl: postgres.url,
    dataDir,
    configuration: `[auth]
login_attempts_per_ip_per_min = 0
[metrics]
public = true
[[auth.jwks.providers]]
name = "corp"
issuer = "${server.issuer}"
audience = "${resource}"
[auth.jwks]
min_refetch = "100ms"
${more}`,
  });
}

async function restart(more?: string): Promise<void> {
  await frontEnd.close();
  await start(more);
}

const statusOf = async (bearer: string) => {
  const http = httpClient(`http://127.0.0.1:${frontEnd.httpPort}`);
  return (await http.query(bearer, { sql: "SELECT 1" })).status;
};
const settled = (status: number) => until(async () => (await statusOf(token)) === status, 20_000);
/** The one sample of a metric about the provider; undefined when there is none. */
async function metric(name: string): Promise<number | undefined> {
  const { text } = await httpClient(`http://127.0.0.1:${frontEnd.httpPort}`).get("/metrics");
  const line = text.split("\n").find((sample) => sample.startsWith(`${name}{issuer="${server.issuer}"} `));
  return line === undefined ? undefined : Number(line.split(" ").at(-1));
}
const copies = async () =>
  (await readdir(jwksDir()).catch(() => [])).filter((name) => name.endsWith(".json"));
const copyPath = async () => join(jwksDir(), (await copies())[0] ?? "none");
async function comesBack(): Promise<void> {
  server = await startAuthorizationServer({ keys: [key], port: server.port });
}

beforeAll(async () => {
  postgres = await startPostgres({ tcp: true });
  dataDir = await mkdtemp(join(tmpdir(), "nodedb-outage-"));
  key = await makeKey("ES256", "one");
  server = await startAuthorizationServer({ keys: [key] });
  token = (await server.clientCredentials()).accessToken;
  await start();
  const { host, port, adminUser, adminPassword } = frontEnd;
  const { rows } = await runOnce(
    { host, port, user: adminUser, password: adminPassword, database: "postgres" },
    "CREATE API KEY 'bystander' ROLE readonly",
  );
  apiKey = String(rows[0]?.api_key);
  await settled(200);
  await until(async () => (await copies()).length === 1);
});

afterAll(async () => {
  await frontEnd?.close();
  await server?.close();
  await postgres?.dispose();
  if (dataDir !== undefined) await rm(dataDir, { recursive: true });
});

describe("a provider that is away", () => {
  test("is not missed, before a restart of the front-end and after it", async () => {
    expect((await stat(await copyPath())).mode & 0o777).toBe(0o600);
    await server.close();
    expect(await statusOf(token)).toBe(200);
    await restart();
    expect(await statusOf(token)).toBe(200);
    expect(await statusOf(apiKey)).toBe(200);
    await comesBack();
  });

  test("is missed after auth.jwks.max_stale, and taken at its word again when it is back", async () => {
    await restart('max_stale = "1s"');
    await settled(200);
    expect(await metric("nodedb_jwks_failures")).toBe(0);
    await server.close();
    await settled(401);
    expect(await metric("nodedb_jwks_age_seconds")).toBeGreaterThan(1);
    expect(await metric("nodedb_jwks_failures")).toBeGreaterThan(0);
    expect(await statusOf(apiKey)).toBe(200);
    // A restart does not make the keys younger.
    await restart('max_stale = "1s"');
    expect(await statusOf(token)).toBe(401);
    await comesBack();
    await settled(200);
  });

  test.each<[string, (path: string) => Promise<void>]>([
    ["broken off", async (path) => writeFile(path, (await readFile(path)).subarray(0, 100))],
    ["empty", (path) => writeFile(path, "")],
    ["something else", (path) => writeFile(path, "<html></html>")],
    [
      "another provider's",
      async (path) => {
        const other = { issuer: "https://id.example.com", url: null };
        await writeFile(path, JSON.stringify({ ...JSON.parse(await readFile(path, "utf8")), ...other }));
      },
    ],
    ["open to the writing of others", (path) => chmod(path, 0o666)],
  ])(
    "is missed when the copy of its keys is %s, and the copy is replaced when it is back",
    async (_, spoil) => {
      await frontEnd.close();
      await spoil(await copyPath());
      await server.close();
      await start();
      expect(await statusOf(token)).toBe(401);
      expect(frontEnd.output()).toContain("cannot use the copy of a JWK set");
      expect(await statusOf(apiKey)).toBe(200);
      await comesBack();
      await settled(200);
      await until(async () => ((await stat(await copyPath())).mode & 0o777) === 0o600);
      await until(async () =>
        (await readFile(await copyPath(), "utf8")).includes(`"issuer":"${server.issuer}"`),
      );
      expect(await copies()).toHaveLength(1);
    },
  );
});

describe("a provider that answers", () => {
  afterEach(() => {
    server.answer = undefined;
  });

  /** As the front-end begins without a copy, and the provider does this. */
  async function startWith(answer: RequestListener): Promise<void> {
    await frontEnd.close();
    await rm(jwksDir(), { recursive: true });
    server.answer = answer;
    await start('refresh = "1s"');
  }

  test("nothing at all holds up nobody but those who have a token of it, and those not for long", async () => {
    const held: string[] = [];
    await startWith((request) => {
      held.push(request.url ?? "");
    });
    const began = performance.now();
    const waiting = statusOf(token);
    for (let round = 0; round < 5; round += 1) expect(await statusOf(apiKey)).toBe(200);
    const others = performance.now() - began;
    expect(await waiting).toBe(401);
    expect(others).toBeLessThan(4_000);
    expect(performance.now() - began).toBeLessThan(9_000);
    expect(held.length).toBeGreaterThan(0);
    server.answer = undefined;
    await settled(200);
  });

  const page = "<!doctype html><title>Sign in</title>";
  const json = { "content-type": "application/json" };
  /** What the provider would say, changed. */
  const discovery =
    (changes: object): RequestListener =>
    (_request, response) => {
      const document = { issuer: server.issuer, jwks_uri: `${server.issuer}/jwks`, ...changes };
      response.writeHead(200, json).end(JSON.stringify(document));
    };
  const keysOf =
    (body: string | Buffer, headers = {}, status = 200): RequestListener =>
    (request, response) => {
      if (request.url === "/jwks") response.writeHead(status, { ...json, ...headers }).end(body);
      else discovery({})(request, response);
    };

  test.each<[string, () => Promise<RequestListener> | RequestListener]>([
    ["with another issuer", () => discovery({ issuer: "https://id.example.com" })],
    ["with keys at a private address", () => discovery({ jwks_uri: "https://10.0.0.1/jwks" })],
    ["with a page instead of its document", () => (_request, response) => response.end(page)],
    ["with a page instead of its keys", () => keysOf(page)],
    ["with status 500", () => (_request, response) => response.writeHead(500).end()],
    ["with its keys and status 500", () => keysOf(JSON.stringify({ keys: [key.publicJwk] }), {}, 500)],
    [
      "with keys of others",
      async () => keysOf(JSON.stringify({ keys: [(await makeKey("ES256", "one")).publicJwk] })),
    ],
    [
      "with a secret for a key",
      () => keysOf('{"keys":[{"kty":"oct","kid":"one","alg":"HS256","k":"AAAA"}]}'),
    ],
    ["with more than anybody's keys", () => keysOf(`{"keys":[${'{"kty":"EC"},'.repeat(100_000)}{}]}`)],
    [
      "with a little that unpacks to a lot",
      () => keysOf(gzipSync(Buffer.alloc(50_000_000, 32)), { "content-encoding": "gzip" }),
    ],
    ["with the way to another host", () => keysOf("", { location: "http://169.254.169.254/jwks" }, 302)],
    ["with the way to itself, for ever", () => keysOf("", { location: "/jwks" }, 302)],
  ])("%s is not believed, and nobody else notices", async (_, answer) => {
    await startWith(await answer());
    expect(await statusOf(token)).toBe(401);
    expect(await statusOf(apiKey)).toBe(200);
    server.answer = undefined;
    await settled(200);
  });

  test("with anything of that does not lose the keys that are there", async () => {
    await restart('refresh = "1s"');
    await settled(200);
    for (const answer of [keysOf(page), keysOf('{"keys":[]}'), discovery({ issuer: "x" })]) {
      const before = server.requests.length;
      server.answer = answer;
      await until(() => server.requests.length > before + 1);
      expect(await statusOf(token)).toBe(200);
    }
  });
});
