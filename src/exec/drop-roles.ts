/** How statements drop the PostgreSQL roles of users, accounts, keys and custom roles, alone or within a client's transaction. */

import type { PoolClient } from "pg";
import { setRoleAside } from "../catalog/dropped-roles.ts";
import {
  type CatalogReader,
  findRoles,
  listOwnedObjects,
  type OwnedObject,
  readerOf,
} from "../upstream/owned-objects.ts";
import { reconcileRoles } from "../upstream/reconcile-roles.ts";
import { connectElsewhere } from "./connect-elsewhere.ts";
import type { ClientConnection, ExecutionContext, ExecutorDependencies, RoleAside } from "./context.ts";
import { dropPostgresRoles, ownsObjects } from "./drop-postgres-roles.ts";

/** What is dropped, and what becomes of what it owns. */
export interface RoleDrop {
  readonly names: readonly string[];
  /** Who gets what the roles own; without it they may own nothing. */
  readonly newOwner: string | undefined;
  /** What to do about objects that are still owned. */
  readonly hint: string;
}

/**
 * Drops roles. A statement of its own has done all of it when it returns. Within a client's transaction the roles are set aside:
 * without rights and under another name, so that theirs are free; what they hold is taken from them when it has committed
 * (`RoleReaper`), and whether they own anything is looked at by `refuseOwners`.
 *
 * @throws SqlError dependent_objects_still_exist when one owns objects and nobody is named to get them
 */
export async function dropRoles(
  deps: ExecutorDependencies,
  client: PoolClient,
  context: ExecutionContext,
  { names, newOwner, hint }: RoleDrop,
): Promise<void> {
  const { transaction } = context;
  if (transaction === undefined) {
    await dropPostgresRoles(deps, client, names, { newOwner, hint });
    return;
  }
  const roles = await findRoles(client, names);
  const withoutRights = roles.map(({ name }) => ({ name, canLogin: false, roles: [], roleVersion: 1 }));
  await reconcileRoles(client, withoutRights, { ...deps.roleOptions, masterSecret: undefined });
  const [heir] = newOwner === undefined ? [] : await findRoles(client, [newOwner]);
  for (const role of roles) {
    await setRoleAside(client, role, newOwner);
    transaction.setAside.push({ ...role, newOwnerOid: heir?.oid, hint });
  }
}

/**
 * Refuses a client's transaction whose dropped roles own objects that nobody gets. Asks on the client's own connection, which
 * sees what the transaction itself has dropped or given away.
 *
 * @throws SqlError dependent_objects_still_exist, or UpstreamError when the client's connection refuses to tell
 */
export async function refuseOwners(
  deps: Pick<ExecutorDependencies, "adminConnection" | "catalog">,
  connection: ClientConnection,
  database: string,
  setAside: readonly RoleAside[],
): Promise<void> {
  for (const role of setAside) {
    const givers = setAside.filter((other) => isLeftTo(other, role, setAside));
    if (givers.length === 0) continue;
    const [level] = await connection.ask("SELECT pg_catalog.current_setting('transaction_isolation')");
    const isCurrent = level?.[0] === "read committed";
    const found = await listOwnedObjects(
      {
        reader: clientReader(connection),
        database,
        connect: (name) => connectElsewhere(deps, name),
      },
      givers,
      // The view of such a transaction is as old as its first statement.
      isCurrent ? undefined : catalogReader(deps),
    );
    if (found.length === 0) continue;
    const owned: OwnedObject[] = found.map((object) => ({ ...object, role: role.name }));
    throw ownsObjects(owned, database, role.hint);
  }
}

/** Whether what a role owns ends up with another one, or with itself, that leaves it to nobody. */
function isLeftTo(role: RoleAside, last: RoleAside, setAside: readonly RoleAside[]): boolean {
  let owner: RoleAside | undefined = role;
  for (let steps = 0; owner !== undefined && steps <= setAside.length; steps += 1) {
    const newOwnerOid: string | undefined = owner.newOwnerOid;
    if (newOwnerOid === undefined) return owner.oid === last.oid;
    owner = setAside.find((other) => other.oid === newOwnerOid);
  }
  return false;
}

function catalogReader({ catalog }: Pick<ExecutorDependencies, "catalog">): CatalogReader {
  return { read: (sql, lists) => catalog.read((client) => readerOf(client).read(sql, lists)) };
}

/** Every row comes as one text, so that columns have their types whatever the client has set. */
function clientReader(connection: ClientConnection): CatalogReader {
  return {
    read: async <Row>(sql: string, lists: readonly (readonly string[])[]) => {
      const bound = sql.replaceAll(/\$(\d+)/g, (_, number: string) => {
        const elements = lists[Number(number) - 1] ?? [];
        return `'{${elements.filter((element) => /^\d+$/.test(element)).join(",")}}'`;
      });
      const rows = await connection.ask(`SELECT pg_catalog.to_jsonb(x.*)::pg_catalog.text FROM (${bound}) x`);
      return rows.map(([row]) => JSON.parse(row ?? "{}") as Row);
    },
  };
}
