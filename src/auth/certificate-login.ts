/** The identity of a connection's client certificate, for each request on it. */

import type { X509Certificate } from "node:crypto";
import type { PrincipalCache } from "../catalog/cache.ts";
import { authenticateCertificate, type CertificateOutcome, type CertificatePolicy } from "./certificate.ts";
import { requireDatabase } from "./effective-databases.ts";
import type { Identity } from "./identity.ts";
import type { LoginGuard } from "./login-guard.ts";

export interface CertificateLoginOptions {
  readonly cache: Pick<PrincipalCache, "findByName">;
  readonly guard: Pick<
    LoginGuard,
    "bearerRefusalFor" | "recordCertificateFailure" | "recordBearerSuccess" | "recordDatabaseDenied"
  >;
  /** Told of each use, for last_login_at. */
  readonly recordLogin: (identity: Identity) => void;
  /** Of this moment; undefined when client certificates are not taken any more. */
  readonly policy: () => CertificatePolicy | undefined;
  readonly now?: () => Date;
}

/**
 * Counts and audits both outcomes.
 *
 * @param certificate what the handshake has verified
 * @param database that the client has asked for; undefined: the identity's default, and without one the caller's to check
 * @throws SqlError insufficient_privilege with DATABASE_NOT_AUTHORIZED when the certificate is good and not for this database
 */
export type CertificateLogin = (
  certificate: X509Certificate,
  address: string,
  database: string | undefined,
) => CertificateOutcome;

/** Lifetime, revocation and principal are looked at for each request: the connection may be older than the end of all three. */
export function createCertificateLogin(options: CertificateLoginOptions): CertificateLogin {
  const { cache, guard, recordLogin } = options;
  const now = options.now ?? (() => new Date());
  const verify = (certificate: X509Certificate, address: string): CertificateOutcome => {
    const barrier = guard.bearerRefusalFor(address);
    if (barrier !== undefined) return { ok: false, reason: barrier };
    const policy = options.policy();
    if (policy === undefined) return { ok: false, reason: "certificate_refused" };
    return authenticateCertificate(cache, policy, certificate, now());
  };
  return (certificate, address, database) => {
    const outcome = verify(certificate, address);
    if (!outcome.ok) {
      guard.recordCertificateFailure(address, outcome.reason);
      return outcome;
    }
    const { identity } = outcome;
    guard.recordBearerSuccess(address, identity, undefined);
    recordLogin(identity);
    const wanted = database ?? identity.defaultDatabase;
    if (wanted !== undefined) {
      try {
        requireDatabase(identity.databases, wanted);
      } catch (error) {
        guard.recordDatabaseDenied(address, identity, wanted, undefined);
        throw error;
      }
    }
    return outcome;
  };
}
