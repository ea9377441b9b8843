/** The events of the audit log, what an entry of it holds, and which level records which event. */

export type AuditEvent =
  | "AuthSuccess"
  | "AuthFailure"
  | "AuthzDenied"
  | "PrivilegeChange"
  | "AdminAction"
  | "SessionConnect"
  | "SessionDisconnect"
  | "LockoutTriggered"
  /** First use of an API key from an address. */
  | "KeyUsed";

export type AuditLevel = "minimal" | "standard" | "full";

/** One thing that happened; absent fields are unknown or do not apply. */
export interface AuditEntry {
  readonly event: AuditEvent;
  /** The principal's name, or the name that a refused login claimed. */
  readonly username?: string | undefined;
  readonly tenantId?: number | undefined;
  /** The client's address, without its port. */
  readonly source?: string | undefined;
  /** A UUID. */
  readonly sessionId?: string | undefined;
  /** A few words; never a secret, never a literal of a statement. */
  readonly detail?: string | undefined;
}

/** Takes notes; neither waits nor throws, so that it may stand on any path. */
export interface Audit {
  record(entry: AuditEntry): void;
}

/**
 * The lowest level that records an event. What changes rights, and what an attack looks like, is always recorded;
 * `standard` adds who came and who was refused; `full` adds the beginning and end of every session.
 */
export const auditLevelOf: Readonly<Record<AuditEvent, AuditLevel>> = {
  AuthFailure: "minimal",
  LockoutTriggered: "minimal",
  PrivilegeChange: "minimal",
  AdminAction: "minimal",
  AuthSuccess: "standard",
  AuthzDenied: "standard",
  KeyUsed: "standard",
  SessionConnect: "full",
  SessionDisconnect: "full",
};

const order: readonly AuditLevel[] = ["minimal", "standard", "full"];

export function isRecorded(event: AuditEvent, level: AuditLevel): boolean {
  return order.indexOf(auditLevelOf[event]) <= order.indexOf(level);
}
