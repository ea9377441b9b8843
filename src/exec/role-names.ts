/** Which names a user may have. */

import { externalRolePrefix } from "../auth/identity.ts";
import {
  adoptReservedRole,
  findReservation,
  releaseReservedRole,
  renameReservedRole,
} from "../catalog/reserved-roles.ts";
import type { Queryable } from "../catalog/users.ts";
import type { Name } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { isBuiltInRole } from "../upstream/built-in-groups.ts";
import type { ExecutionContext } from "./context.ts";

/** PostgreSQL's NAMEDATALEN less one; longer names would be cut there, and two users could become one role. */
const maxNameBytes = 63;

/** Names that PostgreSQL, its grammar or the built-in roles and their groups have taken. */
export function isReservedName(name: string): boolean {
  return (
    name.startsWith("pg_") ||
    name.startsWith("nodedb_") ||
    name === "public" ||
    name === "none" ||
    isBuiltInRole(name)
  );
}

/** @throws SqlError reserved_name */
export function refuseReservedName(name: Name): void {
  if (isReservedName(name.text)) throw reservedName(name);
}

function reservedName({ text, position }: Name): SqlError {
  return new SqlError("reserved_name", `role name "${text}" is reserved`, {
    position,
    detail:
      'Names that begin with "pg_" are PostgreSQL\'s; the built-in roles, and names with "nodedb_" or "oidc:", are the front-end\'s.',
  });
}

/**
 * Checks the name of a new user.
 *
 * @throws SqlError reserved_name, or invalid_parameter_value when it is empty or over 63 bytes
 */
export function checkNewName(name: Name): void {
  refuseReservedName(name);
  if (name.text.startsWith(externalRolePrefix)) throw reservedName(name);
  const length = Buffer.byteLength(name.text, "utf8");
  if (length > 0 && length <= maxNameBytes && !name.text.includes("\0")) return;
  throw new SqlError(
    "invalid_parameter_value",
    `role name "${name.text}" must have 1 to ${maxNameBytes} bytes`,
    {
      position: name.position,
    },
  );
}

/** The material that names the role which was reserved for a statement, where its own name was not free yet. */
export const standInKey = "stand-in role";

/**
 * Makes sure that a new role may have this name in PostgreSQL.
 *
 * @returns "reserved" when this transaction has reserved it, so that the role is there and is to be adopted
 * @throws SqlError duplicate_object when somebody made a role of that name: it is never adopted, because its grants would come
 *   with it; serialization_failure when another transaction is about to create it
 */
export async function claimRoleName(
  client: Queryable,
  name: Name,
  { transaction, materials }: ExecutionContext,
): Promise<"free" | "reserved"> {
  const reservation = await findReservation(client, name.text, transaction?.backend);
  if (reservation === "abandoned") {
    const setAside = await releaseReservedRole(client, name.text, undefined);
    if (setAside !== undefined) transaction?.leftovers.push(setAside);
    transaction?.claimed.push(name.text);
    return "free";
  }
  if (!(await roleExists(client, name.text))) {
    await adoptReservedRole(client, name.text);
    const standIn = materials.get(standInKey);
    if (typeof standIn === "string") {
      await renameReservedRole(client, standIn, name.text);
      return "reserved";
    }
    transaction?.claimed.push(name.text);
    return "free";
  }
  if (reservation === "others") throw beingCreated(name.text);
  if (reservation === "none") {
    throw new SqlError("duplicate_object", `role "${name.text}" already exists`, {
      position: name.position,
      hint: "PostgreSQL has a role of that name that is not a user here; choose another name.",
    });
  }
  await adoptReservedRole(client, name.text);
  return "reserved";
}

/**
 * Whether PostgreSQL has a role of a name that is nobody's here. One that an ended transaction had reserved is not there any
 * more, though PostgreSQL may still have it for a moment.
 *
 * @throws SqlError serialization_failure when an open transaction is about to create a role of that name
 */
export async function isForeignRole(client: Queryable, name: string): Promise<boolean> {
  const reservation = await findReservation(client, name, undefined);
  if (reservation === "mine" || reservation === "others") throw beingCreated(name);
  return reservation === "none" && (await roleExists(client, name));
}

export function beingCreated(name: string): SqlError {
  return new SqlError("serialization_failure", `role "${name}" is being created by another transaction`, {
    hint: "Try again when it has ended.",
  });
}

/** Whether PostgreSQL has a role of that name, ours or not. */
export async function roleExists(client: Queryable, name: string): Promise<boolean> {
  const result = await client.query("SELECT FROM pg_catalog.pg_roles WHERE rolname = $1", [name]);
  return result.rowCount !== 0;
}
