/** What the sessions of a process share. */

import type { Identity } from "../auth/identity.ts";
import type { Statement } from "../ddl/statement.ts";
import type { Executor } from "../exec/execute.ts";
import type { Column } from "../exec/result.ts";
import type { UpstreamPool } from "../upstream/pool.ts";
import type { UpstreamConnection } from "../upstream/upstream-connection.ts";
import type { PasswordLogins } from "./authentication.ts";
import type { CancelRegistry } from "./cancel-registry.ts";

export interface SessionServices {
  readonly pool: UpstreamPool;
  readonly cancels: CancelRegistry;
  readonly executor: Executor;
  /** Makes the built-in roles' grants in a database before its first login; costs nothing the second time. */
  readonly prepareDatabase: (database: string, identity: Identity) => Promise<void>;
  readonly logins: PasswordLogins;
  /** Columns of a statement of ours that returns rows. */
  readonly columnsOf: (statement: Statement) => readonly Column[] | undefined;
  /** Never rejects. */
  readonly cancelUpstream: (connection: UpstreamConnection) => Promise<void>;
  readonly databaseExists: (name: string) => Promise<boolean>;
  /** Told of each login, for last_login_at. */
  readonly recordLogin: (principalId: number) => void;
}
