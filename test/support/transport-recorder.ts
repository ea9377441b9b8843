/** What both ends of a connection have seen: the handler of a transport that is tested, and the listener at the far end. */

import { createHash } from "node:crypto";
import type { Socket } from "node:net";
import type { TransportHandler } from "../../src/wire/transport.ts";

export class Recorder implements TransportHandler {
  readonly chunks: Buffer[] = [];
  length = 0;
  drains = 0;
  ends = 0;
  onChunk: (() => void) | undefined;

  onData(buffer: Buffer, start: number, end: number): void {
    // A copy: the bytes are the transport's again when this returns.
    this.chunks.push(Buffer.from(buffer.subarray(start, end)));
    this.length += end - start;
    this.onChunk?.();
  }

  onDrain(): void {
    this.drains += 1;
  }

  onEnd(): void {
    this.ends += 1;
  }

  get text(): string {
    return Buffer.concat(this.chunks).toString("latin1");
  }
}

/** Collects what an ordinary socket receives. */
export function collect(socket: Socket): {
  readonly chunks: Buffer[];
  readonly length: () => number;
  isEnded: boolean;
  isReset: boolean;
} {
  const chunks: Buffer[] = [];
  let length = 0;
  const collected = { chunks, length: () => length, isEnded: false, isReset: false };
  socket.on("data", (chunk: Buffer) => {
    chunks.push(chunk);
    length += chunk.length;
  });
  socket.on("end", () => {
    collected.isEnded = true;
  });
  socket.on("error", () => {
    collected.isReset = true;
  });
  return collected;
}

export function hashOf(...chunks: readonly Uint8Array[]): string {
  const hash = createHash("sha256");
  for (const chunk of chunks) hash.update(chunk);
  return hash.digest("hex");
}

/** Lets everything that is on its way arrive. */
export async function settle(): Promise<void> {
  for (let turns = 0; turns < 20; turns += 1) await new Promise((resume) => setImmediate(resume));
}
