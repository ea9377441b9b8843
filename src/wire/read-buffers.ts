/** Read buffers of the raw transport: their sizes, and the spare ones. */

/**
 * Sizes of read buffers, in bytes. A socket keeps one of the first size until a read fills it, one of the
 * second from then on, and borrows one of the third while reads fill that too: an idle session that has
 * only logged in costs 1 KiB a side, bulk transfer has 64 KiB, and nobody pays for both.
 */
export const bufferBytes = { first: 1024, usual: 8 * 1024, bulk: 64 * 1024 } as const;
const slabBytes = 256 * 1024;
/** Bulk buffers kept for the next transfer. */
const maxSpareBulkBuffers = 16;
/** Read buffers, cut from slabs and reused. */
export class ReadBuffers {
  readonly #first: Buffer[] = [];
  readonly #usual: Buffer[] = [];
  readonly #bulk: Buffer[] = [];

  take(bytes: number): Buffer {
    if (bytes === bufferBytes.bulk) return this.#bulk.pop() ?? Buffer.allocUnsafeSlow(bytes);
    const spare = bytes === bufferBytes.first ? this.#first : this.#usual;
    if (spare.length === 0) {
      // allocUnsafeSlow: a slab that shares no memory with Node's own pool of small Buffers.
      const slab = Buffer.allocUnsafeSlow(slabBytes);
      for (let offset = 0; offset < slabBytes; offset += bytes)
        spare.push(slab.subarray(offset, offset + bytes));
    }
    return spare.pop() ?? Buffer.allocUnsafeSlow(bytes);
  }

  give(buffer: Buffer): void {
    if (buffer.length === bufferBytes.first) this.#first.push(buffer);
    else if (buffer.length === bufferBytes.usual) this.#usual.push(buffer);
    else if (this.#bulk.length < maxSpareBulkBuffers) this.#bulk.push(buffer);
  }
}
