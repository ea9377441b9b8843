/** What a statement of a request has given: its columns and rows, each value as PostgreSQL's text. */

import type { Cell } from "../upstream/query-result.ts";
import type { ValueType } from "./result-types.ts";

export interface ResultField {
  readonly name: string;
  readonly oid: number;
  readonly type: ValueType;
}

export interface RequestResult {
  /** Of the command tag: its words, and its number, for a statement with rows theirs. */
  readonly command: string;
  readonly rowCount: number | null;
  /** Empty when the statement returns no rows. */
  readonly fields: readonly ResultField[];
  readonly rows: readonly (readonly Cell[])[];
  readonly notices: readonly string[];
}
