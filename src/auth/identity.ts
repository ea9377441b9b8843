/** The result of an authentication, and the refusals that are logged but never told apart outside. */

/** How the client proved who it is; `SHOW SESSION` prints it. */
export type AuthMethod = "scram-sha-256" | "scram-sha-256-plus";

/** Whom a session acts for. */
export interface Principal {
  /** The catalog's key; stays the same over a rename. */
  readonly id: number;
  readonly kind: "user" | "service_account" | "api_key";
  readonly name: string;
}

/** An authenticated principal, and the PostgreSQL role that it acts as upstream. */
export interface Identity {
  readonly principal: Principal;
  /** Name of the PostgreSQL LOGIN role: the same as the principal's name. */
  readonly role: string;
  /** Counts replacements of the role's upstream credential; part of its key derivation. */
  readonly roleVersion: number;
  readonly tenantId: number;
  /** Names of the roles held, as SHOW SESSION prints them. */
  readonly roles: readonly string[];
  /** These and what they inherit. */
  readonly effectiveRoles: readonly string[];
  readonly isSuperuser: boolean;
  readonly defaultDatabase: string | undefined;
  /** The only databases that the session may be in; undefined: those that PostgreSQL lets the role into. */
  readonly databases: readonly string[] | undefined;
  /** Present when the credential was an API key. */
  readonly keyId?: string;
  /** -1 is no limit. */
  readonly connectionLimit: number;
  readonly method: AuthMethod;
  readonly expiresAt: Date | undefined;
}

/** Why a login was refused: for the log, the audit and the metric. */
export type RefusalReason =
  | "unknown_user"
  | "no_password"
  | "wrong_password"
  | "login_disabled"
  | "expired"
  | "channel_binding_mismatch"
  | "malformed_exchange"
  | "locked"
  | "too_many_failures";
