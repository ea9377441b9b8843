/** Views of a read buffer, kept: applications send the same few messages all the time, and get answers of the same length. */

import { bufferBytes } from "./read-buffers.ts";

/** A power of two. */
const keptViews = 8;

export class BufferViews {
  #buffer: Buffer | undefined;
  #views: (Uint8Array | undefined)[] = [];

  /** The bytes `[start, end)` of `buffer`; the same object as before where one is kept. */
  of(buffer: Buffer, start: number, end: number): Uint8Array {
    // A buffer in which a long message was put together is not seen again, and must not be held.
    if (start !== 0 || buffer.length > bufferBytes.usual) return buffer.subarray(start, end);
    if (buffer !== this.#buffer) {
      this.#buffer = buffer;
      this.#views = new Array<undefined>(keptViews).fill(undefined);
    }
    const slot = end & (keptViews - 1);
    const kept = this.#views[slot];
    if (kept !== undefined && kept.length === end) return kept;
    const view = buffer.subarray(0, end);
    this.#views[slot] = view;
    return view;
  }
}
