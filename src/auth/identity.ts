/** The result of an authentication, and the refusals that are logged but never told apart outside. */

import type { PrincipalKind } from "../catalog/users.ts";

/** How a client may prove who it is, what is looked for first first; `SHOW SESSION` prints it. */
export const authMethods = ["certificate", "jwt", "api-key", "scram-sha-256-plus", "scram-sha-256"] as const;
export type AuthMethod = (typeof authMethods)[number];

/** A value as JSON has it. */
export type JsonValue =
  | string
  | number
  | boolean
  | null
  | readonly JsonValue[]
  | { readonly [name: string]: JsonValue };

/**
 * What `$auth.<name>` reads. `id`, `role`, `roles` and `tenant_id` are always there; `org_id`, `scopes`, `email` and mapped
 * claims where the credential has them.
 */
export type Claims = Readonly<Record<string, JsonValue>>;

/** What the names of external identities begin with, and no other principal's; `oidc:<provider>` is whoever a token is of. */
export const externalRolePrefix = "oidc:";

/** Whom a session acts for. */
export interface Principal {
  /** The catalog's key; stays the same over a rename. */
  readonly id: number;
  readonly kind: PrincipalKind;
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
  readonly keyId?: string | undefined;
  /** Present when the credential was a certificate: what revocation lists call it. */
  readonly certificateId?: string;
  /** -1 is no limit. */
  readonly connectionLimit: number;
  readonly method: AuthMethod;
  readonly claims: Claims;
  readonly expiresAt: Date | undefined;
}

/** Why a login was refused: for the log, the audit and the metric. */
export const refusalReasons = [
  "unknown_user",
  "no_password",
  "wrong_password",
  "login_disabled",
  "expired",
  "channel_binding_mismatch",
  "locked",
  "too_many_failures",
  /** The principal was dropped or changed while its login was under way. */
  "changed_meanwhile",
  "malformed_token",
  "unacceptable_header",
  "unknown_provider",
  "ambiguous_provider",
  "algorithm_not_allowed",
  "keys_unavailable",
  "unknown_signing_key",
  "bad_signature",
  "token_expired",
  "token_not_yet_valid",
  "token_without_expiry",
  "no_subject",
  "unusable_claims",
  "provider_dropped",
  "unknown_key",
  "wrong_secret",
  "key_revoked",
  "key_expired",
  "token_of_another",
  /** In the TLS handshake: of another authority, expired, revoked, for another purpose, or missing where one is required. */
  "certificate_refused",
  "certificate_without_name",
  "certificate_of_another",
  "certificate_of_no_user",
  "certificate_expired",
  "certificate_revoked",
] as const;
export type RefusalReason = (typeof refusalReasons)[number];
