/** Input that is refused, in any cutting: where a stream happens to be cut is nobody's business but the kernel's. */

import fc from "fast-check";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import {
  encodeExecute,
  encodeFlush,
  encodeParse,
  encodeQuery,
  encodeSync,
} from "../../src/wire/frontend-message-encoding.ts";
import { openProtocolStage, type ProtocolStage } from "../support/protocol-stage.ts";
import {
  type BackendMessage,
  bind,
  describeMessages,
  errorOf,
  int32,
  message,
  type RawClient,
  startupMessage,
  startupPacket,
} from "../support/raw-client.ts";

const sslRequest = startupPacket((1234 << 16) | 5679);
const gssencRequest = startupPacket((1234 << 16) | 5680);

let stage: ProtocolStage;

beforeAll(async () => {
  stage = await openProtocolStage();
  const { client } = await stage.logIn();
  await client.query("CREATE TABLE public.place (name text)");
});
afterEach(() => stage.closeClients());
afterAll(() => stage?.close());

/** Sizes of pieces: mostly so small that they end within headers. */
const sizes = fc.array(
  fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 5_000 })),
  { minLength: 1, maxLength: 200 },
);

const outlineOf = (messages: readonly BackendMessage[]) =>
  messages
    .filter(({ type }) => type !== "S")
    .map(({ type, body }) => (type === "E" ? `E${errorOf([{ type, body }]).get("C")}` : type))
    .join(" ");

const extended = (text: string | Buffer) => [encodeParse("", text), bind(), encodeExecute("")];

/** What a client sends, up to where it is in step again. */
const steps: readonly (readonly [sent: Buffer, outline: string])[] = (
  [
    [[encodeQuery("SELECT 1")], "T D C Z"],
    [[encodeQuery("SHOW SESSION")], "T D C Z"],
    [[message("Q", "DROP USER nobody PASSWORD 'long\0enough'\0")], "E22021 Z"],
    [[message("Q", Buffer.from("DROP USER nob\xffody\0", "latin1"))], "E22021 Z"],
    [[encodeQuery("CREATE USER eve PASWORD 'long enough'")], "E42601 Z"],
    [[encodeQuery(`DROP USER ${"/*".repeat(100_000)}${"*/".repeat(100_000)} nobody`)], "E54001 Z"],
    [[encodeQuery(`DROP USER nobody /* ${"x".repeat(1024 * 1024)} */`)], "E54000 Z"],
    [[encodeQuery("SELECT 1; CREATE USER eve PASWORD 'x'; SELECT 2")], "T D C E42601 Z"],
    [[encodeQuery("SELECT 1/0; CREATE USER eve PASSWORD 'long enough'")], "E22012 Z"],
    [[message("Q", "SELECT 1")], "E08P01 Z"],
    [[...extended("DROP USER nobody"), encodeSync()], "1 2 E42704 Z"],
    [
      [...extended("CREATE USER eve PASWORD 'x'"), ...extended("CREATE USER eve PASSWORD 'y'"), encodeSync()],
      "E42601 Z",
    ],
    [
      [...extended("SELECT 1/0"), ...extended("CREATE USER eve PASSWORD 'long enough'"), encodeSync()],
      "1 E22012 Z",
    ],
    [[encodeQuery("COPY place FROM STDIN"), message("d", "one\ttoo many\n"), message("c")], "G E22P04 Z"],
    [[encodeQuery("SHOW SESSION; COPY place FROM STDIN"), message("f", "no\0")], "T D C G E57014 Z"],
  ] as const
).map(([messages, outline]) => [Buffer.concat(messages), outline]);

describe("what a session refuses", () => {
  test("is refused alike, one after the other, and changes nothing", async () => {
    const before = await stage.userNames();
    const { client } = await stage.logIn();
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom(...steps), { minLength: 1, maxLength: 6 }),
        sizes,
        async (chosen, cutting) => {
          client.cutting = cutting;
          await client.send(...chosen.map(([sent]) => sent));
          const outlines: string[] = [];
          for (const _ of chosen) outlines.push(outlineOf(await client.readReady()));
          expect(outlines).toEqual(chosen.map(([, outline]) => outline));
        },
      ),
      { numRuns: 60, examples: steps.map((step) => [[step], Array.from({ length: 300 }, () => 1)]) },
    );
    expect(await stage.userNames()).toEqual(before);
  });

  test.each([
    ["a second StartupMessage", startupMessage({ user: "nodedb" })],
    ["an SSLRequest", sslRequest],
    ["a message of an unknown type", message("\x01", "x")],
    ["a message that only servers send", message("Z", "I")],
    ["a SASL answer", message("p", "n,,n=,r=abcdefgh")],
    ["a negative length", message("Q", "SELECT 1\0", -1)],
    ["a length that does not cover itself", message("Q", "SELECT 1\0", 3)],
    ["a length beyond 1 GB", message("d", "x", 0x7fffffff)],
    ["a statement of ours of 2 MB", encodeQuery(`DROP USER nobody -- ${"x".repeat(2_000_000)}`), "54000"],
  ])("ends with a FATAL error for %s", async (_, bad, sqlstate = "08P01") => {
    await fc.assert(
      fc.asyncProperty(sizes, async (cutting) => {
        const { client } = await stage.logIn();
        client.cutting = cutting;
        await client.send(
          encodeQuery("SELECT 1"),
          bad,
          encodeQuery("CREATE USER eve PASSWORD 'long enough'"),
        );
        const messages = await client.readToClose();
        expect(outlineOf(messages).replace("T D C Z ", "")).toBe(`E${sqlstate}`);
        expect(errorOf(messages).get("V")).toBe("FATAL");
      }),
      { numRuns: 4, examples: [[Array.from({ length: 300 }, () => 1)]] },
    );
    expect(await stage.userNames()).not.toContain("eve");
  });
});

describe("bytes behind a request for encryption in the same segment", () => {
  test.each([
    ["SSLRequest", sslRequest],
    ["GSSENCRequest", gssencRequest],
  ])("close the connection without an answer, however %s itself is cut", async (_, request) => {
    const injected = fc.oneof(
      fc.constant(startupMessage(stage.admin)),
      fc.constant(encodeQuery("SELECT 1")),
      fc.constant(Buffer.from([0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0])),
      fc.uint8Array({ minLength: 1, maxLength: 100 }).map((bytes) => Buffer.from(bytes)),
    );
    const beginnings = fc.subarray([1, 2, 3, 4, 5, 6, 7]);
    await fc.assert(
      fc.asyncProperty(injected, beginnings, async (behind, ends) => {
        // Pieces end at these bytes of the request; its last byte goes with what follows it.
        const cutting = ends.map((end, index) => end - (ends[index - 1] ?? 0));
        const client = await stage.connect(cutting);
        await client.send(request, behind);
        expect(await client.readToClose()).toEqual([]);
        expect(client.unread).toHaveLength(0);
      }),
      { numRuns: 40, examples: [[startupMessage(stage.admin), [1, 2, 3, 4, 5, 6, 7]]] },
    );
  });
});

describe("a stranger's packet", () => {
  const refused: readonly (readonly [name: string, packet: Buffer, outline: string])[] = [
    ["a negative length", int32(-1), "E08P01"],
    ["a length beyond 10 kB", Buffer.concat([int32(10_005), Buffer.alloc(10_001)]), "E08P01"],
    ["content without an end", startupPacket(3 << 16, `user\0${"x".repeat(9_000)}`), "E08P01"],
    ["no user", startupPacket(3 << 16, "database\0postgres\0\0"), "E28000"],
    ["protocol 2.0", startupPacket(2 << 16, "user\0alice\0\0"), "E0A000"],
  ];

  test.each(refused)("with %s is refused alike", async (_, packet, outline) => {
    await fc.assert(
      fc.asyncProperty(sizes, async (cutting) => {
        const client = await stage.connect(cutting);
        await client.send(packet);
        expect(outlineOf(await client.readToClose())).toBe(outline);
      }),
      { numRuns: 10 },
    );
  });

  test.each([
    ["of the wrong type", encodeFlush(), "R E08P01"],
    ["larger than a login needs", message("p", Buffer.alloc(20_000)), "R E08P01"],
    ["that is no SCRAM message", message("p", "SCRAM-SHA-256\0\0\0\0\x05hello"), "R E08P01"],
  ])("in place of a SASL answer, %s, is refused alike", async (_, packet, outline) => {
    await fc.assert(
      fc.asyncProperty(sizes, async (cutting) => {
        const client: RawClient = await stage.connect(cutting);
        await client.send(startupMessage({ user: stage.admin.user }), packet);
        const messages = await client.readToClose();
        expect([outlineOf(messages), describeMessages(messages).length]).toEqual([outline, 2]);
      }),
      { numRuns: 10 },
    );
  });
});
