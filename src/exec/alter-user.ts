/** ALTER USER in all its forms: options, SET ROLE, SET DEFAULT DATABASE, RENAME TO. */

import { escapeIdentifier } from "pg";
import {
  isSameParameters,
  keysCutOff,
  parametersOfKeys,
  type ScramParameters,
} from "../auth/scram-parameters.ts";
import { type ApiKeyRecord, loadApiKeysOf } from "../catalog/api-keys.ts";
import {
  countUsableSuperusers,
  findUserByName,
  loadUsersById,
  type PrincipalRecord,
  replaceRoles,
  type UserChanges,
  updateUserRow,
} from "../catalog/users.ts";
import type { Statement, UserReference } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { rankOf } from "../upstream/built-in-groups.ts";
import { reconcileRoles } from "../upstream/reconcile-roles.ts";
import {
  denied,
  highestRank,
  isSuperuser,
  requireAdmin,
  requireNotAbove,
  resolveGrantableRoles,
} from "./authorize.ts";
import type { ExecutionContext, ExecutorDependencies } from "./context.ts";
import { nameTaken } from "./create-user.ts";
import { findUser, missingUser, requireKind } from "./find-user.ts";
import type { StatementResult } from "./result.ts";
import { checkNewName, roleExists } from "./role-names.ts";
import { cachedCaller, desiredRoleOf, runWrite, type StatementScope } from "./run-statement.ts";
import { verifierInTransit } from "./secrets-in-transit.ts";
import { parseTimestamp, verifierFor } from "./user-options.ts";

type StatementOf<Kind extends Statement["kind"]> = Extract<Statement, { kind: Kind }>;
type Result = Promise<StatementResult | "forward">;

export async function alterUser(
  deps: ExecutorDependencies,
  statement: StatementOf<"alter_user">,
  context: ExecutionContext,
): Result {
  const { options, user: reference } = statement;
  if (options.tenant !== undefined) {
    throw new SqlError("feature_not_supported", "a user's tenant cannot be changed", {
      position: options.tenant.position,
    });
  }
  const isOwnRight =
    options.roles === undefined &&
    options.validUntil === undefined &&
    options.connectionLimit === undefined &&
    options.canLogin === undefined &&
    options.unsupported === undefined;
  // Before the transaction, which holds the catalog's lock; not for somebody who will be refused, as it costs milliseconds.
  // Its own refusal waits until it is certain that the statement is ours.
  const expected = expectedKeyParameters(deps, context, reference);
  const early = mayBeAllowed(cachedCaller(deps, context), reference, isOwnRight)
    ? verifierFor(deps, options.password, expected)
    : undefined;
  await Promise.allSettled([early]);
  // An external identity can be kept out; the rest is its provider's to say.
  const mayBeExternal = options.password === undefined && options.roles === undefined;
  return alter(
    deps,
    statement,
    context,
    isOwnRight,
    async ({ client, caller }, user) => {
      if (options.unsupported !== undefined) {
        const { message, hint, position } = options.unsupported;
        throw new SqlError("feature_not_supported", message, { hint, position });
      }
      const keys = options.password === undefined ? [] : await loadApiKeysOf(client, [user.id]);
      const ofKeys = parametersOfKeys(keys, new Date());
      const isAsExpected = ofKeys === undefined || (expected && isSameParameters(ofKeys, expected));
      const verifier = await (isAsExpected && early ? early : verifierFor(deps, options.password, ofKeys));
      if (options.roles !== undefined) {
        refuseOwnRoles(caller, user);
        const added = await resolveGrantableRoles(client, caller, options.roles, user.tenantId);
        await replaceRoles(client, user.id, [...new Set([...user.roles, ...added])]);
      }
      const changes: UserChanges = {
        ...(verifier === undefined ? {} : { scramVerifier: await verifierInTransit(client, verifier) }),
        ...(options.canLogin === undefined ? {} : { canLogin: options.canLogin }),
        ...(options.connectionLimit === undefined ? {} : { connectionLimit: options.connectionLimit }),
        ...(options.validUntil === undefined
          ? {}
          : { validUntil: await parseTimestamp(client, options.validUntil, context) }),
      };
      await updateUserRow(client, user.id, changes);
      return deps.areKeysPasswords ? cutOffNotices(verifier, keys) : [];
    },
    mayBeExternal,
  );
}

/** Tells which keys the new password leaves without use on pgwire: a client that hashed it itself chose another salt. */
function cutOffNotices(
  verifier: string | null | undefined,
  keys: readonly ApiKeyRecord[],
): readonly string[] {
  if (typeof verifier !== "string") return [];
  const names = keysCutOff(verifier, keys, new Date()).map(({ name }) => `"${name}"`);
  if (names.length === 0) return [];
  return [
    `API keys that can no longer be used as the password of this user, until ALTER API KEY … ROTATE: ${names.join(", ")}`,
  ];
}

/** What the keys of the user were hashed with, as far as the cache knows. */
function expectedKeyParameters(
  deps: ExecutorDependencies,
  context: ExecutionContext,
  reference: UserReference,
): ScramParameters | undefined {
  const { cache } = deps.catalog;
  const user = "self" in reference ? cachedCaller(deps, context) : cache.findByName(reference.text);
  return user && parametersOfKeys(cache.keysOf(user.id), new Date());
}

export function setUserRoles(
  deps: ExecutorDependencies,
  statement: StatementOf<"set_user_roles">,
  context: ExecutionContext,
): Result {
  return alter(deps, statement, context, false, async ({ client, caller }, user) => {
    if (statement.sign !== undefined) {
      const { text, position } = statement.sign;
      throw new SqlError("syntax_error", `syntax error at or near "${text}"`, {
        position,
        detail: 'With = or TO this would set PostgreSQL\'s parameter "role".',
        hint: `Use ALTER ${statement.spelling} … SET ROLE ${statement.roles.map((role) => role.text).join(", ")}.`,
      });
    }
    refuseOwnRoles(caller, user);
    const roles = await resolveGrantableRoles(client, caller, statement.roles, user.tenantId);
    await replaceRoles(client, user.id, roles);
    return undefined;
  });
}

export function setUserDefaultDatabase(
  deps: ExecutorDependencies,
  statement: StatementOf<"set_user_default_database">,
  context: ExecutionContext,
): Result {
  const { text: database, position } = statement.database;
  return alter(deps, statement, context, true, async ({ client }, user) => {
    const found = await client.query(
      "SELECT FROM pg_catalog.pg_database WHERE datname = $1 AND datallowconn",
      [database],
    );
    if (found.rowCount === 0) {
      throw new SqlError("invalid_catalog_name", `database "${database}" does not exist`, { position });
    }
    await updateUserRow(client, user.id, { defaultDatabase: database });
    return undefined;
  });
}

export function renameUser(
  deps: ExecutorDependencies,
  statement: StatementOf<"rename_user">,
  context: ExecutionContext,
): Result {
  const { newName } = statement;
  return alter(deps, statement, context, false, async ({ client, caller }, user) => {
    // As PostgreSQL: the name is what the session is logged in with.
    if (user.id === caller.id) throw new SqlError("feature_not_supported", "session user cannot be renamed");
    checkNewName(newName);
    if (
      (await findUserByName(client, newName.text)) !== undefined ||
      (await roleExists(client, newName.text))
    ) {
      throw nameTaken(newName, "Choose another name.");
    }
    await client.query(
      `ALTER ROLE ${escapeIdentifier(user.name)} RENAME TO ${escapeIdentifier(newName.text)}`,
    );
    // The name is part of the derivation of the role's key, so that the upstream needs a new verifier.
    await updateUserRow(client, user.id, { name: newName.text, roleVersion: user.roleVersion + 1 });
    return undefined;
  });
}

/**
 * Finds the user, checks the caller's right, runs the change, keeps a superuser able to log in, and brings the PostgreSQL
 * role up to date.
 *
 * @param isOwnRight whether a user may do this to itself without being an admin
 * @param change gives the notices for the client
 * @param mayBeExternal whether it may be done to an external identity too
 */
function alter(
  deps: ExecutorDependencies,
  statement: {
    readonly kind: Statement["kind"];
    readonly user: UserReference;
    readonly spelling: "USER" | "ROLE";
  },
  context: ExecutionContext,
  isOwnRight: boolean,
  change: (scope: StatementScope, user: PrincipalRecord) => Promise<readonly string[] | undefined>,
  mayBeExternal = false,
): Result {
  return runWrite(deps, context, async (scope) => {
    const { client, caller } = scope;
    const found = await findUser(client, statement.user, caller, deps.catalog.adminRole);
    if (found.kind === "foreign_role") {
      if (statement.kind !== "set_user_default_database") return "forward";
      throw new SqlError("wrong_object_type", `role "${found.name}" is not a user`);
    }
    const isSelf = found.kind === "user" && found.user.id === caller.id;
    if (!(isSelf && isOwnRight)) requireAdmin(caller, isSelf ? "change this of a user" : "alter other users");
    if (found.kind === "missing") throw missingUser(found);
    const { user } = found;
    if (!(mayBeExternal && user.kind === "external")) requireKind(user, "user", statement.user.position);
    requireNotAbove(caller, user, "alter this user");
    const notices = await change(scope, user);
    if (isSuperuser(user) && (await countUsableSuperusers(client)) === 0) {
      throw denied("this is the last superuser that can log in");
    }
    const [changed] = await loadUsersById(client, [user.id]);
    if (changed !== undefined) {
      const hasNewKey = changed.roleVersion !== user.roleVersion;
      if (!changed.canLogin && !isSelf) await scope.keepOut([user]);
      await reconcileRoles(client, [desiredRoleOf(changed)], deps.roleOptions, hasNewKey);
    }
    scope.touch(user.id);
    return { tag: `ALTER ${statement.spelling}`, notices: notices ?? [] };
  });
}

function mayBeAllowed(caller: PrincipalRecord, reference: UserReference, isOwnRight: boolean): boolean {
  const isSelf = "self" in reference || reference.text === caller.name;
  return (isOwnRight && isSelf) || highestRank(caller.effectiveRoles) >= rankOf("admin");
}

function refuseOwnRoles(caller: PrincipalRecord, user: PrincipalRecord): void {
  if (user.id === caller.id && !isSuperuser(caller)) throw denied("you cannot change your own roles");
}
