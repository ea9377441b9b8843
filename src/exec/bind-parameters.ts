/** Parameters of a statement that come as JSON, as the text that PostgreSQL reads: bound, never put into the statement. */

import type { JsonValue } from "../auth/identity.ts";
import { SqlError } from "../errors/sql-error.ts";
import type { Cell } from "../upstream/query-result.ts";

const jsonOids: ReadonlySet<number> = new Set([114, 3802]);
/** Element types whose arrays hold JSON: json[] and jsonb[]. */
const jsonArrayOids: ReadonlySet<number> = new Set([199, 3807]);
/** The wire counts parameters in two bytes. */
export const maxParameters = 65_535;

/** A scalar is text whatever its type is; of arrays and objects the type decides. */
export function needTypes(parameters: readonly JsonValue[]): boolean {
  return parameters.some((value) => typeof value === "object" && value !== null);
}

/**
 * @param typeOids as PostgreSQL has inferred them; needed where `needTypes` says so
 * @throws SqlError invalid_parameter_value, numeric_value_out_of_range, character_not_in_repertoire
 */
export function bindParameters(parameters: readonly JsonValue[], typeOids: readonly number[]): Cell[] {
  if (parameters.length > maxParameters) {
    throw new SqlError("program_limit_exceeded", `a statement can have at most ${maxParameters} parameters`);
  }
  return parameters.map((value, index) => bindParameter(value, typeOids[index] ?? 0, index + 1));
}

function bindParameter(value: JsonValue, oid: number, number: number): Cell {
  if (value === null) return null;
  if (typeof value !== "object") return scalarText(value, number);
  if (jsonOids.has(oid)) return wellFormed(JSON.stringify(value), number);
  if (Array.isArray(value)) return arrayText(value, jsonArrayOids.has(oid), number);
  throw new SqlError(
    "invalid_parameter_value",
    `parameter $${number} is an object, and its type is not json or jsonb`,
    {
      hint: `Cast it in the statement: $${number}::jsonb.`,
    },
  );
}

function scalarText(value: string | number | boolean, number: number): string {
  if (typeof value === "string") return wellFormed(value, number);
  if (typeof value === "boolean") return value ? "true" : "false";
  if (!Number.isFinite(value) || (Number.isInteger(value) && !Number.isSafeInteger(value))) {
    throw new SqlError(
      "numeric_value_out_of_range",
      `parameter $${number} is a number that JSON cannot carry exactly`,
      {
        hint: "Send it as a string.",
      },
    );
  }
  return String(value);
}

/** A half of a surrogate pair has no UTF-8: it would arrive as another character. */
function wellFormed(text: string, number: number): string {
  if (/\p{Surrogate}/u.test(text) || text.includes("\0")) {
    throw new SqlError(
      "character_not_in_repertoire",
      `parameter $${number} holds a character that PostgreSQL cannot store`,
    );
  }
  return text;
}

/** PostgreSQL's array literal (manual 8.15.2): every element quoted, so that none is read as NULL or as structure. */
function arrayText(items: readonly JsonValue[], areJson: boolean, number: number): string {
  const parts = items.map((item): string => {
    if (item === null) return "NULL";
    if (typeof item !== "object") {
      return quoted(areJson ? wellFormed(JSON.stringify(item), number) : scalarText(item, number));
    }
    if (Array.isArray(item) && !areJson) return arrayText(item, false, number);
    return quoted(wellFormed(JSON.stringify(item), number));
  });
  return `{${parts.join(",")}}`;
}

function quoted(text: string): string {
  return `"${text.replaceAll(/["\\]/g, "\\$&")}"`;
}
