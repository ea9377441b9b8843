/** What a statement is run with: whose it is and in which session, and what the executor was built from. */

import type { PoolClient } from "pg";
import type { Identity } from "../auth/identity.ts";
import type { AuditLog } from "../catalog/audit-log.ts";
import type { ReservingBackend } from "../catalog/reserved-roles.ts";
import type { SessionTable } from "../catalog/session-table.ts";
import type { Log } from "../observe/log.ts";
import type { RoleOptions } from "../upstream/reconcile-groups.ts";
import type { AuthFunctions } from "./auth-references.ts";
import type { ClusterAccess } from "./connect-elsewhere.ts";
import type { DatabasePreparer } from "./databases.ts";
import type { RoleReaper } from "./role-reaper.ts";
import type { SessionDirectory } from "./sessions.ts";

/** A PostgreSQL role that a client's transaction has dropped. */
export interface RoleAside {
  readonly oid: string;
  /** As the statement called it. */
  readonly name: string;
  /** Who gets what it owns; undefined: it may own nothing. */
  readonly newOwnerOid: string | undefined;
  /** What to do about objects that it owns. */
  readonly hint: string;
}

/** A catalog transaction in which statements of ours run one after the other. */
export interface OpenTransaction {
  readonly client: PoolClient;
  /** Principals that its statements have created, changed or dropped. */
  readonly touched: Set<number>;
  /** Roles that its statements have dropped. */
  readonly setAside: RoleAside[];
  /** Oids of roles that others had left reserved and that are to be dropped after the commit. */
  readonly leftovers: string[];
  /** Names that nobody had reserved for roles that its statements create. */
  readonly claimed: string[];
  /** The client's upstream connection, which holds the names of roles that are being created. */
  readonly backend: ReservingBackend;
}

/** Nothing has been run in it yet. */
export function beginOpenTransaction(client: PoolClient, backend: ReservingBackend): OpenTransaction {
  return { client, backend, touched: new Set(), setAside: [], leftovers: [], claimed: [] };
}

/** The client's own upstream connection, for statements of ours that are SQL of PostgreSQL's in the end. */
export interface ClientConnection {
  /** Aborted when the client cancels the statement or is gone: it ends with query_canceled then, and has changed nothing. */
  readonly signal?: AbortSignal;
  /** The session's setting at this moment. */
  readonly standardConformingStrings: boolean;
  /**
   * Runs SQL as the client and in its transaction; where none is open, all statements of the text are one.
   *
   * @returns the rows of all statements, each value as text; notices and command tags are kept from the client
   * @throws UpstreamError as PostgreSQL worded it; a transaction of the client's has failed then
   */
  query(sql: string): Promise<readonly (readonly (string | null)[])[]>;
  /**
   * Runs one statement that reads, in the client's transaction and wherever in a pipeline that is; the client's portals and
   * prepared statements stay.
   *
   * @returns and throws as `query`
   */
  ask(sql: string): Promise<readonly (readonly (string | null)[])[]>;
}

/** The caller. Rights are read again for each statement, so that a revoked one holds at once. */
export interface ExecutionContext {
  readonly identity: Identity;
  readonly sessionId: string;
  /** Without its port; absent where there is none. */
  readonly clientAddress?: string | undefined;
  /** The database that the session is in. */
  readonly database: string;
  /** The session's DateStyle and TimeZone as PostgreSQL reports them. */
  readonly dateStyle: string;
  readonly timeZone: string;
  /** Absent where there is no session. */
  readonly connection?: ClientConnection;
  /** Present when the statement is part of the client's own transaction: it is run in this one and commits nothing. */
  readonly transaction?: OpenTransaction;
  /**
   * What a statement makes once, however often it is run: generated keys, hashed passwords. A statement of a client's
   * transaction is run again at COMMIT and must come to the same secrets.
   */
  readonly materials: Map<string, unknown>;
}

export interface ExecutorDependencies extends ClusterAccess {
  readonly roleOptions: RoleOptions;
  readonly databases: DatabasePreparer;
  readonly sessions: SessionDirectory;
  readonly sessionTable: Pick<SessionTable, "flush" | "change">;
  readonly audit: Pick<AuditLog, "record" | "recordIn" | "flush" | "verify">;
  /** Drops what transactions leave behind. */
  readonly reaper: Pick<RoleReaper, "finish" | "release">;
  readonly log: Log;
  /** What `$auth.…` stands for. */
  readonly authFunctions: AuthFunctions;
  /** Shortest password accepted, in characters. */
  readonly minPasswordLength: number;
  /** PBKDF2 iterations of new verifiers. */
  readonly scramIterations: number;
  /** A derivate of the master secret, of which the salts of API keys are made. */
  readonly apiKeySaltSecret: Buffer;
  /** Whether clients may give a key as their password. */
  readonly areKeysPasswords: boolean;
}
