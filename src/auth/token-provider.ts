/** Who issues tokens that are accepted, and which provider a token is of: by its issuer and audience, before anything else. */

import type { KeyObject } from "node:crypto";
import type { ClaimMappingRule, OidcProviderRecord } from "../catalog/oidc-providers.ts";
import type { ConfiguredProvider } from "../config/config.ts";
import type { RefusalReason } from "./identity.ts";

/** For those above, who may not know the configuration's folder. */
export { providerUrlMistake } from "../config/provider-url.ts";

/** What checks a provider's signatures. */
export type ProviderKeys =
  /** A JWK set at a URL; undefined: where the discovery document says. */
  | { readonly kind: "jwks"; readonly url: string | undefined }
  | { readonly kind: "public_key"; readonly key: KeyObject }
  /** Of HMAC; never with a provider that signs with a key pair. */
  | { readonly kind: "secret"; readonly key: KeyObject };

/** A provider of the catalog or of the configuration. */
export interface TokenProvider {
  readonly name: string;
  readonly source: "catalog" | "configuration";
  readonly issuer: string;
  /** undefined: any. */
  readonly audience: string | undefined;
  /** Of everybody whom it vouches for, whatever a token says. */
  readonly tenantId: number;
  readonly algorithms: readonly string[];
  readonly keys: ProviderKeys;
  readonly claimMapping: readonly ClaimMappingRule[];
  /** Held where there is no mapping. */
  readonly defaultRoles: readonly string[];
  /** When the keys were last asked to be fetched again. */
  readonly refreshRequestedAt: Date | undefined;
}

/**
 * Held by those whose provider has no mapping: enough to look, and nothing that a stranger with an account at the provider could
 * break.
 */
const rolesWithoutMapping = ["readonly"];

/**
 * Those of the catalog and those of the configuration. An algorithm that CREATE OIDC PROVIDER names is allowed by that.
 *
 * @param allowedAlgorithms where none is named
 */
export function providersOf(
  records: readonly OidcProviderRecord[],
  configured: readonly ConfiguredProvider[],
  allowedAlgorithms: readonly string[],
): readonly TokenProvider[] {
  return [
    ...records.map(
      (record): TokenProvider => ({
        name: record.name,
        source: "catalog",
        issuer: record.issuer,
        audience: record.audience,
        tenantId: record.tenantId,
        algorithms: record.algorithms ?? allowedAlgorithms,
        keys: { kind: "jwks", url: record.jwksUrl },
        claimMapping: record.claimMapping,
        defaultRoles: rolesWithoutMapping,
        refreshRequestedAt: record.jwksRefreshRequestedAt,
      }),
    ),
    ...configured.map(
      ({ roles, ...provider }): TokenProvider => ({
        ...provider,
        source: "configuration",
        claimMapping: [],
        defaultRoles: roles,
        refreshRequestedAt: undefined,
      }),
    ),
  ];
}

export type ProviderChoice =
  | { readonly ok: true; readonly provider: TokenProvider }
  | {
      readonly ok: false;
      readonly reason: Extract<RefusalReason, "unknown_provider" | "ambiguous_provider">;
    };

/**
 * The provider of a token: exactly its issuer, and one of its audiences. A token for the audiences of two providers is
 * refused: they may be of different tenants.
 */
export function chooseProvider(
  providers: readonly TokenProvider[],
  issuer: string,
  audiences: readonly string[],
): ProviderChoice {
  const matching = providers.filter(
    (provider) =>
      provider.issuer === issuer &&
      (provider.audience === undefined || audiences.includes(provider.audience)),
  );
  const [provider, other] = matching;
  if (provider === undefined) return { ok: false, reason: "unknown_provider" };
  return other === undefined ? { ok: true, provider } : { ok: false, reason: "ambiguous_provider" };
}
