/** Rows as JSON text, written straight from PostgreSQL's text: what JSON's numbers could round stays a string. */

import { SqlError } from "../errors/sql-error.ts";
import type { ResultField } from "../exec/request-result.ts";
import type { ValueType } from "../exec/result-types.ts";
import { arrayToJson } from "./array-json.ts";

export type RowMode = "object" | "array";

type EncodeValue = (text: string) => string;

/** Encodes one row; the work that depends on the columns only is done once. */
export type EncodeRow = (cells: readonly (string | null)[]) => string;

/** @throws SqlError duplicate_column in mode object, where the second of a name would hide the first */
export function rowEncoder(fields: readonly ResultField[], mode: RowMode): EncodeRow {
  const encoders = fields.map(({ type }) => valueEncoder(type));
  const value = (cells: readonly (string | null)[], index: number): string => {
    const cell = cells[index];
    const encode = encoders[index];
    return cell === null || cell === undefined || encode === undefined ? "null" : encode(cell);
  };
  if (mode === "array") {
    return (cells) => {
      let json = "[";
      for (let index = 0; index < encoders.length; index += 1) {
        json += index === 0 ? value(cells, index) : `,${value(cells, index)}`;
      }
      return `${json}]`;
    };
  }
  requireDistinctNames(fields);
  const keys = fields.map(({ name }, index) => `${index === 0 ? "{" : ","}${JSON.stringify(name)}:`);
  if (keys.length === 0) return () => "{}";
  return (cells) => {
    let json = "";
    for (let index = 0; index < keys.length; index += 1) json += keys[index] + value(cells, index);
    return `${json}}`;
  };
}

/** @throws SqlError duplicate_column */
export function requireDistinctNames(fields: readonly { readonly name: string }[]): void {
  const names = new Set<string>();
  for (const { name } of fields) {
    if (names.has(name)) {
      throw new SqlError("duplicate_column", `the result has several columns named "${name}"`, {
        hint: 'Give each a name of its own with AS, or ask for "rowMode": "array".',
      });
    }
    names.add(name);
  }
}

/** The columns of a result as the answer lists them. */
export function fieldsJson(fields: readonly ResultField[]): string {
  return JSON.stringify(fields.map(({ name, oid, type }) => ({ name, oid, type: type.name })));
}

function valueEncoder(type: ValueType): EncodeValue {
  switch (type.kind) {
    case "boolean":
      return (text) => (text === "t" ? "true" : "false");
    case "number":
    case "json":
      return (text) => text;
    case "float":
      // NaN and the infinities have no JSON.
      return (text) => (/^-?\d/.test(text) ? text : JSON.stringify(text));
    case "text":
      return (text) => JSON.stringify(text);
    case "array": {
      const encode = valueEncoder(type.element);
      return (text) => arrayToJson(text, type.delimiter, encode);
    }
  }
}
