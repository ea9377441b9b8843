/** The identity of a principal, and what is stored of a password. */

import { describe, expect, it } from "vitest";
import { makeVerifier } from "../../../src/auth/new-password.ts";
import { identityOf } from "../../../src/auth/password.ts";
import type { ApiKeyRecord } from "../../../src/catalog/api-keys.ts";
import type { PrincipalRecord } from "../../../src/catalog/users.ts";
import { createScramVerifierSync, formatScramVerifier } from "../../../src/scram/verifier.ts";
import { makeApiKeyRecord, makePrincipal } from "../../support/principals.ts";

const now = new Date("2030-01-01T00:00:00Z");
const verifier = createScramVerifierSync("long enough", { iterations: 4096, salt: Buffer.alloc(16, 3) });
const alice: PrincipalRecord = makePrincipal({
  kind: "user",
  name: "alice",
  scramVerifier: formatScramVerifier(verifier),
  connectionLimit: 4,
  defaultDatabase: "app",
  roleVersion: 2,
  roles: ["readwrite", "superuser"],
  effectiveRoles: ["readwrite", "superuser"],
});

describe("the identity of a principal", () => {
  it("is made from the catalog's record", () => {
    expect(identityOf(alice, "scram-sha-256-plus")).toEqual({
      principal: { id: 5, kind: "user", name: "alice" },
      role: "alice",
      roleVersion: 2,
      tenantId: 1,
      roles: ["readwrite", "superuser"],
      effectiveRoles: ["readwrite", "superuser"],
      isSuperuser: true,
      defaultDatabase: "app",
      databases: undefined,
      connectionLimit: 4,
      method: "scram-sha-256-plus",
      claims: { id: "alice", role: "superuser", roles: ["readwrite", "superuser"], tenant_id: 1 },
      expiresAt: undefined,
    });
    const analyst = { ...alice, roles: ["analyst", "reporter"] };
    expect(identityOf(analyst, "scram-sha-256").claims.role).toBe("analyst");
  });

  it("is narrowed to the databases and the lifetime of the key that was presented", () => {
    const key: ApiKeyRecord = makeApiKeyRecord({
      keyId: "abcdefghijkl",
      databases: ["reports", "other"],
      expiresAt: now,
    });
    const later = new Date(now.getTime() + 1);
    expect(identityOf({ ...alice, validUntil: later }, "scram-sha-256", key)).toMatchObject({
      keyId: "abcdefghijkl",
      databases: ["reports", "other"],
      defaultDatabase: "reports",
      expiresAt: now,
    });
    const account = { ...alice, kind: "service_account" as const, databases: ["app", "other"] };
    expect(identityOf(account, "scram-sha-256", key).databases).toEqual(["other"]);
    expect(identityOf(account, "scram-sha-256")).toMatchObject({
      databases: ["app", "other"],
      defaultDatabase: "app",
    });
    expect(identityOf({ ...account, databases: [] }, "scram-sha-256")).toMatchObject({
      databases: [],
      defaultDatabase: undefined,
    });
  });
});

describe("making a verifier", () => {
  const policy = { minPasswordLength: 8, scramIterations: 4100 };

  it("hashes a password with the configured iterations and a salt of its own", async () => {
    const [first, second] = await Promise.all([
      makeVerifier("long enough", policy),
      makeVerifier("long enough", policy),
    ]);
    expect(first).toMatchObject({ ok: true, verifier: expect.stringMatching(/^SCRAM-SHA-256\$4100:/) });
    expect(second).not.toEqual(first);
  });

  it("hashes a password as the user's keys are hashed, unless the configuration asks for more work", async () => {
    const salt = Buffer.alloc(16, 5);
    expect(await makeVerifier("long enough", policy, { salt, iterations: 5000 })).toEqual({
      ok: true,
      verifier: formatScramVerifier(createScramVerifierSync("long enough", { salt, iterations: 5000 })),
    });
    expect(await makeVerifier("long enough", policy, { salt, iterations: 4099 })).toMatchObject({
      verifier: expect.stringMatching(/^SCRAM-SHA-256\$4100:(?!BQUF)/),
    });
  });

  it("takes a verifier as it is", async () => {
    const text = formatScramVerifier(verifier);
    expect(await makeVerifier(text, policy)).toEqual({ ok: true, verifier: text });
  });

  it.each([
    ["", "empty"],
    ["seven 7", "too_short"],
    ["🙂🙂🙂🙂🙂🙂🙂", "too_short"],
    ["md5a3556571e93b0d20722ba62be61e8c2d", "md5_hash"],
    ["SCRAM-SHA-256$4096:x", "malformed_verifier"],
  ])("refuses %j as %s", async (text, reason) => {
    expect(await makeVerifier(text, policy)).toEqual({ ok: false, reason });
  });
});
