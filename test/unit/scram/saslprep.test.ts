import { describe, expect, test } from "vitest";
import { preparePassword, saslprep } from "../../../src/scram/saslprep.ts";
import * as tables from "../../../src/scram/stringprep-tables.ts";

describe("SASLprep", () => {
  test.each([
    ["I\u00adX", "IX", "soft hyphen mapped to nothing"],
    ["user", "user", "no transformation"],
    ["USER", "USER", "case preserved"],
    ["\u00aa", "a", "output is NFKC"],
    ["\u2168", "IX", "output is NFKC"],
  ])("prepares %j as %j (RFC 4013 section 3: %s)", (text, prepared) => {
    expect(saslprep(text)).toBe(prepared);
  });

  test("refuses characters of both directions (RFC 4013 section 3)", () => {
    expect(saslprep("\u0627\u0031")).toBeUndefined();
    expect(saslprep("\u0627a\u0628")).toBeUndefined();
    expect(saslprep("\u0627\u0031\u0628")).toBe("\u0627\u0031\u0628");
  });

  test("lets ASCII control characters pass, as PostgreSQL does and the RFC does not", () => {
    expect(saslprep("\u0007")).toBe("\u0007");
    expect(saslprep("\u0007é")).toBeUndefined();
  });

  test.each(["\u00a0", "\u1680", "\u2009", "\u200b", "\u202f", "\u3000"])("takes %j for a space", (space) => {
    expect(saslprep(`a${space}b`)).toBe("a b");
  });

  test.each([
    "\u0340a",
    "\u06dd",
    "\u2028",
    "\u2ff0",
    "\ue000",
    "\ufdd0",
    "\ufffd",
    "\u{1d173}",
    "\u{1fffe}",
    "\u{e0001}",
    "\u{10ffff}",
    "\ud800",
  ])("refuses the prohibited %j", (text) => {
    expect(saslprep(text)).toBeUndefined();
  });

  test("refuses what Unicode 3.2 does not assign, also when later versions do", () => {
    expect(saslprep("\u0221")).toBeUndefined();
    expect(saslprep("\u{1f600}")).toBeUndefined();
  });

  test("refuses a text that maps to nothing, but not the empty one", () => {
    expect(saslprep("\u00ad\u2060")).toBeUndefined();
    expect(saslprep("")).toBe("");
  });

  test("looks for prohibited characters before it normalizes, as PostgreSQL does", () => {
    // U+05D0 U+2121 U+05D0 holds Latin letters only once normalized.
    expect(saslprep("\u05d0\u2121\u05d0")).toBe("\u05d0TEL\u05d0");
    expect(saslprep("a\u037a")).toBe("a \u0345");
  });

  test("uses a password as it is when it cannot be prepared", () => {
    expect(preparePassword("\u0221\ufb01")).toBe("\u0221\ufb01");
    expect(preparePassword("\ufb01")).toBe("fi");
  });

  test("has tables of as many code points as RFC 3454", () => {
    const size = (ranges: Uint32Array) =>
      ranges.reduce((sum, bound, index) => sum + (index % 2 === 0 ? 1 - bound : bound), 0);
    expect([tables.nonAsciiSpace, tables.mappedToNothing].map(size)).toEqual([17, 27]);
    expect(tables.unassigned.length / 2).toBe(396);
    expect(tables.rightToLeft.length / 2).toBe(34);
    expect(tables.leftToRight.length / 2).toBe(360);
    for (const ranges of [tables.unassigned, tables.prohibited, tables.rightToLeft, tables.leftToRight]) {
      expect([...ranges]).toEqual([...ranges].sort((left, right) => left - right));
    }
  });

  test("finds both ends of the first and the last range, and nothing beside them", () => {
    const { unassigned, hasCodePoint } = tables;
    for (const [codePoint, isIn] of [
      [0x220, false],
      [0x221, true],
      [0x222, false],
      [0x233, false],
      [0x234, true],
      [0x24f, true],
      [0x250, false],
      [0xe007f, false],
      [0xe0080, true],
      [0xefffd, true],
      [0xefffe, false],
    ] as const) {
      expect([codePoint, hasCodePoint(unassigned, codePoint)]).toEqual([codePoint, isIn]);
    }
  });
});
