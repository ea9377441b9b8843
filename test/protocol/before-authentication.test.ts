/** What a stranger may send before authentication, and what it gets (PostgreSQL 18 manual 54.2.1). */

import { readFileSync } from "node:fs";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import {
  encodeQuery,
  encodeSaslInitialResponse,
  encodeSync,
} from "../../src/wire/frontend-message-encoding.ts";
import { openProtocolStage, type ProtocolStage } from "../support/protocol-stage.ts";
import {
  describeMessages,
  errorOf,
  int32,
  message,
  negotiationOf,
  type RawClient,
  rowsOf,
  startupMessage,
  startupPacket,
} from "../support/raw-client.ts";

const sslRequest = startupPacket((1234 << 16) | 5679);
const gssencRequest = startupPacket((1234 << 16) | 5680);
const version30 = 3 << 16;

let stage: ProtocolStage;

beforeAll(async () => {
  stage = await openProtocolStage();
});
afterEach(() => stage.closeClients());
afterAll(() => stage?.close());

/** Everything the server says, which must be one FATAL error with this SQLSTATE, and then the end. */
async function expectFatal(client: RawClient, sqlstate: string): Promise<Map<string, string>> {
  const messages = await client.readToClose();
  expect(describeMessages(messages).replace(/^[Rv]*/, "")).toBe("E");
  const error = errorOf(messages);
  expect([error.get("S"), error.get("V"), error.get("C")]).toEqual(["FATAL", "FATAL", sqlstate]);
  return error;
}

const malformed: readonly (readonly [name: string, packet: Buffer])[] = [
  ["a length of 0", int32(0)],
  ["a negative length", int32(-1)],
  ["a length that only covers itself", int32(4)],
  ["a length beyond 10 kB", int32(10_005)],
  ["the largest length there is", int32(0x7fffffff)],
  ["a parameter without its value", startupPacket(version30, "user\0alice\0database\0\0x")],
  ["parameters without an end", startupPacket(version30, "user\0alice\0")],
  ["something behind the end of the parameters", startupPacket(version30, "user\0alice\0\0rest")],
  ["an SSLRequest with content", startupPacket((1234 << 16) | 5679, "x")],
  ["a CancelRequest without a key", startupPacket((1234 << 16) | 5678, int32(1))],
  ["a CancelRequest with a key of 257 bytes", startupPacket((1234 << 16) | 5678, Buffer.alloc(4 + 257))],
];

describe.each(["whole", "bytes"] as const)("a stranger who sends %s", (cutting) => {
  test.each(malformed)("is refused with 08P01 for %s", async (_, packet) => {
    const client = await stage.connect(cutting);
    await client.send(packet);
    await expectFatal(client, "08P01");
  });

  test("is refused for a StartupMessage without a user", async () => {
    const client = await stage.connect(cutting);
    await client.send(startupPacket(version30, "database\0postgres\0\0"));
    await expectFatal(client, "28000");
  });

  test("is refused for a user name that is not UTF-8", async () => {
    const client = await stage.connect(cutting);
    await client.send(startupPacket(version30, Buffer.from("user\0\xff\xfe\0\0", "latin1")));
    await expectFatal(client, "22021");
  });

  test("is refused for protocol 2.0, and for a major version that does not exist", async () => {
    for (const code of [2 << 16, 4 << 16]) {
      const client = await stage.connect(cutting);
      await client.send(startupPacket(code, "user\0alice\0\0"));
      const error = await expectFatal(client, "0A000");
      expect(error.get("M")).toContain(
        `unsupported frontend protocol ${code >> 16}.0: server supports 3.0 to 3.2`,
      );
    }
  });

  test.each([
    ["a Query", encodeQuery("SELECT 1")],
    ["a Sync", encodeSync()],
    ["a second StartupMessage", startupMessage({ user: "alice" })],
    ["a message of an unknown type", message("\x01", "x")],
    ["a message that claims 1 GB", message("p", "SCRAM", 0x3fffffff)],
    ["a message with a negative length", message("p", "SCRAM", -5)],
    ["a SASL answer without a mechanism's end", message("p", "SCRAM-SHA-256")],
    [
      "a SASL answer whose data are longer than the message",
      message("p", Buffer.from("SCRAM-SHA-256\0\0\0\xff\xff", "latin1")),
    ],
    [
      "a mechanism that was not offered",
      encodeSaslInitialResponse("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,n=,r=abc"),
    ],
    ["a client-first-message that is none", encodeSaslInitialResponse("SCRAM-SHA-256", "hello")],
    ["a nonce with unprintable characters", encodeSaslInitialResponse("SCRAM-SHA-256", "n,,n=,r=a\x01b")],
  ])("is refused with 08P01 for %s instead of a SASL answer", async (_, packet) => {
    const client = await stage.connect(cutting);
    await client.send(startupMessage({ user: stage.admin.user }));
    await client.send(packet);
    const messages = await client.readToClose();
    expect(describeMessages(messages)).toBe("RE");
    expect(errorOf(messages).get("S")).toBe("FATAL");
    expect(errorOf(messages).get("C")).toBe("08P01");
  });

  test("is refused with 08P01 for a Query in the middle of the exchange", async () => {
    const client = await stage.connect(cutting);
    await client.send(startupMessage({ user: stage.admin.user }));
    await client.read();
    await client.send(encodeSaslInitialResponse("SCRAM-SHA-256", "n,,n=,r=abcdefgh"));
    await client.read();
    await client.send(encodeQuery("SELECT 1"));
    await expectFatal(client, "08P01");
  });

  test("is refused with 08P01 for a client-final-message with another nonce", async () => {
    const client = await stage.connect(cutting);
    await client.send(startupMessage({ user: stage.admin.user }));
    await client.read();
    await client.send(encodeSaslInitialResponse("SCRAM-SHA-256", "n,,n=,r=abcdefgh"));
    await client.read();
    const proof = Buffer.alloc(32).toString("base64");
    await client.send(message("p", `c=biws,r=abcdefghOther,p=${proof}`));
    await expectFatal(client, "08P01");
  });

  test.each([
    ["SSLRequest", sslRequest],
    ["GSSENCRequest", gssencRequest],
  ])("may log in after %s was answered with N", async (_, request) => {
    const client = await stage.connect(cutting);
    await client.send(request);
    expect(await client.readByte()).toBe("N");
    await client.logIn(stage.admin);
    expect(rowsOf(await client.query("SELECT 1"))).toEqual([["1"]]);
  });

  test("may ask for both kinds of encryption, each once", async () => {
    const client = await stage.connect(cutting);
    for (const request of [gssencRequest, sslRequest]) {
      await client.send(request);
      expect(await client.readByte()).toBe("N");
    }
    await client.send(sslRequest);
    await expectFatal(client, "08P01");
  });

  test("gets protocol 3.0 without a word about it, and a cancel key of 4 bytes", async () => {
    const { greeting } = await stage.logIn({ minor: 0 }, cutting);
    expect(describeMessages(greeting.messages)).toBe("RRRRKZ");
    expect(greeting.secretKey).toHaveLength(4);
  });

  test("gets protocol 3.2 without a word about it, and a longer cancel key", async () => {
    const { greeting } = await stage.logIn({ minor: 2 }, cutting);
    expect(describeMessages(greeting.messages)).toBe("RRRRKZ");
    expect(greeting.secretKey).toHaveLength(32);
  });

  test("is told of 3.2 when it asks for 3.9", async () => {
    const { greeting } = await stage.logIn({ minor: 9 }, cutting);
    expect(describeMessages(greeting.messages)).toBe("vRRRRKZ");
    expect(negotiationOf(greeting.messages)).toEqual({ major: 3, minor: 2, unrecognizedOptions: [] });
    expect(greeting.secretKey).toHaveLength(32);
  });

  test("is told of the protocol options that are not known, and of no newer version than it asked for", async () => {
    const parameters = { "_pq_.compression": "zstd", application_name: "options", "_pq_.other": "1" };
    const { client, greeting } = await stage.logIn({ minor: 0, parameters }, cutting);
    expect(negotiationOf(greeting.messages)).toEqual({
      major: 3,
      minor: 0,
      unrecognizedOptions: ["_pq_.compression", "_pq_.other"],
    });
    expect(greeting.secretKey).toHaveLength(4);
    expect(rowsOf(await client.query("SHOW application_name"))).toEqual([["options"]]);
  });
});

test.each([
  ["SSLRequest", sslRequest],
  ["GSSENCRequest", gssencRequest],
])("bytes behind %s in the same segment close the connection without an answer", async (_, request) => {
  const client = await stage.connect();
  await client.send(request, startupMessage(stage.admin));
  expect(await client.readToClose()).toEqual([]);
  expect(client.unread).toHaveLength(0);
});

test("a TLS ClientHello is closed where there is no certificate", async () => {
  const client = await stage.connect();
  await client.send(Buffer.from([0x16, 3, 1, 0, 200]), Buffer.alloc(200));
  expect(await client.readToClose()).toEqual([]);
});

test("lengths of 1 GB claimed by 50 strangers cost no memory", async () => {
  const { processId } = stage.frontEnd;
  const before = residentBytes(processId);
  for (let index = 0; index < 50; index += 1) {
    const unnamed = await stage.connect();
    await unnamed.send(int32(0x3fffffff), Buffer.alloc(2_000));
    await unnamed.isClosed();
    const named = await stage.connect();
    await named.send(startupMessage({ user: "x" }), message("p", Buffer.alloc(2_000), 0x3fffffff));
    await named.isClosed();
  }
  expect(residentBytes(processId) - before).toBeLessThan(64 * 1024 * 1024);
});

test("the length is judged before the content has come", async () => {
  const client = await stage.connect();
  await client.send(startupMessage({ user: "x" }), message("p", "", 10_001));
  await expectFatal(client, "08P01");
});

test("a client that leaves in the middle of its login leaves the server at work", async () => {
  for (const packet of [int32(100), startupMessage(stage.admin), sslRequest]) {
    const client = await stage.connect();
    await client.send(packet);
    client.close();
  }
  expect(await stage.userNames()).toContain(stage.admin.user);
});

function residentBytes(processId: number): number {
  try {
    const status = readFileSync(`/proc/${processId}/status`, "utf8");
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024;
  } catch {
    // Not Linux: that the answer comes at once is tested all the same.
    return 0;
  }
}
