/** Makes PostgreSQL's roles match the catalog: one LOGIN role per user, custom roles, memberships, credentials. */

import { type ClientBase, escapeIdentifier } from "pg";
import { type AdminRights, readAdminRights } from "./admin-rights.ts";
import { builtInRoles, groupOf, isBuiltInRole } from "./built-in-groups.ts";
import { installCredentials } from "./install-credentials.ts";
import { createGroups, type RoleOptions } from "./reconcile-groups.ts";
import { reconcileMemberships } from "./reconcile-memberships.ts";
import { resetSettings } from "./reset-settings.ts";
import { createRole, readRoles, wantedAttributes } from "./role-attributes.ts";
import { deriveRoleCredential } from "./role-credential.ts";
import {
  describeTenantGroup,
  groupsOfAdministrator,
  membersBehindGroups,
  type Placed,
  readTenantGroups,
  tenantGroupOf,
} from "./tenant-groups.ts";

/** What one PostgreSQL role is to be. */
export interface DesiredRole extends Placed {
  readonly canLogin: boolean;
  /** Names of the roles held directly, built-in and custom. */
  readonly roles: readonly string[];
  /** Part of the derivation of its credential. */
  readonly roleVersion: number;
}

const catalogSchema = "nodedb";

/** @returns how many groups had to be created */
async function createTenantGroups(
  client: ClientBase,
  desired: readonly Placed[],
  admin: AdminRights,
): Promise<number> {
  const tenants = new Map(
    desired.flatMap(({ place }) =>
      place === undefined ? [] : [[tenantGroupOf(place.tenantId), place.tenantId]],
    ),
  );
  const created = await createGroups(client, [...tenants.keys()], admin);
  for (const group of created) await describeTenantGroup(client, tenants.get(group) ?? 0);
  return created.length;
}

/**
 * Makes the roles of these users what the catalog says: attributes, settings that none may have, memberships in the groups,
 * and on an external upstream the derived verifier, whatever password somebody set. Runs inside the caller's transaction.
 *
 * @param reinstallCredentials also where the present verifier cannot be read and looks current
 * @returns how many statements were needed; 0 when everything stood already
 */
export async function reconcileRoles(
  client: ClientBase,
  desired: readonly DesiredRole[],
  options: RoleOptions,
  reinstallCredentials = false,
): Promise<number> {
  if (desired.length === 0) return 0;
  const admin = await readAdminRights(client);
  const names = desired.map((role) => role.name);
  const actual = await readRoles(client, names);
  let statements = 0;
  const stale: DesiredRole[] = [];
  const passwords =
    options.masterSecret !== undefined && admin.mayReadPasswords
      ? await readPasswords(client, names)
      : undefined;
  for (const role of desired) {
    const wanted = wantedAttributes(role, admin);
    const found = actual.get(role.name);
    if (found === undefined) {
      const keywords = wanted
        .filter((attribute) => !attribute.isDefault)
        .map((attribute) => attribute.keyword);
      statements += await createRole(client, role.name, keywords, admin);
      statements += await avoidCatalogSchema(client, role.name);
    } else {
      const changes = wanted.filter((attribute) => !attribute.holds(found)).map((a) => a.keyword);
      if (changes.length > 0) {
        await client.query(`ALTER ROLE ${escapeIdentifier(role.name)} ${changes.join(" ")}`);
        statements += 1;
      }
    }
    if (options.masterSecret === undefined) continue;
    const verifier = deriveRoleCredential(options.masterSecret, role.name, role.roleVersion).verifier;
    const isCurrent =
      found !== undefined && (passwords === undefined || passwords.get(role.name) === verifier);
    if (!isCurrent || reinstallCredentials) stale.push(role);
  }
  statements += await resetSettings(client, names);
  statements += await createTenantGroups(client, desired, admin);
  const builtInGroups = builtInRoles.map(groupOf);
  const tenantGroups = await readTenantGroups(client);
  const managed = new Set([...builtInGroups, ...(await readCustomRoles(client))]);
  const memberships = new Map(
    desired.map((role) => [role.name, role.roles.map(groupNameOf).filter((group) => managed.has(group))]),
  );
  const administrators = new Map(desired.map((role) => [role.name, groupsOfAdministrator(role)]));
  statements += await reconcileMemberships(
    client,
    [
      { wanted: memberships, managed: [...managed] },
      { wanted: administrators, managed: tenantGroups, leavesOutCycles: true },
      membersBehindGroups(desired, tenantGroups, builtInGroups),
    ],
    admin,
  );
  return statements + (await installCredentials(client, stale, options.masterSecret));
}

/** What PostgreSQL is to have of a custom role. */
export interface DesiredCustomRole {
  readonly name: string;
  /** A built-in role or another custom one. */
  readonly parent: string | undefined;
}

/**
 * Makes the PostgreSQL roles of these custom roles what the catalog says: NOLOGIN, and members of their parents, which are
 * there already or among them. Runs inside the caller's transaction.
 *
 * @returns how many statements were needed; 0 when everything stood already
 */
export function reconcileCustomRoles(
  client: ClientBase,
  desired: readonly DesiredCustomRole[],
  options: RoleOptions,
): Promise<number> {
  const roles = desired.map(({ name, parent }) => ({
    name,
    canLogin: false,
    roles: parent === undefined ? [] : [parent],
    roleVersion: 1,
  }));
  // Nobody logs in as one, so that none needs a verifier.
  return reconcileRoles(client, roles, { ...options, masterSecret: undefined });
}

/** The PostgreSQL role behind the name of a built-in or custom role. */
function groupNameOf(role: string): string {
  return isBuiltInRole(role) ? groupOf(role) : role;
}

/** Custom roles belong to the catalog: nothing in PostgreSQL itself tells them from somebody else's. */
async function readCustomRoles(client: ClientBase): Promise<string[]> {
  const result = await client.query<{ name: string }>("SELECT name FROM nodedb.role");
  return result.rows.map((row) => row.name);
}

/**
 * PostgreSQL's default search_path begins with a schema of the user's own name. For a user that is called like the
 * catalog's schema that would be the catalog: a superuser's tables would land among ours.
 */
async function avoidCatalogSchema(client: ClientBase, name: string): Promise<number> {
  if (name !== catalogSchema) return 0;
  await client.query(`ALTER ROLE ${escapeIdentifier(name)} SET search_path = public`);
  return 1;
}

async function readPasswords(client: ClientBase, names: readonly string[]): Promise<Map<string, string>> {
  const result = await client.query<{ rolname: string; rolpassword: string | null }>(
    `SELECT rolname::text, rolpassword FROM pg_catalog.pg_authid WHERE rolname = ANY ($1::pg_catalog.text[])`,
    [[...names]],
  );
  return new Map(result.rows.map((row) => [row.rolname, row.rolpassword ?? ""]));
}
