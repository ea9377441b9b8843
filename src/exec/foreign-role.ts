/** Tells statements about our users from those about roles that somebody made in PostgreSQL. */

import type { Pool } from "pg";
import { findUserByName } from "../catalog/users.ts";
import type { Statement, UserReference } from "../ddl/statement.ts";
import { roleExists } from "./role-names.ts";

/** True when the statement names a PostgreSQL role that is not one of our users: it is PostgreSQL's to run. */
export async function concernsForeignRole(pool: Pool, statement: Statement): Promise<boolean> {
  for (const reference of referencesOf(statement)) {
    if ("self" in reference) continue;
    const user = await findUserByName(pool, reference.text);
    if (user === undefined && (await roleExists(pool, reference.text))) return true;
  }
  return false;
}

function referencesOf(statement: Statement): readonly UserReference[] {
  switch (statement.kind) {
    case "alter_user":
    case "rename_user":
    case "set_user_roles":
      return [statement.user];
    case "drop_user":
      return statement.users;
    default:
      return [];
  }
}
