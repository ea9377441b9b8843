/** Which sessions go on after the catalog has changed under them. */

import { describe, expect, it } from "vitest";
import { mayStay } from "../../../src/auth/live-session.ts";
import { identityOf } from "../../../src/auth/password.ts";
import type { ApiKeyRecord } from "../../../src/catalog/api-keys.ts";
import type { PrincipalRecord } from "../../../src/catalog/users.ts";
import { makeApiKeyRecord, makePrincipal } from "../../support/principals.ts";

const now = new Date("2026-01-01T00:00:00Z");
const account: PrincipalRecord = makePrincipal({ databases: ["a", "b"] });
const key: ApiKeyRecord = makeApiKeyRecord();

function stays(record: PrincipalRecord | undefined, keys: readonly ApiKeyRecord[], database = "a"): boolean {
  const cache = { findById: (id: number) => (id === 5 ? record : undefined), keysOf: () => keys };
  return mayStay(cache, { identity: identityOf(account, "scram-sha-256", key), database }, now);
}

describe("a live session", () => {
  it("stays while nothing has changed", () => {
    expect(stays(account, [key])).toBe(true);
    expect(stays({ ...account, kind: "user", databases: undefined }, [key], "anything")).toBe(true);
  });

  it("ends with its principal", () => {
    expect(stays(undefined, [key])).toBe(false);
    expect(stays({ ...account, canLogin: false }, [key])).toBe(false);
    expect(stays({ ...account, validUntil: now }, [key])).toBe(false);
  });

  it("ends with its key", () => {
    expect(stays(account, [])).toBe(false);
    expect(stays(account, [{ ...key, keyId: "another22222" }])).toBe(false);
    expect(stays(account, [{ ...key, isRevoked: true }])).toBe(false);
    expect(stays(account, [{ ...key, expiresAt: now }])).toBe(false);
  });

  it("ends with a certificate or a token that has expired, whatever the catalog says", () => {
    const cache = { findById: () => account, keysOf: () => [] };
    const later = new Date(now.getTime() + 1);
    for (const method of ["certificate", "jwt"] as const) {
      const session = (expiresAt: Date) => ({
        identity: { ...identityOf(account, method), expiresAt },
        database: "a",
      });
      expect(mayStay(cache, session(later), now)).toBe(true);
      expect(mayStay(cache, session(now), now)).toBe(false);
    }
    const prolonged = { ...identityOf(account, "scram-sha-256"), expiresAt: now };
    expect(mayStay(cache, { identity: prolonged, database: "a" }, now)).toBe(true);
  });

  it("ends with its database, whether the account or the key has lost it", () => {
    expect(stays({ ...account, databases: ["b"] }, [key])).toBe(false);
    expect(stays(account, [{ ...key, databases: ["b"] }])).toBe(false);
    expect(stays(account, [{ ...key, databases: ["a"] }])).toBe(true);
    expect(stays(account, [key], "c")).toBe(false);
  });
});
