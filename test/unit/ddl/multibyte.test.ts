/** Client encodings whose second bytes look like ASCII: what PostgreSQL reads as one character must hide nothing and show nothing. */

import { expect, test } from "vitest";
import { holdsOurs } from "../../../src/ddl/classify.ts";
import { lexicalText } from "../../../src/ddl/multibyte.ts";

const options = { standardConformingStrings: true };

function bytes(...parts: readonly (string | readonly number[])[]): Buffer {
  return Buffer.concat(
    parts.map((part) => (typeof part === "string" ? Buffer.from(part, "latin1") : Buffer.from(part))),
  );
}

/** One character each whose last byte is a backslash, or else another byte that looks like ASCII. */
const characters: readonly (readonly [encoding: string, character: readonly number[]])[] = [
  ["SJIS", [0x95, 0x5c]],
  ["SHIFT_JIS_2004", [0x95, 0x5c]],
  ["BIG5", [0xa5, 0x5c]],
  ["GBK", [0x81, 0x5c]],
  ["GB18030", [0x81, 0x5c]],
  ["UHC", [0x81, 0x5a]],
  ["JOHAB", [0x88, 0x5c]],
];

test.each(characters)("in %s the second byte of a character is a part of it", (encoding, character) => {
  const text = bytes("SELECT E'", character, "'; CREATE USER bob");
  const readable = lexicalText(text, encoding);
  expect(readable).toHaveLength(text.length);
  expect(readable[9]).toBe(character[0]);
  expect(readable[10]).toBeGreaterThanOrEqual(0x80);
  expect(holdsOurs(readable, 0, readable.length, options)).toBe(true);
  // Everything around it is as it was, and so is what was given.
  expect(readable.subarray(11).equals(text.subarray(11))).toBe(true);
  expect([...text.subarray(9, 11)]).toEqual(character);
});

test.each(characters.filter(([, character]) => character[1] === 0x5c))(
  "in %s, read byte by byte, the statement behind such a character would be missed",
  (_, character) => {
    const text = bytes("SELECT E'", character, "'; CREATE USER bob");
    expect(holdsOurs(text, 0, text.length, options)).toBe(false);
  },
);

test("GB18030 has characters of four bytes, with digits among them", () => {
  const text = bytes([0x81, 0x30, 0x81, 0x30], "'", [0x81, 0x40], ";");
  expect([...lexicalText(text, "GB18030")]).toEqual([0x81, 0x80, 0x80, 0x80, 0x27, 0x81, 0x80, 0x3b]);
});

test("half-width katakana of Shift JIS are single bytes", () => {
  const text = bytes([0xb1], "'", [0xdf], ";");
  expect(lexicalText(text, "SJIS").equals(text)).toBe(true);
});

test("a text that ends in the middle of a character stays as long as it is", () => {
  for (const [encoding] of characters) {
    const text = bytes("SELECT 1;", [0x81]);
    expect(lexicalText(text, encoding).equals(text)).toBe(true);
  }
});

test.each(["UTF8", "LATIN1", "EUC_JP", "SQL_ASCII", undefined])(
  "a text in %s is not even copied",
  (encoding) => {
    const text = bytes("SELECT '", [0x95, 0x5c], "'");
    expect(lexicalText(text, encoding)).toBe(text);
  },
);
