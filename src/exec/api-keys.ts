/** CREATE, ALTER, DROP and REVOKE API KEY. */

import type { PoolClient } from "pg";
import type { KeyHolder } from "../auth/api-key.ts";
import type { ScramParameters } from "../auth/scram-parameters.ts";
import {
  createApiKeyRow,
  deleteKeyRow,
  findApiKey,
  loadApiKeysOf,
  revokeKeyRow,
  rotateKeyRow,
  setKeyDatabases,
} from "../catalog/api-keys.ts";
import {
  createUserRow,
  deleteUserRows,
  findUserByName,
  loadUsersById,
  type PrincipalRecord,
} from "../catalog/users.ts";
import type { Name, Statement } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { reconcileConnect } from "../upstream/reconcile-connect.ts";
import { reconcileRoles } from "../upstream/reconcile-roles.ts";
import { requireAdmin, resolveGrantableRoles } from "./authorize.ts";
import { requireOwnTenant } from "./connect-grants.ts";
import type { ExecutionContext, ExecutorDependencies } from "./context.ts";
import { nameTaken } from "./create-user.ts";
import { dropRoles } from "./drop-roles.ts";
import {
  findChangeableKey,
  findKeyOwner,
  isAdmin,
  missingKey,
  requireWithinSession,
} from "./find-api-key.ts";
import { momentAfter } from "./intervals.ts";
import { material } from "./materials.ts";
import { requireWithinOwner, resolveDatabases } from "./named-databases.ts";
import { newApiKey, newKeyParameters } from "./new-api-key.ts";
import type { StatementResult } from "./result.ts";
import { checkNewName, claimRoleName } from "./role-names.ts";
import { cachedCaller, desiredRoleOf, runWrite, type StatementScope } from "./run-statement.ts";
import { keyInTransit } from "./secrets-in-transit.ts";
import { keyRow } from "./show-api-keys.ts";

type StatementOf<Kind extends Statement["kind"]> = Extract<Statement, { kind: Kind }>;
type Result = Promise<StatementResult>;

/** As of roles, so that a stand-alone key and a key of somebody have the same. */
const maxNameBytes = 63;

export async function createApiKey(
  deps: ExecutorDependencies,
  statement: StatementOf<"create_api_key">,
  context: ExecutionContext,
): Result {
  const made = newApiKey(context);
  const name = statement.name ?? { text: made.keyId, position: 1 };
  const { holder } = statement;
  const expected =
    "roles" in holder
      ? newKeyParameters(deps, { keyId: made.keyId })
      : expectedParameters(deps, context, holder.owner);
  // Before the transaction, which holds the catalog's lock; not for somebody who will be refused, as it costs a millisecond.
  if (expected !== undefined) await made.verifiers(made.keyId, expected);
  return runWrite(deps, context, async (scope) => {
    const { client, caller } = scope;
    if ("roles" in holder) requireAdmin(caller, "create API keys of their own");
    const owner = "roles" in holder ? undefined : await findKeyOwner(scope, holder, deps.catalog.adminRole);
    checkKeyName(name);
    if ((await findApiKey(client, { name: name.text })) !== undefined) throw keyNameTaken(name);
    const databases =
      statement.databases === undefined ? undefined : await resolveDatabases(client, statement.databases);
    if (owner === undefined) {
      for (const database of statement.databases ?? []) await requireOwnTenant(client, caller, database);
    } else {
      if (databases !== undefined) await requireWithinOwner(client, owner, databases);
      await requireWithinSession(context, scope, owner, databases);
    }
    const { expires } = statement;
    const expiresAt =
      expires === undefined
        ? undefined
        : await material(context, "expires at", () => momentAfter(client, expires));
    const standAlone = "roles" in holder ? await createHolder(scope, name, holder.roles, context) : undefined;
    const ownerId = owner?.id ?? standAlone?.id ?? 0;
    const parameters =
      owner === undefined
        ? newKeyParameters(deps, { keyId: made.keyId })
        : await ownersParameters(deps, client, owner, made.keyId);
    const verifiers = await made.verifiers(made.keyId, parameters);
    await createApiKeyRow(client, {
      ...(await keyInTransit(client, verifiers)),
      keyId: made.keyId,
      name: name.text,
      ownerId,
      databases,
      expiresAt,
    });
    if (standAlone !== undefined) {
      const created = await loadUsersById(client, [ownerId]);
      const isReserved = standAlone.claim === "reserved";
      await reconcileRoles(client, created.map(desiredRoleOf), deps.roleOptions, isReserved);
      await reconcileConnect(client, created);
    }
    scope.touch(ownerId);
    return keyRow(client, context, "CREATE API KEY", made.keyId, made.reveal(made.keyId));
  });
}

/** The principal that a stand-alone key is. */
async function createHolder(
  { client, caller }: StatementScope,
  name: Name,
  roleNames: readonly Name[],
  context: ExecutionContext,
): Promise<{ readonly id: number; readonly claim: "free" | "reserved" }> {
  checkNewName(name);
  const roles = await resolveGrantableRoles(client, caller, roleNames);
  if ((await findUserByName(client, name.text)) !== undefined) {
    throw nameTaken(name, "The key gets a PostgreSQL role of its name; choose another one.");
  }
  const claim = await claimRoleName(client, name, context);
  const id = await createUserRow(client, {
    kind: "api_key",
    name: name.text,
    tenantId: caller.tenantId,
    scramVerifier: undefined,
    canLogin: true,
    validUntil: undefined,
    connectionLimit: -1,
    roles,
  });
  return { id, claim };
}

export function setApiKeyDatabases(
  deps: ExecutorDependencies,
  statement: StatementOf<"alter_api_key_databases">,
  context: ExecutionContext,
): Result {
  const { name } = statement;
  return runWrite(deps, context, async (scope) => {
    const { client, caller } = scope;
    const found = await findChangeableKey(scope, { name: name.text });
    if (found === undefined) throw missingKey(name);
    const { key, owner } = found;
    const databases = await resolveDatabases(client, statement.databases);
    if (owner.kind !== "api_key" || !isAdmin(caller)) await requireWithinOwner(client, owner, databases);
    for (const database of statement.databases) await requireOwnTenant(client, caller, database);
    await requireWithinSession(context, scope, owner, databases);
    await setKeyDatabases(client, key.keyId, databases);
    if (owner.kind === "api_key") await reconcileConnect(client, await loadUsersById(client, [owner.id]));
    scope.touch(owner.id);
    return { tag: "ALTER API KEY", notices: [] };
  });
}

export async function rotateApiKey(
  deps: ExecutorDependencies,
  statement: StatementOf<"rotate_api_key">,
  context: ExecutionContext,
): Result {
  const { name, overlap } = statement;
  const made = newApiKey(context);
  const { cache } = deps.catalog;
  const expected = cache.findKeyByName(name.text);
  const expectedHolder = expected && cache.findById(expected.ownerId);
  const caller = cachedCaller(deps, context);
  if (expected !== undefined && expectedHolder !== undefined) {
    const mayChange = caller.id === expectedHolder.id || isAdmin(caller);
    const owner = { record: expectedHolder, keys: cache.keysOf(expectedHolder.id) };
    const parameters = newKeyParameters(deps, holderOf(expectedHolder, expected.keyId), owner);
    if (mayChange) await made.verifiers(expected.keyId, parameters);
  }
  return runWrite(deps, context, async (scope) => {
    const { client } = scope;
    const found = await findChangeableKey(scope, { name: name.text });
    if (found === undefined) throw missingKey(name);
    const { key, owner } = found;
    if (key.isRevoked) {
      throw new SqlError("object_not_in_prerequisite_state", `API key "${key.name}" is revoked`, {
        hint: "Create another key.",
      });
    }
    await requireWithinSession(context, scope, owner, key.databases);
    const overlapUntil =
      overlap === undefined
        ? undefined
        : await material(context, "overlap until", () => momentAfter(client, overlap));
    const verifiers = await made.verifiers(key.keyId, await ownersParameters(deps, client, owner, key.keyId));
    await rotateKeyRow(client, key.keyId, await keyInTransit(client, verifiers), overlapUntil);
    scope.touch(owner.id);
    return keyRow(client, context, "ALTER API KEY", key.keyId, made.reveal(key.keyId));
  });
}

export function revokeApiKey(
  deps: ExecutorDependencies,
  statement: StatementOf<"revoke_api_key">,
  context: ExecutionContext,
): Result {
  const { keyId } = statement;
  return runWrite(deps, context, async (scope) => {
    const found = await findChangeableKey(scope, { keyId: keyId.text });
    if (found === undefined) throw missingKey(keyId);
    await revokeKeyRow(scope.client, found.key.keyId);
    scope.touch(found.owner.id);
    return { tag: "REVOKE API KEY", notices: [] };
  });
}

export function dropApiKey(
  deps: ExecutorDependencies,
  statement: StatementOf<"drop_api_key">,
  context: ExecutionContext,
): Result {
  const { name } = statement;
  const tag = "DROP API KEY";
  return runWrite(deps, context, async (scope) => {
    const { client } = scope;
    const found = await findChangeableKey(scope, { name: name.text });
    if (found === undefined) {
      if (!statement.ifExists) throw missingKey(name);
      return { tag, notices: [`API key "${name.text}" does not exist, skipping`] };
    }
    const { key, owner } = found;
    scope.touch(owner.id);
    if (owner.kind !== "api_key") {
      await deleteKeyRow(client, key.keyId);
      return { tag, notices: [] };
    }
    await deleteUserRows(client, [owner.id]);
    await scope.keepOut([owner]);
    await dropRoles(deps, client, context, {
      names: [owner.name],
      newOwner: undefined,
      hint: "Have a superuser run REASSIGN OWNED BY in each of these databases, or use REVOKE API KEY.",
    });
    return { tag, notices: [] };
  });
}

/** What the verifier of a key for this owner will need, as far as the cache knows. */
function expectedParameters(
  deps: ExecutorDependencies,
  context: ExecutionContext,
  reference: Name | { readonly self: true },
): ScramParameters | undefined {
  const { cache } = deps.catalog;
  const caller = cachedCaller(deps, context);
  const owner = "self" in reference ? caller : cache.findByName(reference.text);
  if (owner === undefined || (owner.id !== caller.id && !isAdmin(caller))) return undefined;
  return newKeyParameters(deps, { ownerId: owner.id }, { record: owner, keys: cache.keysOf(owner.id) });
}

/** What the verifier of a key of this owner needs, as the transaction sees it. */
async function ownersParameters(
  deps: ExecutorDependencies,
  client: PoolClient,
  owner: PrincipalRecord,
  keyId: string,
): Promise<ScramParameters> {
  const keys = await loadApiKeysOf(client, [owner.id]);
  return newKeyParameters(deps, holderOf(owner, keyId), { record: owner, keys });
}

/** Whose salt a key of this owner has. */
function holderOf(owner: PrincipalRecord, keyId: string): KeyHolder {
  return owner.kind === "api_key" ? { keyId } : { ownerId: owner.id };
}

function checkKeyName(name: Name): void {
  const length = Buffer.byteLength(name.text, "utf8");
  if (length > 0 && length <= maxNameBytes && !name.text.includes("\0")) return;
  throw new SqlError(
    "invalid_parameter_value",
    `the name of an API key must have 1 to ${maxNameBytes} bytes`,
    { position: name.position },
  );
}

function keyNameTaken(name: Name): SqlError {
  return new SqlError("duplicate_object", `API key "${name.text}" already exists`, {
    position: name.position,
    hint: "Use ALTER API KEY … ROTATE for a new secret.",
  });
}
