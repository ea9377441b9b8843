/** Client certificates over HTTP: before every other credential, and none in place of one that is refused. */

import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { Agent, type RequestOptions, request } from "node:https";
import { join } from "node:path";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { makeServerCertificate, type TestCertificate } from "../support/certificates.ts";
import {
  type ClientAuthority,
  type ClientCertificate,
  makeClientAuthority,
  replaceFile,
} from "../support/client-certificates.ts";
import { startFrontEnd } from "../support/front-end.ts";
import { createKey, httpClient } from "../support/http.ts";
import { openStage, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

let server: TestCertificate;
let authority: ClientAuthority;
let crlPath: string;
let stage: Stage;
let alice: ClientCertificate;
let revoked: ClientCertificate;
let key: string;
const agents: Agent[] = [];

beforeAll(async () => {
  [server, authority] = await Promise.all([makeServerCertificate(), makeClientAuthority()]);
  [alice, revoked] = [
    await authority.issue({ name: "CN=alice" }),
    await authority.issue({ name: "CN=alice" }),
  ];
  crlPath = join(authority.directory, "revoked.crl");
  writeFileSync(crlPath, await authority.revocationList([revoked]));
  stage = await openStage({ users: ["alice", "bob"], configuration: configuration() });
  await stage.asAdmin("CREATE SERVICE ACCOUNT etl FOR DATABASE postgres");
  key = await createKey(stage, "k", "FOR bob");
});
afterEach(() => {
  for (const agent of agents.splice(0)) agent.destroy();
});
afterAll(() => stage?.close());

function configuration(more = ""): string {
  return `[auth]
login_attempts_per_ip_per_min = 0
[server.tls]
cert = "${server.certPath}"
key = "${server.keyPath}"
client_ca = "${authority.certPath}"
crl = "${crlPath}"
${more}
`;
}

/** One client's connection, which it keeps. */
function connection(certificate?: Pick<ClientCertificate, "cert" | "key">): Agent {
  const agent = new Agent({
    keepAlive: true,
    maxSockets: 1,
    ca: server.cert,
    ...(certificate && { cert: certificate.cert, key: certificate.key }),
  });
  agents.push(agent);
  return agent;
}

interface Answer {
  readonly status: number;
  readonly connection: string | undefined;
  // biome-ignore lint/suspicious/noExplicitAny: what an answer holds is what the tests look at
  readonly body: any;
}

/** Asks who the session's user is. Rejects when the connection is closed without an answer. */
function ask(agent: Agent, token?: string, options: RequestOptions = {}): Promise<Answer> {
  const body = JSON.stringify({ sql: "SELECT session_user AS u", database: "postgres" });
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        host: "127.0.0.1",
        servername: "localhost",
        port: stage.frontEnd.httpPort,
        path: "/v1/query",
        method: "POST",
        agent,
        headers: {
          "content-type": "application/json",
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        },
        ...options,
      },
      (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (chunk: string) => {
          text += chunk;
        });
        response.on("end", () =>
          resolve({
            status: response.statusCode ?? 0,
            connection: response.headers.connection,
            body: JSON.parse(text),
          }),
        );
      },
    );
    sent.on("error", reject);
    sent.end(body);
  });
}

const as = (user: string) => ({ status: 200, body: { rows: [{ u: user }] } });

test("a certificate is enough, and decides before a token", async () => {
  expect(await ask(connection(alice))).toMatchObject(as("alice"));
  expect(await ask(connection(alice), key)).toMatchObject(as("alice"));
  expect(await ask(connection(await authority.issue({ name: "CN=etl" })))).toMatchObject(as("etl"));
});

test("without a certificate a token is taken as before, encrypted or not", async () => {
  expect(await ask(connection(), key)).toMatchObject(as("bob"));
  expect(await ask(connection())).toMatchObject({ status: 401 });
  const plain = httpClient(`http://127.0.0.1:${stage.frontEnd.httpPort}`);
  expect(await plain.query(key, { sql: "SELECT session_user AS u" })).toMatchObject(as("bob"));
});

describe("no token mends a certificate", () => {
  test.each<[string, () => Promise<Pick<ClientCertificate, "cert" | "key">>]>([
    ["is revoked", async () => revoked],
    ["has expired", () => authority.issue({ name: "CN=alice", notAfter: new Date(Date.now() - 1000) })],
    ["is of another authority", async () => (await makeClientAuthority()).issue({ name: "CN=alice" })],
    ["is for servers", () => authority.issue({ name: "CN=alice", usage: "serverAuth" })],
  ])("that %s: the connection is closed without an answer", async (_, certificate) => {
    await expect(ask(connection(await certificate()), key)).rejects.toThrow();
  });

  test.each<[string, string]>([
    ["names nobody", "O=alice"],
    ["names somebody unknown", "CN=nobody_here"],
    ["names a key", "CN=k"],
  ])("that %s: 401", async (_, name) => {
    const { status, body } = await ask(connection(await authority.issue({ name })), key);
    expect(status).toBe(401);
    expect(body.error).toMatchObject({ code: "28000", message: "authentication failed" });
  });
});

test("a certificate that is revoked ends with the next request on a connection that was open", async () => {
  const later = await authority.issue({ name: "CN=alice" });
  const kept = connection(later);
  expect(await ask(kept)).toMatchObject(as("alice"));
  replaceFile(crlPath, await authority.revocationList([revoked, later]));
  await until(async () => (await ask(kept)).status === 401);
  await expect(ask(connection(later))).rejects.toThrow();
  expect(await ask(connection(alice))).toMatchObject(as("alice"));
});

test("a certificate that expires ends with the next request, and takes its connection with it", async () => {
  const brief = connection(
    await authority.issue({ name: "CN=alice", notAfter: new Date(Date.now() + 3_000) }),
  );
  const first = await ask(brief);
  expect(first).toMatchObject(as("alice"));
  await until(async () => {
    const { status, connection: fate } = await ask(brief);
    // One that is under way at the moment itself is ended with 401 or 503; the next one finds nobody.
    return status === 401 && fate === "close";
  });
  await expect(ask(brief)).rejects.toThrow();
});

test("an authority that is added is taken from then on, and one that is taken away is not", async () => {
  const second = await makeClientAuthority("CN=a second authority");
  const certificate = await second.issue({ name: "CN=bob" });
  await expect(ask(connection(certificate))).rejects.toThrow();
  const [ca, lists] = [readFileSync(authority.certPath, "utf8"), readFileSync(crlPath, "utf8")];
  replaceFile(crlPath, `${lists}\n${await second.revocationList([])}\n`);
  replaceFile(authority.certPath, `${ca}\n${second.cert}\n`);
  const isTaken = () =>
    ask(connection(certificate)).then(
      ({ status }) => status === 200,
      () => false,
    );
  await until(isTaken);
  expect(await ask(connection(certificate))).toMatchObject(as("bob"));
  replaceFile(authority.certPath, ca);
  await until(async () => !(await isTaken()));
  replaceFile(crlPath, lists);
});

test("no other certificate comes by renegotiation", async () => {
  const socket = connectTls({
    port: stage.frontEnd.httpPort ?? 0,
    host: "127.0.0.1",
    ca: server.cert,
    servername: "localhost",
    maxVersion: "TLSv1.2",
  });
  const failure = new Promise<Error>((resolve) => socket.on("error", resolve));
  await once(socket, "secureConnect");
  socket.renegotiate({}, () => socket.destroy(new Error("renegotiated")));
  expect((await failure).message).toContain("no renegotiation");
});

test("no session is resumed", async () => {
  const agent = connection(alice);
  const reused: boolean[] = [];
  for (const attempt of [0, 1]) {
    const fresh = { headers: { "content-type": "application/json", connection: "close" } };
    await new Promise<void>((resolve, reject) => {
      const sent = request(
        {
          host: "127.0.0.1",
          servername: "localhost",
          port: stage.frontEnd.httpPort,
          path: `/?${attempt}`,
          agent,
          ...fresh,
        },
        (response) => response.resume().on("end", () => resolve()),
      );
      sent.on("socket", (socket) =>
        socket.once("secureConnect", () => reused.push((socket as TLSSocket).isSessionReused())),
      );
      sent.on("error", reject);
      sent.end();
    });
  }
  expect(reused).toEqual([false, false]);
});

test("clients may have to have a certificate, and another name in it may be the one that counts", async () => {
  await stage.asAdmin(`CREATE USER "carol@example.com" PASSWORD 'password of carol'`);
  const strict = await startFrontEnd({
    upstreamUrl: stage.postgres.url,
    besides: stage.frontEnd.dataDir,
    configuration: configuration('required = true\nclient_required = true\nclient_identity = "san_email"'),
  });
  try {
    const there = { port: strict.httpPort };
    const carol = await authority.issue({
      name: "CN=alice",
      alternativeNames: [{ type: "email", value: "carol@example.com" }],
    });
    expect(await ask(connection(carol), undefined, there)).toMatchObject(as("carol@example.com"));
    expect(await ask(connection(alice), key, there)).toMatchObject({ status: 401 });
    await expect(ask(connection(), key, there)).rejects.toThrow();
    const plain = httpClient(`http://127.0.0.1:${strict.httpPort}`);
    expect(await plain.query(key, { sql: "SELECT 1" })).toMatchObject({ status: 426 });
  } finally {
    await strict.close();
  }
});
