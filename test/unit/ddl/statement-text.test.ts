/** Bytes of a statement to text: what is refused, and that no more than one byte of it is shown. */

import { describe, expect, it } from "vitest";
import { decodeStatementText, maxStatementBytes } from "../../../src/ddl/statement-text.ts";
import { SqlError } from "../../../src/errors/sql-error.ts";

function refusal(bytes: Buffer, encoding: string): SqlError {
  try {
    decodeStatementText(bytes, encoding);
  } catch (error) {
    if (error instanceof SqlError) return error;
    throw error;
  }
  throw new Error("not refused");
}

describe("decodeStatementText", () => {
  it.each(["UTF8", "utf-8", "UNICODE", "SQL_ASCII"])("decodes UTF-8 in %s", (encoding) => {
    expect(decodeStatementText(Buffer.from("\ufeffé😀"), encoding)).toBe("\ufeffé😀");
  });

  it("decodes LATIN1", () => {
    expect(decodeStatementText(Buffer.from([0x61, 0xe9, 0xff]), "LATIN1")).toBe("aéÿ");
  });

  it("reads ASCII in any encoding, and refuses other bytes in those that it does not know", () => {
    expect(decodeStatementText(Buffer.from("show users"), "SJIS")).toBe("show users");
    const error = refusal(Buffer.from([0x61, 0x81]), "SJIS");
    expect(error.condition).toBe("feature_not_supported");
    expect(error.hint).toContain("UTF8");
  });

  it.each<[string, number[], string]>([
    ["a lone continuation byte", [0x61, 0x80], "0x80"],
    ["an overlong form", [0x61, 0xc0, 0xaf], "0xc0"],
    ["a surrogate", [0xc3, 0xa9, 0xed, 0xa0, 0x80], "0xed"],
    ["a code point beyond Unicode", [0xf4, 0x90, 0x80, 0x80], "0xf4"],
    ["a sequence that is cut short", [0x61, 0xe2, 0x82], "0xe2"],
    ["a lead byte before ASCII", [0xe9, 0x73, 0x65], "0xe9"],
  ])("refuses %s, and shows its first byte only", (_, bytes, shown) => {
    const error = refusal(Buffer.from(bytes), "UTF8");
    expect([error.sqlstate, error.message]).toEqual([
      "22021",
      `invalid byte sequence for encoding "UTF8": ${shown}`,
    ]);
  });

  it.each(["UTF8", "LATIN1", "SJIS"])("refuses a NUL byte in %s", (encoding) => {
    const error = refusal(Buffer.from("a\0b"), encoding);
    expect([error.sqlstate, error.message]).toEqual([
      "22021",
      `invalid byte sequence for encoding "${encoding}": 0x00`,
    ]);
  });

  it("refuses more than its limit", () => {
    expect(refusal(Buffer.alloc(maxStatementBytes + 1, 0x20), "UTF8").condition).toBe(
      "program_limit_exceeded",
    );
    expect(decodeStatementText(Buffer.alloc(maxStatementBytes, 0x20), "UTF8")).toHaveLength(
      maxStatementBytes,
    );
  });
});
