/** A queue of small numbers, one byte each, in which taking the first one costs the same however long it is. */

const smallestQueue = 16;

export class ByteQueue {
  // A ring: `#count` bytes from `#head` on.
  #bytes = new Uint8Array(smallestQueue);
  #head = 0;
  #count = 0;

  /** @returns undefined behind the last one */
  at(index: number): number | undefined {
    if (index >= this.#count) return undefined;
    return this.#bytes[(this.#head + index) & (this.#bytes.length - 1)];
  }

  push(byte: number): void {
    if (this.#count === this.#bytes.length) this.#grow();
    this.#bytes[(this.#head + this.#count) & (this.#bytes.length - 1)] = byte;
    this.#count += 1;
  }

  /** Takes the first one. @returns undefined when there is none */
  shift(): number | undefined {
    const first = this.at(0);
    if (first === undefined) return undefined;
    this.#head = (this.#head + 1) & (this.#bytes.length - 1);
    this.#count -= 1;
    return first;
  }

  // A power of two, so that positions wrap by a mask.
  #grow(): void {
    const larger = new Uint8Array(this.#bytes.length * 2);
    for (let index = 0; index < this.#count; index += 1) larger[index] = this.at(index) ?? 0;
    this.#bytes = larger;
    this.#head = 0;
  }
}
