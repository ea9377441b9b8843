/** From a key in a statement to the key and its owner, with the caller's right to change it checked. */

import { type ApiKeyRecord, findApiKey } from "../catalog/api-keys.ts";
import { loadUsersById, type PrincipalRecord } from "../catalog/users.ts";
import type { Name, UserReference } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { rankOf } from "../upstream/built-in-groups.ts";
import { denied, highestRank, maySee, requireAdmin, requireNotAbove } from "./authorize.ts";
import type { ExecutionContext } from "./context.ts";
import { findUser, wrongKind } from "./find-user.ts";
import type { StatementScope } from "./run-statement.ts";

export interface OwnedKey {
  readonly key: ApiKeyRecord;
  readonly owner: PrincipalRecord;
}

/**
 * Finds a key that the caller may change: its own, or as an admin one of its tenant.
 *
 * @returns undefined when there is none that the caller may know of
 * @throws SqlError insufficient_privilege
 */
export async function findChangeableKey(
  { client, caller }: StatementScope,
  by: { readonly name: string } | { readonly keyId: string },
): Promise<OwnedKey | undefined> {
  const key = await findApiKey(client, by);
  if (key === undefined) return undefined;
  const [owner] = await loadUsersById(client, [key.ownerId]);
  if (owner === undefined || !maySee(caller, owner)) return undefined;
  if (owner.id !== caller.id) requireAdmin(caller, "change API keys of others");
  requireNotAbove(caller, owner, "change this API key");
  return { key, owner };
}

export function missingKey(name: Name): SqlError {
  return new SqlError("undefined_object", `API key "${name.text}" does not exist`, {
    position: name.position,
  });
}

/**
 * Finds for whom a key is to be made: oneself, or as an admin another user or service account.
 *
 * @throws SqlError undefined_object, wrong_object_type, insufficient_privilege
 */
export async function findKeyOwner(
  { client, caller }: StatementScope,
  holder: { readonly ownerKind: "user" | "service_account" | "any"; readonly owner: UserReference },
  adminRole: string,
): Promise<PrincipalRecord> {
  const { owner: reference, ownerKind } = holder;
  const { position } = reference;
  const found = await findUser(client, reference, caller, adminRole);
  const isSelf = found.kind === "user" && found.user.id === caller.id;
  if (!isSelf) requireAdmin(caller, "create API keys of others");
  if (found.kind !== "user") {
    const noun = ownerKind === "service_account" ? "service account" : "user";
    throw new SqlError("undefined_object", `${noun} "${found.name}" does not exist`, { position });
  }
  const { user } = found;
  // A key would outlive what its provider says of an external identity.
  if (
    user.kind === "api_key" ||
    user.kind === "external" ||
    (ownerKind !== "any" && ownerKind !== user.kind)
  ) {
    throw wrongKind(user, ownerKind === "any" ? "user" : ownerKind, position);
  }
  requireNotAbove(caller, user, "create API keys of this user");
  return user;
}

/**
 * Keeps a session that was opened with a narrowed key from making, for the same owner, a wider one. Others' keys are an
 * admin's right, which no list of databases narrows.
 *
 * @param databases the list that the key has or is to have; undefined: the owner's
 * @throws SqlError insufficient_privilege
 */
export async function requireWithinSession(
  context: ExecutionContext,
  { client, caller }: StatementScope,
  owner: PrincipalRecord,
  databases: readonly string[] | undefined,
): Promise<void> {
  const { keyId } = context.identity;
  if (keyId === undefined || owner.id !== caller.id) return;
  if (owner.kind === "api_key" && isAdmin(caller)) return;
  const own = await findApiKey(client, { keyId });
  const allowed = own === undefined ? [] : own.databases;
  if (allowed === undefined || databases?.every((database) => allowed.includes(database)) === true) return;
  throw denied("the key would be wider than the one that this session was opened with");
}

export function isAdmin(principal: PrincipalRecord): boolean {
  return highestRank(principal.effectiveRoles) >= rankOf("admin");
}
