/** From a name in a statement to a user, a PostgreSQL role that is none of ours, or nothing. */

import { findCustomRole } from "../catalog/roles.ts";
import {
  findUserByName,
  type PrincipalKind,
  type PrincipalRecord,
  type Queryable,
} from "../catalog/users.ts";
import type { UserReference } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { denied, maySee } from "./authorize.ts";
import { isForeignRole, refuseReservedName } from "./role-names.ts";

export type FoundUser =
  /** A user, or a principal of another kind: `requireKind` where that is not meant. */
  | { readonly kind: "user"; readonly user: PrincipalRecord }
  /** A role that somebody made in PostgreSQL; what happens to it is PostgreSQL's to decide. */
  | { readonly kind: "foreign_role"; readonly name: string }
  /** No such user, or one that the caller may not know of. */
  | { readonly kind: "missing"; readonly name: string; readonly position: number };

/**
 * Looks a reference up.
 *
 * @throws SqlError reserved_name, insufficient_privilege for the front-end's own login, or wrong_object_type for a custom role
 */
export async function findUser(
  client: Queryable,
  reference: UserReference,
  caller: PrincipalRecord,
  adminRole: string,
): Promise<FoundUser> {
  if ("self" in reference) return { kind: "user", user: caller };
  refuseReservedName(reference);
  const { text: name, position } = reference;
  if (name === adminRole) throw denied(`role "${name}" belongs to the front-end`);
  const user = await findUserByName(client, name);
  if (user !== undefined)
    return maySee(caller, user) ? { kind: "user", user } : { kind: "missing", name, position };
  const role = await findCustomRole(client, name);
  if (role !== undefined) {
    if (!maySee(caller, role)) return { kind: "missing", name, position };
    throw new SqlError("wrong_object_type", `"${name}" is a role, not a user`, {
      position,
      hint: "Roles have statements of their own: ALTER ROLE … SET INHERIT, DROP ROLE, GRANT, REVOKE.",
    });
  }
  return (await isForeignRole(client, name))
    ? { kind: "foreign_role", name }
    : { kind: "missing", name, position };
}

export function missingUser(missing: { readonly name: string; readonly position: number }): SqlError {
  return new SqlError("undefined_object", `role "${missing.name}" does not exist`, {
    position: missing.position,
  });
}

/** What messages call each kind, and what its statements are about. */
const kinds: Readonly<Record<PrincipalKind, { readonly noun: string; readonly object: string }>> = {
  user: { noun: "a user", object: "USER" },
  service_account: { noun: "a service account", object: "SERVICE ACCOUNT" },
  api_key: { noun: "an API key", object: "API KEY" },
  external: { noun: "an external identity", object: "USER" },
};

/** For a principal of another kind than the statement is for. */
export function wrongKind(principal: PrincipalRecord, wanted: PrincipalKind, position?: number): SqlError {
  const { noun, object } = kinds[principal.kind];
  return new SqlError("wrong_object_type", `"${principal.name}" is ${noun}, not ${kinds[wanted].noun}`, {
    position,
    hint: `Use ALTER ${object} or DROP ${object}.`,
  });
}

/** @throws SqlError wrong_object_type */
export function requireKind(principal: PrincipalRecord, wanted: PrincipalKind, position?: number): void {
  if (principal.kind !== wanted) throw wrongKind(principal, wanted, position);
}
