/** Makes the PostgreSQL role of one principal what the catalog says. */

import type { PoolClient } from "pg";
import { loadCustomRoles } from "../catalog/roles.ts";
import { loadUsersById } from "../catalog/users.ts";
import { reconcileConnect } from "../upstream/reconcile-connect.ts";
import { type RoleOptions, reconcileGroups } from "../upstream/reconcile-groups.ts";
import { reconcileCustomRoles, reconcileRoles } from "../upstream/reconcile-roles.ts";
import { desiredRoleOf } from "./run-statement.ts";

/**
 * Runs the reconciler for one principal and for what it inherits from, inside the caller's transaction.
 *
 * @param reinstallCredentials also where the present verifier cannot be read and looks current
 * @returns how many statements were needed, or undefined when there is no such principal any more
 */
export async function repairRole(
  client: PoolClient,
  options: RoleOptions,
  principalId: number,
  reinstallCredentials = false,
): Promise<number | undefined> {
  const users = await loadUsersById(client, [principalId]);
  if (users.length === 0) return undefined;
  return (
    (await reconcileGroups(client, options)) +
    (await reconcileCustomRoles(client, await loadCustomRoles(client), options)) +
    (await reconcileRoles(client, users.map(desiredRoleOf), options, reinstallCredentials)) +
    (await reconcileConnect(client, users))
  );
}
