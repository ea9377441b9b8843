/** A client certificate that TLS has verified, to the identity of the principal that it names. */

import type { X509Certificate } from "node:crypto";
import type { PrincipalCache } from "../catalog/cache.ts";
import { type CertificateIdentity, certificateId, principalNameIn } from "./certificate-fields.ts";
import type { Identity, RefusalReason } from "./identity.ts";
import { identityOf, loginRefusal } from "./password.ts";

export interface CertificatePolicy {
  /** Which part of a certificate names the principal. */
  readonly identity: CertificateIdentity;
  /** Whether a list that has come since the handshake revokes it. @param id see `certificateId` */
  readonly isRevoked: (id: string) => boolean;
}

export type CertificateOutcome =
  | { readonly ok: true; readonly identity: Identity }
  | { readonly ok: false; readonly reason: RefusalReason };

/**
 * Who logs in with this certificate. A refusal is final: no other credential is asked for in its place.
 *
 * The handshake has verified the chain, the purpose and the revocation; a connection may be older than the end of all three,
 * so that lifetime and revocation are looked at again.
 *
 * @param user whom the client claims to be, where its protocol has it say so; must be the name in the certificate
 */
export function authenticateCertificate(
  cache: Pick<PrincipalCache, "findByName">,
  policy: CertificatePolicy,
  certificate: X509Certificate,
  now: Date,
  user?: string,
): CertificateOutcome {
  const id = certificateId(certificate.raw);
  const name = principalNameIn(certificate.raw, policy.identity);
  if (id === undefined || name === undefined) return refused("certificate_without_name");
  if (user !== undefined && user !== name) return refused("certificate_of_another");
  const validTo = new Date(certificate.validTo);
  if (!(validTo > now) || !(new Date(certificate.validFrom) <= now)) return refused("certificate_expired");
  if (policy.isRevoked(id)) return refused("certificate_revoked");
  const record = cache.findByName(name);
  if (record === undefined) return refused("unknown_user");
  // A key is its own credential: it can be revoked, and a certificate of its name would outlive that.
  if (record.kind !== "user" && record.kind !== "service_account") return refused("certificate_of_no_user");
  const reason = loginRefusal(record, now);
  if (reason !== undefined) return refused(reason);
  const identity = identityOf(record, "certificate");
  const { expiresAt } = identity;
  return {
    ok: true,
    identity: {
      ...identity,
      certificateId: id,
      expiresAt: expiresAt !== undefined && expiresAt < validTo ? expiresAt : validTo,
    },
  };
}

function refused(reason: RefusalReason): CertificateOutcome {
  return { ok: false, reason };
}
