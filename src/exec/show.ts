/** SHOW USERS and SHOW SESSION. */

import type { Queryable } from "../catalog/users.ts";
import { isSuperuser } from "./authorize.ts";
import type { ExecutionContext, ExecutorDependencies } from "./context.ts";
import type { Column, StatementResult, Timestamp, Value } from "./result.ts";
import { flushBefore, runRead } from "./run-statement.ts";
import { useSessionFormat } from "./user-options.ts";

export const userColumns: readonly Column[] = [
  { name: "username", type: "text" },
  { name: "tenant_id", type: "int8" },
  { name: "roles", type: "text" },
  { name: "is_superuser", type: "bool" },
  { name: "default_database", type: "text" },
  { name: "can_login", type: "bool" },
  { name: "valid_until", type: "timestamptz" },
  { name: "last_login_at", type: "timestamptz" },
  { name: "created_at", type: "timestamptz" },
];

export const sessionColumns: readonly Column[] = [
  { name: "username", type: "text" },
  { name: "tenant_id", type: "int8" },
  { name: "roles", type: "text" },
  { name: "auth_method", type: "text" },
  { name: "is_superuser", type: "bool" },
  { name: "database", type: "text" },
  { name: "session_id", type: "text" },
  { name: "expires_at", type: "timestamptz" },
];

/** A timestamp as text in the session's format, and as microseconds since 2000-01-01 UTC as the binary format has it. */
export const timestampColumns = (expression: string, name: string) => `
  ${expression}::pg_catalog.text AS ${name}_text,
  (CASE WHEN ${expression} = 'infinity'::pg_catalog.timestamptz THEN 9223372036854775807
        WHEN ${expression} = '-infinity'::pg_catalog.timestamptz THEN -9223372036854775808
        ELSE EXTRACT(epoch FROM ${expression}) * 1000000 - 946684800000000
    END)::pg_catalog.int8::pg_catalog.text AS ${name}_micros`;

interface UserRow {
  readonly name: string;
  readonly tenant_id: string;
  readonly roles: string;
  readonly is_superuser: boolean;
  readonly default_database: string | null;
  readonly can_login: boolean;
  readonly valid_until_text: string | null;
  readonly valid_until_micros: string | null;
  readonly last_login_at_text: string | null;
  readonly last_login_at_micros: string | null;
  readonly created_at_text: string | null;
  readonly created_at_micros: string | null;
}

/** A superuser sees all users, everybody else those of the own tenant. */
export async function showUsers(
  deps: ExecutorDependencies,
  context: ExecutionContext,
): Promise<StatementResult> {
  await flushBefore(deps, context, () => deps.catalog.flushLogins());
  return runRead(deps, context, async ({ client, caller }) => {
    await useSessionFormat(client, context);
    const result = await client.query<UserRow>(
      `SELECT p.name, p.tenant_id, r.roles, r.is_superuser, p.default_database, p.can_login,
              ${timestampColumns("p.valid_until", "valid_until")},
              ${timestampColumns("p.last_login_at", "last_login_at")},
              ${timestampColumns("p.created_at", "created_at")}
         FROM nodedb.principal p
         CROSS JOIN LATERAL (
           SELECT coalesce(pg_catalog.string_agg(h.role, ', ' ORDER BY h.ordinal), '') AS roles,
                  coalesce(pg_catalog.bool_or(h.role = 'superuser'), false) AS is_superuser
             FROM nodedb.principal_role h WHERE h.principal_id = p.id) r
        WHERE p.kind = 'user' AND ($1 OR p.tenant_id = $2)
        ORDER BY p.name COLLATE "C"`,
      [isSuperuser(caller), caller.tenantId],
    );
    return table(userColumns, result.rows.map(userValues));
  });
}

/** What the caller's own session is; roles as they are now. */
export function showSession(deps: ExecutorDependencies, context: ExecutionContext): Promise<StatementResult> {
  return runRead(deps, context, async ({ client, caller }) => [
    caller.name,
    BigInt(caller.tenantId),
    caller.roles.join(", "),
    context.identity.method,
    isSuperuser(caller),
    context.database,
    context.sessionId,
    await formatMoment(client, context, context.identity.expiresAt),
  ]).then((row) => table(sessionColumns, [row]));
}

function userValues(row: UserRow): readonly Value[] {
  return [
    row.name,
    BigInt(row.tenant_id),
    row.roles,
    row.is_superuser,
    row.default_database,
    row.can_login,
    timestamp(row.valid_until_text, row.valid_until_micros),
    timestamp(row.last_login_at_text, row.last_login_at_micros),
    timestamp(row.created_at_text, row.created_at_micros),
  ];
}

async function formatMoment(
  client: Queryable,
  context: ExecutionContext,
  moment: Date | undefined,
): Promise<Timestamp | null> {
  if (moment === undefined) return null;
  await useSessionFormat(client, context);
  const result = await client.query<{ at_text: string; at_micros: string }>(
    `SELECT ${timestampColumns("m.at", "at")}
       FROM (SELECT pg_catalog.to_timestamp($1::pg_catalog.numeric / 1000) AS at) m`,
    [String(moment.getTime())],
  );
  const row = result.rows[0];
  return row === undefined ? null : timestamp(row.at_text, row.at_micros);
}

/** A timestamp of two columns that `timestampColumns` made. */
export function timestamp(text: string | null, micros: string | null): Timestamp | null {
  return text === null || micros === null ? null : { text, micros: BigInt(micros) };
}

/** The result of a SHOW. */
export function table(columns: readonly Column[], rows: readonly (readonly Value[])[]): StatementResult {
  return { tag: "SHOW", table: { columns, rows }, notices: [] };
}
