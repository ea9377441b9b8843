/** Tells statements about our users and roles from those about roles that somebody made in PostgreSQL. */

import type { Queryable } from "../catalog/users.ts";
import type { Statement, UserReference } from "../ddl/statement.ts";
import { isBuiltInRole } from "../upstream/built-in-groups.ts";

/** What a name stands for; `group` is ours as well, and no client's to touch. */
type NameKind = "principal" | "role" | "group" | "foreign" | "missing";

/** True when the statement is about PostgreSQL roles that are none of ours: it is PostgreSQL's to run. */
export async function concernsForeignRole(client: Queryable, statement: Statement): Promise<boolean> {
  switch (statement.kind) {
    case "alter_user":
    case "rename_user":
    case "set_user_roles":
      return (await kindsOf(client, [statement.user])).includes("foreign");
    case "drop_user":
      return (await kindsOf(client, statement.users)).includes("foreign");
    case "drop_role": {
      const kinds = await kindsOf(client, statement.names);
      return kinds.includes("foreign") && kinds.every((kind) => kind === "foreign" || kind === "missing");
    }
    case "grant_roles":
    case "revoke_roles": {
      if (statement.onlyOurs === true) return false;
      // GRANT alice TO bob, with a user as the role, is PostgreSQL's as well: it asks for ADMIN OPTION.
      const roles = await kindsOf(client, statement.roles);
      if (!roles.every((kind) => kind === "foreign" || kind === "principal")) return false;
      return !(await kindsOf(client, statement.grantees)).includes("group");
    }
    case "grant_connect":
    case "revoke_connect":
      return (await kindsOf(client, statement.grantees)).every((kind) => kind === "foreign");
    default:
      return false;
  }
}

/**
 * A name that an open transaction has reserved is one of ours. Tenants make no difference here: what the caller may not know
 * of is not there for it, and never forwarded.
 */
async function kindsOf(client: Queryable, references: readonly UserReference[]): Promise<NameKind[]> {
  const names = references.map((reference) => ("self" in reference ? null : reference.text));
  const result = await client.query<{
    name: string | null;
    principal: boolean;
    role: boolean;
    present: boolean;
  }>(
    `SELECT n.name, EXISTS (SELECT FROM nodedb.principal p WHERE p.name = n.name) AS principal,
            EXISTS (SELECT FROM nodedb.role c WHERE c.name = n.name)
              OR EXISTS (SELECT FROM nodedb.reserved_role v WHERE v.name = n.name) AS role,
            n.name = 'public' OR EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = n.name) AS present
       FROM pg_catalog.unnest($1::pg_catalog.text[]) WITH ORDINALITY AS n (name, ordinal) ORDER BY n.ordinal`,
    [names],
  );
  return result.rows.map(({ name, principal, role, present }) => {
    if (name === null || principal) return "principal";
    if (role || isBuiltInRole(name)) return "role";
    if (name.startsWith("nodedb_")) return "group";
    return present ? "foreign" : "missing";
  });
}
