/** What a repair has changed of PostgreSQL's roles, and how the audit log tells it. */

import type { ClientBase } from "pg";
import type { AuditEntry } from "../observe/audit.ts";
import { differences, fingerprintQuery, type RoleFingerprint } from "../upstream/role-fingerprint.ts";

/**
 * All that is looked at of roles, by name; those that do not exist are absent.
 *
 * @param withPasswords only for a login that may read pg_authid
 */
export async function readFingerprints(
  client: ClientBase,
  names: readonly string[],
  withPasswords: boolean,
): Promise<Map<string, RoleFingerprint>> {
  const result = await client.query<RoleFingerprint & { name: string }>(
    fingerprintQuery(names, withPasswords),
  );
  return new Map(result.rows.map(({ name, ...fingerprint }) => [name, fingerprint]));
}

/** The parts that a repair has changed. Statements alone say little: a GRANT by somebody who may not is run, and does nothing. */
export function changedParts(
  before: RoleFingerprint | undefined,
  after: RoleFingerprint | undefined,
): string[] {
  if (before === undefined) return ["it was dropped"];
  return after === undefined ? [] : differences(before, after);
}

export function repairEntry(role: string, parts: readonly string[]): AuditEntry {
  const detail = `the PostgreSQL role was not as the catalog has it (${parts.join(", ")}) and has been put right`;
  return { event: "PrivilegeChange", username: role, detail };
}

export function refusedRepairEntry(role: string): AuditEntry {
  const detail = "the PostgreSQL role is not as the catalog has it and cannot be put right";
  return { event: "PrivilegeChange", username: role, detail };
}
