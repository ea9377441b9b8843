/** The framer against a model that sees the whole stream at once: no cutting of it may make a difference. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  actionTable,
  type FramerVisitor,
  MessageFramer,
  type Verdict,
  verdicts,
} from "../../../src/wire/framer.ts";
import { message } from "../../support/raw-client.ts";

const table = actionTable({ pass: "dp", observe: "ox", inspect: "QP" });
const limits = { maxMessageBytes: 300, maxInspectedBytes: 64 };

interface Sample {
  readonly type: string;
  readonly body: Buffer;
}

/** A message is taken when its body begins with an odd byte, and pauses the stream when that is 3 modulo 4. */
const isTaken = (body: Buffer): boolean => ((body[0] ?? 0) & 1) === 1;
const isPausing = (body: Buffer): boolean => ((body[0] ?? 0) & 3) === 3;
const isInspected = ({ type, body }: Sample): boolean =>
  "QP".includes(type) && body.length + 4 <= limits.maxInspectedBytes;

const samples: fc.Arbitrary<Sample[]> = fc.array(
  fc.record({
    type: fc.constantFrom("d", "p", "o", "x", "Q", "P", "Q"),
    body: fc.uint8Array({ maxLength: 100, size: "max" }).map((bytes) => Buffer.from(bytes)),
  }),
  { maxLength: 12 },
);

/** Lengths of the pieces; the last one's rest follows in one. */
const cuts = fc.oneof(
  fc.constant([] as number[]),
  fc.constant(Array.from({ length: 2_000 }, () => 1)),
  fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 100 }),
);

function streamOf(messages: readonly Sample[]): Buffer {
  return Buffer.concat(messages.map(({ type, body }) => message(type, body)));
}

function pieces(stream: Buffer, lengths: readonly number[]): Buffer[] {
  const parts: Buffer[] = [];
  let start = 0;
  for (const length of lengths) {
    if (start >= stream.length) break;
    parts.push(stream.subarray(start, start + length));
    start += length;
  }
  if (start < stream.length) parts.push(stream.subarray(start));
  return parts;
}

/** Notes everything, with copies: the framer's buffers are valid during a call only. */
class Recorder implements FramerVisitor {
  forwarded = Buffer.alloc(0);
  readonly events: string[] = [];
  framer: MessageFramer | undefined;

  onObserve(type: number, bodyLength: number): void {
    this.events.push(`observe ${String.fromCharCode(type)} ${bodyLength}`);
  }

  onOversized(): Verdict {
    return verdicts.pass;
  }

  onInspect(type: number, buffer: Buffer, start: number, end: number): Verdict {
    expect(buffer[start]).toBe(type);
    this.events.push(`inspect ${buffer.toString("hex", start, end)}`);
    return isTaken(buffer.subarray(start + 5, end)) ? verdicts.take : verdicts.pass;
  }

  onTake(_type: number, buffer: Buffer, start: number, end: number): void {
    // Everything before it has been forwarded by now, and nothing behind it.
    this.events.push(`take ${buffer.toString("hex", start, end)} after ${this.forwarded.length}`);
    if (isPausing(buffer.subarray(start + 5, end))) this.framer?.pause();
  }

  onForward(buffer: Buffer, start: number, end: number): void {
    expect(end).toBeGreaterThan(start);
    this.forwarded = Buffer.concat([this.forwarded, buffer.subarray(start, end)]);
  }

  onViolation(type: number, length: number): void {
    this.events.push(`violation ${type} ${length}`);
  }
}

function open(actions = table): { framer: MessageFramer; recorder: Recorder } {
  const recorder = new Recorder();
  const framer = new MessageFramer(actions, recorder, limits);
  recorder.framer = framer;
  return { framer, recorder };
}

/** What has to come out of a stream, however it is cut. */
function model(messages: readonly Sample[]): { forwarded: Buffer; events: string[] } {
  const forwarded: Buffer[] = [];
  const events: string[] = [];
  let length = 0;
  for (const sample of messages) {
    const bytes = message(sample.type, sample.body);
    if (isInspected(sample)) {
      events.push(`inspect ${bytes.toString("hex")}`);
      if (isTaken(sample.body)) {
        events.push(`take ${bytes.toString("hex")} after ${length}`);
        continue;
      }
    } else if (!"dp".includes(sample.type)) events.push(`observe ${sample.type} ${sample.body.length}`);
    forwarded.push(bytes);
    length += bytes.length;
  }
  return { forwarded: Buffer.concat(forwarded), events };
}

/** Pushes a piece from the middle of a buffer that is overwritten at once, as a socket's read buffer is. */
function push(framer: MessageFramer, piece: Buffer): void {
  const buffer = Buffer.alloc(piece.length + 7, 0x51);
  piece.copy(buffer, 3);
  framer.push(buffer, 3, 3 + piece.length);
  buffer.fill(0xee);
}

describe("a framer", () => {
  test("forwards and shows the same whatever the pieces are", () => {
    fc.assert(
      fc.property(samples, cuts, (messages, lengths) => {
        const { framer, recorder } = open();
        for (const piece of pieces(streamOf(messages), lengths)) {
          push(framer, piece);
          while (framer.isPaused) framer.resume();
        }
        const expected = model(messages);
        expect(recorder.events).toEqual(expected.events);
        expect(recorder.forwarded.equals(expected.forwarded)).toBe(true);
        expect([framer.isAtBoundary, framer.isMidMessage, framer.keptBytes]).toEqual([true, false, 0]);
      }),
      { numRuns: 400 },
    );
  });

  test("loses nothing and does nothing while it is paused, wherever it is resumed", () => {
    fc.assert(
      fc.property(
        samples,
        cuts,
        fc.infiniteStream(fc.integer({ min: 0, max: 5 })),
        (messages, lengths, delays) => {
          const { framer, recorder } = open();
          let delay = 0;
          for (const piece of pieces(streamOf(messages), lengths)) {
            const before = [recorder.events.length, recorder.forwarded.length];
            const wasPaused = framer.isPaused;
            push(framer, piece);
            if (wasPaused) expect([recorder.events.length, recorder.forwarded.length]).toEqual(before);
            if (!framer.isPaused) continue;
            if (delay === 0) {
              framer.resume();
              delay = delays.next().value ?? 0;
            } else delay -= 1;
          }
          while (framer.isPaused) framer.resume();
          const expected = model(messages);
          expect(recorder.events).toEqual(expected.events);
          expect(recorder.forwarded.equals(expected.forwarded)).toBe(true);
        },
      ),
      { numRuns: 400 },
    );
  });

  test("may be paused from outside between any two pieces", () => {
    fc.assert(
      fc.property(samples, cuts, fc.infiniteStream(fc.boolean()), (messages, lengths, choices) => {
        const { framer, recorder } = open();
        for (const piece of pieces(streamOf(messages), lengths)) {
          if (choices.next().value === true) framer.pause();
          push(framer, piece);
          if (choices.next().value === true) framer.resume();
        }
        do framer.resume();
        while (framer.isPaused);
        const expected = model(messages);
        expect(recorder.events).toEqual(expected.events);
        expect(recorder.forwarded.equals(expected.forwarded)).toBe(true);
      }),
      { numRuns: 400 },
    );
  });

  test("knows at each byte whether a message is half-way through", () => {
    fc.assert(
      fc.property(samples, (messages) => {
        const { framer } = open();
        for (const { type, body } of messages) {
          const bytes = message(type, body);
          for (let index = 0; index < bytes.length; index += 1) {
            push(framer, bytes.subarray(index, index + 1));
            while (framer.isPaused) framer.resume();
            expect(framer.isAtBoundary).toBe(index === bytes.length - 1);
          }
          expect(framer.isMidMessage).toBe(false);
        }
      }),
      { numRuns: 50 },
    );
  });

  test.each([
    ["a type that is not in the table", "Z", 10],
    ["a length below 4", "d", 3],
    ["a negative length", "Q", -1],
    ["a length over the limit", "d", limits.maxMessageBytes + 1],
    ["the largest length there is", "Q", 0x7fffffff],
  ])("forwards what stands before %s, reports it once and frames nothing more", (_, type, length) => {
    fc.assert(
      fc.property(samples, samples, cuts, (before, after, lengths) => {
        const { framer, recorder } = open();
        const bad = message(type, "", length);
        for (const piece of pieces(Buffer.concat([streamOf(before), bad, streamOf(after)]), lengths)) {
          push(framer, piece);
          while (framer.isPaused) framer.resume();
        }
        const expected = model(before);
        expect(recorder.events).toEqual([...expected.events, `violation ${type.charCodeAt(0)} ${length}`]);
        expect(recorder.forwarded.equals(expected.forwarded)).toBe(true);
      }),
      { numRuns: 60 },
    );
  });

  test("accepts messages as large as the limit, and passes on unseen what is too large to be inspected", () => {
    const { framer, recorder } = open();
    const largest = message("d", Buffer.alloc(limits.maxMessageBytes - 4));
    const inspected = message("Q", Buffer.alloc(limits.maxInspectedBytes - 4));
    const unseen = message("Q", Buffer.alloc(limits.maxInspectedBytes - 3, 1));
    for (const bytes of [largest, inspected, unseen]) push(framer, bytes);
    expect(recorder.events).toEqual([
      `inspect ${inspected.toString("hex")}`,
      `observe Q ${limits.maxInspectedBytes - 3}`,
    ]);
    expect(recorder.forwarded.equals(Buffer.concat([largest, inspected, unseen]))).toBe(true);
  });

  test("shows the header of a large message before its body has come", () => {
    const { framer, recorder } = open();
    push(framer, message("o", "begin", 104));
    expect(recorder.events).toEqual(["observe o 100"]);
    expect(recorder.forwarded).toHaveLength(10);
    expect(framer.isMidMessage).toBe(true);
  });

  test("uses a new table from the next message on", () => {
    const { framer, recorder } = open();
    push(framer, message("d", "one"));
    push(framer, message("d", "x".repeat(20)).subarray(0, 8));
    framer.table = actionTable({ observe: "d" });
    push(framer, message("d", "x".repeat(20)).subarray(8));
    push(framer, message("d", "three"));
    push(framer, message("Q", "refused now"));
    expect(recorder.events).toEqual(["observe d 5", `violation ${"Q".charCodeAt(0)} 15`]);
  });

  test("allocates for the bytes that have come, not for the length that was claimed", () => {
    const generous = { maxMessageBytes: 0x3fffffff, maxInspectedBytes: 0x3fffffff };
    const before = process.memoryUsage().arrayBuffers;
    const framers = Array.from({ length: 200 }, () => new MessageFramer(table, new Recorder(), generous));
    for (const framer of framers) framer.push(message("Q", "SELECT", 0x3ffffffe), 0, 11);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 * 1024 * 1024);
    expect(framers.every(({ keptBytes }) => keptBytes === 11)).toBe(true);
  });

  test("forwards whole chunks as they are, without copying", () => {
    const chunk = streamOf([
      { type: "d", body: Buffer.from("one") },
      { type: "Q", body: Buffer.from("\0two") },
      { type: "o", body: Buffer.from("three") },
    ]);
    const seen: [Buffer, number, number][] = [];
    const visitor: FramerVisitor = {
      onObserve() {},
      onOversized: () => verdicts.pass,
      onInspect: () => verdicts.pass,
      onTake() {},
      onForward: (buffer, start, end) => seen.push([buffer, start, end]),
      onViolation() {},
    };
    new MessageFramer(table, visitor, limits).push(chunk, 0, chunk.length);
    expect(seen).toHaveLength(1);
    expect(seen[0]?.[0]).toBe(chunk);
    expect(seen[0]?.slice(1)).toEqual([0, chunk.length]);
  });

  test("frames nothing after discard, and still knows that a message was left half-way through", () => {
    const { framer, recorder } = open();
    push(framer, message("d", "0123456789").subarray(0, 8));
    framer.discard();
    push(framer, message("d", "0123456789").subarray(8));
    push(framer, message("Q", "\0"));
    expect(recorder.events).toEqual([]);
    expect(recorder.forwarded).toHaveLength(8);
    expect(framer.isAtBoundary).toBe(false);
  });
});
