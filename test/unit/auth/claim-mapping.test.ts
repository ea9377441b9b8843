/** The rules of a claim mapping: which match, and what they give together. */

import { describe, expect, it } from "vitest";
import { applyClaimMapping, type TokenPayload } from "../../../src/auth/claim-mapping.ts";
import type { ClaimMappingRule } from "../../../src/catalog/oidc-providers.ts";

function rule(claim: string, value: string | null, effect: Partial<ClaimMappingRule> = {}): ClaimMappingRule {
  return { claim, value, defaultDatabase: undefined, addDatabases: [], addRoles: ["hit"], ...effect };
}

function matches(claim: string, value: string | null, claims: TokenPayload): boolean {
  return applyClaimMapping([rule(claim, value)], claims).roles.length === 1;
}

describe("a claim mapping", () => {
  it("gives nothing without rules, and nothing for claims that no rule names", () => {
    const nothing = { defaultDatabase: undefined, databases: [], roles: [] };
    expect(applyClaimMapping([], { groups: "eng" })).toEqual(nothing);
    expect(applyClaimMapping([rule("groups", "eng")], {})).toEqual(nothing);
  });

  it("takes the first default database, and collects databases and roles once each in the order of the rules", () => {
    const rules = [
      rule("a", "1", { addDatabases: ["x"], addRoles: ["readonly"] }),
      rule("a", "no", { defaultDatabase: "never", addDatabases: ["never"], addRoles: ["never"] }),
      rule("b", null, { defaultDatabase: "first", addDatabases: ["y", "x"], addRoles: [] }),
      rule("b", "2", { defaultDatabase: "second", addDatabases: ["z"], addRoles: ["admin", "readonly"] }),
    ];
    expect(applyClaimMapping(rules, { a: "1", b: "2" })).toEqual({
      defaultDatabase: "first",
      databases: ["x", "y", "z"],
      roles: ["readonly", "admin"],
    });
  });

  it.each<[string, string | null, TokenPayload, boolean]>([
    ["groups", "eng", { groups: "eng" }, true],
    ["groups", "eng", { groups: "Eng" }, false],
    ["groups", "eng", { groups: "eng " }, false],
    ["groups", "eng", { groups: "engineering" }, false],
    ["Groups", "eng", { groups: "eng" }, false],
    ["groups", "", { groups: "" }, true],
    // Other JSON values compare by their text; objects equal nothing.
    ["level", "3", { level: 3 }, true],
    ["level", "3", { level: 3.5 }, false],
    ["email_verified", "true", { email_verified: true }, true],
    ["groups", "null", { groups: null }, false],
    ["groups", "undefined", {}, false],
    ["groups", "[object Object]", { groups: {} }, false],
    // An array matches if any element does.
    ["groups", "eng", { groups: ["ops", "eng"] }, true],
    ["groups", "eng", { groups: ["ops"] }, false],
    ["groups", "ops,eng", { groups: ["ops", "eng"] }, false],
    ["groups", "eng", { groups: [] }, false],
    ["groups", "eng", { groups: [["eng"]] }, false],
    ["groups", "2", { groups: [1, 2] }, true],
  ])("with %s = %j on %j matches: %j", (claim, value, claims, expected) => {
    expect(matches(claim, value, claims)).toBe(expected);
  });

  it.each<[TokenPayload, boolean]>([
    [{ groups: "eng" }, true],
    [{ groups: 0 }, true],
    [{ groups: false }, true],
    [{ groups: ["", "eng"] }, true],
    [{ groups: { a: 1 } }, true],
    [{}, false],
    [{ groups: undefined }, false],
    [{ groups: null }, false],
    [{ groups: "" }, false],
    [{ groups: [] }, false],
    [{ groups: ["", null] }, false],
    [{ groups: {} }, false],
  ])("null and '*' match any value that is not empty: %j %j", (claims, expected) => {
    expect(matches("groups", null, claims)).toBe(expected);
    expect(matches("groups", "*", claims)).toBe(expected);
  });

  it.each<[string, TokenPayload, boolean]>([
    ["realm_access.roles", { realm_access: { roles: ["v"] } }, true],
    ["realm_access.roles", { "realm_access.roles": "v" }, true],
    // The literal key comes first, whatever it holds.
    ["realm_access.roles", { "realm_access.roles": "w", realm_access: { roles: ["v"] } }, false],
    ["https://example.com/groups", { "https://example.com/groups": ["v"] }, true],
    ["a.b.c", { a: { b: { c: "v" } } }, true],
    ["a.b.c", { a: { b: "v" } }, false],
    ["a.b", { a: ["v"] }, false],
    ["a.0", { a: ["v"] }, false],
    ["a.", { a: "v" }, false],
    ["a.b", { a: null }, false],
    ["a.length", { a: "v" }, false],
  ])("finds %s in %j: %j", (claim, claims, expected) => {
    expect(matches(claim, "v", claims)).toBe(expected);
  });

  it("looks at own properties only", () => {
    for (const claim of ["constructor", "__proto__", "toString", "a.constructor.name", "constructor.name"]) {
      expect(matches(claim, null, { a: {} })).toBe(false);
    }
    expect(matches("a.b", "v", JSON.parse('{"__proto__": {"a": {"b": "v"}}}'))).toBe(false);
  });
});
