/** From a name in a statement to a user, a PostgreSQL role that is none of ours, or nothing. */

import { findUserByName, type PrincipalRecord, type Queryable } from "../catalog/users.ts";
import type { UserReference } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { denied, maySee } from "./authorize.ts";
import { refuseReservedName, roleExists } from "./role-names.ts";

export type FoundUser =
  | { readonly kind: "user"; readonly user: PrincipalRecord }
  /** A role that somebody made in PostgreSQL; what happens to it is PostgreSQL's to decide. */
  | { readonly kind: "foreign_role"; readonly name: string }
  /** No such user, or one that the caller may not know of. */
  | { readonly kind: "missing"; readonly name: string; readonly position: number };

/**
 * Looks a reference up.
 *
 * @throws SqlError reserved_name, or insufficient_privilege for the front-end's own login
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
  return (await roleExists(client, name))
    ? { kind: "foreign_role", name }
    : { kind: "missing", name, position };
}

export function missingUser(missing: { readonly name: string; readonly position: number }): SqlError {
  return new SqlError("undefined_object", `role "${missing.name}" does not exist`, {
    position: missing.position,
  });
}
