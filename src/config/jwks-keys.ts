/** Keys of [auth.jwks]: whose tokens are accepted, and how their keys are kept. */

import { type ConfigKey, duration } from "./config-key.ts";

/** Of key pairs. Not `none`, and no HMAC: only a provider that has a secret takes those (RFC 8725 section 2.1). */
const signatureAlgorithms = ["ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "EdDSA"] as const;

export const jwksKeys = [
  {
    key: "auth.jwks.providers",
    alias: "auth.jwt.providers",
    type: {
      kind: "tables",
      of: "issuer, audience, and optionally name, jwks_url, tenant_id, roles, jwt_secret_file, public_key_file",
    },
    defaultDoc: "none",
    example: [{ issuer: "https://id.example.com/", audience: "nodedb-api" }],
    doc: 'Issuers of tokens, beside those of CREATE OIDC PROVIDER. Without jwks_url the keys are found by discovery; with public_key_file (PEM) or jwt_secret_file (HS256, HS384, HS512 by the secret\'s length: 32, 48, 64 bytes) there is one. Their users are of tenant_id (default 1) and hold roles (default ["readonly"]).',
    live: true,
  },
  {
    key: "auth.jwks.allowed_algorithms",
    alias: "auth.jwt.allowed_algorithms",
    type: { kind: "choices", choices: signatureAlgorithms },
    default: ["ES256", "ES384", "RS256"],
    doc: "Signatures that tokens may have, where CREATE OIDC PROVIDER does not name others.",
    live: true,
  },
  {
    key: "auth.jwks.clock_skew",
    alias: "auth.jwt.clock_skew",
    type: duration(0),
    default: "60s",
    doc: "How far the clocks of an issuer and of this machine may be apart.",
    live: true,
  },
  {
    key: "auth.jwks.refresh",
    alias: "auth.jwt.refresh",
    type: duration(1000),
    default: "1h",
    doc: "Age at which an issuer's keys are fetched again, in the background.",
    live: false,
  },
  {
    key: "auth.jwks.min_refetch",
    alias: "auth.jwt.min_refetch",
    type: duration(0),
    default: "30s",
    doc: "Least time between two fetches, also for a token whose key is not known; it doubles with each failure, up to sixteen times.",
    live: false,
  },
  {
    key: "auth.jwks.max_stale",
    alias: "auth.jwt.max_stale",
    type: duration(1000),
    default: "24h",
    doc: "How long keys are used while they cannot be fetched again, a restart included; then tokens are refused.",
    live: false,
  },
  {
    key: "auth.jwks.allow_private",
    alias: "auth.jwt.allow_private",
    type: { kind: "boolean" },
    default: false,
    doc: "Whether issuers may be asked at private and link-local addresses. A URL of localhost or of a loopback address always may.",
    live: false,
  },
  {
    key: "auth.jwks.claims",
    alias: "auth.jwt.claims",
    type: { kind: "map", of: "claims, or dotted paths to them" },
    default: { id: "sub", role: "role", org_id: "org_id", scopes: "scope" },
    doc: "What $auth.… reads of a token, each name with its claim. What is given is added to the default. roles and tenant_id are never a token's to say.",
    live: false,
  },
] as const satisfies readonly ConfigKey[];
