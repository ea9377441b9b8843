/** Which credential of a client decides: its certificate, else its token, else its password or key. One that fails is a refusal. */

import { isIPv4, isIPv6 } from "node:net";
import type { BearerAuthenticator } from "../auth/bearer.ts";
import { authenticateCertificate, type CertificateOutcome } from "../auth/certificate.ts";
import { externalRolePrefix, type Identity } from "../auth/identity.ts";
import type { LoginGuard } from "../auth/login-guard.ts";
import { bearerErrorResponse } from "../auth/oauth-bearer.ts";
import type { ScramLoginOptions } from "../auth/scram-login.ts";
import { SqlError } from "../errors/sql-error.ts";
import type { Log } from "../observe/log.ts";
import { authenticateBySasl } from "./authentication.ts";
import type { BearerOffer } from "./bearer-exchange.ts";
import type { Greeting } from "./handshake.ts";
import type { RandomBytes } from "./random-bytes.ts";

/** Tokens as credentials on pgwire; absent where the configuration has them off. */
export interface BearerLogins {
  readonly authenticator: BearerAuthenticator;
  /** The issuer of the provider that a user name like `oidc:<provider>` stands for. */
  readonly issuerOf: (user: string) => string | undefined;
}

export interface LoginServices {
  readonly logins: ScramLoginOptions;
  readonly loginGuard: LoginGuard;
  readonly bearer: BearerLogins | undefined;
  readonly randomBytes: RandomBytes;
  readonly log: Log;
}

/** Where a login comes from, and the session that it is to begin. */
export interface LoginAttempt {
  /** Without its port. */
  readonly address: string;
  /** With it, for the log. */
  readonly peer: string;
  readonly sessionId: string;
}

/** In PostgreSQL's words. */
export type CredentialKind = "password" | "certificate" | "OAuth bearer";

/** A client whose credential is good. */
export interface Authenticated {
  readonly identity: Identity;
  readonly credential: CredentialKind;
  /** To be sent before AuthenticationOk. */
  readonly finalMessage: Buffer;
  /** Whether the login has been counted and audited. */
  readonly isRecorded: boolean;
}

/**
 * @returns undefined when the client has gone
 * @throws SqlError FATAL for every refusal
 */
export async function logIn(
  greeting: Greeting,
  attempt: LoginAttempt,
  services: LoginServices,
): Promise<Authenticated | undefined> {
  const { startup, transport, reader, tls, certificate } = greeting;
  const { logins, loginGuard, log } = services;
  const { user } = startup;
  const { address, peer } = attempt;
  if (certificate !== undefined) {
    const policy = tls?.clients?.policy;
    const barrier = loginGuard.bearerRefusalFor(address);
    const outcome: CertificateOutcome =
      barrier === undefined && policy !== undefined
        ? authenticateCertificate(logins.cache, policy, certificate, new Date(), user)
        : { ok: false, reason: barrier ?? "certificate_refused" };
    if (outcome.ok) {
      const { identity } = outcome;
      return { identity, credential: "certificate", finalMessage: Buffer.alloc(0), isRecorded: false };
    }
    log.info({ peer, user, reason: outcome.reason }, "login refused");
    loginGuard.recordCertificateFailure(address, outcome.reason, user);
    throw refusal("certificate", user);
  }
  const bearer = bearerOffer(greeting, attempt, services.bearer);
  const { randomBytes } = services;
  const binding = tls?.channelBinding;
  const outcome = await authenticateBySasl(reader, transport, user, binding, logins, randomBytes, bearer);
  switch (outcome.kind) {
    case "closed":
      return undefined;
    case "bearer_accepted":
      return {
        identity: outcome.identity,
        credential: "OAuth bearer",
        finalMessage: Buffer.alloc(0),
        isRecorded: true,
      };
    case "bearer_discovery":
      log.debug({ peer, user }, "told where tokens come from");
      throw refusal("OAuth bearer", user);
    case "bearer_refused":
      log.info({ peer, user, reason: outcome.reason }, "login refused");
      throw refusal("OAuth bearer", user);
    default: {
      // Only now, when the exchange has run in full: a locked name is refused as a wrong password is.
      const barrier = loginGuard.refusalFor(user, address);
      if (barrier === undefined && outcome.kind === "accepted") {
        const { identity, finalMessage } = outcome;
        return { identity, credential: "password", finalMessage, isRecorded: false };
      }
      const reason = barrier ?? (outcome.kind === "refused" ? outcome.reason : "locked");
      log.info({ peer, user, reason }, "login refused");
      loginGuard.recordFailure(user, address, reason);
      throw refusal("password", user);
    }
  }
}

/**
 * A token is offered where nobody else can read it. For users that can have nothing else it is all that is offered: libpq
 * takes the first mechanism of the list that it knows, and would ask for a password.
 */
function bearerOffer(
  { startup: { user }, tls }: Greeting,
  { address, sessionId }: LoginAttempt,
  bearer: BearerLogins | undefined,
): BearerOffer | undefined {
  if (bearer === undefined || (tls === undefined && !isLoopback(address))) return undefined;
  return {
    isOnly: user.startsWith(externalRolePrefix),
    errorResponse: bearerErrorResponse(bearer.issuerOf(user)),
    // The database is looked at when it is known whose default may be meant.
    authenticate: (token) =>
      bearer.authenticator.authenticate(token, { address, database: undefined, sessionId, user }),
  };
}

function isLoopback(address: string): boolean {
  const plain = address.replace(/^::ffff:/i, "");
  return (isIPv4(plain) && plain.startsWith("127.")) || (isIPv6(plain) && plain === "::1");
}

/** In PostgreSQL's words and with its codes, the same whatever the reason. */
export function refusal(credential: CredentialKind, user: string): SqlError {
  const condition = credential === "password" ? "invalid_password" : "invalid_authorization_specification";
  return new SqlError(condition, `${credential} authentication failed for user "${user}"`, {
    severity: "FATAL",
  });
}
