/** From a name in a GRANT, REVOKE or SHOW to whatever has that name: built-in or custom role, principal, or PostgreSQL's own. */

import { type CustomRole, findCustomRole } from "../catalog/roles.ts";
import { findUserByName, type PrincipalRecord, type Queryable } from "../catalog/users.ts";
import type { UserReference } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { isBuiltInRole } from "../upstream/built-in-groups.ts";
import { denied, maySee } from "./authorize.ts";
import { isForeignRole } from "./role-names.ts";

export type FoundRole =
  | { readonly kind: "built_in"; readonly name: string; readonly position: number }
  | { readonly kind: "custom"; readonly name: string; readonly position: number; readonly role: CustomRole }
  | {
      readonly kind: "principal";
      readonly name: string;
      readonly position: number;
      readonly principal: PrincipalRecord;
    }
  /** A role that somebody made in PostgreSQL, one of PostgreSQL's own, or PUBLIC. */
  | { readonly kind: "foreign"; readonly name: string; readonly position: number }
  /** Nothing, or what the caller may not know of. */
  | { readonly kind: "missing"; readonly name: string; readonly position: number };

/**
 * Looks a reference up.
 *
 * @throws SqlError insufficient_privilege for the groups of the built-in roles and the front-end's own login, which no
 *   statement of a client may touch; serialization_failure for a role that an open transaction is creating
 */
export async function findRole(
  client: Queryable,
  reference: UserReference,
  caller: PrincipalRecord,
  adminRole: string,
): Promise<FoundRole> {
  const { position } = reference;
  if ("self" in reference) return { kind: "principal", name: caller.name, position, principal: caller };
  const name = reference.text;
  if (isBuiltInRole(name)) return { kind: "built_in", name, position };
  if (name === adminRole || name.startsWith("nodedb_")) {
    throw denied(`role "${name}" belongs to the front-end`);
  }
  if (name === "public") return { kind: "foreign", name, position };
  const principal = await findUserByName(client, name);
  if (principal !== undefined) {
    return maySee(caller, principal)
      ? { kind: "principal", name, position, principal }
      : { kind: "missing", name, position };
  }
  const role = await findCustomRole(client, name);
  if (role !== undefined) {
    return maySee(caller, role)
      ? { kind: "custom", name, position, role }
      : { kind: "missing", name, position };
  }
  return { kind: (await isForeignRole(client, name)) ? "foreign" : "missing", name, position };
}

/** Looks several references up, in their order. */
export async function findRolesOf(
  client: Queryable,
  references: readonly UserReference[],
  caller: PrincipalRecord,
  adminRole: string,
): Promise<FoundRole[]> {
  const found: FoundRole[] = [];
  for (const reference of references) found.push(await findRole(client, reference, caller, adminRole));
  return found;
}

export function missingRole(found: Pick<FoundRole, "name" | "position">, hint?: string): SqlError {
  return new SqlError("undefined_object", `role "${found.name}" does not exist`, {
    position: found.position,
    hint,
  });
}

/** For a statement that names roles of ours and PostgreSQL's own together: it could not be one transaction. */
export function notOurs(found: Pick<FoundRole, "name" | "position">): SqlError {
  return new SqlError("wrong_object_type", `role "${found.name}" is PostgreSQL's own`, {
    position: found.position,
    hint: "Name PostgreSQL's own roles in a statement of their own.",
  });
}
