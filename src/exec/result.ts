/** What a statement of the front-end gives back: a command tag, and for SHOW a table. */

/** A timestamptz: PostgreSQL's own text in the session's DateStyle and TimeZone, and microseconds since 2000-01-01 UTC. */
export interface Timestamp {
  readonly text: string;
  readonly micros: bigint;
}

export type ColumnType = "text" | "int8" | "bool" | "timestamptz";

export interface Column {
  readonly name: string;
  readonly type: ColumnType;
}

/** One value; its JavaScript type belongs to the column's type (text: string, int8: bigint). */
export type Value = string | bigint | boolean | Timestamp | null;

export interface StatementResult {
  /** Text of CommandComplete, for example `CREATE USER` or `SHOW`. */
  readonly tag: string;
  /** Present exactly when the statement returns rows. */
  readonly table?: { readonly columns: readonly Column[]; readonly rows: readonly (readonly Value[])[] };
  /** Sent as NoticeResponse before the result (IF NOT EXISTS, IF EXISTS). */
  readonly notices: readonly string[];
}
