/** Makes the members of groups and of custom roles what they are to be; memberships in other roles are not touched. */

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

/** What some members' groups are to be; memberships of others, and in others, are not touched. */
export interface WantedMemberships {
  /** Role name → names of its groups, all of them managed. */
  readonly wanted: ReadonlyMap<string, readonly string[]>;
  /** Names of the groups whose members are ours to say. */
  readonly managed: readonly string[];
  /** True: a group that is a member of its new member already, by somebody's hand, is passed over. */
  readonly leavesOutCycles?: boolean;
}

/** Groups named in one GRANT at most. */
const batchSize = 500;

/**
 * Grants and revokes until each member has exactly the wanted groups. All that goes is taken away before anything is
 * granted, so that who changes sides is never on both.
 *
 * @returns how many statements were needed
 */
export async function reconcileMemberships(
  client: ClientBase,
  wishes: readonly WantedMemberships[],
  admin: AdminRights,
): Promise<number> {
  let statements = 0;
  const missing: { member: string; groups: string[]; leavesOutCycles: boolean }[] = [];
  for (const wish of wishes) {
    const { held, revoked } = await revokeUnwanted(client, wish, admin);
    statements += revoked;
    for (const [member, wanted] of wish.wanted) {
      const groups = wanted.filter((group) => !held.has(keyOf(member, group)));
      const { leavesOutCycles = false } = wish;
      if (groups.length > 0) missing.push({ member, groups, leavesOutCycles });
    }
  }
  // SET FALSE: membership gives the group's privileges, and never lets a session become the group.
  const options = admin.serverVersion < 160000 ? "" : " WITH INHERIT TRUE, SET FALSE";
  for (const { member, groups, leavesOutCycles } of missing) {
    const granted = leavesOutCycles ? await withoutCycles(client, member, groups) : groups;
    for (let start = 0; start < granted.length; start += batchSize) {
      const batch = granted.slice(start, start + batchSize).map((group) => escapeIdentifier(group));
      await client.query(`GRANT ${batch.join(", ")} TO ${escapeIdentifier(member)}${options}`);
      statements += 1;
    }
  }
  return statements;
}

/** @returns what is as it is to be, by `keyOf`, and how many statements were needed */
async function revokeUnwanted(
  client: ClientBase,
  { wanted, managed }: WantedMemberships,
  admin: AdminRights,
): Promise<{ held: Set<string>; revoked: number }> {
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
  const wantedKeys = new Set<string>();
  for (const [member, groups] of wanted) for (const group of groups) wantedKeys.add(keyOf(member, group));
  let revoked = 0;
  const held = new Set<string>();
  for (const membership of result.rows) {
    const key = keyOf(membership.member, membership.role);
    const isRight =
      wantedKeys.has(key) &&
      !membership.admin_option &&
      (isPlain || (membership.inherit_option === true && membership.set_option === false));
    if (isRight) {
      held.add(key);
      continue;
    }
    // Since PostgreSQL 16 a grant is its grantor's to take back. One that the upstream's superuser made stays, as its will.
    if (!isPlain && !membership.may_revoke) continue;
    const grantedBy =
      isPlain || membership.grantor === null ? "" : ` GRANTED BY ${escapeIdentifier(membership.grantor)}`;
    await client.query(
      `REVOKE ${escapeIdentifier(membership.role)} FROM ${escapeIdentifier(membership.member)}${grantedBy} CASCADE`,
    );
    revoked += 1;
  }
  return { held, revoked };
}

/** The groups that are not members of the member themselves, directly or through others. */
async function withoutCycles(
  client: ClientBase,
  member: string,
  groups: readonly string[],
): Promise<string[]> {
  const result = await client.query<{ name: string }>(
    `SELECT g.rolname::pg_catalog.text AS name
       FROM pg_catalog.pg_roles g JOIN pg_catalog.pg_roles m ON m.rolname = $2
      WHERE g.rolname = ANY ($1::pg_catalog.text[]) AND NOT pg_catalog.pg_has_role(g.oid, m.oid, 'MEMBER')`,
    [[...groups], member],
  );
  return result.rows.map((row) => row.name);
}

function keyOf(member: string, group: string): string {
  return `${member}\0${group}`;
}
