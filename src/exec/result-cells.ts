/** The result of a statement of ours in the form of one of PostgreSQL's: every value as its text. */

import type { Cell } from "../upstream/query-result.ts";
import type { RequestResult, ResultField } from "./request-result.ts";
import type { ColumnType, StatementResult, Value } from "./result.ts";
import { builtInType } from "./result-types.ts";

const oids: Readonly<Record<ColumnType, number>> = { text: 25, int8: 20, bool: 16, timestamptz: 1184 };

export function resultOfTable(result: StatementResult): RequestResult {
  const { tag, table, notices } = result;
  const fields = (table?.columns ?? []).map(({ name, type }): ResultField => {
    const valueType = builtInType(oids[type]);
    if (valueType === undefined) throw new TypeError(`no type ${type}`);
    return { name, oid: oids[type], type: valueType };
  });
  const rows = (table?.rows ?? []).map((row) => row.map(cellOf));
  return { command: tag, rowCount: table === undefined ? null : rows.length, fields, rows, notices };
}

function cellOf(value: Value): Cell {
  if (value === null || typeof value === "string") return value;
  if (typeof value === "boolean") return value ? "t" : "f";
  return typeof value === "bigint" ? value.toString() : value.text;
}
