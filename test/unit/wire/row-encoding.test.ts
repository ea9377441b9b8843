import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SqlError } from "../../../src/errors/sql-error.ts";
import type { Column, Value } from "../../../src/exec/result.ts";
import {
  encodeResultDescription,
  encodeResultRow,
  encodeValue,
  type ResultColumn,
  type ResultValue,
  resolveResultFormats,
} from "../../../src/wire/row-encoding.ts";

const timestamp = { text: "2000-01-01 00:00:01+00", micros: 1_000_000n };

describe("result rows", () => {
  test("are shaped as statements return them", () => {
    const columns: readonly ResultColumn[] = [] satisfies readonly Column[];
    const accepts = (value: Value): ResultValue => value;
    expect([columns, accepts(null)]).toEqual([[], null]);
  });

  test("describe each type by its OID and size", () => {
    const columns: Column[] = [
      { name: "a", type: "text" },
      { name: "b", type: "int8" },
      { name: "c", type: "bool" },
      { name: "d", type: "timestamptz" },
    ];
    const bytes = encodeResultDescription(columns, [0, 1, 0, 1]).toString("latin1");
    const field = (name: string, oid: string, size: string, format: string) =>
      `${name}\0\0\0\0\0\0\0${oid}${size}\xff\xff\xff\xff\0${format}`;
    expect(bytes.slice(5)).toBe(
      `\0\x04${field("a", "\0\0\0\x19", "\xff\xff", "\0")}${field("b", "\0\0\0\x14", "\0\x08", "\x01")}` +
        `${field("c", "\0\0\0\x10", "\0\x01", "\0")}${field("d", "\0\0\x04\xa0", "\0\x08", "\x01")}`,
    );
  });

  test.each<[ResultColumn["type"], ResultValue, string, string]>([
    ["text", "é", "c3a9", "c3a9"],
    ["text", "", "", ""],
    ["int8", -2n, "2d32", "fffffffffffffffe"],
    ["int8", 9223372036854775807n, "39323233333732303336383534373735383037", "7fffffffffffffff"],
    ["bool", true, "74", "01"],
    ["bool", false, "66", "00"],
    ["timestamptz", timestamp, Buffer.from(timestamp.text).toString("hex"), "00000000000f4240"],
  ])("%s %o is %s as text and %s as binary", (type, value, text, binary) => {
    expect(encodeValue(type, value, 0)?.toString("hex")).toBe(text);
    expect(encodeValue(type, value, 1)?.toString("hex")).toBe(binary);
  });

  test("null has no bytes in either format", () => {
    expect([encodeValue("int8", null, 0), encodeValue("bool", null, 1)]).toEqual([null, null]);
  });

  test("any int8 can be read back from both formats", () => {
    fc.assert(
      fc.property(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), (value) => {
        expect(BigInt(encodeValue("int8", value, 0)?.toString() ?? "")).toBe(value);
        expect(encodeValue("int8", value, 1)?.readBigInt64BE()).toBe(value);
      }),
    );
  });

  test("a row mixes formats by column", () => {
    const columns: Column[] = [
      { name: "a", type: "bool" },
      { name: "b", type: "bool" },
      { name: "c", type: "text" },
    ];
    expect(encodeResultRow(columns, [true, true, null], [0, 1, 0]).toString("latin1")).toBe(
      "D\0\0\0\x14\0\x03\0\0\0\x01t\0\0\0\x01\x01\xff\xff\xff\xff",
    );
  });

  test("a value of another type than its column, or a row of another length, is a bug", () => {
    expect(() => encodeValue("int8", "1", 0)).toThrow(TypeError);
    expect(() => encodeValue("bool", 1n, 0)).toThrow(TypeError);
    expect(() => encodeValue("timestamptz", "now", 1)).toThrow(TypeError);
    expect(() => encodeResultRow([{ name: "a", type: "text" }], [])).toThrow(TypeError);
  });

  test("no result format means text, one is for all, else there is one each", () => {
    expect(resolveResultFormats([], 2)).toEqual([0, 0]);
    expect(resolveResultFormats([1], 3)).toEqual([1, 1, 1]);
    expect(resolveResultFormats([0, 1], 2)).toEqual([0, 1]);
    expect(resolveResultFormats([1], 0)).toEqual([]);
  });

  test("result formats that do not fit are refused as PostgreSQL does", () => {
    expect(() => resolveResultFormats([0, 1], 3)).toThrow(
      new SqlError("protocol_violation", "bind message has 2 result formats but query has 3 columns"),
    );
    expect(() => resolveResultFormats([2], 1)).toThrow(
      new SqlError("invalid_parameter_value", "unsupported format code: 2"),
    );
  });
});
