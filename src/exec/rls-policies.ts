/**
 * CREATE, DROP and SHOW RLS POLICY (auth SQL: row-level security): PostgreSQL's own DDL, run on the client's own upstream
 * connection. So it is a part of the client's transaction and sees the tables that this has made, names resolve as in the
 * session, and PostgreSQL decides who may: the owner of the table, the admins of a tenant whose member that is (they are
 * members of the owner's role, see upstream/tenant-groups), and superusers.
 *
 * Who is not the owner is refused, and there is no way around by the administrative connection: PostgreSQL
 * evaluates constants of a predicate while it parses it, and a constant of a composite type runs the CHECK of a domain in it,
 * which is whatever its maker has written. On the administrative connection that would be the admin's code with the rights of
 * the front-end.
 *
 * Within a transaction the DDL runs once, when the client says it; the replays of its statements at COMMIT find the result
 * among the statement's materials, and write the audit entry.
 */

import {
  createPolicyPieces,
  dropPolicySql,
  maxWritePolicyNameBytes,
  openChildrenQuery,
  policiesQuery,
  type RlsPolicy,
  readPolicies,
} from "../catalog/rls-policies.ts";
import { findAuthReferences } from "../ddl/auth-references.ts";
import type { LexerOptions } from "../ddl/lexer.ts";
import type { QualifiedName, Statement, TextValue } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { UpstreamError } from "../upstream/upstream-error.ts";
import { type AuthFunctions, rewriteAuth, showAuthReferences } from "./auth-references.ts";
import type { ClientConnection, ExecutionContext, ExecutorDependencies } from "./context.ts";
import type { Column, StatementResult } from "./result.ts";
import { table } from "./show.ts";

type StatementOf<Kind extends Statement["kind"]> = Extract<Statement, { kind: Kind }>;
type RlsPolicyChange = StatementOf<"create_rls_policy" | "drop_rls_policy">;

export const rlsPolicyColumns: readonly Column[] = [
  { name: "name", type: "text" },
  { name: "table", type: "text" },
  { name: "type", type: "text" },
  { name: "mode", type: "text" },
  { name: "predicate", type: "text" },
];

/** Where the statement's result is kept over its replays. */
const resultKey = "rls policy";

/**
 * Does what a statement asks of the client's connection, before it is run as a part of the transaction: other administrators
 * must not wait while this waits for a lock. Does nothing for other statements, and nothing the second time.
 *
 * @throws SqlError, or UpstreamError as PostgreSQL worded it
 */
export async function runOnClientConnection(
  deps: Pick<ExecutorDependencies, "authFunctions" | "databases">,
  statement: Statement,
  context: ExecutionContext,
): Promise<void> {
  if (statement.kind !== "create_rls_policy" && statement.kind !== "drop_rls_policy") return;
  if (context.materials.has(resultKey)) return;
  const connection = connectionOf(context);
  const result =
    statement.kind === "create_rls_policy"
      ? await createPolicy(deps, statement, connection, context.database)
      : await dropPolicy(statement, connection);
  context.materials.set(resultKey, result);
}

export async function changeRlsPolicy(
  deps: ExecutorDependencies,
  statement: RlsPolicyChange,
  context: ExecutionContext,
): Promise<StatementResult> {
  await runOnClientConnection(deps, statement, context);
  // Writes nothing but the audit entry; in a client's transaction whoever replays it does.
  if (context.transaction === undefined) await deps.catalog.write(async () => undefined);
  return context.materials.get(resultKey) as StatementResult;
}

/** The policies of the session's database or of one table, those of PostgreSQL's CREATE POLICY included. */
export async function showRlsPolicies(
  deps: ExecutorDependencies,
  statement: StatementOf<"show_rls_policies">,
  context: ExecutionContext,
): Promise<StatementResult> {
  const policies = await listPolicies(connectionOf(context), statement.table);
  if (policies === undefined) throw undefinedTable(statement.table);
  return table(
    rlsPolicyColumns,
    policies.map((policy) => [
      policy.name,
      policy.table,
      policy.type,
      policy.mode,
      policy.predicate === null ? null : showAuthReferences(policy.predicate, deps.authFunctions),
    ]),
  );
}

/** The client's own connection, for statements that cannot do without. */
export function connectionOf(context: ExecutionContext): ClientConnection {
  if (context.connection !== undefined) return context.connection;
  throw new SqlError("feature_not_supported", "this statement runs in a session only");
}

async function createPolicy(
  deps: Pick<ExecutorDependencies, "authFunctions" | "databases">,
  statement: StatementOf<"create_rls_policy">,
  connection: ClientConnection,
  database: string,
): Promise<StatementResult> {
  const { name, table: target, access, isRestrictive } = statement;
  if (access === "write" && Buffer.byteLength(name.text) > maxWritePolicyNameBytes) {
    throw new SqlError("invalid_parameter_value", "policy name is too long", {
      detail: `The name of a policy FOR WRITE has at most ${maxWritePolicyNameBytes} bytes.`,
      position: name.position,
    });
  }
  const predicate = rewritePredicate(statement.predicate, deps.authFunctions, connection);
  if (predicate.hasReferences) deps.databases.requireClaims(database);
  const pieces = createPolicyPieces(name.text, target, access, isRestrictive);
  // A comment at the end of the predicate must not take the parenthesis.
  const between = `${predicate.sql}\n`;
  await run(connection, pieces.join(between), statement, (position) => {
    let start = 0;
    for (const piece of pieces) {
      start += lengthOf(piece);
      if (position <= start) return undefined;
      // Behind it stands the parenthesis at which PostgreSQL misses something.
      if (position <= start + lengthOf(between) + 1) return predicate.originOf(position - start);
      start += lengthOf(between);
    }
    return undefined;
  });
  const open = (await connection.query(openChildrenQuery(target))).map(([child]) => child);
  if (open.length === 0) return { tag: "CREATE RLS POLICY", notices: [] };
  const notice = `row-level security of "${target.name}" is not asked for what is read from its partitions and children directly: ALTER TABLE … ENABLE ROW LEVEL SECURITY closes ${open.join(", ")}`;
  return { tag: "CREATE RLS POLICY", notices: [notice] };
}

async function dropPolicy(
  statement: StatementOf<"drop_rls_policy">,
  connection: ClientConnection,
): Promise<StatementResult> {
  const { name, table: target, ifExists } = statement;
  const tag = "DROP RLS POLICY";
  const policies = await listPolicies(connection, target);
  if (policies === undefined) {
    if (ifExists) return { tag, notices: [`relation "${target.name}" does not exist, skipping`] };
    throw undefinedTable(target);
  }
  const policy = policies.find((candidate) => candidate.name === name.text);
  if (policy === undefined) {
    const missing = `policy "${name.text}" for table "${target.name}" does not exist`;
    if (ifExists) return { tag, notices: [`${missing}, skipping`] };
    throw new SqlError("undefined_object", missing, { position: name.position });
  }
  await run(connection, dropPolicySql(policy, target), statement, () => undefined);
  return { tag, notices: [] };
}

async function listPolicies(
  connection: ClientConnection,
  target: QualifiedName | undefined,
): Promise<RlsPolicy[] | undefined> {
  return readPolicies(await connection.query(policiesQuery(target)));
}

function undefinedTable(target: QualifiedName | undefined): SqlError {
  const { schema, name, position } = target ?? { schema: undefined, name: "", position: undefined };
  const text = schema === undefined ? name : `${schema}.${name}`;
  return new SqlError("undefined_table", `relation "${text}" does not exist`, { position });
}

/** Runs DDL; an error's position is counted in the client's own text, where it has one there. */
async function run(
  connection: ClientConnection,
  sql: string,
  statement: RlsPolicyChange,
  originOf: (position: number) => number | undefined,
): Promise<void> {
  try {
    await connection.query(sql);
  } catch (error) {
    if (!(error instanceof UpstreamError)) throw error;
    const written = error.fields.get("P");
    const position =
      error.sqlstate === "42P01" ? statement.table.position : written && originOf(Number(written));
    if (error.sqlstate !== "42501") throw error.withPosition(position || undefined);
    throw new SqlError("insufficient_privilege", error.message, {
      hint: "The policies of a table are its owner's to change.",
      cause: error,
    });
  }
}

interface RewrittenPredicate {
  readonly sql: string;
  readonly hasReferences: boolean;
  /** From a character of `sql` to the one of the client's text, both from 1. */
  originOf(position: number): number;
}

/** @throws SqlError syntax_error for an unknown reference */
function rewritePredicate(
  predicate: TextValue,
  functions: AuthFunctions,
  options: LexerOptions,
): RewrittenPredicate {
  const text = Buffer.from(predicate.value);
  const rewrite = (start: number, end: number) =>
    rewriteAuth(text.subarray(start, end), functions, options).toString();
  const references = findAuthReferences(text, 0, text.length, options);
  try {
    rewriteAuth(text, functions, options);
  } catch (error) {
    if (!(error instanceof SqlError) || error.position === undefined) throw error;
    const position = error.position + predicate.position - 1;
    throw new SqlError(error.condition, error.message, { hint: error.hint, position });
  }
  /** Pieces of the result, in characters; `isSame` when they stand there as written. */
  const pieces: { length: number; written: number; isSame: boolean }[] = [];
  let sql = "";
  let copied = 0;
  const copyUntil = (end: number) => {
    const piece = text.toString("utf8", copied, end);
    pieces.push({ length: lengthOf(piece), written: lengthOf(piece), isSame: true });
    sql += piece;
    copied = end;
  };
  for (const { start, end } of references) {
    copyUntil(start);
    const call = rewrite(start, end);
    pieces.push({
      length: lengthOf(call),
      written: lengthOf(text.toString("utf8", start, end)),
      isSame: false,
    });
    sql += call;
    copied = end;
  }
  copyUntil(text.length);
  return {
    sql,
    hasReferences: references.length > 0,
    originOf: (position) => {
      let rest = position - 1;
      let origin = predicate.position;
      for (const { length, written, isSame } of pieces) {
        if (rest < length) return isSame ? origin + rest : origin;
        rest -= length;
        origin += written;
      }
      return origin;
    },
  };
}

/** In characters, as PostgreSQL counts. */
function lengthOf(text: string): number {
  let length = 0;
  for (const _ of text) length += 1;
  return length;
}
