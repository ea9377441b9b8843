/** What a statement says of an OIDC provider, checked: URLs, audience, algorithms, tenant, claim mapping. */

import { providerUrlMistake } from "../auth/token-provider.ts";
import type { ClaimMappingRule, OidcProviderSettings } from "../catalog/oidc-providers.ts";
import { findCustomRole } from "../catalog/roles.ts";
import type { ClaimRule, OidcProviderOptions, TextValue } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import { denied, resolveGrantableRoles } from "./authorize.ts";
import { tenantFor } from "./create-user.ts";
import { resolveDatabases } from "./named-databases.ts";
import type { StatementScope } from "./run-statement.ts";

/**
 * Signatures that are accepted. Not `none`, and no HMAC: its key would be the client's secret, or, where a library mistakes
 * a public key for it, known to everybody (RFC 8725 section 2.1).
 */
export const allowedAlgorithms: readonly string[] = [
  "ES256",
  "ES384",
  "ES512",
  "RS256",
  "RS384",
  "RS512",
  "EdDSA",
];

/**
 * Checks what is mentioned and takes the rest from `before`.
 *
 * @throws SqlError invalid_parameter_value, undefined_object, invalid_catalog_name, insufficient_privilege
 */
export async function checkSettings(
  scope: StatementScope,
  options: OidcProviderOptions,
  before: OidcProviderSettings | undefined,
): Promise<OidcProviderSettings> {
  const issuer = options.issuer === undefined ? before?.issuer : checkUrl("issuer", options.issuer);
  if (issuer === undefined) {
    throw new SqlError("invalid_parameter_value", "an OIDC provider needs an issuer");
  }
  const tenantId =
    options.tenant === undefined && before !== undefined
      ? before.tenantId
      : await tenantFor(scope, options.tenant);
  const { jwksUrl, audience, algorithms, claimMapping } = options;
  return {
    issuer,
    jwksUrl: jwksUrl === undefined ? before?.jwksUrl : checkUrl("jwks_url", jwksUrl),
    audience: audience === undefined ? before?.audience : notEmpty("audience", audience),
    tenantId,
    algorithms: algorithms === undefined ? before?.algorithms : checkAlgorithms(algorithms),
    claimMapping:
      claimMapping === undefined
        ? (before?.claimMapping ?? [])
        : await checkRules(scope, claimMapping, tenantId),
  };
}

function notEmpty(option: string, { value, position }: TextValue): string {
  if (value !== "" && !value.includes("\0")) return value;
  throw new SqlError("invalid_parameter_value", `${option} must not be empty`, { position });
}

function checkUrl(option: "issuer" | "jwks_url", text: TextValue): string {
  const { value, position } = text;
  const mistake = providerUrlMistake(option, notEmpty(option, text));
  if (mistake === undefined) return value;
  throw new SqlError("invalid_parameter_value", `${option} ${mistake}`, { position });
}

function checkAlgorithms(algorithms: readonly TextValue[]): readonly string[] {
  if (algorithms.length === 0) {
    throw new SqlError("invalid_parameter_value", "the list of algorithms must not be empty");
  }
  for (const { value, position } of algorithms) {
    if (allowedAlgorithms.includes(value)) continue;
    throw new SqlError("invalid_parameter_value", `algorithm "${value}" is not allowed`, {
      position,
      hint: `Allowed are ${allowedAlgorithms.join(", ")}.`,
    });
  }
  return [...new Set(algorithms.map((algorithm) => algorithm.value))];
}

async function checkRules(
  scope: StatementScope,
  rules: readonly ClaimRule[],
  tenantId: number,
): Promise<ClaimMappingRule[]> {
  const checked: ClaimMappingRule[] = [];
  for (const rule of rules) {
    const { claim, value, defaultDatabase, addDatabases, addRoles, position } = rule;
    if (claim === "") {
      throw new SqlError("invalid_parameter_value", "a claim must have a name", { position });
    }
    const { client, caller } = scope;
    const roles =
      addRoles.length === 0 ? [] : await resolveGrantableRoles(client, caller, addRoles, tenantId);
    for (const role of roles) {
      const custom = await findCustomRole(client, role);
      // Who administers a provider would be superuser here; such a one is made by name, never by a claim.
      if (!(custom?.effectiveRoles ?? [role]).includes("superuser")) continue;
      throw denied("a claim cannot give the role superuser");
    }
    checked.push({
      claim,
      value,
      defaultDatabase:
        defaultDatabase === undefined ? undefined : (await resolveDatabases(client, [defaultDatabase]))[0],
      addDatabases: addDatabases.length === 0 ? [] : await resolveDatabases(client, addDatabases),
      addRoles: roles,
    });
  }
  return checked;
}
