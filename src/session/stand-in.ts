/** What the upstream prepares under the client's name in place of a statement of ours. */

import type { Column } from "../exec/result.ts";

const typeNames: Readonly<Record<Column["type"], string>> = {
  text: "text",
  int8: "int8",
  bool: "bool",
  timestamptz: "timestamptz",
};

/**
 * For a SHOW a query with the same columns, so that Describe tells the truth;
 * for a command something without columns. Should it ever be run, it gives nothing away and changes nothing.
 */
export function standIn(columns: readonly Column[] | undefined): string {
  if (columns === undefined) {
    return "DO 'BEGIN RAISE EXCEPTION ''this statement is run by the front-end''; END'";
  }
  const list = columns.map(({ name, type }) => `NULL::pg_catalog.${typeNames[type]} AS "${name}"`);
  return `SELECT ${list.join(", ")} LIMIT 0`;
}
