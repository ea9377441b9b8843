/** What every start does before the first client: groups, the first superuser, and the roles of all users. */

import { randomBytes } from "node:crypto";
import type { ClientBase } from "pg";
import { sqlstateOf } from "../catalog/connection.ts";
import { loadCustomRoles } from "../catalog/roles.ts";
import { defaultTenantId } from "../catalog/tenants.ts";
import { createUserRow, loadUsers, type PrincipalRecord } from "../catalog/users.ts";
import { SqlError } from "../errors/sql-error.ts";
import { readAdminRights } from "../upstream/admin-rights.ts";
import { reconcileConnect } from "../upstream/reconcile-connect.ts";
import { type RoleOptions, reconcileGroups } from "../upstream/reconcile-groups.ts";
import { reconcileCustomRoles, reconcileRoles } from "../upstream/reconcile-roles.ts";
import type { RoleFingerprint } from "../upstream/role-fingerprint.ts";
import { isSuperuser } from "./authorize.ts";
import type { ExecutorDependencies } from "./context.ts";
import { changedParts, readFingerprints, refusedRepairEntry, repairEntry } from "./role-changes.ts";
import { checkNewName, roleExists } from "./role-names.ts";
import { desiredRoleOf } from "./run-statement.ts";
import { verifierInTransit } from "./secrets-in-transit.ts";
import { translateErrors } from "./translate-errors.ts";
import { verifierFor } from "./user-options.ts";

export interface BootstrapOptions {
  readonly superuserName: string;
  /** Given by the environment; a random one is made when it is absent and needed. Looked at on the first start only. */
  readonly superuserPassword: string | undefined;
}

/** The superuser's name, and on the first start the generated password: show it once, log it never. */
export interface BootstrapResult {
  readonly superuserName: string;
  readonly isFirstStart: boolean;
  readonly generatedPassword: string | undefined;
  /** Users whose PostgreSQL role the upstream login may not bring up to date (somebody made it a superuser): for the log. */
  readonly unreconciled: readonly string[];
}

type Dependencies = Pick<
  ExecutorDependencies,
  "audit" | "catalog" | "roleOptions" | "minPasswordLength" | "scramIterations"
>;

/** Random bytes in a generated password. */
const generatedPasswordBytes = 18;

/**
 * Brings PostgreSQL's groups and roles to what the catalog says, in one transaction, with what that has changed of each user's
 * role in the audit log, and creates the superuser where there
 * is none at all. Call after `openCatalog` and before the first login.
 *
 * @throws SqlError when the name is taken by another role, the password is refused, or the upstream login may not do it
 */
export async function bootstrap(deps: Dependencies, options: BootstrapOptions): Promise<BootstrapResult> {
  const { audit, catalog, roleOptions } = deps;
  return translateErrors(async () => {
    const first = await catalog.write(async (client) => {
      const fingerprints = await fingerprintsOfAll(client, roleOptions);
      await reconcileGroups(client, roleOptions);
      // Before the users, who are made members of them.
      const customRoles = await loadCustomRoles(client);
      await reconcileCustomRoles(client, customRoles, roleOptions);
      const users = await loadUsers(client);
      if (users.some((user) => user.kind === "user" && isSuperuser(user))) {
        const unreconciled = await reconcileAll(client, users, roleOptions);
        const after = await fingerprintsOfAll(client, roleOptions);
        for (const { name } of users) {
          const parts = changedParts(fingerprints.get(name), after.get(name));
          if (unreconciled.includes(name)) await audit.recordIn(client, refusedRepairEntry(name));
          else if (parts.length > 0) await audit.recordIn(client, repairEntry(name, parts));
        }
        return { isFirstStart: false, generatedPassword: undefined, unreconciled };
      }
      const generatedPassword =
        options.superuserPassword === undefined
          ? randomBytes(generatedPasswordBytes).toString("base64url")
          : undefined;
      const password = generatedPassword ?? options.superuserPassword ?? "";
      checkNewName({ text: options.superuserName, position: 1 });
      if (await roleExists(client, options.superuserName)) {
        throw new SqlError(
          "duplicate_object",
          `role "${options.superuserName}" already exists in PostgreSQL`,
          {
            hint: "Choose another auth.superuser_name.",
          },
        );
      }
      const verifier = await verifierFor(deps, { value: password, position: 1 });
      await createUserRow(client, {
        name: options.superuserName,
        tenantId: defaultTenantId,
        scramVerifier: (await verifierInTransit(client, verifier)) ?? undefined,
        canLogin: true,
        validUntil: undefined,
        connectionLimit: -1,
        roles: ["superuser"],
      });
      const all = await loadUsers(client);
      await reconcileRoles(client, all.map(desiredRoleOf), roleOptions);
      return { isFirstStart: true, generatedPassword, unreconciled: [] };
    });
    await catalog.cache.refresh();
    return { superuserName: options.superuserName, ...first };
  });
}

async function fingerprintsOfAll(
  client: ClientBase,
  { masterSecret }: RoleOptions,
): Promise<Map<string, RoleFingerprint>> {
  const users = await loadUsers(client);
  // On the private socket of the embedded PostgreSQL no password opens anything.
  const readsPasswords = masterSecret !== undefined && (await readAdminRights(client)).mayReadPasswords;
  return readFingerprints(
    client,
    users.map(({ name }) => name),
    readsPasswords,
  );
}

/**
 * Reconciles all roles at once; when the upstream refuses that, one by one, so that a single odd role does not keep
 * everybody out.
 *
 * @returns the names that stayed as they were
 */
async function reconcileAll(
  client: ClientBase,
  users: readonly PrincipalRecord[],
  options: RoleOptions,
): Promise<string[]> {
  const reconcile = async (some: readonly PrincipalRecord[]) => {
    await reconcileRoles(client, some.map(desiredRoleOf), options);
    await reconcileConnect(client, some);
  };
  if (await isGranted(client, () => reconcile(users))) return [];
  const unreconciled: string[] = [];
  for (const user of users) {
    const isDone = await isGranted(client, () => reconcile([user]));
    if (!isDone) unreconciled.push(user.name);
  }
  return unreconciled;
}

/** Runs work behind a savepoint. @returns false when PostgreSQL refused it for lack of a right */
async function isGranted(client: ClientBase, work: () => Promise<unknown>): Promise<boolean> {
  await client.query("SAVEPOINT reconcile");
  try {
    await work();
  } catch (error) {
    if (sqlstateOf(error) !== "42501") throw error;
    await client.query("ROLLBACK TO SAVEPOINT reconcile");
    return false;
  } finally {
    await client.query("RELEASE SAVEPOINT reconcile").catch(() => undefined);
  }
  return true;
}
