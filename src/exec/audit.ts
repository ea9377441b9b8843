/** SHOW AUDIT LOG and VERIFY AUDIT CHAIN. */

import { sqlstateOf } from "../catalog/connection.ts";
import type { AuditCondition, Statement } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { denied, isSuperuser } from "./authorize.ts";
import type { ExecutionContext, ExecutorDependencies } from "./context.ts";
import type { Column, StatementResult } from "./result.ts";
import { flushBefore, runRead } from "./run-statement.ts";
import { table, timestamp, timestampColumns } from "./show.ts";
import { useSessionFormat } from "./user-options.ts";

export const auditColumns: readonly Column[] = [
  { name: "seq", type: "int8" },
  { name: "timestamp", type: "timestamptz" },
  { name: "event", type: "text" },
  { name: "username", type: "text" },
  { name: "tenant_id", type: "int8" },
  { name: "source", type: "text" },
  { name: "session_id", type: "text" },
  { name: "detail", type: "text" },
];

export const auditChainColumns: readonly Column[] = [
  { name: "status", type: "text" },
  { name: "entries", type: "int8" },
];

const defaultLimit = 100;
/** A result is built in memory; who wants more goes on from the last `seq`. */
const maxLimit = 10_000;

/** SQL of each column and of the type that its values are read as; constants, so that building a statement of them is safe. */
const comparedAs: Readonly<Record<string, { readonly column: string; readonly type: string }>> = {
  seq: { column: "seq", type: "pg_catalog.int8" },
  timestamp: { column: "at", type: "pg_catalog.timestamptz" },
  event: { column: `event COLLATE "C"`, type: "pg_catalog.text" },
  username: { column: `username COLLATE "C"`, type: "pg_catalog.text" },
  tenant_id: { column: "tenant_id", type: "pg_catalog.int8" },
  source: { column: `source COLLATE "C"`, type: "pg_catalog.text" },
  session_id: { column: `session_id::pg_catalog.text COLLATE "C"`, type: "pg_catalog.text" },
  detail: { column: `detail COLLATE "C"`, type: "pg_catalog.text" },
};

const operators: ReadonlySet<string> = new Set(["=", "<>", "<", "<=", ">", ">="]);

interface AuditRow {
  readonly seq: string;
  readonly at_text: string;
  readonly at_micros: string;
  readonly event: string;
  readonly username: string | null;
  readonly tenant_id: string | null;
  readonly source: string | null;
  readonly session_id: string | null;
  readonly detail: string | null;
}

/** Newest first. */
export async function showAuditLog(
  deps: ExecutorDependencies,
  statement: Extract<Statement, { kind: "show_audit_log" }>,
  context: ExecutionContext,
): Promise<StatementResult> {
  await flushBefore(deps, context, () => deps.audit.flush());
  return runRead(deps, context, async ({ client, caller }) => {
    if (!isSuperuser(caller)) throw denied("only superuser may read the audit log");
    const limit = statement.limit ?? defaultLimit;
    if (!(limit >= 0 && limit <= maxLimit)) {
      throw new SqlError("invalid_parameter_value", `LIMIT must be between 0 and ${maxLimit}`, {
        hint: "Go on with WHERE seq < the last number seen.",
      });
    }
    const conditions = statement.conditions.map((condition, index) => conditionSql(condition, index + 1));
    await useSessionFormat(client, context);
    const result = await readable(() =>
      client.query<AuditRow>(
        `SELECT seq, ${timestampColumns("at", "at")}, event, username, tenant_id, source, session_id, detail
           FROM nodedb.audit_log
          ${conditions.length === 0 ? "" : `WHERE ${conditions.join(" AND ")}`}
          ORDER BY seq DESC LIMIT ${limit}`,
        statement.conditions.map(({ value }) => value.value),
      ),
    );
    return table(
      auditColumns,
      result.rows.map((row) => [
        BigInt(row.seq),
        timestamp(row.at_text, row.at_micros),
        row.event,
        row.username,
        row.tenant_id === null ? null : BigInt(row.tenant_id),
        row.source,
        row.session_id,
        row.detail,
      ]),
    );
  });
}

/** @throws SqlError data_corrupted with the first sequence number that is not as it was written */
export async function verifyAuditChain(
  deps: ExecutorDependencies,
  context: ExecutionContext,
): Promise<StatementResult> {
  await flushBefore(deps, context, () => deps.audit.flush());
  return runRead(deps, context, async ({ client, caller }) => {
    if (!isSuperuser(caller)) throw denied("only superuser may verify the audit log");
    const verdict = await deps.audit.verify(client);
    if (verdict.ok) {
      return {
        tag: "VERIFY AUDIT CHAIN",
        table: { columns: auditChainColumns, rows: [["ok", verdict.entries]] },
        notices: [],
      };
    }
    throw new SqlError("data_corrupted", `audit chain is broken at sequence number ${verdict.seq}`, {
      detail: {
        missing: "The entry with this number has been removed.",
        changed: "The entry with this number, or its hash, is not as it was written.",
        unexpected: "There is an entry with this number that was never written.",
        head: "The chain's head is not as it was written.",
      }[verdict.reason],
      hint: "Compare with the audit chain heads in the front-ends' logs and with a backup.",
    });
  });
}

function conditionSql({ column, operator }: AuditCondition, parameter: number): string {
  const compared = Object.hasOwn(comparedAs, column.text) ? comparedAs[column.text] : undefined;
  if (compared === undefined) {
    throw new SqlError("undefined_column", `column "${column.text}" does not exist`, {
      position: column.position,
      hint: `The columns are ${Object.keys(comparedAs).join(", ")}.`,
    });
  }
  if (!operators.has(operator)) throw new Error(`no such operator: ${operator}`);
  return `${compared.column} ${operator} $${parameter}::${compared.type}`;
}

/** Words what PostgreSQL says of a value that is no number or no moment. */
async function readable<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const state = sqlstateOf(error);
    if (!(error instanceof Error) || state === undefined || !state.startsWith("22") || state === "22021") {
      throw error;
    }
    throw new SqlError(
      state === "22007" || state === "22008" ? "invalid_datetime_format" : "invalid_parameter_value",
      error.message,
    );
  }
}
