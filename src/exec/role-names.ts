/** Which names a user may have. */

import type { Name } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { isBuiltInRole } from "../upstream/built-in-groups.ts";

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
  if (!isReservedName(name.text)) return;
  throw new SqlError("reserved_name", `role name "${name.text}" is reserved`, { position: name.position });
}

/**
 * Checks the name of a new user.
 *
 * @throws SqlError reserved_name, or invalid_parameter_value when it is empty or over 63 bytes
 */
export function checkNewName(name: Name): void {
  refuseReservedName(name);
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
