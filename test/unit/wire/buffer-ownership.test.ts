/** Whose the bytes of a transport's buffers are: until a write has been taken they belong to it, and to nobody else. */

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { chooseTransports } from "../../../src/wire/choose-transport.ts";
import { bufferBytes } from "../../../src/wire/read-buffers.ts";
import type { Transport } from "../../../src/wire/transport.ts";
import type { TransportFactory } from "../../../src/wire/transport-factory.ts";
import { closePairs, openPair, openSecurePair } from "../../support/socket-pair.ts";
import { until } from "../../support/until.ts";

let factory: TransportFactory;

beforeAll(async () => {
  factory = await chooseTransports("raw");
});
afterEach(() => {
  closePairs();
});

describe("views of one buffer, written again and again", () => {
  test.each([
    ["plain TCP", () => openPair("accepted")],
    ["TLS", () => openSecurePair("accepted")],
  ])("arrive as they were, over %s", async (_, open) => {
    const { near, far } = await open();
    const transport = factory.open(near);
    let drained = () => {};
    transport.handler = { onData() {}, onDrain: () => drained(), onEnd() {} };
    const received: Buffer[] = [];
    let length = 0;
    far.on("data", (chunk: Buffer) => {
      received.push(chunk);
      length += chunk.length;
    });
    const buffer = Buffer.alloc(700);
    const rounds = 20_000;
    let queued = 0;
    for (let round = 0; round < rounds; round += 1) {
      if (round % 2_000 === 0) far.pause();
      buffer.fill(round % 251);
      if (transport.write(buffer)) continue;
      // Only now is the buffer still another's.
      queued += 1;
      const isDrained = new Promise<void>((resolve) => {
        drained = resolve;
      });
      far.resume();
      await isDrained;
    }
    far.resume();
    await until(() => length === rounds * buffer.length);
    expect(queued).toBeGreaterThan(0);
    const bytes = Buffer.concat(received);
    const isAsItWas = (round: number) =>
      bytes
        .subarray(round * buffer.length, (round + 1) * buffer.length)
        .every((byte) => byte === round % 251);
    expect(Array.from({ length: rounds }, (__, round) => round).filter((round) => !isAsItWas(round))).toEqual(
      [],
    );
  });
});

/** A transport that has stopped reading in the middle of a chunk, as one does whose chunk is queued elsewhere. */
interface Holder {
  readonly transport: Transport;
  /** The view that it was given, and what it said then. */
  readonly view: Buffer;
  readonly said: string;
}

/** @param reads sizes of the chunks that come one by one; the last one is held */
async function hold(open: typeof openPair, reads: readonly number[]): Promise<Holder> {
  const { near, far } = await open("accepted");
  const transport = factory.open(near);
  let view: Buffer = Buffer.alloc(0);
  let count = 0;
  transport.handler = {
    onData(buffer, start, end) {
      view = buffer.subarray(start, end);
      count += 1;
      if (count === reads.length) transport.stop();
    },
    onDrain() {},
    onEnd() {},
  };
  transport.start();
  for (const [index, bytes] of reads.entries()) {
    far.write(Buffer.alloc(bytes, "held "));
    await until(() => count === index + 1);
    expect(view).toHaveLength(bytes);
  }
  return { transport, view, said: view.toString("latin1") };
}

/** Has others read through buffers of every size. @returns the memory that they have read into */
async function readElsewhere(): Promise<Set<string>> {
  const seen = new Set<string>();
  const pairs = await Promise.all([openPair("accepted"), openPair("accepted"), openPair("accepted")]);
  for (const { transport, far } of pairs.map(({ near, far }) => ({ transport: factory.open(near), far }))) {
    let length = 0;
    transport.handler = {
      onData(buffer, start, end) {
        seen.add(placeOf(buffer));
        length += end - start;
      },
      onDrain() {},
      onEnd() {},
    };
    transport.start();
    far.write(Buffer.alloc(bufferBytes.first, "somebody else's "));
    await until(() => length === bufferBytes.first);
    far.write(Buffer.alloc(1_000_000, "somebody else's "));
    await until(() => length === bufferBytes.first + 1_000_000);
  }
  return seen;
}

const identities = new WeakMap<ArrayBufferLike, number>();
let lastIdentity = 0;

function placeOf(buffer: Buffer): string {
  let identity = identities.get(buffer.buffer);
  if (identity === undefined) {
    lastIdentity += 1;
    identity = lastIdentity;
    identities.set(buffer.buffer, identity);
  }
  return `${identity}+${buffer.byteOffset}`;
}

/** What fills each size of buffer, and what does not fill the largest. */
const manners: readonly (readonly [string, readonly number[]])[] = [
  ["the first buffer", [100]],
  ["the whole of the first buffer", [bufferBytes.first]],
  ["the second buffer", [bufferBytes.first, 100]],
  ["the whole of the second buffer", [bufferBytes.first, bufferBytes.usual]],
  ["a part of the bulk buffer", [bufferBytes.first, bufferBytes.usual, 100]],
];

const inEach = ([open, where]: readonly [typeof openPair, string]) =>
  manners.map(([place, reads]) => [place, where, open, reads] as const);

describe.each(
  (
    [
      [openPair, "plain TCP"],
      [openSecurePair, "TLS"],
    ] as const
  ).flatMap(inEach),
)("what was read into %s, from %s", (_, __, open, reads) => {
  test("is nobody else's while its reader is stopped", async () => {
    const { view, said } = await hold(open, reads);
    expect(await readElsewhere()).not.toContain(placeOf(view));
    expect(view.toString("latin1")).toBe(said);
  });

  test("is nobody else's while it is lent, also when its reader has closed", async () => {
    const { transport, view, said } = await hold(open, reads);
    transport.isLent = true;
    transport.close();
    await until(() => transport.socket.closed);
    expect(await readElsewhere()).not.toContain(placeOf(view));
    expect(view.toString("latin1")).toBe(said);
  });

  test("is used again when its reader has closed and lends nothing", async () => {
    const { transport, view } = await hold(open, reads);
    transport.close();
    await until(() => transport.socket.closed);
    expect(await readElsewhere()).toContain(placeOf(view));
  });
});

test("what waits to be taken stays in memory when nobody else refers to it", async () => {
  setFlagsFromString("--expose-gc");
  const collectGarbage: () => void = runInNewContext("gc");
  const { near, far } = await openPair("accepted");
  const transport = factory.open(near);
  let length = 0;
  const chunkBytes = 256 * 1024;
  const write = (fill: string) => {
    length += chunkBytes;
    return transport.write(Buffer.alloc(chunkBytes, fill));
  };
  while (write("taken ")) expect(length).toBeLessThan(100_000_000);
  for (let times = 0; times < 20; times += 1) write("waiting ");
  collectGarbage();
  await new Promise((resume) => setImmediate(resume));
  const others = Array.from({ length: 40 }, () => Buffer.alloc(chunkBytes, "another "));
  const received: Buffer[] = [];
  let count = 0;
  far.on("data", (chunk: Buffer) => {
    received.push(chunk);
    count += chunk.length;
  });
  await until(() => count === length);
  expect(others).toHaveLength(40);
  const last = Buffer.concat(received).subarray(length - 20 * chunkBytes);
  expect(last.equals(Buffer.alloc(20 * chunkBytes, "waiting "))).toBe(true);
});
