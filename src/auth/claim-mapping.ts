/** From the claims of a token to databases and roles, by the rules of its provider (auth SQL contract: OIDC providers). */

import type { ClaimMappingRule } from "../catalog/oidc-providers.ts";

/** What the rules that match give, all together. */
export interface MappedAccess {
  /** Of the first matching rule that has one. */
  readonly defaultDatabase: string | undefined;
  /** In the order of the rules, each once. */
  readonly databases: readonly string[];
  readonly roles: readonly string[];
}

/** A verified token's claims. */
export type TokenPayload = Readonly<Record<string, unknown>>;

/** Applies the rules in their order. */
export function applyClaimMapping(rules: readonly ClaimMappingRule[], claims: TokenPayload): MappedAccess {
  const matching = rules.filter((rule) => isMatch(rule, claims));
  return {
    defaultDatabase: matching.find((rule) => rule.defaultDatabase !== undefined)?.defaultDatabase,
    databases: [...new Set(matching.flatMap((rule) => rule.addDatabases))],
    roles: [...new Set(matching.flatMap((rule) => rule.addRoles))],
  };
}

function isMatch(rule: ClaimMappingRule, claims: TokenPayload): boolean {
  const claim = findClaim(claims, rule.claim);
  // An array of arrays is not looked into: what it means is nobody's convention.
  const values: readonly unknown[] = Array.isArray(claim) ? claim : [claim];
  const { value } = rule;
  if (value === null || value === "*") return values.some((candidate) => !isEmpty(candidate));
  return values.some((candidate) => textOf(candidate) === value);
}

/**
 * A dotted name is a literal key where there is such a key (`https://example.com/groups`), else a path through objects
 * (`realm_access.roles`).
 */
export function findClaim(claims: TokenPayload, name: string): unknown {
  if (Object.hasOwn(claims, name)) return claims[name];
  let found: unknown = claims;
  for (const step of name.split(".")) {
    if (!isObject(found) || !Object.hasOwn(found, step)) return undefined;
    found = found[step];
  }
  return found;
}

/** Numbers and booleans compare by their JSON text; anything else that is no string equals nothing. */
function textOf(value: unknown): string | undefined {
  switch (typeof value) {
    case "string":
      return value;
    case "number":
    case "boolean":
      return String(value);
    default:
      return undefined;
  }
}

function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null || value === "") return true;
  if (Array.isArray(value)) return value.length === 0;
  return isObject(value) && Object.keys(value).length === 0;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
