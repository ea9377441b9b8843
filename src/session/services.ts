/** What the sessions of a process share. */

import type { Identity } from "../auth/identity.ts";
import type { LiveCache } from "../auth/live-session.ts";
import type { LoginGuard } from "../auth/login-guard.ts";
import type { ScramLoginOptions } from "../auth/scram-login.ts";
import type { Statement } from "../ddl/statement.ts";
import type { DatabaseRelease } from "../exec/database-release.ts";
import type { Executor } from "../exec/execute.ts";
import type { Column } from "../exec/result.ts";
import type { Audit } from "../observe/audit.ts";
import type { ClaimsPublisher } from "../upstream/claims-publisher.ts";
import type { UpstreamPool } from "../upstream/pool.ts";
import type { UpstreamConnection } from "../upstream/upstream-connection.ts";
import type { CancelRegistry } from "./cancel-registry.ts";
import type { BearerLogins } from "./login.ts";
import type { RandomBytes } from "./random-bytes.ts";

export interface SessionServices {
  readonly pool: UpstreamPool;
  /** Seals the claims of sessions that outlast an envelope. */
  readonly claims: Pick<ClaimsPublisher, "messagesFor" | "withdraw">;
  readonly cancels: CancelRegistry;
  /** For nonces and cancel keys. */
  readonly randomBytes: RandomBytes;
  readonly executor: Executor;
  /** Before each login: puts the role right where it has drifted, and makes the built-in roles' grants in a new database. */
  readonly prepareDatabase: (database: string, identity: Identity) => Promise<void>;
  readonly logins: ScramLoginOptions & { readonly cache: LiveCache };
  /** Columns of a statement of ours that returns rows. */
  readonly columnsOf: (statement: Statement) => readonly Column[] | undefined;
  /** Never rejects. */
  readonly cancelUpstream: (connection: UpstreamConnection) => Promise<void>;
  /** Cancels what runs on a connection that is given up, and sees to it that it ends. Never rejects. */
  readonly endUpstream: (connection: UpstreamConnection) => Promise<void>;
  readonly databaseRelease: DatabaseRelease;
  readonly databaseExists: (name: string) => Promise<boolean>;
  /** Tokens as credentials; absent where the configuration has them off. */
  readonly bearer: BearerLogins | undefined;
  /** Asked and told of the outcome of each login. */
  readonly loginGuard: LoginGuard;
  readonly audit: Audit;
  /** Told of each login, for last_login_at and the key's last_used_at. */
  readonly recordLogin: (identity: Identity) => void;
}
