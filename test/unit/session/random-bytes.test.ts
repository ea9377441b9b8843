import { describe, expect, test } from "vitest";
import { createRandomBytes } from "../../../src/session/random-bytes.ts";

/** Draws 1, 2, 3 … and remembers what it has filled. */
function countingSource() {
  const reserves: Buffer[] = [];
  let next = 0;
  const take = createRandomBytes((reserve) => {
    for (let index = 0; index < reserve.length; index += 2) {
      next += 1;
      reserve.writeUInt16BE(next % 65_536, index);
    }
    reserves.push(reserve);
  });
  return { take, reserves };
}

describe("random bytes", () => {
  test("are each given out once, also where what is left does not suffice", () => {
    const { take, reserves } = countingSource();
    const seen = new Set<number>();
    for (let time = 0; time < 1_000; time += 1) {
      const bytes = take(time % 2 === 0 ? 18 : 32);
      for (let index = 0; index < bytes.length; index += 2) {
        const number = bytes.readUInt16BE(index);
        expect(number).toBeGreaterThan(0);
        expect(seen.has(number)).toBe(false);
        seen.add(number);
      }
    }
    expect(reserves.length).toBeGreaterThan(1);
  });

  test("are the caller's own, and wiped where they were kept", () => {
    const { take, reserves } = countingSource();
    const bytes = take(8);
    expect(bytes).toEqual(Buffer.from([0, 1, 0, 2, 0, 3, 0, 4]));
    expect(reserves[0]?.subarray(0, 10)).toEqual(Buffer.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 5]));
    take(4096);
    expect(bytes).toEqual(Buffer.from([0, 1, 0, 2, 0, 3, 0, 4]));
  });

  test("are the operating system's unless said otherwise", () => {
    const take = createRandomBytes();
    expect(take(32).equals(take(32))).toBe(false);
    expect(take(32).equals(Buffer.alloc(32))).toBe(false);
    expect(() => take(4097)).toThrow(RangeError);
  });
});
