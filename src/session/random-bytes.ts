/** Random bytes for logins: few for each, and so drawn many at a time. */

import { randomFillSync } from "node:crypto";

/** Bytes that nobody can guess, in a buffer of the caller's own. */
export type RandomBytes = (count: number) => Buffer;

const reserveBytes = 4096;

/**
 * Each byte is given out once, and is wiped here then.
 *
 * @param fill draws from a cryptographic source
 */
export function createRandomBytes(fill: (reserve: Buffer) => void = randomFillSync): RandomBytes {
  const reserve = Buffer.alloc(reserveBytes);
  let position = reserveBytes;
  return (count) => {
    if (count > reserveBytes) throw new RangeError("more random bytes than are drawn at a time");
    if (position + count > reserveBytes) {
      fill(reserve);
      position = 0;
    }
    const bytes = Buffer.from(reserve.subarray(position, position + count));
    reserve.fill(0, position, position + count);
    position += count;
    return bytes;
  };
}
