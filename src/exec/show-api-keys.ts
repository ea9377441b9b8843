/** What API keys are shown as: the one row with the key itself, and SHOW API KEYS. */

import type { Queryable } from "../catalog/users.ts";
import type { Statement } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { denied, isSuperuser } from "./authorize.ts";
import type { ExecutionContext, ExecutorDependencies } from "./context.ts";
import { findUser, missingUser } from "./find-user.ts";
import type { Column, StatementResult } from "./result.ts";
import { flushBefore, runRead } from "./run-statement.ts";
import { table, timestamp, timestampColumns } from "./show.ts";
import { useSessionFormat } from "./user-options.ts";

/** Of CREATE API KEY and ALTER API KEY … ROTATE. */
export const newApiKeyColumns: readonly Column[] = [
  { name: "api_key", type: "text" },
  { name: "key_id", type: "text" },
  { name: "name", type: "text" },
  { name: "expires_at", type: "timestamptz" },
];

export const apiKeyColumns: readonly Column[] = [
  { name: "name", type: "text" },
  { name: "key_id", type: "text" },
  { name: "owner", type: "text" },
  { name: "role", type: "text" },
  { name: "databases", type: "text" },
  { name: "expires_at", type: "timestamptz" },
  { name: "revoked", type: "bool" },
  { name: "created_at", type: "timestamptz" },
  { name: "last_used_at", type: "timestamptz" },
];

/** Stands for a key without a list of databases. */
const inherited = "(inherit)";

/**
 * The result that shows a new key, the only time.
 *
 * @param text the whole key; it goes into the row and nowhere else
 */
export async function keyRow(
  client: Queryable,
  context: ExecutionContext,
  tag: string,
  keyId: string,
  text: string,
): Promise<StatementResult> {
  await useSessionFormat(client, context);
  const result = await client.query<{ name: string; at_text: string | null; at_micros: string | null }>(
    `SELECT k.name, ${timestampColumns("k.expires_at", "at")} FROM nodedb.api_key k WHERE k.key_id = $1`,
    [keyId],
  );
  const row = result.rows[0];
  if (row === undefined) throw new Error("the key that was written is not there");
  const values = [text, keyId, row.name, timestamp(row.at_text, row.at_micros)];
  return { tag, table: { columns: newApiKeyColumns, rows: [values] }, notices: [] };
}

interface KeyRow {
  readonly name: string;
  readonly key_id: string;
  readonly owner: string;
  readonly role: string;
  readonly databases: string | null;
  readonly revoked: boolean;
  readonly expires_at_text: string | null;
  readonly expires_at_micros: string | null;
  readonly created_at_text: string | null;
  readonly created_at_micros: string | null;
  readonly last_used_at_text: string | null;
  readonly last_used_at_micros: string | null;
}

/** A superuser sees all keys, everybody else the own ones. Databases are those that the key is left with now. */
export async function showApiKeys(
  deps: ExecutorDependencies,
  statement: Extract<Statement, { kind: "show_api_keys" }>,
  context: ExecutionContext,
): Promise<StatementResult> {
  await flushBefore(deps, context, () => deps.catalog.flushLogins());
  const { owner: reference } = statement;
  return runRead(deps, context, async ({ client, caller }) => {
    let ownerId = isSuperuser(caller) ? undefined : caller.id;
    if (reference !== undefined && !("self" in reference) && reference.text !== caller.name) {
      if (!isSuperuser(caller)) throw denied("only superuser may see the API keys of others");
      const found = await findUser(client, reference, caller, deps.catalog.adminRole);
      if (found.kind === "missing") throw missingUser(found);
      if (found.kind === "foreign_role") {
        throw new SqlError("wrong_object_type", `role "${found.name}" is not a user`, {
          position: reference.position,
        });
      }
      ownerId = found.user.id;
    } else if (reference !== undefined) ownerId = caller.id;
    await useSessionFormat(client, context);
    const result = await client.query<KeyRow>(
      `SELECT k.name, k.key_id, p.name AS owner, k.revoked_at IS NOT NULL AS revoked,
              (SELECT coalesce(pg_catalog.string_agg(h.role, ', ' ORDER BY h.ordinal), '')
                 FROM nodedb.principal_role h WHERE h.principal_id = p.id) AS role,
              CASE WHEN k.databases IS NOT NULL THEN (
                SELECT coalesce(pg_catalog.string_agg(l.name, ', ' ORDER BY l.ordinal), '')
                  FROM pg_catalog.unnest(k.databases) WITH ORDINALITY AS l (name, ordinal)
                 WHERE CASE p.kind
                         WHEN 'service_account' THEN EXISTS (
                           SELECT FROM nodedb.principal_database o
                            WHERE o.principal_id = p.id AND o.database = l.name)
                         ELSE EXISTS (
                           SELECT FROM pg_catalog.pg_database d CROSS JOIN pg_catalog.pg_roles r
                            WHERE d.datname = l.name AND r.rolname = p.name
                              AND pg_catalog.has_database_privilege(r.oid, d.oid, 'CONNECT'))
                       END) END AS databases,
              ${timestampColumns("k.expires_at", "expires_at")},
              ${timestampColumns("k.created_at", "created_at")},
              ${timestampColumns("k.last_used_at", "last_used_at")}
         FROM nodedb.api_key k JOIN nodedb.principal p ON p.id = k.owner_id
        WHERE $1::pg_catalog.int8 IS NULL OR k.owner_id = $1
        ORDER BY k.name COLLATE "C"`,
      [ownerId === undefined ? null : String(ownerId)],
    );
    const rows = result.rows.map((row) => [
      row.name,
      row.key_id,
      row.owner,
      row.role,
      row.databases ?? inherited,
      timestamp(row.expires_at_text, row.expires_at_micros),
      row.revoked,
      timestamp(row.created_at_text, row.created_at_micros),
      timestamp(row.last_used_at_text, row.last_used_at_micros),
    ]);
    return table(apiKeyColumns, rows);
  });
}
