/** Writes that wait behind the one that is in flight, where a handle takes one at a time: what is copied, and what is joined. */

import { bufferBytes } from "./read-buffers.ts";

/** The most that a TLS record carries (RFC 8446 section 5.1), in bytes: joining more would save nothing. */
const joinedBytes = 16 * 1024;

export class WaitingWrites {
  #views: Uint8Array[] = [];
  #copiedBytes = 0;

  get isEmpty(): boolean {
    return this.#views.length === 0;
  }

  /** Keeps a copy behind everything that waits already. @returns false, and keeps nothing, when too much is copied already */
  copy(view: Uint8Array): boolean {
    if (this.#copiedBytes + view.length > joinedBytes) return false;
    this.#copiedBytes += view.length;
    this.#views.push(Buffer.from(view));
    return true;
  }

  /** Keeps it by reference, behind everything that waits already. */
  refer(view: Uint8Array): void {
    this.#views.push(view);
  }

  /** What is to be written next, of small ones as many as fit a record; undefined when nothing waits. */
  take(): Uint8Array | undefined {
    const [first] = this.#views;
    if (first === undefined) return undefined;
    let count = 0;
    let bytes = 0;
    for (const view of this.#views) {
      if (bytes + view.length > joinedBytes) break;
      bytes += view.length;
      count += 1;
    }
    const next =
      count > 1 ? Buffer.concat(this.#views.slice(0, count), bytes) : first.subarray(0, bufferBytes.bulk);
    if (next.length < first.length) this.#views[0] = first.subarray(next.length);
    else this.#views.splice(0, Math.max(count, 1));
    if (this.isEmpty) this.clear();
    return next;
  }

  clear(): void {
    this.#views = [];
    this.#copiedBytes = 0;
  }
}
