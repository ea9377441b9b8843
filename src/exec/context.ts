/** What a statement is run with: whose it is and in which session, and what the executor was built from. */

import type { ClientConfig } from "pg";
import type { Identity } from "../auth/identity.ts";
import type { Catalog } from "../catalog/catalog.ts";
import type { RoleOptions } from "../upstream/reconcile-roles.ts";
import type { DatabasePreparer } from "./databases.ts";
import type { SessionDirectory } from "./sessions.ts";

/** The caller. Rights are read again for each statement, so that a revoked one holds at once. */
export interface ExecutionContext {
  readonly identity: Identity;
  readonly sessionId: string;
  /** The database that the session is in. */
  readonly database: string;
  /** The session's DateStyle and TimeZone as PostgreSQL reports them. */
  readonly dateStyle: string;
  readonly timeZone: string;
}

export interface ExecutorDependencies {
  readonly catalog: Catalog;
  /** The administrative login, for connections to other databases (DROP USER). */
  readonly adminConnection: ClientConfig;
  readonly roleOptions: RoleOptions;
  readonly databases: DatabasePreparer;
  readonly sessions: SessionDirectory;
  /** Shortest password accepted, in characters. */
  readonly minPasswordLength: number;
  /** PBKDF2 iterations of new verifiers. */
  readonly scramIterations: number;
}
