/** Makes the members of the built-in groups and of custom roles what they are to be; memberships in other roles are not touched. */

import { type ClientBase, escapeIdentifier } from "pg";
import type { AdminRights } from "./admin-rights.ts";

interface Membership {
  readonly member: string;
  readonly role: string;
  readonly grantor: string | null;
  readonly admin_option: boolean;
  /** null before PostgreSQL 16. */
  readonly inherit_option: boolean | null;
  readonly set_option: boolean | null;
  readonly may_revoke: boolean;
}

/**
 * Grants and revokes until each member has exactly the wanted groups.
 *
 * @param wanted role name → names of its groups, all of them managed
 * @param managed names of the groups whose members are ours to say
 * @returns how many statements were needed
 */
export async function reconcileMemberships(
  client: ClientBase,
  wanted: ReadonlyMap<string, readonly string[]>,
  managed: readonly string[],
  admin: AdminRights,
): Promise<number> {
  const isPlain = admin.serverVersion < 160000;
  // The columns that PostgreSQL 16 added are read through jsonb, so that one statement serves every version.
  const result = await client.query<Membership>(
    `SELECT u.rolname::text AS member, g.rolname::text AS role, o.rolname::text AS grantor, m.admin_option,
            (pg_catalog.to_jsonb(m) ->> 'inherit_option')::pg_catalog.bool AS inherit_option,
            (pg_catalog.to_jsonb(m) ->> 'set_option')::pg_catalog.bool AS set_option,
            coalesce(pg_catalog.pg_has_role(m.grantor, 'USAGE'), false) AS may_revoke
       FROM pg_catalog.pg_auth_members m
       JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
       JOIN pg_catalog.pg_roles u ON u.oid = m.member
       LEFT JOIN pg_catalog.pg_roles o ON o.oid = m.grantor
      WHERE u.rolname = ANY ($1::pg_catalog.text[]) AND g.rolname = ANY ($2::pg_catalog.text[])`,
    [[...wanted.keys()], [...managed]],
  );
  let statements = 0;
  const held = new Set<string>();
  for (const membership of result.rows) {
    const isRight =
      wanted.get(membership.member)?.includes(membership.role) === true &&
      !membership.admin_option &&
      (isPlain || (membership.inherit_option === true && membership.set_option === false));
    if (isRight) {
      held.add(keyOf(membership.member, membership.role));
      continue;
    }
    // Since PostgreSQL 16 a grant is its grantor's to take back. One that the upstream's superuser made stays, as its will.
    if (!isPlain && !membership.may_revoke) continue;
    const grantedBy =
      isPlain || membership.grantor === null ? "" : ` GRANTED BY ${escapeIdentifier(membership.grantor)}`;
    await client.query(
      `REVOKE ${escapeIdentifier(membership.role)} FROM ${escapeIdentifier(membership.member)}${grantedBy} CASCADE`,
    );
    statements += 1;
  }
  // SET FALSE: membership gives the group's privileges, and never lets a session become the group.
  const options = isPlain ? "" : " WITH INHERIT TRUE, SET FALSE";
  for (const [member, groups] of wanted) {
    for (const group of groups) {
      if (held.has(keyOf(member, group))) continue;
      await client.query(`GRANT ${escapeIdentifier(group)} TO ${escapeIdentifier(member)}${options}`);
      statements += 1;
    }
  }
  return statements;
}

function keyOf(member: string, group: string): string {
  return `${member}\0${group}`;
}
