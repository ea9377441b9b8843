/** SHOW SESSIONS and KILL SESSION, over all front-ends of the catalog. */

import { findSession, liveSessions, markKilled } from "../catalog/session-table.ts";
import { loadUsersById } from "../catalog/users.ts";
import type { Statement } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { rankOf } from "../upstream/built-in-groups.ts";
import { denied, highestRank, isSuperuser, requireNotAbove } from "./authorize.ts";
import type { ExecutionContext, ExecutorDependencies } from "./context.ts";
import type { Column, StatementResult } from "./result.ts";
import { flushBefore, runOnSessions, runRead } from "./run-statement.ts";
import { table, timestamp, timestampColumns } from "./show.ts";
import { useSessionFormat } from "./user-options.ts";

export const sessionsColumns: readonly Column[] = [
  { name: "session_id", type: "text" },
  { name: "username", type: "text" },
  { name: "database", type: "text" },
  { name: "tenant_id", type: "int8" },
  { name: "auth_method", type: "text" },
  { name: "client_addr", type: "text" },
  { name: "protocol", type: "text" },
  { name: "state", type: "text" },
  { name: "connected_at", type: "timestamptz" },
  { name: "last_active_at", type: "timestamptz" },
  { name: "expires_at", type: "timestamptz" },
];

interface SessionRow {
  readonly id: string;
  readonly username: string;
  readonly database: string;
  readonly tenant_id: string;
  readonly auth_method: string;
  readonly client_addr: string | null;
  readonly protocol: string;
  readonly state: string;
  readonly connected_at_text: string | null;
  readonly connected_at_micros: string | null;
  readonly last_active_at_text: string | null;
  readonly last_active_at_micros: string | null;
  readonly expires_at_text: string | null;
  readonly expires_at_micros: string | null;
}

/** One's own; an admin sees those of the tenant, a superuser all. Those of other front-ends as of about a second ago. */
export async function showSessions(
  deps: ExecutorDependencies,
  context: ExecutionContext,
): Promise<StatementResult> {
  await flushBefore(deps, context, () => deps.sessionTable.flush());
  return runRead(deps, context, async ({ client, caller }) => {
    await useSessionFormat(client, context);
    const result = await client.query<SessionRow>(
      `SELECT s.id, s.username, s.database, s.tenant_id, s.auth_method, s.client_addr, s.protocol, s.state,
              ${timestampColumns("s.connected_at", "connected_at")},
              ${timestampColumns("s.last_active_at", "last_active_at")},
              ${timestampColumns("s.expires_at", "expires_at")}
         FROM ${liveSessions}
        WHERE $1 OR ($2 AND s.tenant_id = $3) OR s.principal_id = $4
        ORDER BY s.connected_at, s.id`,
      [
        isSuperuser(caller),
        highestRank(caller.effectiveRoles) >= rankOf("admin"),
        String(caller.tenantId),
        String(caller.id),
      ],
    );
    return table(
      sessionsColumns,
      result.rows.map((row) => [
        row.id,
        row.username,
        row.database,
        BigInt(row.tenant_id),
        row.auth_method,
        row.client_addr,
        row.protocol,
        row.state,
        timestamp(row.connected_at_text, row.connected_at_micros),
        timestamp(row.last_active_at_text, row.last_active_at_micros),
        timestamp(row.expires_at_text, row.expires_at_micros),
      ]),
    );
  });
}

/**
 * Ends a session wherever it is, within a second of the commit: what it runs is cancelled. A session of another tenant is
 * treated as one that does not exist.
 */
export async function killSession(
  deps: ExecutorDependencies,
  statement: Extract<Statement, { kind: "kill_session" }>,
  context: ExecutionContext,
): Promise<StatementResult> {
  await flushBefore(deps, context, () => deps.sessionTable.flush());
  return runOnSessions(deps, context, async ({ client, caller }) => {
    const { value, position } = statement.sessionId;
    const session = await findSession(client, value);
    if (session === undefined || !(isSuperuser(caller) || session.tenantId === caller.tenantId)) {
      throw new SqlError("undefined_object", "session does not exist", { position });
    }
    if (session.principalId !== caller.id) {
      if (highestRank(caller.effectiveRoles) < rankOf("admin")) {
        throw denied("only an admin may kill other users' sessions");
      }
      const [owner] = await loadUsersById(client, [session.principalId]);
      if (owner !== undefined) requireNotAbove(caller, owner, "kill this session");
    }
    await markKilled(client, session.id, context.sessionId);
    return { tag: "KILL SESSION", notices: [] };
  });
}
