/** The frame of a writing statement: transaction, the caller as the catalog has it now, errors, cache and sessions. */

import type { PoolClient } from "pg";
import { mayStay } from "../auth/live-session.ts";
import { loginRefusal } from "../auth/password.ts";
import { systemTenantId } from "../catalog/tenants.ts";
import { loadUsersById, type PrincipalRecord } from "../catalog/users.ts";
import { SqlError } from "../errors/sql-error.ts";
import { rankOf } from "../upstream/built-in-groups.ts";
import type { DesiredRole } from "../upstream/reconcile-roles.ts";
import type { TenantPlace } from "../upstream/tenant-groups.ts";
import { denied, highestRank } from "./authorize.ts";
import type { ExecutionContext, ExecutorDependencies, OpenTransaction } from "./context.ts";
import { despiteSessions, type KeptOut, sessionClosed } from "./keep-out.ts";
import { translateErrors } from "./translate-errors.ts";

/** What a statement sees inside its transaction. */
export interface StatementScope {
  readonly client: PoolClient;
  readonly caller: PrincipalRecord;
  /** Called for each user that the statement creates, changes or drops. */
  touch(principalId: number): void;
  /** Called, with all rights checked, right before the roles are changed of those whom the statement keeps out from now on. */
  keepOut(users: readonly KeptOut[]): Promise<void>;
}

/**
 * Runs a statement that changes users, in one transaction on the catalog's connection together with PostgreSQL's roles:
 * both are in the same cluster, so that both change or neither. Afterwards the cache knows, and the sessions of users
 * that may no longer be here are closed.
 */
export async function runWrite<T>(
  deps: ExecutorDependencies,
  context: ExecutionContext,
  work: (scope: StatementScope) => Promise<T>,
): Promise<T> {
  const run = async (
    { client, touched }: Pick<OpenTransaction, "client" | "touched">,
    keepOut: StatementScope["keepOut"],
  ): Promise<T> =>
    work({ client, caller: await loadCaller(client, context), touch: (id) => touched.add(id), keepOut });
  const { transaction } = context;
  // A client's transaction is not run again.
  if (transaction !== undefined) return translateErrors(() => run(transaction, async () => undefined));
  const touched = new Set<number>();
  const result = await despiteSessions(deps, (keepOut) =>
    translateErrors(() =>
      deps.catalog.write((client) => run({ client, touched }, (users) => keepOut(client, users))),
    ),
  );
  await followUp(deps, touched);
  return result;
}

/**
 * As `runWrite`, for a statement that changes the table of sessions alone: outside a client's transaction it waits for no other
 * administrator.
 */
export function runOnSessions<T>(
  deps: ExecutorDependencies,
  context: ExecutionContext,
  work: (scope: Pick<StatementScope, "client" | "caller">) => Promise<T>,
): Promise<T> {
  return runInTransactionOr((run) => deps.sessionTable.change(run), context, work);
}

/** What has to follow the commit of changes to these principals: cache, sessions, default privileges. */
export async function followUp(deps: ExecutorDependencies, touched: ReadonlySet<number>): Promise<void> {
  // Without any of them too: tenants and providers are read again with them.
  await translateErrors(() => deps.catalog.cache.reload([...touched]));
  for (const id of touched) {
    const { cache } = deps.catalog;
    const record = cache.findById(id);
    if (record === undefined || loginRefusal(record, new Date()) !== undefined) {
      deps.sessions.closeSessionsOf(id, sessionClosed());
      continue;
    }
    // Of one that stays, sessions may have lost their key or their database.
    const now = new Date();
    deps.sessions.closeSessionsOf(id, sessionClosed(), (session) => mayStay(cache, session, now));
    await deps.databases.prepareOwner(record);
  }
}

/** Runs a statement that only reads. */
export function runRead<T>(
  deps: ExecutorDependencies,
  context: ExecutionContext,
  work: (scope: Pick<StatementScope, "client" | "caller">) => Promise<T>,
): Promise<T> {
  return runInTransactionOr((run) => deps.catalog.read(run), context, work);
}

/** @param alone what runs the work when the client is in no transaction */
function runInTransactionOr<T>(
  alone: (run: (client: PoolClient) => Promise<T>) => Promise<T>,
  context: ExecutionContext,
  work: (scope: Pick<StatementScope, "client" | "caller">) => Promise<T>,
): Promise<T> {
  const run = async (client: PoolClient): Promise<T> =>
    work({ client, caller: await loadCaller(client, context) });
  const { transaction } = context;
  return translateErrors(() => (transaction === undefined ? alone(run) : run(transaction.client)));
}

/** Has what is collected for later written now, as far as that is possible: a statement tells of it. */
export async function flushBefore(
  { catalog }: ExecutorDependencies,
  { transaction }: ExecutionContext,
  flush: () => Promise<void>,
): Promise<void> {
  // Inside a transaction it would wait for the lock that this one holds.
  if (transaction === undefined) await catalog.waitFor(flush()).catch(() => undefined);
}

/** The caller as the cache has it: for what is prepared before the transaction, whose refusals go by what it reads itself. */
export function cachedCaller(deps: ExecutorDependencies, context: ExecutionContext): PrincipalRecord {
  return stillHere(deps.catalog.cache.findById(context.identity.principal.id));
}

/**
 * Refuses before work that is done outside the transaction: by the cache, which costs nothing. Where that refuses, the catalog has
 * the last word: another front-end may have granted the right a moment ago.
 *
 * @param authorize throws when the caller may not
 */
export async function authorizeEarly(
  deps: ExecutorDependencies,
  context: ExecutionContext,
  authorize: (caller: PrincipalRecord) => void,
): Promise<void> {
  try {
    authorize(cachedCaller(deps, context));
  } catch (error) {
    if (!(error instanceof SqlError) || error.condition !== "insufficient_privilege") throw error;
    await runRead(deps, context, async ({ caller }) => authorize(caller));
  }
}

/** What the catalog wants of a user's PostgreSQL role. */
export function desiredRoleOf(user: PrincipalRecord): DesiredRole {
  const { name, canLogin, roles, roleVersion } = user;
  return { name, canLogin, roles, roleVersion, place: placeOf(user) };
}

/** Superusers stand above every tenant, and the system's tenant has no administrators. */
function placeOf({ tenantId, effectiveRoles }: PrincipalRecord): TenantPlace | undefined {
  const rank = highestRank(effectiveRoles);
  if (tenantId === systemTenantId || rank >= rankOf("superuser")) return undefined;
  return { tenantId, as: rank >= rankOf("admin") ? "administrator" : "member" };
}

async function loadCaller(client: PoolClient, context: ExecutionContext): Promise<PrincipalRecord> {
  const [record] = await loadUsersById(client, [context.identity.principal.id]);
  return stillHere(record);
}

function stillHere(record: PrincipalRecord | undefined): PrincipalRecord {
  if (record === undefined || loginRefusal(record, new Date()) !== undefined) {
    throw denied("your user may no longer log in");
  }
  return record;
}
