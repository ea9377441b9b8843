/** Prepares a database before a user's first session enters it: grants of the built-in roles, default privileges, claims. */

import type { Client } from "pg";
import type { Identity } from "../auth/identity.ts";
import { isConnectionError, sqlstateOf } from "../catalog/connection.ts";
import type { PrincipalRecord } from "../catalog/users.ts";
import { SqlError } from "../errors/sql-error.ts";
import type { Log } from "../observe/log.ts";
import { rankOf } from "../upstream/built-in-groups.ts";
import { type ClaimsInstallation, installClaims } from "../upstream/install-claims.ts";
import {
  reconcileAccess,
  reconcileDefaultPrivileges,
  reconcileObjects,
} from "../upstream/reconcile-database.ts";
import type { RoleOptions } from "../upstream/reconcile-groups.ts";
import { type ClaimsWithdrawal, withdrawClaims } from "../upstream/withdraw-claims.ts";
import { highestRank } from "./authorize.ts";
import { translateErrors } from "./translate-errors.ts";

/** Whose objects are to be reached by the built-in roles. */
type Owner = Pick<PrincipalRecord, "id" | "name" | "effectiveRoles">;

export interface DatabasePreparer {
  /**
   * Makes sure that the built-in roles have their grants in the database, that they will reach what this user creates
   * there, and that the functions are there which open the sessions' claims. Call before the upstream login: on the embedded PostgreSQL it is what closes a new database to PUBLIC. Costs
   * nothing the second time. A database that does not exist is left to PostgreSQL to report.
   *
   * @throws SqlError cannot_connect_now when the upstream is not there
   */
  prepare(database: string, identity: Identity): Promise<void>;
  /**
   * @throws SqlError object_not_in_prerequisite_state when the functions behind `$auth` are not ours in this database, or not
   *   there: what stands in their place could say anything
   */
  requireClaims(database: string): void;
  /**
   * Makes worthless what was sealed for a connection to the database. Where `$auth` is refused there is nothing to do.
   *
   * @throws SqlError cannot_connect_now when the upstream is not there; what else PostgreSQL says
   */
  withdrawClaims(database: string, withdrawal: ClaimsWithdrawal): Promise<void>;
  /** Does a user's part in all databases that were prepared: it may just have become an admin. Never throws. */
  prepareOwner(user: Owner): Promise<void>;
  /** Forgets what was prepared: a database was created, dropped, renamed or given another template. */
  forget(): void;
}

export interface DatabasePreparerOptions {
  /** Opens an administrative connection to a database (`connectAdmin`); closed again here. */
  readonly connect: (database: string) => Promise<Client>;
  readonly roleOptions: RoleOptions;
  readonly claims: Omit<ClaimsInstallation, "database">;
  readonly log: Log;
}

/** How often a change of one catalog row by two processes at once is tried again. */
const maxAttempts = 5;

/** How long a login waits for what somebody's open transaction has locked: whoever owns a table may hold its grants for ever. */
const lockTimeout = "1s";

/** After how long grants that were left out for a lock are tried again, in ms. */
const leftOutRetryMs = 10_000;

/** SQLSTATE lock_not_available. */
const lockNotAvailable = "55P03";

export function createDatabasePreparer(options: DatabasePreparerOptions): DatabasePreparer {
  /** Database, or database and user → the preparation, under way or done. */
  let prepared = new Map<string, Promise<void>>();
  let databases = new Set<string>();
  /** Databases without the functions behind `$auth`, and why; stays until they are there, because sessions may be in them. */
  const withoutClaims = new Map<string, SqlError>();

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

  /** Runs work on a connection to the database. */
  async function connected(
    database: string,
    work: (client: Client) => Promise<void>,
  ): Promise<"done" | "absent"> {
    let client: Client;
    try {
      client = await options.connect(database);
    } catch (error) {
      if (sqlstateOf(error) === "3D000" || sqlstateOf(error) === "55000") return "absent";
      throw error;
    }
    try {
      await work(client);
      return "done";
    } finally {
      await client.end().catch(() => undefined);
    }
  }

  /**
   * What an external upstream's login has no right to do is left undone, with a warning: PostgreSQL decides what users may. What
   * somebody holds locked is left for later, when the next login after a while prepares the database once more.
   *
   * @param key of the preparation that this is a part of
   */
  async function grant(
    client: Client,
    database: string,
    key: string,
    work: () => Promise<unknown>,
  ): Promise<void> {
    try {
      await inTransaction(client, work);
    } catch (error) {
      const isLocked = sqlstateOf(error) === lockNotAvailable;
      if (isConnectionError(error) || (options.roleOptions.isEmbedded && !isLocked)) throw error;
      options.log.warn({ err: error, database }, "cannot give the built-in roles their grants");
      const memory = prepared;
      if (isLocked) setTimeout(() => memory.delete(key), leftOutRetryMs).unref();
    }
  }

  async function prepareClaims(client: Client, database: string): Promise<void> {
    try {
      await inTransaction(client, () => installClaims(client, { ...options.claims, database }));
      withoutClaims.delete(database);
    } catch (error) {
      const isRefused = error instanceof SqlError || !options.roleOptions.isEmbedded;
      if (isConnectionError(error) || !isRefused) throw error;
      withoutClaims.set(database, claimsRefusal(options.claims.schema, database, error));
      options.log.warn({ err: error, database }, "cannot install the functions that $auth stands for");
    }
  }

  function prepareDatabase(database: string): Promise<void> {
    const { isEmbedded } = options.roleOptions;
    const key = JSON.stringify([database]);
    return once(key, async () => {
      const outcome = await connected(database, async (client) => {
        const access = () => reconcileAccess(client, { isEmbedded });
        // By itself: that a database is closed to PUBLIC must not depend on what its users have locked in it.
        await (isEmbedded ? inTransaction(client, access) : grant(client, database, key, access));
        await grant(client, database, key, async () => {
          await reconcileObjects(client);
          const found = await client.query<{ name: string }>(
            `SELECT DISTINCT r.rolname::pg_catalog.text AS name FROM pg_catalog.pg_roles r
              WHERE r.rolname = current_user
                 OR r.oid = (SELECT d.datdba FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())`,
          );
          for (const { name } of found.rows) await reconcileDefaultPrivileges(client, name);
        });
        await prepareClaims(client, database);
      });
      if (outcome === "done") databases.add(database);
      return outcome;
    });
  }

  function prepareFor(database: string, owner: Owner): Promise<void> {
    if (highestRank(owner.effectiveRoles) < rankOf("admin")) return Promise.resolve();
    const key = JSON.stringify([database, owner.id]);
    return once(key, () =>
      connected(database, (client) =>
        grant(client, database, key, () => reconcileDefaultPrivileges(client, owner.name)),
      ),
    );
  }

  return {
    prepare: (database, identity) =>
      translateErrors(async () => {
        await prepareDatabase(database);
        const { id, name } = identity.principal;
        await prepareFor(database, { id, name, effectiveRoles: identity.effectiveRoles });
      }),
    requireClaims: (database) => {
      const refusal = withoutClaims.get(database);
      if (refusal !== undefined) throw refusal;
    },
    withdrawClaims: (database, withdrawal) =>
      translateErrors(async () => {
        if (withoutClaims.has(database)) return;
        await connected(database, (client) => withdrawClaims(client, options.claims.schema, withdrawal));
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

/** Again when another process changed the same rows meanwhile. */
async function inTransaction(client: Client, work: () => Promise<unknown>): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await client.query("BEGIN");
      await client.query("SELECT pg_catalog.set_config('lock_timeout', $1, true)", [lockTimeout]);
      await work();
      await client.query("COMMIT");
      return;
    } catch (error) {
      if (isConnectionError(error)) throw error;
      await client.query("ROLLBACK");
      if (attempt === maxAttempts || !isConcurrentChange(error)) throw error;
    }
  }
}

function claimsRefusal(schema: string, database: string, cause: unknown): SqlError {
  if (cause instanceof SqlError) return cause;
  return new SqlError(
    "object_not_in_prerequisite_state",
    `$auth is not available in database "${database}"`,
    {
      detail: `The front-end could not create its functions in schema "${schema}".`,
      hint: "Let its upstream login create schemas in this database.",
      cause,
    },
  );
}

/** What one of two processes gets that make the same objects at once. */
const concurrentStates: ReadonlySet<string | undefined> = new Set([
  "40001",
  "40P01",
  "23505",
  "42P06",
  "42P07",
  "42723",
]);

function isConcurrentChange(error: unknown): boolean {
  const state = sqlstateOf(error);
  if (concurrentStates.has(state)) return true;
  return state === "XX000" && error instanceof Error && /^tuple concurrently /.test(error.message);
}
