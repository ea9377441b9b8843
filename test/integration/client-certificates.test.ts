/** Logins with a client certificate: whose, and what is refused before a word of the protocol is read (PostgreSQL manual 20.12). */

import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type ConnectionOptions, connect as connectTls } from "node:tls";
import type { JsonNameParams } from "@peculiar/x509";
import type pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { makeServerCertificate, type TestCertificate } from "../support/certificates.ts";
import {
  type ClientAuthority,
  type ClientCertificate,
  makeClientAuthority,
  replaceFile,
} from "../support/client-certificates.ts";
import { findPythonWith, isRunnable } from "../support/client-program.ts";
import { startFrontEnd } from "../support/front-end.ts";
import {
  ConnectionClosed,
  describeMessages,
  errorOf,
  RawClient,
  startupMessage,
  startupPacket,
} from "../support/raw-client.ts";
import { runProgram } from "../support/run-program.ts";
import { requireClient } from "../support/skips.ts";
import { endOf, openClient, openStage, passwordOf, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

const sslRequest = startupPacket((1234 << 16) | 5679);
const versions = ["TLSv1.2", "TLSv1.3"] as const;
const dayMs = 24 * 60 * 60 * 1000;

let server: TestCertificate;
let authority: ClientAuthority;
let stranger: ClientAuthority;
let crlPath: string;
let stage: Stage;
let alice: ClientCertificate;
let revoked: ClientCertificate;
const raw: RawClient[] = [];
const open: pg.Client[] = [];

beforeAll(async () => {
  [server, authority, stranger] = await Promise.all([
    makeServerCertificate(),
    makeClientAuthority(),
    // The same name as the real one: only its key tells it apart.
    makeClientAuthority(),
  ]);
  [alice, revoked] = [
    await authority.issue({ name: "CN=alice" }),
    await authority.issue({ name: "CN=alice" }),
  ];
  crlPath = join(authority.directory, "revoked.crl");
  writeFileSync(crlPath, await authority.revocationList([revoked]));
  stage = await openStage({ users: ["alice", "bob"], configuration: configuration() });
  await stage.asAdmin("CREATE SERVICE ACCOUNT etl FOR DATABASE postgres");
  await stage.asAdmin("CREATE API KEY ci ROLE readonly");
  await stage.asAdmin(`CREATE USER "carol@example.com" PASSWORD 'password of carol'`);
});
afterEach(async () => {
  for (const client of raw.splice(0)) client.close();
  for (const client of open.splice(0)) await client.end().catch(() => undefined);
});
afterAll(() => stage?.close());

function configuration(more = "", ca = authority.certPath): string {
  return `[auth]
login_attempts_per_ip_per_min = 0
[server.tls]
cert = "${server.certPath}"
key = "${server.keyPath}"
client_ca = "${ca}"
crl = "${crlPath}"
${more}
`;
}

/** A connection in TLS, with what it shows of itself; the server may already have closed it. */
async function encrypted(
  options: ConnectionOptions,
  on: { port: number } = stage.frontEnd,
): Promise<RawClient> {
  const client = await RawClient.open({ host: "127.0.0.1", port: on.port });
  raw.push(client);
  await client.send(sslRequest);
  expect(await client.readByte()).toBe("S");
  await client.upgrade(options);
  return client;
}

/** Whether the server ends the connection without a word, although the client goes on as if all were well. */
async function isRefusedInHandshake(options: ConnectionOptions, on?: { port: number }): Promise<boolean> {
  let client: RawClient;
  try {
    client = await encrypted(options, on);
  } catch (error) {
    expect(String(error)).toMatch(/closed|disconnected|ECONNRESET|EPIPE/i);
    return true;
  }
  await client.send(startupMessage({ user: "alice", database: "postgres" }));
  try {
    await client.read();
    return false;
  } catch (error) {
    if (error instanceof ConnectionClosed) return true;
    throw error;
  } finally {
    client.close();
  }
}

/** What is answered to a StartupMessage, up to the first request or error. */
async function answerTo(user: string, options: ConnectionOptions): Promise<string> {
  const client = await encrypted(options);
  await client.send(startupMessage({ user, database: "postgres" }));
  const { type, body } = await client.read();
  if (type === "R") return body.readInt32BE(0) === 0 ? "AuthenticationOk" : "AuthenticationSASL";
  const error = errorOf([{ type, body }]);
  expect(describeMessages(await client.readToClose())).toBe("");
  return `${error.get("S")} ${error.get("C")} ${error.get("M")}`;
}

async function connect(
  user: string,
  certificate: ClientCertificate | undefined,
  more: pg.ClientConfig = {},
): Promise<pg.Client> {
  const ssl = { ca: server.cert, servername: "localhost", ...(certificate && pair(certificate)) };
  const client = await openClient({ ...stage.login(user), password: "", ssl, ...more });
  open.push(client);
  return client;
}

const pair = ({ cert, key }: ClientCertificate) => ({ cert, key });
const refusal = (user: string) => `FATAL 28000 certificate authentication failed for user "${user}"`;

describe.each(versions)("in %s", (version) => {
  const only = { minVersion: version, maxVersion: version };

  test("a certificate is enough: no password is asked for", async () => {
    expect(await answerTo("alice", { ...only, ...pair(alice) })).toBe("AuthenticationOk");
  });

  test("without one SCRAM goes on as before", async () => {
    expect(await answerTo("alice", only)).toBe("AuthenticationSASL");
    const client = await encrypted(only);
    await client.logIn({ user: "alice", password: passwordOf("alice"), database: "postgres" });
  });

  test.each<[string, () => Promise<ClientCertificate> | ClientCertificate]>([
    ["of another authority", () => stranger.issue({ name: "CN=alice" })],
    ["that has expired", () => authority.issue({ name: "CN=alice", notAfter: new Date(Date.now() - 1000) })],
    [
      "that is not valid yet",
      () =>
        authority.issue({
          name: "CN=alice",
          notBefore: new Date(Date.now() + dayMs / 2),
        }),
    ],
    ["that is revoked", () => revoked],
    ["for servers", () => authority.issue({ name: "CN=alice", usage: "serverAuth" })],
    ["that signs itself", async () => ({ ...(await makeServerCertificate()), serial: "" })],
  ])("one %s is refused before the StartupMessage is read", async (_, certificate) => {
    expect(await isRefusedInHandshake({ ...only, ...pair(await certificate()) })).toBe(true);
  });

  test("a session that is resumed brings no certificate back", async () => {
    const shortLived = await authority.issue({ name: "CN=alice" });
    const sessions: Buffer[] = [];
    const open = (more: ConnectionOptions) =>
      new Promise<{ reused: boolean; session: Buffer | undefined }>((resolve, reject) => {
        const socket = connectTls({
          ...only,
          host: stage.frontEnd.host,
          port: stage.frontEnd.port,
          ALPNProtocols: ["postgresql"],
          rejectUnauthorized: false,
          ...more,
        });
        socket.on("session", (session) => sessions.push(session));
        socket.on("error", reject);
        socket.once("secureConnect", () => socket.write(startupMessage({ user: "alice" })));
        socket.once("data", (data) => {
          expect(String.fromCharCode(data[0] ?? 0)).toBe("R");
          resolve({ reused: socket.isSessionReused(), session: socket.getSession() });
          socket.destroy();
        });
      });
    const { session } = await open(pair(shortLived));
    for (const old of [...sessions, ...(session === undefined ? [] : [session])]) {
      expect(await open({ session: old })).toMatchObject({ reused: false });
    }
  });
});

test("no other certificate comes by renegotiation", async () => {
  const socket = connectTls({
    host: stage.frontEnd.host,
    port: stage.frontEnd.port,
    ALPNProtocols: ["postgresql"],
    ca: server.cert,
    servername: "localhost",
    maxVersion: "TLSv1.2",
  });
  const failure = new Promise<Error>((resolve) => socket.on("error", resolve));
  await once(socket, "secureConnect");
  socket.renegotiate({}, () => socket.destroy(new Error("renegotiated")));
  expect((await failure).message).toContain("no renegotiation");
});

describe("a certificate that is verified and is not its user's", () => {
  const names: [string, string, string | JsonNameParams][] = [
    ["names another user", "alice", "CN=bob"],
    ["names somebody unknown", "nobody_here", "CN=nobody_here"],
    ["names a PostgreSQL role that is no user", "postgres", "CN=postgres"],
    ["names an API key", "ci", "CN=ci"],
    ["names nobody", "alice", "O=alice"],
    ["has two names", "alice", [{ CN: [{ utf8String: "alice" }] }, { CN: [{ utf8String: "bob" }] }]],
    ["has a NUL in its name", "alice", [{ CN: [{ utf8String: "alice\0.example.com" }] }]],
    ["has a name in UTF-16", "alice", [{ CN: [{ bmpString: "alice" }] }]],
    ["is a wildcard", "alice", "CN=*"],
    ["differs in case", "alice", "CN=Alice"],
  ];

  test.each(names)("because it %s is a refusal, and no password is asked for", async (_, user, name) => {
    const certificate = await authority.issue({ name });
    expect(await answerTo(user, pair(certificate))).toBe(refusal(user));
  });

  test("is a refusal even with the right password, and is written down", async () => {
    const certificate = await authority.issue({ name: "CN=bob" });
    const attempt = connect("alice", certificate, { password: passwordOf("alice") });
    await expect(attempt).rejects.toMatchObject({ code: "28000" });
    const { rows } = await stage.asAdmin("SHOW AUDIT LOG WHERE event = 'AuthFailure' LIMIT 1");
    expect(rows).toMatchObject([{ username: "alice", detail: "certificate_of_another" }]);
  });

  test("locks nobody out", async () => {
    const certificate = await authority.issue({ name: "CN=bob" });
    for (let attempt = 0; attempt < 6; attempt++) {
      expect(await answerTo("alice", pair(certificate))).toBe(refusal("alice"));
    }
    await (await connect("alice", undefined, { password: passwordOf("alice") })).query("SELECT 1");
  });
});

test("the session is the principal's, and ends with the certificate", async () => {
  const notAfter = new Date(Math.ceil(Date.now() / 1000) * 1000 + 2000);
  const brief = await authority.issue({ name: "CN=etl", notAfter });
  const client = await connect("etl", brief);
  const { rows } = await client.query("SHOW SESSION");
  expect(rows).toMatchObject([{ username: "etl", auth_method: "certificate", expires_at: notAfter }]);
  const { rows: roles } = await client.query("SELECT current_user AS u, session_user AS s");
  expect(roles).toEqual([{ u: "etl", s: "etl" }]);
  expect((await endOf(client)).code).toBe("57P01");
});

test("a user that may not log in does not with a certificate either", async () => {
  await stage.asAdmin("CREATE USER retired PASSWORD 'password of retired' VALID UNTIL '2001-01-01'");
  const certificate = await authority.issue({ name: "CN=retired" });
  expect(await answerTo("retired", pair(certificate))).toBe(refusal("retired"));
});

describe("the files", () => {
  test("are reread when a list of revoked certificates takes another's place, and live sessions end", async () => {
    const later = await authority.issue({ name: "CN=alice" });
    const [closed, left] = [await connect("alice", later), await connect("alice", alice)];
    const ended = endOf(closed);
    replaceFile(crlPath, await authority.revocationList([revoked, later]));
    expect((await ended).code).toBe("57P01");
    expect(await isRefusedInHandshake(pair(later))).toBe(true);
    expect(await isRefusedInHandshake(pair(revoked))).toBe(true);
    expect((await left.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    expect(await answerTo("alice", pair(alice))).toBe("AuthenticationOk");
  });

  test.each<[string, (list: string) => string]>([
    ["is empty", () => ""],
    ["is something else", () => authority.cert],
    ["ends in the middle", (list) => list.slice(0, list.length / 2)],
    ["holds a second list that ends in the middle", (list) => `${list}\n${list.slice(0, list.length / 2)}`],
  ])("that %s changes nothing, and is told in the log", async (_, change) => {
    const before = readFileSync(crlPath, "utf8");
    const lines = () => stage.frontEnd.output().split("client certificates not reloaded").length;
    const count = lines();
    replaceFile(crlPath, change(before));
    await until(() => lines() > count);
    expect(await isRefusedInHandshake(pair(revoked))).toBe(true);
    expect(await answerTo("alice", pair(alice))).toBe("AuthenticationOk");
    const reloaded = () => stage.frontEnd.output().split("client certificates reloaded").length;
    const good = reloaded();
    replaceFile(crlPath, before);
    await until(() => reloaded() > good);
  });

  test("hold more than one authority and list, and SIGHUP rereads them", async () => {
    const second = await makeClientAuthority("CN=a second authority");
    const [certificate, gone] = [
      await second.issue({ name: "CN=bob" }),
      await second.issue({ name: "CN=bob" }),
    ];
    expect(await isRefusedInHandshake(pair(certificate))).toBe(true);
    const ca = readFileSync(authority.certPath, "utf8");
    const lists = readFileSync(crlPath, "utf8");
    writeFileSync(crlPath, `${lists}\n${await second.revocationList([gone])}\n`);
    writeFileSync(authority.certPath, `${ca}\n${second.cert}\n`);
    stage.frontEnd.signal("SIGHUP");
    await until(async () => !(await isRefusedInHandshake(pair(certificate))));
    expect(await answerTo("bob", pair(certificate))).toBe("AuthenticationOk");
    expect(await isRefusedInHandshake(pair(gone))).toBe(true);
    expect(await isRefusedInHandshake(pair(revoked))).toBe(true);
    expect(await answerTo("alice", pair(alice))).toBe("AuthenticationOk");
    writeFileSync(crlPath, lists);
    writeFileSync(authority.certPath, ca);
    await until(() => isRefusedInHandshake(pair(certificate)));
  });

  test("a list that is out of date lets nobody in", async () => {
    const before = readFileSync(crlPath, "utf8");
    replaceFile(crlPath, await authority.revocationList([], new Date(Date.now() - 1000)));
    await until(() => isRefusedInHandshake(pair(alice)));
    await until(() => stage.frontEnd.output().includes("CRL_HAS_EXPIRED"));
    expect(await answerTo("alice", {})).toBe("AuthenticationSASL");
    replaceFile(crlPath, before);
    await until(async () => !(await isRefusedInHandshake(pair(alice))));
  });

  test("without a certificate of an authority stop the start", async () => {
    const empty = join(authority.directory, "empty.crt");
    writeFileSync(empty, "");
    const start = startFrontEnd({ upstreamUrl: stage.postgres.url, configuration: configuration("", empty) });
    await expect(start).rejects.toThrow(/empty\.crt holds no PEM block "CERTIFICATE"/);
  });
});

test("a subject alternative name may be the principal's, and clients may have to have a certificate", async () => {
  const strict = await startFrontEnd({
    upstreamUrl: stage.postgres.url,
    besides: stage.frontEnd.dataDir,
    configuration: configuration('required = true\nclient_required = true\nclient_identity = "san_email"'),
  });
  try {
    const carol = await authority.issue({
      name: "CN=alice",
      alternativeNames: [{ type: "email", value: "carol@example.com" }],
    });
    const client = await encrypted(pair(carol), strict);
    await client.logIn({ user: "carol@example.com", database: "postgres" });
    const mallory = await encrypted(pair(carol), strict);
    await mallory.send(startupMessage({ user: "alice", database: "postgres" }));
    expect(errorOf(await mallory.readToClose()).get("C")).toBe("28000");
    expect(await isRefusedInHandshake({}, strict)).toBe(true);
    const plain = await RawClient.open({ host: strict.host, port: strict.port });
    raw.push(plain);
    await plain.send(startupMessage({ user: "carol@example.com" }));
    expect(errorOf(await plain.readToClose()).get("C")).toBe("28000");
  } finally {
    await strict.close();
  }
});

describe("foreign clients log in with a certificate", () => {
  const python = findPythonWith("psycopg");
  const environment = (certificate: ClientCertificate, user: string) => ({
    PGHOST: "localhost",
    PGHOSTADDR: stage.frontEnd.host,
    PGPORT: String(stage.frontEnd.port),
    PGDATABASE: "postgres",
    PGUSER: user,
    PGSSLMODE: "verify-full",
    PGSSLROOTCERT: server.certPath,
    PGSSLCERT: certificate.certPath,
    PGSSLKEY: certificate.keyPath,
  });

  test.skipIf(!requireClient("psql", isRunnable("psql", "--version")))("psql", async () => {
    const args = ["-AtXwc", "SELECT current_user"];
    expect(await runProgram("psql", args, environment(alice, "alice"))).toMatchObject({
      stdout: "alice\n",
      stderr: "",
    });
    const other = await runProgram("psql", args, environment(alice, "bob"));
    expect(other).toMatchObject({ status: 2 });
    expect(other.stderr).toContain('certificate authentication failed for user "bob"');
    expect(await runProgram("psql", args, environment(revoked, "alice"))).toMatchObject({ status: 2 });
  });

  test.skipIf(!requireClient("psycopg 3 (python3-psycopg)", python !== undefined))("psycopg", async () => {
    const program = "import psycopg\nprint(psycopg.connect('').execute('SELECT current_user').fetchone()[0])";
    const { stdout, stderr } = await runProgram(python ?? "", ["-c", program], environment(alice, "alice"));
    expect([stdout, stderr]).toEqual(["alice\n", ""]);
  });

  test("node-postgres", async () => {
    const client = await connect("alice", alice);
    expect((await client.query("SELECT current_user AS u")).rows).toEqual([{ u: "alice" }]);
  });
});
