/** What a front-end writes beside its sessions' work: audit log, failed logins and the table of sessions. */

import { randomUUID } from "node:crypto";
import type { ClientConfig, Pool } from "pg";
import type { AuditLevel } from "../observe/audit.ts";
import type { Log } from "../observe/log.ts";
import { AuditLog } from "./audit-log.ts";
import type { ChangeListener } from "./change-listener.ts";
import { createAdminPool } from "./connection.ts";
import { Lockout, type LockoutLimits } from "./lockout.ts";
import { type SessionSource, SessionTable } from "./session-table.ts";

export interface RecorderOptions {
  /** The administrative login to the catalog's database. */
  readonly connection: ClientConfig;
  readonly changes: ChangeListener;
  /** Derived from the master secret, for the audit chain. */
  readonly auditKey: Buffer;
  readonly auditLevel: AuditLevel;
  readonly lockoutLimits: LockoutLimits;
  readonly sessions: SessionSource;
  readonly log: Log;
}

export interface Recorders {
  /** For what is asked at logins: no statement that waits for the catalog holds one of its connections. */
  readonly pool: Pool;
  readonly audit: AuditLog;
  readonly lockout: Lockout;
  readonly sessionTable: SessionTable;
  /** Writes what is pending; before the change listener is closed. */
  close(): Promise<void>;
}

/** Apart from the catalog's own, so that statements that hold those keep nothing here waiting. */
const maxConnections = 2;

/** Opens all three; the source of sessions is not asked before this has returned. */
export async function openRecorders(options: RecorderOptions): Promise<Recorders> {
  const { changes, log, sessions } = options;
  const pool = createAdminPool(options.connection, maxConnections);
  const audit = new AuditLog({ pool, changes, key: options.auditKey, level: options.auditLevel, log });
  const lockout = new Lockout({
    pool,
    changes,
    limits: options.lockoutLimits,
    log,
    onLocked: (name) => {
      log.warn({ user: name }, "locked after failed logins");
      audit.record({ event: "LockoutTriggered", username: name });
    },
  });
  const sessionTable = new SessionTable({ pool, changes, instanceId: randomUUID(), source: sessions, log });
  try {
    await audit.open();
    await lockout.open();
    await sessionTable.open();
  } catch (error) {
    await pool.end();
    throw error;
  }
  return {
    pool,
    audit,
    lockout,
    sessionTable,
    close: async () => {
      await sessionTable.close();
      await lockout.close();
      await audit.close();
      await pool.end();
    },
  };
}
