/** What a statement that the front-end runs for somebody gives back, and what it may grow to. */

/** A column as RowDescription names it. */
export interface DescribedColumn {
  readonly name: string;
  readonly typeOid: number;
}

/** One value as PostgreSQL's text, or NULL. */
export type Cell = string | null;

/** A statement's result, as far as it was not given to a listener row by row. */
export interface QueryOutcome {
  /** Text of CommandComplete; empty for an empty statement. */
  readonly tag: string;
  /** Absent when the statement returns no rows. */
  readonly columns: readonly DescribedColumn[] | undefined;
  readonly rows: readonly (readonly Cell[])[];
  /** Messages of NoticeResponses of NOTICE and above. */
  readonly notices: readonly string[];
}

/** What a result may grow to before its statement is undone. */
export interface ResultLimits {
  readonly maxRows: number;
  /** Of all rows together, as PostgreSQL sends them. */
  readonly maxBytes: number;
  /** @throws SqlError for columns that the result cannot be given with; the statement is undone then, too */
  readonly checkColumns?: (columns: readonly DescribedColumn[]) => void;
}

/** Takes the rows as they come; `pause` and `resume` of the client hold PostgreSQL back. */
export interface RowListener {
  onRow(cells: Cell[]): void;
}

export interface StatementDescription {
  readonly parameterTypeOids: readonly number[];
  readonly columns: readonly DescribedColumn[] | undefined;
}
