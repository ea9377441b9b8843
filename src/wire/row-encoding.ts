/** Values of the front-end's own result tables in text and binary format (PostgreSQL 18 manual 54.1.3). */

import { SqlError } from "../errors/sql-error.ts";
import {
  encodeDataRow,
  encodeRowDescription,
  type FormatCode,
  type RowDescriptionColumn,
} from "./backend-message.ts";

/** Types a result column may have. */
export type ResultColumnType = "text" | "int8" | "bool" | "timestamptz";

export interface ResultColumn {
  readonly name: string;
  readonly type: ResultColumnType;
}

/** Text in the session's own style, and microseconds since 2000-01-01 UTC. */
export interface TimestampValue {
  readonly text: string;
  readonly micros: bigint;
}

/** text: string, int8: bigint, bool: boolean, timestamptz: TimestampValue; null for any. */
export type ResultValue = string | bigint | boolean | TimestampValue | null;

const wireTypes: Readonly<Record<ResultColumnType, { readonly oid: number; readonly size: number }>> = {
  text: { oid: 25, size: -1 },
  int8: { oid: 20, size: 8 },
  bool: { oid: 16, size: 1 },
  timestamptz: { oid: 1184, size: 8 },
};

/**
 * One format per column from the result formats of a Bind: none means text, one means that for all.
 *
 * @throws SqlError protocol_violation when their number fits neither rule, invalid_parameter_value for
 * a code other than 0 and 1.
 */
export function resolveResultFormats(requested: readonly number[], columnCount: number): FormatCode[] {
  if (requested.length > 1 && requested.length !== columnCount) {
    throw new SqlError(
      "protocol_violation",
      `bind message has ${requested.length} result formats but query has ${columnCount} columns`,
    );
  }
  return Array.from({ length: columnCount }, (_, index) => {
    const code = requested.length === 1 ? requested[0] : (requested[index] ?? 0);
    if (code === 0 || code === 1) return code;
    throw new SqlError("invalid_parameter_value", `unsupported format code: ${code}`);
  });
}

/** RowDescription; without formats (as Describe of a statement wants it) every column is text. */
export function encodeResultDescription(
  columns: readonly ResultColumn[],
  formats: readonly FormatCode[] = [],
): Buffer {
  return encodeRowDescription(
    columns.map((column, index): RowDescriptionColumn => {
      const { oid, size } = wireTypes[column.type];
      return { name: column.name, typeOid: oid, typeSize: size, format: formats[index] ?? 0 };
    }),
  );
}

/**
 * DataRow of one result row.
 * @throws TypeError when a value is not of its column's type: a bug of the statement that made it.
 */
export function encodeResultRow(
  columns: readonly ResultColumn[],
  row: readonly ResultValue[],
  formats: readonly FormatCode[] = [],
): Buffer {
  if (row.length !== columns.length) throw new TypeError("row and columns differ in number");
  return encodeDataRow(
    columns.map((column, index) => encodeValue(column.type, row[index] ?? null, formats[index] ?? 0)),
  );
}

/** One value in one format; null stays null. @throws TypeError as `encodeResultRow` */
export function encodeValue(type: ResultColumnType, value: ResultValue, format: FormatCode): Buffer | null {
  if (value === null) return null;
  if (type === "text" && typeof value === "string") return Buffer.from(value, "utf8");
  if (type === "int8" && typeof value === "bigint") {
    return format === 1 ? int64(value) : Buffer.from(value.toString(), "latin1");
  }
  if (type === "bool" && typeof value === "boolean") {
    return format === 1 ? Buffer.from([value ? 1 : 0]) : Buffer.from(value ? "t" : "f", "latin1");
  }
  if (type === "timestamptz" && typeof value === "object") {
    return format === 1 ? int64(value.micros) : Buffer.from(value.text, "utf8");
  }
  throw new TypeError(`a ${typeof value} is not a value of type ${type}`);
}

function int64(value: bigint): Buffer {
  const bytes = Buffer.allocUnsafe(8);
  bytes.writeBigInt64BE(value);
  return bytes;
}
