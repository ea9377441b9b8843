/** How logins end, and that a refusal tells nothing about whether the user exists (RFC 5802; design of mock exchanges). */

import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { decodeAuthentication } from "../../src/wire/backend-message-decoding.ts";
import {
  encodeQuery,
  encodeSaslInitialResponse,
  encodeTerminate,
} from "../../src/wire/frontend-message-encoding.ts";
import { openProtocolStage, type ProtocolStage } from "../support/protocol-stage.ts";
import {
  type BackendMessage,
  type Cutting,
  describeMessages,
  errorOf,
  message,
  rowsOf,
  startupMessage,
  statusOf,
} from "../support/raw-client.ts";

let stage: ProtocolStage;

beforeAll(async () => {
  stage = await openProtocolStage();
  const { client } = await stage.logIn();
  for (const statement of [
    "CREATE USER alice PASSWORD 'correct horse'",
    "CREATE USER retired PASSWORD 'correct horse'",
    "ALTER USER retired NOLOGIN",
    "CREATE USER expired PASSWORD 'correct horse' VALID UNTIL '2001-01-01'",
  ]) {
    expect(describeMessages(await client.query(statement))).toBe("CZ");
  }
});
afterEach(() => stage.closeClients());
afterAll(() => stage?.close());

async function attempt(user: string, password: string, cutting: Cutting): Promise<BackendMessage[]> {
  const client = await stage.connect(cutting);
  await client.send(startupMessage({ user, database: stage.admin.database }));
  const messages = await client.authenticate(password);
  return [...messages, ...(await client.readToClose())];
}

/** Salt and iterations that the server names for a user. */
async function challengeOf(user: string): Promise<string> {
  const client = await stage.connect();
  await client.send(startupMessage({ user }));
  await client.read();
  await client.send(encodeSaslInitialResponse("SCRAM-SHA-256", "n,,n=,r=abcdefgh"));
  const answer = decodeAuthentication((await client.read()).body);
  if (answer.type !== "AuthenticationSASLContinue") throw new Error(answer.type);
  const [nonce, ...rest] = answer.data.toString("latin1").split(",");
  expect(nonce).toMatch(/^r=abcdefgh./);
  return rest.join(",");
}

describe.each(["whole", "bytes"] as const)("a login sent %s", (cutting) => {
  test.each([
    ["an unknown user", "nobody_here", "correct horse"],
    ["a wrong password", "alice", "wrong horse"],
    ["an empty password", "alice", ""],
    ["a user that may not log in", "retired", "correct horse"],
    ["a user whose time is over", "expired", "correct horse"],
    ["a user of PostgreSQL's that is none of ours", "postgres", "whatever it is"],
  ])("is refused only at the last step, in the same words, for %s", async (_, user, password) => {
    const messages = await attempt(user, password, cutting);
    expect(describeMessages(messages)).toBe("RRE");
    expect(Object.fromEntries(errorOf(messages))).toEqual({
      S: "FATAL",
      V: "FATAL",
      C: "28P01",
      M: `password authentication failed for user "${user}"`,
    });
  });

  test("is accepted after the server has proven itself, and works", async () => {
    const { client, greeting } = await stage.logIn({ user: "alice", password: "correct horse" }, cutting);
    expect(describeMessages(greeting.messages)).toBe("RRRRKZ");
    expect(statusOf(greeting.messages)).toBe("I");
    expect(rowsOf(await client.query("SELECT current_user, session_user"))).toEqual([["alice", "alice"]]);
  });

  test("may leave the first SASL message out and be asked for it", async () => {
    const client = await stage.connect(cutting);
    await client.send(startupMessage({ user: "alice" }));
    await client.read();
    await client.send(message("p", Buffer.from("SCRAM-SHA-256\0\xff\xff\xff\xff", "latin1")));
    expect(decodeAuthentication((await client.read()).body)).toMatchObject({ data: Buffer.alloc(0) });
    await client.send(message("p", "n,,n=,r=abcdefgh"));
    expect(decodeAuthentication((await client.read()).body).type).toBe("AuthenticationSASLContinue");
  });

  test.each([
    ["a SASL answer", message("p", "n,,n=,r=abcdefgh")],
    ["a second StartupMessage", startupMessage({ user: "alice" })],
    ["a message of an unknown type", message("!", "x")],
    ["a message with a length of 3", message("Q", "", 3)],
    ["a message with a negative length", message("Q", "", -1)],
    ["a message that claims more than 1 GB", message("Q", "SELECT 1\0", 0x7fffffff)],
    ["a server's message", message("Z", "I")],
  ])("is followed by FATAL 08P01 and the end for %s", async (_, packet) => {
    const { client } = await stage.logIn({ user: "alice", password: "correct horse" }, cutting);
    await client.send(packet);
    const messages = await client.readToClose();
    expect(describeMessages(messages)).toBe("E");
    expect([errorOf(messages).get("S"), errorOf(messages).get("C")]).toEqual(["FATAL", "08P01"]);
  });

  test("ends without a word when the client says Terminate", async () => {
    const { client } = await stage.logIn({}, cutting);
    await client.send(encodeTerminate());
    expect(await client.readToClose()).toEqual([]);
  });

  test("is refused with 3D000 by PostgreSQL itself for a database that is not there", async () => {
    const client = await stage.connect(cutting);
    await client.send(startupMessage({ user: "alice", database: "not_there" }));
    const messages = [...(await client.authenticate("correct horse")), ...(await client.readToClose())];
    expect(errorOf(messages).get("S")).toBe("FATAL");
    expect(errorOf(messages).get("C")).toBe("3D000");
  });
});

test("the salt of an unknown user stays the same, and differs from another's", async () => {
  const first = await challengeOf("nobody_here");
  expect(await challengeOf("nobody_here")).toBe(first);
  expect(await challengeOf("nobody_else")).not.toBe(first);
  // Nothing in its form tells it from a real one.
  const shape = (challenge: string) => challenge.replace(/^s=[^,]*/, ({ length }) => `s=${length}`);
  expect(shape(first)).toBe(shape(await challengeOf("alice")));
});

test("statements sent ahead of the login's end are run after it", async () => {
  const client = await stage.connect();
  await client.send(startupMessage(stage.admin));
  const exchange = client.authenticate(stage.admin.password);
  await exchange;
  await client.send(encodeQuery("SELECT 1"), encodeQuery("SHOW USERS"), encodeQuery("SELECT 2"));
  await client.readReady();
  expect(rowsOf(await client.readReady())).toEqual([["1"]]);
  expect(rowsOf(await client.readReady()).map(([name]) => name)).toContain("alice");
  expect(rowsOf(await client.readReady())).toEqual([["2"]]);
});
