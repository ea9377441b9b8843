/** Prepares a database before a user's first session enters it: grants of the built-in roles, default privileges. */

import type { Client } from "pg";
import type { Identity } from "../auth/identity.ts";
import { isConnectionError, sqlstateOf } from "../catalog/connection.ts";
import type { PrincipalRecord } from "../catalog/users.ts";
import type { Log } from "../observe/log.ts";
import { rankOf } from "../upstream/built-in-groups.ts";
import { reconcileDatabase, reconcileDefaultPrivileges } from "../upstream/reconcile-database.ts";
import type { RoleOptions } from "../upstream/reconcile-roles.ts";
import { highestRank } from "./authorize.ts";
import { translateErrors } from "./run-statement.ts";

/** Whose objects are to be reached by the built-in roles. */
type Owner = Pick<PrincipalRecord, "id" | "name" | "effectiveRoles">;

export interface DatabasePreparer {
  /**
   * Makes sure that the built-in roles have their grants in the database, and that they will reach what this user creates
   * there. Call before the upstream login: on the embedded PostgreSQL it is what closes a new database to PUBLIC. Costs
   * nothing the second time. A database that does not exist is left to PostgreSQL to report.
   *
   * @throws SqlError cannot_connect_now when the upstream is not there
   */
  prepare(database: string, identity: Identity): Promise<void>;
  /** Does a user's part in all databases that were prepared: it may just have become an admin. Never throws. */
  prepareOwner(user: Owner): Promise<void>;
  /** Forgets what was prepared: a database was created, dropped, renamed or given another template. */
  forget(): void;
}

export interface DatabasePreparerOptions {
  /** Opens an administrative connection to a database (`connectAdmin`); closed again here. */
  readonly connect: (database: string) => Promise<Client>;
  readonly roleOptions: RoleOptions;
  readonly log: Log;
}

/** How often a change of one catalog row by two processes at once is tried again. */
const maxAttempts = 5;

export function createDatabasePreparer(options: DatabasePreparerOptions): DatabasePreparer {
  /** Database, or database and user → the preparation, under way or done. */
  let prepared = new Map<string, Promise<void>>();
  let databases = new Set<string>();

  function once(key: string, work: () => Promise<"done" | "absent">): Promise<void> {
    const known = prepared.get(key);
    if (known !== undefined) return known;
    const memory = prepared;
    const started = work().then(
      (outcome) => {
        if (outcome === "absent") memory.delete(key);
      },
      (error: unknown) => {
        memory.delete(key);
        throw error;
      },
    );
    memory.set(key, started);
    return started;
  }

  /** Runs work in a transaction in the database, again when another process changed the same grants meanwhile. */
  async function within(
    database: string,
    work: (client: Client) => Promise<unknown>,
  ): Promise<"done" | "absent"> {
    let client: Client;
    try {
      client = await options.connect(database);
    } catch (error) {
      if (sqlstateOf(error) === "3D000" || sqlstateOf(error) === "55000") return "absent";
      throw error;
    }
    try {
      for (let attempt = 1; ; attempt += 1) {
        try {
          await client.query("BEGIN");
          await work(client);
          await client.query("COMMIT");
          return "done";
        } catch (error) {
          if (isConnectionError(error)) throw error;
          await client.query("ROLLBACK");
          if (attempt < maxAttempts && isConcurrentChange(error)) continue;
          if (options.roleOptions.isEmbedded) throw error;
          // Such as an external upstream's login without the right: PostgreSQL decides what users may do there.
          options.log.warn({ err: error, database }, "cannot give the built-in roles their grants");
          return "done";
        }
      }
    } finally {
      await client.end().catch(() => undefined);
    }
  }

  function prepareDatabase(database: string): Promise<void> {
    return once(JSON.stringify([database]), async () => {
      const outcome = await within(database, async (client) => {
        await reconcileDatabase(client, { isEmbedded: options.roleOptions.isEmbedded });
        const found = await client.query<{ name: string }>(
          `SELECT DISTINCT r.rolname::pg_catalog.text AS name FROM pg_catalog.pg_roles r
            WHERE r.rolname = current_user
               OR r.oid = (SELECT d.datdba FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())`,
        );
        for (const { name } of found.rows) await reconcileDefaultPrivileges(client, name);
      });
      if (outcome === "done") databases.add(database);
      return outcome;
    });
  }

  function prepareFor(database: string, owner: Owner): Promise<void> {
    if (highestRank(owner.effectiveRoles) < rankOf("admin")) return Promise.resolve();
    return once(JSON.stringify([database, owner.id]), () =>
      within(database, (client) => reconcileDefaultPrivileges(client, owner.name)),
    );
  }

  return {
    prepare: (database, identity) =>
      translateErrors(async () => {
        await prepareDatabase(database);
        const { id, name } = identity.principal;
        await prepareFor(database, { id, name, effectiveRoles: identity.effectiveRoles });
      }),
    prepareOwner: async (user) => {
      for (const database of databases) {
        await prepareFor(database, user).catch((error: unknown) =>
          options.log.warn({ err: error, database }, "cannot set a user's default privileges yet"),
        );
      }
    },
    forget: () => {
      prepared = new Map();
      databases = new Set();
    },
  };
}

function isConcurrentChange(error: unknown): boolean {
  const state = sqlstateOf(error);
  if (state === "40001" || state === "40P01") return true;
  return state === "XX000" && error instanceof Error && /^tuple concurrently /.test(error.message);
}
