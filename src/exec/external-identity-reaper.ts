/** Drops the principals and roles of external identities that nobody uses any more; their next login makes them anew. */

import { unusedExternals } from "../catalog/external-identities.ts";
import { deleteUserRows } from "../catalog/users.ts";
import { SqlError } from "../errors/sql-error.ts";
import type { ExecutorDependencies } from "./context.ts";
import { dropPostgresRoles } from "./drop-postgres-roles.ts";
import { followUp } from "./run-statement.ts";
import { translateErrors } from "./translate-errors.ts";

/** Looked at in one run; the rest waits for the next. */
const maxPerRun = 1_000;

/**
 * One transaction for each, so that one that owns objects keeps no other: it stays until somebody drops or takes over what it owns.
 *
 * @param unusedMs how long since the last login, in milliseconds
 * @returns the names that are gone
 */
export async function reapExternalIdentities(
  deps: ExecutorDependencies,
  unusedMs: number,
): Promise<readonly string[]> {
  // Logins that are noted and not yet written are uses too.
  await deps.catalog.flushLogins();
  const candidates = await deps.catalog.read((client) =>
    unusedExternals(client, unusedMs, { limit: maxPerRun }),
  );
  const gone: string[] = [];
  for (const { id, name } of candidates) {
    try {
      const isDone = await translateErrors(() =>
        deps.catalog.write(async (client) => {
          // Looked at again under the lock: it may have come back, or another front-end have been faster.
          if ((await unusedExternals(client, unusedMs, { id })).length === 0) return false;
          await deleteUserRows(client, [id]);
          await dropPostgresRoles(deps, client, [name], {
            newOwner: undefined,
            hint: "It stays as long as it owns anything.",
          });
          await deps.audit.recordIn(client, {
            event: "PrivilegeChange",
            username: name,
            detail: "dropped: an external identity that was not used",
          });
          return true;
        }),
      );
      if (!isDone) continue;
      gone.push(name);
      await followUp(deps, new Set([id]));
    } catch (error) {
      if (!(error instanceof SqlError)) throw error;
      deps.log.debug({ role: name, reason: error.message }, "an unused external identity stays");
    }
  }
  return gone;
}
