/** Every key that a reload takes: the front-end that runs follows it, at both doors where both have it. */

import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { Agent, request } from "node:https";
import { connect as connectSocket } from "node:net";
import { join } from "node:path";
import type { TLSSocket } from "node:tls";
import { SignJWT } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { configKeys } from "../../src/config/schema.ts";
import { makeServerCertificate, type TestCertificate } from "../support/certificates.ts";
import {
  type ClientAuthority,
  type ClientCertificate,
  makeClientAuthority,
} from "../support/client-certificates.ts";
import { createKey, type HttpClient, httpClient } from "../support/http.ts";
import { makeKey, startIssuer } from "../support/issuer.ts";
import { endOf, openClient, openStage, type Stage, stateOf } from "../support/stage.ts";
import { until } from "../support/until.ts";

type LiveKey = Extract<(typeof configKeys)[number], { readonly live: true }>["key"];
type PemPair = Pick<TestCertificate, "cert" | "key">;

let stage: Stage;
let http: HttpClient;
let key: string;
let server: TestCertificate;
let authority: ClientAuthority;
let alice: ClientCertificate;

beforeAll(async () => {
  [server, authority] = await Promise.all([makeServerCertificate(), makeClientAuthority()]);
  alice = await authority.issue({ name: "CN=alice", alternativeNames: [{ type: "dns", value: "bob" }] });
  stage = await openStage({ users: ["alice", "bob"], configuration: unlimited });
  http = httpClient(`http://127.0.0.1:${stage.frontEnd.httpPort}`);
  key = await createKey(stage, "key-of-alice", "FOR alice");
});
afterAll(() => stage?.close());

const unlimited = "auth.login_attempts_per_user_per_min = 0\nauth.login_attempts_per_ip_per_min = 0\n";

/** Takes these lines, and the defaults of everything else. */
async function reload(...lines: string[]): Promise<void> {
  const before = stage.frontEnd.output().length;
  const given = new Set(lines.map((line) => line.split(" ")[0]));
  const rest = unlimited.split("\n").filter((line) => !given.has(line.split(" ")[0]));
  writeFileSync(join(stage.frontEnd.dataDir, "test.toml"), [...lines, ...rest].join("\n"), { mode: 0o600 });
  stage.frontEnd.signal("SIGHUP");
  await until(() => stage.frontEnd.output().slice(before).includes("configuration reloaded"));
  expect(stage.frontEnd.output().slice(before)).not.toMatch(/not reloaded|need a restart/);
}

const tls = (certificate = server) => [
  `server.tls.cert = "${certificate.certPath}"`,
  `server.tls.key = "${certificate.keyPath}"`,
];
const clientCa = () => `server.tls.client_ca = "${authority.certPath}"`;

/** Who a client is at pgwire within TLS, by its certificate or else by alice's password; or the refusal's SQLSTATE or message. */
async function whoOverPgwire(certificate?: PemPair): Promise<{ who: string; presented?: string }> {
  const ssl = {
    rejectUnauthorized: false,
    ...(certificate && { cert: certificate.cert, key: certificate.key }),
  };
  for (const user of ["alice", "bob"]) {
    const password = certificate === undefined ? {} : { password: "not asked for" };
    try {
      const client = await openClient(stage.login(user, { ssl, ...password }));
      const { stream } = (client as unknown as { connection: { stream: TLSSocket } }).connection;
      const presented = stream.getPeerCertificate().fingerprint256;
      const { rows } = await client.query("SELECT session_user AS who");
      await client.end();
      return { who: String(rows[0].who), presented };
    } catch (error) {
      if (certificate === undefined || user === "bob") return { who: String((error as Error).message) };
    }
  }
  throw new Error("unreachable");
}

/** The same at HTTP, where alice has a key instead of the password. */
function whoOverHttps(certificate?: PemPair): Promise<{ who: string; presented?: string }> {
  return new Promise((resolve) => {
    const sent = request(
      {
        host: "127.0.0.1",
        servername: "localhost",
        port: stage.frontEnd.httpPort,
        path: "/v1/query",
        method: "POST",
        agent: new Agent(),
        rejectUnauthorized: false,
        headers: {
          "content-type": "application/json",
          ...(certificate === undefined ? { authorization: `Bearer ${key}` } : {}),
        },
        ...(certificate && { cert: certificate.cert, key: certificate.key }),
      },
      (response) => {
        const presented = (response.socket as TLSSocket).getPeerCertificate().fingerprint256;
        let text = "";
        response.setEncoding("utf8").on("data", (chunk: string) => {
          text += chunk;
        });
        response.on("end", () => resolve({ who: JSON.parse(text).rows?.[0]?.who ?? text, presented }));
      },
    );
    sent.on("error", (error) => resolve({ who: error.message }));
    sent.end(JSON.stringify({ sql: "SELECT session_user AS who", database: "postgres" }));
  });
}

const whoAtBoth = async (certificate?: PemPair) => [
  (await whoOverPgwire(certificate)).who,
  (await whoOverHttps(certificate)).who,
];

/** Resolves when the front-end has closed a connection on which nothing was sent. */
async function closingOf(port: number): Promise<void> {
  const socket = connectSocket(port, "127.0.0.1");
  socket.resume();
  await once(socket, "close");
}

async function upstreamConnectionEnds(): Promise<void> {
  const client = await stage.connect("bob");
  expect(await stage.running("bob")).not.toEqual([]);
  await client.end();
  await until(async () => (await stage.running("bob")).length === 0);
}

/** What shows it, or the file in which that stands. */
const follows: Readonly<
  Record<LiveKey, "reload.test.ts" | "configuration-cli.test.ts" | (() => Promise<void>)>
> = {
  "server.max_connections": "reload.test.ts",
  "server.authentication_timeout": async () => {
    await reload('server.authentication_timeout = "1s"');
    const startedAt = performance.now();
    await Promise.all([closingOf(stage.frontEnd.port), closingOf(stage.frontEnd.httpPort)]);
    expect(performance.now() - startedAt).toBeLessThan(10_000);
  },
  "server.tls.cert": async () => {
    expect(await whoAtBoth()).not.toContain("alice");
    await reload(...tls());
    expect(await whoAtBoth()).toEqual(["alice", "alice"]);
    expect((await http.query(key, { sql: "SELECT 1" })).status).toBe(200);
    await (await stage.connect("alice")).end();
    await reload();
    expect(await whoAtBoth()).not.toContain("alice");
  },
  "server.tls.key": async () => {
    await reload(...tls());
    const before = (await whoOverPgwire()).presented;
    expect((await whoOverHttps()).presented).toBe(before);
    await reload(...tls(await makeServerCertificate()));
    const after = (await whoOverPgwire()).presented;
    expect([undefined, before]).not.toContain(after);
    expect((await whoOverHttps()).presented).toBe(after);
  },
  "server.tls.required": async () => {
    const plain = async () => [
      await stateOf(stage.connect("alice").then((client) => client.end())),
      (await http.query(key, { sql: "SELECT 1" })).status,
    ];
    await reload(...tls());
    expect(await plain()).toEqual([undefined, 200]);
    await reload(...tls(), "server.tls.required = true");
    expect(await plain()).toEqual(["28000", 426]);
    expect(await whoAtBoth()).toEqual(["alice", "alice"]);
    await reload();
    expect(await plain()).toEqual([undefined, 200]);
  },
  "server.tls.client_ca": async () => {
    await reload(...tls());
    expect(await whoAtBoth(alice)).not.toContain("alice");
    await reload(...tls(), clientCa());
    expect(await whoAtBoth(alice)).toEqual(["alice", "alice"]);
  },
  "server.tls.client_identity": async () => {
    await reload(...tls(), clientCa(), 'server.tls.client_identity = "san_dns"');
    expect(await whoAtBoth(alice)).toEqual(["bob", "bob"]);
  },
  "server.tls.client_required": async () => {
    await reload(...tls(), clientCa());
    expect(await whoAtBoth()).toEqual(["alice", "alice"]);
    await reload(...tls(), clientCa(), "server.tls.required = true", "server.tls.client_required = true");
    expect(await whoAtBoth()).not.toContain("alice");
    expect(await whoAtBoth(alice)).toEqual(["alice", "alice"]);
    // Nor by not encrypting at all.
    expect(await stateOf(stage.connect("alice"))).toBe("28000");
    expect((await http.query(key, { sql: "SELECT 1" })).status).toBe(426);
    await reload();
  },
  "server.tls.crl": async () => {
    const crl = join(authority.directory, "revoked.crl");
    writeFileSync(crl, await authority.revocationList([alice]));
    await reload(...tls(), clientCa());
    expect(await whoAtBoth(alice)).toEqual(["alice", "alice"]);
    await reload(...tls(), clientCa(), `server.tls.crl = "${crl}"`);
    expect(await whoAtBoth(alice)).not.toContain("alice");
    await reload();
  },
  "upstream.pool_size": "reload.test.ts",
  "upstream.max_connections": async () => {
    await reload("upstream.max_connections = 1", 'upstream.queue_timeout = "0"');
    const client = await stage.connect("bob");
    expect(await stateOf(stage.connect("alice"))).toBe("53300");
    await client.end();
    await reload();
  },
  "upstream.queue_timeout": "reload.test.ts",
  "upstream.idle_timeout": async () => {
    await reload('upstream.idle_timeout = "1s"');
    await upstreamConnectionEnds();
  },
  "upstream.max_lifetime": async () => {
    await reload('upstream.idle_timeout = "0"', 'upstream.max_lifetime = "1s"');
    await upstreamConnectionEnds();
  },
  "auth.min_password_length": "reload.test.ts",
  "auth.scram_iterations": async () => {
    await reload("auth.scram_iterations = 5000");
    await stage.asAdmin("CREATE USER dora PASSWORD 'a long password'");
    const [row] = await stage.past("SELECT scram_verifier FROM nodedb.principal WHERE name = 'dora'");
    expect(row?.scram_verifier).toMatch(/^SCRAM-SHA-256\$5000:/);
  },
  "auth.idle_timeout": "reload.test.ts",
  "auth.session_absolute_timeout": async () => {
    const client = await stage.connect("alice");
    const end = endOf(client);
    await reload('auth.session_absolute_timeout = "1s"');
    expect(await end).toMatchObject({
      code: "57P01",
      message: "terminating connection due to session timeout",
    });
  },
  "auth.max_connections_per_user": "reload.test.ts",
  "auth.max_failed_logins": "reload.test.ts",
  "auth.lockout_duration": async () => {
    const lockedFor = async () => {
      const [row] = await stage.past(
        "SELECT extract(epoch FROM locked_until - now())::float8 AS s FROM nodedb.login_failure WHERE name = 'bob'",
      );
      return Number(row?.s ?? 0);
    };
    await reload("auth.max_failed_logins = 1", 'auth.lockout_duration = "1h"');
    expect(await stateOf(stage.connect("bob", { password: "wrong" }))).toBe("28P01");
    await until(async () => (await lockedFor()) > 1_800);
    await stage.asAdmin("ALTER USER bob LOGIN");
    await until(
      async () => (await stateOf(stage.connect("bob").then((client) => client.end()))) === undefined,
    );
  },
  "auth.login_attempts_per_ip_per_min": async () => {
    await reload("auth.max_failed_logins = 0", "auth.login_attempts_per_ip_per_min = 1");
    expect(await stateOf(stage.connect("alice", { password: "wrong" }))).toBe("28P01");
    expect(await stateOf(stage.connect("bob"))).toBe("28P01");
    await reload();
    await (await stage.connect("bob")).end();
  },
  "auth.login_attempts_per_user_per_min": "reload.test.ts",
  "auth.jwks.providers": "reload.test.ts",
  "auth.jwks.allowed_algorithms": async () => {
    const signer = await makeKey("ES512", "one");
    const [configured, created] = await Promise.all([startIssuer([signer]), startIssuer([signer])]);
    const provider = `auth.jwks.providers = [{ issuer = "${configured.issuer}", audience = "api" }]`;
    const statuses = () =>
      Promise.all(
        [configured, created].map(
          async (issuer) => (await http.query(await issuer.sign(signer), { sql: "SELECT 1" })).status,
        ),
      );
    try {
      await stage.asAdmin(`CREATE OIDC PROVIDER shop WITH (issuer = '${created.issuer}', audience = 'api')`);
      await reload(provider);
      expect(await statuses()).toEqual([401, 401]);
      await reload(provider, 'auth.jwks.allowed_algorithms = ["ES512"]');
      expect(await statuses()).toEqual([200, 200]);
    } finally {
      await Promise.all([configured.close(), created.close()]);
    }
    await stage.asAdmin("DROP OIDC PROVIDER shop");
  },
  "auth.jwks.clock_skew": async () => {
    const secret = Buffer.from("s".repeat(32));
    const file = join(stage.frontEnd.dataDir, "issuer.secret");
    writeFileSync(file, secret, { mode: 0o600 });
    const provider = `auth.jwks.providers = [{ issuer = "shop", audience = "api", jwt_secret_file = "${file}" }]`;
    const token = await new SignJWT({ sub: "somebody" })
      .setProtectedHeader({ alg: "HS256" })
      .setIssuer("shop")
      .setAudience("api")
      .setExpirationTime("-5m")
      .sign(secret);
    const status = async () => (await http.query(token, { sql: "SELECT 1" })).status;
    await reload(provider);
    expect(await status()).toBe(401);
    await reload(provider, 'auth.jwks.clock_skew = "10m"');
    expect(await status()).toBe(200);
  },
  "http.max_rows": "reload.test.ts",
  "http.max_response": async () => {
    const status = async () => (await http.query(key, { sql: "SELECT repeat('x', 2000)" })).status;
    expect(await status()).toBe(200);
    await reload('http.max_response = "1KiB"');
    expect(await status()).toBe(413);
  },
  "http.statement_timeout": async () => {
    await reload('http.statement_timeout = "200ms"');
    const { status, body } = await http.query(key, { sql: "SELECT pg_sleep(20)" });
    expect([status, body.error.code]).toEqual([408, "57014"]);
    expect((await http.query(key, { sql: "SELECT 1", timeoutMs: 201 })).status).toBe(400);
  },
  "log.level": "configuration-cli.test.ts",
  // The last one: the front-end is gone after it.
  "server.shutdown_timeout": async () => {
    await reload('server.shutdown_timeout = "0"');
    const client = await stage.connect("alice");
    await client.query("BEGIN");
    const end = endOf(client);
    const startedAt = performance.now();
    stage.frontEnd.signal("SIGTERM");
    expect((await end).code).toBe("57P01");
    expect(await stage.frontEnd.exited).toBe(0);
    expect(performance.now() - startedAt).toBeLessThan(15_000);
  },
};

describe("a front-end that runs follows", () => {
  for (const [name, shown] of Object.entries(follows)) {
    if (typeof shown === "function") test(name, shown);
  }
});
