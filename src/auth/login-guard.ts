/** What stands between a finished exchange and the answer to it: lockout, login limits, and the audit of both outcomes. */

import type { Lockout } from "../catalog/lockout.ts";
import type { Audit } from "../observe/audit.ts";
import type { AuthMethod, Identity, RefusalReason } from "./identity.ts";
import { addressKey, FailureWindows } from "./login-limits.ts";

/** Read at each login. */
export interface LoginLimits {
  /** Failures only; 0 is unlimited. */
  readonly attemptsPerAddressPerMinute: number;
  /** Failures only; 0 is unlimited. */
  readonly attemptsPerUserPerMinute: number;
}

export interface LoginGuardOptions {
  readonly lockout: Pick<Lockout, "isLocked" | "recordFailure" | "recordSuccess">;
  readonly audit: Audit;
  readonly limits: LoginLimits;
  /** In milliseconds, from any fixed moment. */
  readonly clock?: () => number;
  /** Told of every login and token. */
  readonly onOutcome?: (method: AuthMethod, outcome: "accepted" | "refused") => void;
}

/**
 * PostgreSQL has no longer names, so no user has one. Those that are invented are counted as one: a client may send 10 kB, and
 * each would be remembered for a minute.
 */
const maxNameBytes = 63;
const longNames = "";

/** Pairs of key and address that are remembered as seen. */
const maxSeenUses = 20_000;

export class LoginGuard {
  readonly #options: LoginGuardOptions;
  readonly #byAddress: FailureWindows;
  readonly #byUser: FailureWindows;
  readonly #seenUses = new Set<string>();

  constructor(options: LoginGuardOptions) {
    this.#options = options;
    const { limits, clock } = options;
    this.#byAddress = new FailureWindows(() => limits.attemptsPerAddressPerMinute, clock);
    this.#byUser = new FailureWindows(() => limits.attemptsPerUserPerMinute, clock);
  }

  /**
   * Asked when the exchange is over and before its outcome is acted upon, so that neither its course nor its time tells that a
   * name is locked: the right password is refused as a wrong one is.
   */
  refusalFor(user: string, address: string): "locked" | "too_many_failures" | undefined {
    if (this.#byAddress.isOver(addressKey(address)) || this.#byUser.isOver(nameKey(user)))
      return "too_many_failures";
    return this.#options.lockout.isLocked(user) ? "locked" : undefined;
  }

  /** Counts and audits a refusal, whatever the reason. */
  recordFailure(user: string, address: string, reason: RefusalReason): void {
    this.#options.onOutcome?.("scram-sha-256", "refused");
    // Neither counted nor written down: else whoever may not log in could fill the audit log.
    if (reason === "too_many_failures") return;
    const { lockout, audit } = this.#options;
    audit.record({ event: "AuthFailure", username: user, source: address, detail: reason });
    const isAddressOver = this.#byAddress.add(addressKey(address));
    const isUserOver = this.#byUser.add(nameKey(user));
    if (isAddressOver || isUserOver) {
      audit.record({
        event: "AuthFailure",
        username: user,
        source: address,
        detail: `too_many_failures for this ${isAddressOver ? "address" : "name"}: further ones within the minute are not recorded`,
      });
    }
    lockout.recordFailure(user);
  }

  /** As `refusalFor`, of a token: what names its principal is in it, so that only the address counts. */
  bearerRefusalFor(address: string): "too_many_failures" | undefined {
    return this.#byAddress.isOver(addressKey(address)) ? "too_many_failures" : undefined;
  }

  /**
   * Counts and audits a refused token. It locks no name: nobody can guess one, and whoever knows a key's id could lock its
   * owner out.
   *
   * @param token what it looked like, and the provider that it named where there is that one
   */
  recordBearerFailure(
    address: string,
    reason: RefusalReason,
    { method, provider }: { readonly method: "api-key" | "jwt"; readonly provider: string | undefined },
  ): void {
    this.#options.onOutcome?.(method, "refused");
    if (reason === "too_many_failures") return;
    const detail = provider === undefined ? reason : `${reason}, OIDC provider ${JSON.stringify(provider)}`;
    this.#options.audit.record({ event: "AuthFailure", source: address, detail });
    this.#countByAddress(address);
  }

  /**
   * Counts and audits a refused certificate, by its address as a token.
   *
   * @param username whom the client claimed to be, where it did
   */
  recordCertificateFailure(address: string, reason: RefusalReason, username?: string): void {
    this.#options.onOutcome?.("certificate", "refused");
    if (reason === "too_many_failures") return;
    this.#options.audit.record({ event: "AuthFailure", username, source: address, detail: reason });
    this.#countByAddress(address);
  }

  /**
   * Audits a token that was accepted: each time when a session begins with it, else the first time that its principal comes
   * with it from an address.
   */
  recordBearerSuccess(address: string, identity: Identity, sessionId: string | undefined): void {
    this.#options.onOutcome?.(identity.method, "accepted");
    const { principal, tenantId, keyId, method } = identity;
    const who = { username: principal.name, tenantId, source: address, sessionId };
    const { audit } = this.#options;
    const isFirstUse = this.#isFirstUse(`${keyId ?? `${method} ${principal.id}`} ${address}`);
    if (isFirstUse || sessionId !== undefined) {
      audit.record({ ...who, event: "AuthSuccess", detail: method });
    }
    if (isFirstUse && keyId !== undefined) audit.record({ ...who, event: "KeyUsed", detail: `key ${keyId}` });
  }

  /** Audits a login that is good and not for the database that it asked for. */
  recordDatabaseDenied(
    address: string,
    { principal, tenantId }: Identity,
    database: string,
    sessionId: string | undefined,
  ): void {
    this.#options.audit.record({
      event: "AuthzDenied",
      username: principal.name,
      tenantId,
      source: address,
      sessionId,
      detail: `database ${JSON.stringify(database)} is not among those of the principal or its key`,
    });
  }

  /** Clears the name's failures and audits the login; and a key that comes from an address for the first time. */
  recordSuccess(user: string, address: string, identity: Identity, sessionId: string): void {
    this.#options.onOutcome?.(identity.method, "accepted");
    const { lockout, audit } = this.#options;
    // Else an application that logs in with its key would clear, again and again, what counts the guesses at the password.
    const isOwnPassword = identity.method.startsWith("scram-");
    const hasNoPassword = identity.method === "api-key" && identity.principal.kind !== "user";
    if (isOwnPassword || hasNoPassword) lockout.recordSuccess(user);
    const { keyId, method, principal, tenantId } = identity;
    const record = (event: "AuthSuccess" | "KeyUsed", detail: string) =>
      audit.record({ event, username: principal.name, tenantId, source: address, sessionId, detail });
    record("AuthSuccess", method);
    if (keyId !== undefined && this.#isFirstUse(`${keyId} ${address}`)) record("KeyUsed", `key ${keyId}`);
  }

  #countByAddress(address: string): void {
    if (!this.#byAddress.add(addressKey(address))) return;
    this.#options.audit.record({
      event: "AuthFailure",
      source: address,
      detail: "too_many_failures for this address: further ones within the minute are not recorded",
    });
  }

  #isFirstUse(use: string): boolean {
    const isKnown = this.#seenUses.delete(use);
    this.#seenUses.add(use);
    if (this.#seenUses.size > maxSeenUses) {
      for (const oldest of this.#seenUses) {
        this.#seenUses.delete(oldest);
        break;
      }
    }
    return !isKnown;
  }
}

/** What a claimed name is counted under. */
function nameKey(user: string): string {
  return Buffer.byteLength(user) > maxNameBytes ? longNames : user;
}
