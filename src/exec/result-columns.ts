/** The columns that a statement of ours returns, known before it runs: drivers describe what they prepare. */

import type { Statement } from "../ddl/statement.ts";
import type { Column } from "./result.ts";
import { sessionColumns, userColumns } from "./show.ts";

/** @returns undefined when the statement returns no rows */
export function resultColumns(statement: Statement): readonly Column[] | undefined {
  switch (statement.kind) {
    case "show_users":
      return userColumns;
    case "show_session":
      return sessionColumns;
    default:
      return undefined;
  }
}
