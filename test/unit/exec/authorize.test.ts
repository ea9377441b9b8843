/** The order of built-in roles and the gates that follow from it. */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { PrincipalRecord } from "../../../src/catalog/users.ts";
import { SqlError } from "../../../src/errors/sql-error.ts";
import {
  grantableRoles,
  highestRank,
  maySee,
  requireAdmin,
  requireNotAbove,
} from "../../../src/exec/authorize.ts";
import { builtInRoles, rankOf } from "../../../src/upstream/built-in-groups.ts";

function user(roles: readonly string[], tenantId = 1): PrincipalRecord {
  return {
    id: 1,
    kind: "user",
    name: "u",
    tenantId,
    scramVerifier: undefined,
    canLogin: true,
    validUntil: undefined,
    connectionLimit: -1,
    defaultDatabase: undefined,
    roleVersion: 1,
    roles,
    effectiveRoles: roles,
    databases: undefined,
  };
}

function names(...texts: string[]) {
  return texts.map((text, index) => ({ text, position: index + 1 }));
}

function isRefused(work: () => unknown): boolean {
  try {
    work();
    return false;
  } catch (error) {
    return error instanceof SqlError && error.sqlstate === "42501";
  }
}

const anyRoles = fc.subarray([...builtInRoles]);

describe("gates", () => {
  it("admin, tenant_admin and superuser are admins; custom roles and no role are not", () => {
    const allowed = [...builtInRoles, "custom"].filter(
      (role) => !isRefused(() => requireAdmin(user([role]), "x")),
    );
    expect(allowed).toEqual(["admin", "tenant_admin", "superuser"]);
    expect(isRefused(() => requireAdmin(user([]), "x"))).toBe(true);
  });

  it("nobody grants a role above the own highest", () => {
    fc.assert(
      fc.property(anyRoles, fc.subarray([...builtInRoles], { minLength: 1 }), (own, granted) => {
        const isAbove = granted.some((role) => rankOf(role) > highestRank(own));
        expect(isRefused(() => grantableRoles(user(own), names(...granted)))).toBe(isAbove);
      }),
    );
  });

  it("nobody touches a user with a role above the own highest", () => {
    fc.assert(
      fc.property(anyRoles, anyRoles, (own, theirs) => {
        expect(isRefused(() => requireNotAbove(user(own), user(theirs), "x"))).toBe(
          highestRank(theirs) > highestRank(own),
        );
      }),
    );
  });

  it("only superusers see other tenants", () => {
    for (const role of builtInRoles) {
      expect(maySee(user([role], 1), user(["readonly"], 2))).toBe(role === "superuser");
      expect(maySee(user([role], 1), user(["superuser"], 1))).toBe(true);
    }
  });

  it("an unknown role is named with its place, and one that is named twice is granted once", () => {
    expect(() => grantableRoles(user(["superuser"]), names("readonly", "pilot"))).toThrow(
      expect.objectContaining({ sqlstate: "42704", position: 2, message: 'role "pilot" does not exist' }),
    );
    expect(grantableRoles(user(["admin"]), names("admin", "readonly", "admin"))).toEqual([
      "admin",
      "readonly",
    ]);
  });
});
