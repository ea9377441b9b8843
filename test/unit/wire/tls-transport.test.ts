/** What is peculiar to a transport in TLS: records that are decrypted together, one write at a time, and breaks below the encryption. */

import type { Socket } from "node:net";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { chooseTransports } from "../../../src/wire/choose-transport.ts";
import { findStreamBinding } from "../../../src/wire/stream-binding.ts";
import type { Transport } from "../../../src/wire/transport.ts";
import { TransportFactory } from "../../../src/wire/transport-factory.ts";
import { closePairs, openSecurePair } from "../../support/socket-pair.ts";
import { collect, Recorder, settle } from "../../support/transport-recorder.ts";
import { until } from "../../support/until.ts";

let factory: TransportFactory;
let near: Socket;
let far: Socket;
let farTcp: Socket;
let transport: Transport;
let recorder: Recorder;

beforeAll(async () => {
  factory = await chooseTransports("raw");
});
afterEach(() => {
  closePairs();
});

async function open(side: "accepted" | "connected" = "accepted"): Promise<void> {
  ({ near, far, farTcp } = await openSecurePair(side));
  wrap();
}

function wrap(): void {
  transport = factory.open(near);
  recorder = new Recorder();
  transport.handler = recorder;
}

const words = Array.from({ length: 40 }, (_, index) => `word ${index};`);

/** Sends each word in a record of its own; they are decrypted together when the transport is started. */
async function sendWords(): Promise<void> {
  for (const word of words) await new Promise((resume) => far.write(word, resume));
}

describe("records that have come together", () => {
  test("are not delivered while the reader is stopped, and all of them afterwards", async () => {
    await open();
    await sendWords();
    let isStopped = false;
    recorder.onChunk = () => {
      expect(isStopped).toBe(false);
      transport.stop();
      isStopped = true;
    };
    for (let count = 1; count <= words.length; count += 1) {
      isStopped = false;
      transport.start();
      await until(() => recorder.text === words.slice(0, count).join(""));
      await settle();
      expect(recorder.text).toBe(words.slice(0, count).join(""));
    }
  });

  // How many of them Node reads at once depends on what is left of a buffer of its own.
  describe.each([5, 12, 20])("leave alone the one that was delivered last, number %i,", (last) => {
    /** @param onLast called when it is delivered; the reader has been stopped */
    async function readUpTo(onLast: () => void): Promise<() => Buffer> {
      await open();
      await sendWords();
      let view: Buffer = Buffer.alloc(0);
      let count = 0;
      transport.handler = {
        onData(buffer, start, end) {
          count += 1;
          view = buffer.subarray(start, end);
          if (count < last) return;
          transport.stop();
          onLast();
        },
        onDrain() {},
        onEnd() {},
      };
      transport.start();
      await until(() => count === last);
      return () => view;
    }

    test("while the reader is stopped", async () => {
      const view = await readUpTo(() => {});
      await settle();
      expect(view().toString()).toBe(words[last - 1]);
    });

    test("while it is lent, also when the reader closes", async () => {
      const view = await readUpTo(() => {
        transport.isLent = true;
        transport.close();
      });
      await until(() => transport.socket.closed);
      expect(view().toString()).toBe(words[last - 1]);
    });
  });

  test("come in their order when the reader is stopped and started within its data", async () => {
    await open();
    await sendWords();
    recorder.onChunk = () => {
      transport.stop();
      transport.start();
    };
    transport.start();
    await until(() => recorder.length === words.join("").length);
    far.end("the end");
    await until(() => recorder.ends > 0);
    expect(recorder.text).toBe(`${words.join("")}the end`);
  });

  test("are followed by the end, which is not told before they are delivered", async () => {
    await open();
    await sendWords();
    far.end();
    await settle();
    recorder.onChunk = () => {
      if (recorder.chunks.length === 1) transport.stop();
    };
    transport.start();
    await until(() => recorder.chunks.length === 1);
    await settle();
    expect([recorder.text, recorder.ends, transport.isClosed]).toEqual([words[0], 0, false]);
    transport.start();
    await until(() => recorder.ends > 0);
    await settle();
    expect([recorder.text, recorder.ends, transport.isClosed]).toEqual([words.join(""), 1, true]);
  });

  test("go to nobody when the reader closes at the first of them", async () => {
    await open();
    await sendWords();
    recorder.onChunk = () => transport.close();
    transport.start();
    await until(() => transport.socket.closed);
    expect([recorder.text, recorder.ends]).toEqual([words[0], 0]);
  });

  test("are bounded while the reader is stopped: what is not read stays with the peer", async () => {
    await open();
    recorder.onChunk = () => transport.stop();
    transport.start();
    const record = Buffer.alloc(16 * 1024);
    let isBlocked = false;
    for (let sent = 0; sent < 4_000 && !isBlocked; sent += 1) {
      if (far.write(record)) continue;
      const drained = new Promise<boolean>((resolve) => far.once("drain", () => resolve(true)));
      isBlocked = !(await Promise.race([drained, settle().then(() => false)]));
    }
    expect(isBlocked).toBe(true);
    expect(recorder.chunks).toHaveLength(1);
  });
});

describe("what came before the transport was there", () => {
  test.each(["accepted", "connected"] as const)(
    "is delivered first, on a socket that was %s",
    async (side) => {
      ({ near, far, farTcp } = await openSecurePair(side));
      far.write("StartupMessage,");
      await until(() => near.readableLength > 0);
      wrap();
      await settle();
      expect(recorder.text).toBe("");
      far.write("and what follows");
      transport.start();
      await until(() => recorder.text === "StartupMessage,and what follows");
    },
  );

  test("is delivered first when the reader is stopped at once", async () => {
    ({ near, far, farTcp } = await openSecurePair("accepted"));
    far.write("one,");
    await until(() => near.readableLength > 0);
    wrap();
    transport.start();
    transport.stop();
    far.write("two");
    await settle();
    expect(recorder.text).toBe("");
    transport.start();
    await until(() => recorder.text === "one,two");
  });

  test("may be everything: the end follows it", async () => {
    ({ near, far, farTcp } = await openSecurePair("accepted"));
    far.end("CancelRequest");
    await until(() => near.readableLength > 0);
    await settle();
    wrap();
    transport.start();
    await until(() => recorder.ends > 0);
    await settle();
    expect([recorder.text, recorder.ends, transport.isClosed]).toEqual(["CancelRequest", 1, true]);
  });
});

describe("writes", () => {
  test("that are small go on while one is in flight, and those that wait go out together", async () => {
    await open();
    const received = collect(far);
    for (const word of words) expect(transport.write(Buffer.from(word))).toBe(true);
    await until(() => received.length() === words.join("").length);
    expect(received.chunks.map((chunk) => chunk.toString())).toEqual([words[0], words.slice(1).join("")]);
    await settle();
    // Nothing was answered by "queued".
    expect(recorder.drains).toBe(0);
  });

  test("of nothing are nothing", async () => {
    await open();
    const received = collect(far);
    for (const text of ["", "one,", "", "two", ""]) expect(transport.write(Buffer.from(text))).toBe(true);
    await until(() => received.length() === 7);
    expect(transport.write(Buffer.alloc(0))).toBe(true);
    transport.end();
    await until(() => received.isEnded);
    expect(Buffer.concat(received.chunks).toString()).toBe("one,two");
  });

  test("are answered by queued before much waits, and the drain comes once for all", async () => {
    await open();
    const message = Buffer.alloc(1_000, "message");
    let taken = 0;
    while (transport.write(message)) taken += 1;
    expect(taken).toBeGreaterThan(1);
    expect(taken * message.length).toBeLessThan(80 * 1024);
    expect(transport.write(Buffer.from("one more"))).toBe(false);
    const received = collect(far);
    const length = (taken + 1) * message.length + 8;
    await until(() => received.length() === length && recorder.drains > 0);
    await settle();
    expect(recorder.drains).toBe(1);
    expect(transport.write(message)).toBe(true);
  });

  test("of any size are encrypted by and by: a peer that does not read costs what is in flight", async () => {
    await open();
    const large = Buffer.alloc(64 * 1024 * 1024);
    await settle();
    const before = process.memoryUsage.rss();
    expect(transport.write(large)).toBe(false);
    await settle();
    expect(process.memoryUsage.rss() - before).toBeLessThan(large.length / 2);
    const received = collect(far);
    await until(() => received.length() === large.length);
    await until(() => recorder.drains > 0);
  });

  test("may follow from within the drain", async () => {
    await open();
    const received = collect(far);
    let rounds = 0;
    const writeMuch = () => {
      rounds += 1;
      if (rounds > 20) return;
      while (transport.write(Buffer.alloc(10_000, rounds)));
    };
    transport.handler = { onData() {}, onDrain: writeMuch, onEnd() {} };
    writeMuch();
    await until(() => rounds > 20);
    transport.end();
    await until(() => received.isEnded);
    const rest = Buffer.concat(received.chunks);
    expect(Buffer.from(rest).sort().equals(rest)).toBe(true);
    expect([rest[0], rest.at(-1)]).toEqual([1, 20]);
  });

  test("that are in flight or wait are forgotten when the transport closes", async () => {
    await open();
    far.pause();
    for (let size = 10; size < 1_000_000; size *= 2) transport.write(Buffer.alloc(size));
    transport.close();
    await until(() => transport.socket.closed);
    await settle();
    expect([recorder.drains, recorder.ends]).toEqual([0, 0]);
  });
});

describe.each(["raw", "public"] as const)("a connection that breaks, on a %s transport,", (kind) => {
  let raw: TransportFactory;

  beforeAll(() => {
    raw = factory;
    factory = new TransportFactory(findStreamBinding(), kind);
  });
  afterAll(() => {
    factory = raw;
  });

  test.each([
    ["is cut below its encryption", () => farTcp.destroy()],
    ["ends below its encryption", () => farTcp.end()],
    ["is reset", () => farTcp.resetAndDestroy()],
    ["brings what is no record", () => farTcp.write("this is not encrypted")],
  ])("is told once when it %s", async (_, breakIt) => {
    await open();
    transport.start();
    far.write("the last word");
    await until(() => recorder.text === "the last word");
    breakIt();
    await until(() => recorder.ends > 0);
    await settle();
    expect([recorder.text, recorder.ends, transport.isClosed]).toEqual(["the last word", 1, true]);
  });

  test("is told to who writes and does not read", async () => {
    await open();
    transport.write(Buffer.from("answer"));
    farTcp.resetAndDestroy();
    await until(() => {
      transport.write(Buffer.from("answer"));
      return recorder.ends > 0;
    });
    await settle();
    expect([recorder.ends, transport.isClosed]).toEqual([1, true]);
  });
});

test("ends with TLS's own end, behind what waits, so that the peer knows that nothing is missing", async () => {
  const seen: Buffer[] = [];
  ({ near, far } = await openSecurePair("accepted", (bytes) => seen.push(bytes)));
  wrap();
  const received = collect(far);
  for (const word of words) transport.write(Buffer.from(word));
  transport.end();
  await until(() => received.isEnded);
  expect(Buffer.concat(received.chunks).toString()).toBe(words.join(""));
  const bytes = Buffer.concat(seen);
  const types: (number | undefined)[] = [];
  for (let at = 0; at < bytes.length; at += 5 + bytes.readUInt16BE(at + 3)) types.push(bytes[at]);
  // RFC 5246 section 6.2.1: application data, and then an alert.
  expect(types.slice(-2)).toEqual([23, 21]);
});

test("a connection in TLS is not handed on", async () => {
  await open();
  expect(() => transport.detach()).toThrow("not handed on");
});
