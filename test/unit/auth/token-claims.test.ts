/** What $auth reads of a token, whatever the token calls its claims. */

import { describe, expect, it } from "vitest";
import { claimsOfToken, maxClaimsBytes } from "../../../src/auth/token-claims.ts";

const names = { id: "sub", role: "role", org_id: "org_id", scopes: "scope" };
const read = (payload: object, more: object = {}) =>
  claimsOfToken(JSON.parse(JSON.stringify({ sub: "erika", ...payload })), { ...names, ...more });

describe("claims of a token", () => {
  it("are those with a configured name, at a literal key or a path", () => {
    expect(
      read(
        { org_id: "o", app: { plan: "gold" }, "https://example.com/team": "red", more: "unread" },
        { plan: "app.plan", team: "https://example.com/team", absent: "app.plan.x" },
      ),
    ).toEqual({ id: "erika", org_id: "o", plan: "gold", team: "red" });
  });

  it.each<[unknown, unknown]>([
    ["a b", ["a", "b"]],
    [" a  b ", ["a", "b"]],
    [
      ["a", 1, "", "b"],
      ["a", "b"],
    ],
    ["", []],
    [7, []],
  ])("have the scopes %j as %j", (scope, scopes) => {
    expect(read({ scope })).toEqual({ id: "erika", scopes });
  });

  it("have no e-mail address that nobody has verified", () => {
    expect(read({ email: "e@example.com", email_verified: true })).toMatchObject({ email: "e@example.com" });
    for (const verified of [undefined, false, "true", 1]) {
      expect(read({ email: "e@example.com", email_verified: verified })).not.toHaveProperty("email");
    }
  });

  it("never say superuser, nor what the catalog says", () => {
    expect(read({ role: "superuser" })).not.toHaveProperty("role");
    const reserved = { roles: "roles", tenant_id: "tenant_id" };
    expect(read({ roles: ["admin"], tenant_id: 0, is_superuser: true, superuser: true }, reserved)).toEqual({
      id: "erika",
    });
  });

  it("with the names that every object has are claims like others, or none", () => {
    const token = JSON.parse('{"sub":"erika","__proto__":{"org_id":"mine","id":"otto"},"constructor":"c"}');
    expect(claimsOfToken(token, names)).toEqual({ id: "erika" });
    const claims = claimsOfToken(token, { ...names, ["__proto__"]: "__proto__", constructor: "constructor" });
    expect(claims?.org_id).toBeUndefined();
    expect(Object.keys(claims ?? {}).sort()).toEqual(["__proto__", "constructor", "id"]);
    // What objects inherit is no claim of a token.
    expect(
      claimsOfToken({ sub: "erika" }, { ...names, made: "constructor", by: "__proto__.toString" }),
    ).toEqual({
      id: "erika",
    });
  });

  it.each<[string, object]>([
    ["no id", { sub: undefined }],
    ["an empty id", { sub: "" }],
    ["an id that is a number", { sub: 7 }],
    ["NUL", { org_id: "a\0b" }],
    ["NUL in a name", { org_id: { "a\0b": 1 } }],
    ["half a character", { org_id: "a\ud83d" }],
    ["more than is sent to PostgreSQL", { org_id: "x".repeat(maxClaimsBytes) }],
  ])("cannot be used with %s", (_, payload) => {
    expect(read(payload)).toBeUndefined();
  });

  it("may hold what only looks like a NUL", () => {
    expect(read({ org_id: "\\u0000" })).toMatchObject({ org_id: "\\u0000" });
  });
});
