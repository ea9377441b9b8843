/** Tokens on pgwire: OAUTHBEARER as PostgreSQL 18 has it (RFC 7628), and that one credential decides. */

import { networkInterfaces } from "node:os";
import type pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { decodeAuthentication } from "../../src/wire/backend-message-decoding.ts";
import { encodeSaslInitialResponse, encodeSaslResponse } from "../../src/wire/frontend-message-encoding.ts";
import { makeServerCertificate, type TestCertificate } from "../support/certificates.ts";
import {
  describeMessages,
  errorOf,
  message,
  RawClient,
  rowsOf,
  startupMessage,
  startupPacket,
} from "../support/raw-client.ts";
import { openStage, type Stage } from "../support/stage.ts";

const sslRequest = startupPacket((1234 << 16) | 5679);
const scram = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"];
/** A key that nobody has, in the form of one. */
const foreignKey = `ndb_aaaaaaaaaaaa_${"A".repeat(43)}`;

let server: TestCertificate;
let stage: Stage;
let key: string;
const clients: RawClient[] = [];

beforeAll(async () => {
  server = await makeServerCertificate();
  stage = await openStage({
    users: ["alice"],
    configuration: `[server]
host = "0.0.0.0"
[server.tls]
cert = "${server.certPath}"
key = "${server.keyPath}"
[auth]
login_attempts_per_ip_per_min = 0
[auth.pgwire]
bearer = true
`,
  });
  await stage.past("CREATE DATABASE a");
  await stage.asAdmin("CREATE SERVICE ACCOUNT etl FOR DATABASE a, postgres");
  key = await makeKey("CREATE API KEY k FOR etl");
});
afterEach(() => {
  for (const client of clients.splice(0)) client.close();
});
afterAll(() => stage?.close());

async function makeKey(statement: string): Promise<string> {
  const { rows }: pg.QueryResult = await stage.asAdmin(statement);
  return String(rows[0].api_key);
}

async function plain(host = "127.0.0.1"): Promise<RawClient> {
  const client = await RawClient.open({ host, port: stage.frontEnd.port });
  clients.push(client);
  return client;
}

async function encrypted(options: Parameters<RawClient["upgrade"]>[0] = {}): Promise<RawClient> {
  const client = await plain();
  await client.send(sslRequest);
  expect(await client.readByte()).toBe("S");
  await client.upgrade(options);
  return client;
}

/** The mechanisms that a user is offered. */
async function offered(client: RawClient, user: string, database = "postgres"): Promise<readonly string[]> {
  await client.send(startupMessage({ user, database }));
  const answer = decodeAuthentication((await client.read()).body);
  if (answer.type !== "AuthenticationSASL") throw new Error(answer.type);
  return answer.mechanisms;
}

const withToken = (token: string) => `n,,\x01auth=${token === "" ? "" : `Bearer ${token}`}\x01\x01`;

/** Presents a token. @returns what the server tells of where tokens come from, or undefined when it is accepted */
async function present(client: RawClient, user: string, token: string, database?: string) {
  await offered(client, user, database);
  await client.send(encodeSaslInitialResponse("OAUTHBEARER", withToken(token)));
  const answer = await client.read();
  if (answer.type === "E") return { error: errorOf([answer]) };
  const authentication = decodeAuthentication(answer.body);
  if (authentication.type === "AuthenticationOk") return undefined;
  if (authentication.type !== "AuthenticationSASLContinue") throw new Error(authentication.type);
  await client.send(encodeSaslResponse("\x01"));
  const rest = await client.readToClose();
  expect(describeMessages(rest)).toBe("E");
  return { json: JSON.parse(authentication.data.toString("utf8")), error: errorOf(rest) };
}

const refused = (user: string) => ({
  S: "FATAL",
  V: "FATAL",
  C: "28000",
  M: `OAuth bearer authentication failed for user "${user}"`,
});

describe("the mechanism", () => {
  test("is offered after SCRAM, encrypted or from this machine, and alone to external identities", async () => {
    expect(await offered(await encrypted(), "etl")).toEqual([...scram, "OAUTHBEARER"]);
    expect(await offered(await plain(), "etl")).toEqual(["SCRAM-SHA-256", "OAUTHBEARER"]);
    expect(await offered(await encrypted(), "nobody_here")).toEqual([...scram, "OAUTHBEARER"]);
    expect(await offered(await encrypted(), "oidc:corp")).toEqual(["OAUTHBEARER"]);
  });

  const elsewhere = Object.values(networkInterfaces())
    .flat()
    .find((address) => address?.family === "IPv4" && !address.internal)?.address;

  test.skipIf(elsewhere === undefined)("is not offered where others could read the token", async () => {
    for (const user of ["etl", "oidc:corp"]) {
      expect(await offered(await plain(elsewhere), user)).toEqual(["SCRAM-SHA-256"]);
    }
    const client = await plain(elsewhere);
    await offered(client, "etl");
    await client.send(encodeSaslInitialResponse("OAUTHBEARER", withToken(key)));
    expect(errorOf(await client.readToClose()).get("C")).toBe("08P01");
  });

  test("is off unless the configuration has it on", async () => {
    const other = await openStage();
    try {
      const client = await RawClient.open({ host: other.frontEnd.host, port: other.frontEnd.port });
      clients.push(client);
      for (const user of ["etl", "oidc:corp"]) {
        const fresh = await RawClient.open({ host: other.frontEnd.host, port: other.frontEnd.port });
        clients.push(fresh);
        expect(await offered(fresh, user)).toEqual(["SCRAM-SHA-256"]);
      }
      await offered(client, "etl");
      await client.send(encodeSaslInitialResponse("OAUTHBEARER", withToken(key)));
      expect(errorOf(await client.readToClose()).get("C")).toBe("08P01");
    } finally {
      await other.close();
    }
  });
});

describe("a token", () => {
  test("that is a key logs its owner in at once", async () => {
    const client = await encrypted();
    expect(await present(client, "etl", key)).toBeUndefined();
    await client.readReady();
    expect(rowsOf(await client.query("SHOW SESSION"))[0]?.slice(0, 4)).toEqual([
      "etl",
      "1",
      "readwrite",
      "api-key",
    ]);
  });

  test("may come when the client is asked for its first message", async () => {
    const client = await encrypted();
    await offered(client, "etl");
    await client.send(message("p", Buffer.from("OAUTHBEARER\0\xff\xff\xff\xff", "latin1")));
    expect(decodeAuthentication((await client.read()).body)).toMatchObject({ data: Buffer.alloc(0) });
    await client.send(encodeSaslResponse(withToken(key)));
    expect(decodeAuthentication((await client.read()).body).type).toBe("AuthenticationOk");
  });

  test.each([
    ["is unknown", () => foreignKey],
    ["is no token of ours", () => "abc"],
    ["is half a key", () => key.slice(0, -1)],
    ["is one of no provider", () => "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."],
  ])("that %s is refused after the client has acknowledged it", async (_, token) => {
    const outcome = await present(await encrypted(), "etl", token());
    expect(outcome?.json).toEqual({ status: "invalid_token", scope: "openid" });
    expect(Object.fromEntries(outcome?.error ?? [])).toEqual(refused("etl"));
  });

  test("of another user is refused, and written down as that", async () => {
    for (const user of ["alice", "nobody_here", "oidc:corp", "k"]) {
      const outcome = await present(await encrypted(), user, key);
      expect(Object.fromEntries(outcome?.error ?? [])).toEqual(refused(user));
    }
    const { rows } = await stage.asAdmin("SHOW AUDIT LOG WHERE event = 'AuthFailure' LIMIT 1");
    expect(rows).toMatchObject([{ detail: "token_of_another" }]);
  });

  test("that is not there asks where tokens come from, which is no failed login", async () => {
    const count = async () => (await stage.asAdmin("SHOW AUDIT LOG WHERE event = 'AuthFailure'")).rows.length;
    const before = await count();
    const outcome = await present(await encrypted(), "oidc:corp", "");
    expect(outcome?.json).toEqual({ status: "invalid_token", scope: "openid" });
    expect(Object.fromEntries(outcome?.error ?? [])).toEqual(refused("oidc:corp"));
    expect(await count()).toBe(before);
  });

  test("limited to a database opens no session in another", async () => {
    const narrow = await makeKey("CREATE API KEY n FOR etl WITH DATABASES (a)");
    expect(await present(await encrypted(), "etl", narrow, "a")).toBeUndefined();
    const client = await encrypted();
    await offered(client, "etl", "postgres");
    await client.send(encodeSaslInitialResponse("OAUTHBEARER", withToken(narrow)));
    expect(errorOf(await client.readToClose()).get("C")).toBe("42501");
  });

  test("longer than any is refused unread", async () => {
    const client = await encrypted();
    await offered(client, "etl");
    await client.send(encodeSaslInitialResponse("OAUTHBEARER", withToken("a".repeat(17_000))));
    expect(errorOf(await client.readToClose()).get("C")).toBe("08P01");
  });
});

describe("one credential decides", () => {
  test("after a refused token no password is taken", async () => {
    const client = await encrypted();
    await offered(client, "alice");
    await client.send(encodeSaslInitialResponse("OAUTHBEARER", withToken(foreignKey)));
    expect(decodeAuthentication((await client.read()).body).type).toBe("AuthenticationSASLContinue");
    await client.send(encodeSaslInitialResponse("SCRAM-SHA-256", "n,,n=,r=abcdefgh"));
    const rest = await client.readToClose();
    expect(describeMessages(rest)).toBe("E");
    expect(errorOf(rest).get("C")).toBe("08P01");
  });

  test("after a refused password no token is taken", async () => {
    const client = await encrypted();
    await client.send(startupMessage({ user: "etl", database: "postgres" }));
    expect(errorOf(await client.authenticate("wrong")).get("C")).toBe("28P01");
    await client.send(encodeSaslInitialResponse("OAUTHBEARER", withToken(key)));
    expect(await client.readToClose()).toEqual([]);
  });

  test("an external identity is offered no password and cannot choose one", async () => {
    const client = await encrypted();
    await offered(client, "oidc:corp");
    await client.send(encodeSaslInitialResponse("SCRAM-SHA-256", "n,,n=,r=abcdefgh"));
    expect(errorOf(await client.readToClose()).get("C")).toBe("08P01");
  });
});
