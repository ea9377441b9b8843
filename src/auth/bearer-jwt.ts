/** A token of an OIDC provider, to the identity of whom it speaks of. */

import type { PrincipalRecord } from "../catalog/users.ts";
import type { BearerOutcome } from "./bearer-outcome.ts";
import { applyClaimMapping, type MappedAccess, type TokenPayload } from "./claim-mapping.ts";
import { type TokenVerification, verifyToken } from "./jwt.ts";
import { identityOf, loginRefusal } from "./password.ts";
import { type ClaimNames, claimsOfToken } from "./token-claims.ts";
import type { TokenProvider } from "./token-provider.ts";

/** Somebody whom a provider vouches for. */
export interface ExternalSubject {
  readonly provider: TokenProvider;
  readonly subject: string;
  /** By the provider's mapping. */
  readonly access: MappedAccess;
}

export interface TokenOptions {
  readonly providers: () => readonly TokenProvider[];
  readonly findKey: TokenVerification["findKey"];
  readonly clockSkewMs: number;
  readonly claimNames: ClaimNames;
  /**
   * The principal of a subject, made at its first login, with what the mapping gives it now.
   *
   * @returns undefined when the provider has been dropped meanwhile
   */
  readonly resolve: (subject: ExternalSubject) => Promise<PrincipalRecord | undefined>;
}

/** @throws SqlError cannot_connect_now when the catalog is needed and not there */
export async function authenticateToken(
  options: TokenOptions,
  token: string,
  now: Date,
): Promise<BearerOutcome> {
  const { findKey, clockSkewMs, claimNames, resolve } = options;
  const verified = await verifyToken(token, { providers: options.providers(), findKey, clockSkewMs, now });
  if (!verified.ok) return verified;
  const { provider, subject, payload, expiresAt } = verified;
  const refuse = (reason: Extract<BearerOutcome, { ok: false }>["reason"]): BearerOutcome => ({
    ok: false,
    reason,
    provider: provider.name,
  });
  const claims = claimsOfToken(payload, claimNames);
  if (claims === undefined) return refuse("unusable_claims");
  const record = await resolve({ provider, subject, access: accessOf(provider, payload) });
  if (record === undefined) return refuse("provider_dropped");
  const reason = loginRefusal(record, now);
  if (reason !== undefined) return refuse(reason);
  const identity = identityOf(record, "jwt");
  const ends = identity.expiresAt;
  return {
    ok: true,
    provider: provider.name,
    identity: {
      ...identity,
      // What the catalog says last: no claim takes its place.
      claims: {
        ...identity.claims,
        ...claims,
        roles: record.roles,
        tenant_id: record.tenantId,
      },
      expiresAt: ends !== undefined && ends < expiresAt ? ends : expiresAt,
    },
  };
}

/** Where there is no mapping, the roles that all of the provider's have; where there is one, it decides alone. */
function accessOf({ claimMapping, defaultRoles }: TokenProvider, payload: TokenPayload): MappedAccess {
  if (claimMapping.length === 0) return { defaultDatabase: undefined, databases: [], roles: defaultRoles };
  return applyClaimMapping(claimMapping, payload);
}
