/** Bearer tokens that are API keys: which are accepted, why others are not, and what is counted and written down. */

import { beforeEach, describe, expect, it } from "vitest";
import { formatApiKey, generateKeyId, generateKeySecret, hashKeySecret } from "../../../src/auth/api-key.ts";
import { type BearerSource, createBearerAuthenticator } from "../../../src/auth/bearer.ts";
import type { Identity } from "../../../src/auth/identity.ts";
import { LoginGuard } from "../../../src/auth/login-guard.ts";
import type { ApiKeyRecord } from "../../../src/catalog/api-keys.ts";
import type { PrincipalRecord } from "../../../src/catalog/users.ts";
import type { AuditEntry } from "../../../src/observe/audit.ts";
import { makeApiKeyRecord, makePrincipal } from "../../support/principals.ts";

const now = new Date("2030-01-01T00:00:00Z");
const later = new Date(now.getTime() + 1);
const owner: PrincipalRecord = makePrincipal({ tenantId: 3, databases: ["a", "b"] });
const presented = { keyId: generateKeyId(), secret: generateKeySecret() };
const token = formatApiKey(presented).reveal();
const otherToken = formatApiKey({ keyId: presented.keyId, secret: generateKeySecret() }).reveal();
const longToken = `e30.${Buffer.from(JSON.stringify({ iss: "i".repeat(20_000) })).toString("base64url")}.e30`;
const key: ApiKeyRecord = makeApiKeyRecord({
  keyId: presented.keyId,
  current: { secretHash: hashKeySecret(presented.secret), scramVerifier: "" },
});
const rotated: ApiKeyRecord = {
  ...key,
  current: { secretHash: hashKeySecret(generateKeySecret()), scramVerifier: "" },
  previous: { ...key.current, validUntil: later },
};
const source: BearerSource = { address: "192.0.2.1", database: undefined };

let entries: AuditEntry[];
let used: Identity[];
let locked: string[];
beforeEach(() => {
  entries = [];
  used = [];
  locked = [];
});

function authenticator(
  record: PrincipalRecord | undefined = owner,
  stored: ApiKeyRecord | undefined = key,
  limit = 0,
) {
  return createBearerAuthenticator({
    cache: {
      findById: (id) => (id === 5 ? record : undefined),
      findKeyById: (id) => (id === stored.keyId ? stored : undefined),
    },
    guard: new LoginGuard({
      lockout: {
        isLocked: () => false,
        recordFailure: (name) => locked.push(name),
        recordSuccess: () => undefined,
      },
      audit: { record: (entry) => entries.push(entry) },
      limits: { attemptsPerAddressPerMinute: limit, attemptsPerUserPerMinute: limit },
      clock: () => 0,
    }),
    recordLogin: (identity) => used.push(identity),
    tokens: {
      providers: () => [],
      findKey: () => Promise.reject(new Error("no provider is there to have keys")),
      clockSkewMs: 0,
      claimNames: {},
      resolve: () => Promise.reject(new Error("no subject is known")),
    },
    now: () => now,
  });
}

describe("an API key as bearer", () => {
  it("becomes the identity of its owner, narrowed by the key", async () => {
    const outcome = await authenticator(owner, { ...key, databases: ["b"], expiresAt: later }).authenticate(
      token,
      source,
    );
    expect(outcome).toMatchObject({
      ok: true,
      identity: {
        role: "etl",
        tenantId: 3,
        keyId: presented.keyId,
        databases: ["b"],
        expiresAt: later,
        method: "api-key",
        claims: { id: "etl", role: "readwrite", roles: ["readwrite"], tenant_id: 3 },
      },
    });
    expect(used).toHaveLength(1);
  });

  it("is accepted with the secret before a rotation only while the overlap lasts", async () => {
    expect(await authenticator(owner, rotated).authenticate(token, source)).toMatchObject({ ok: true });
    const over = { ...rotated, previous: { ...key.current, validUntil: now } };
    expect(await authenticator(owner, over).authenticate(token, source)).toEqual({
      ok: false,
      reason: "wrong_secret",
    });
  });

  it.each([
    ["of another secret", otherToken, owner, key, "wrong_secret"],
    [
      "that nobody made",
      formatApiKey({ ...presented, keyId: generateKeyId() }).reveal(),
      owner,
      key,
      "unknown_key",
    ],
    ["with one more character", `${token}A`, owner, key, "malformed_token"],
    ["with a blank before it", ` ${token}`, owner, key, "malformed_token"],
    ["that is a token of nobody we know", "e30.e30.e30", owner, key, "unacceptable_header"],
    ["of nothing", "", owner, key, "malformed_token"],
    ["as long as a book", "n".repeat(20_000), owner, key, "malformed_token"],
    ["that could be read, and is as long as a book", longToken, owner, key, "malformed_token"],
    ["that is revoked", token, owner, { ...key, isRevoked: true }, "key_revoked"],
    ["that has expired", token, owner, { ...key, expiresAt: now }, "key_expired"],
    ["of nobody", token, { ...owner, id: 6 }, { ...key, ownerId: 6 }, "unknown_user"],
    ["of somebody who may not log in", token, { ...owner, canLogin: false }, key, "login_disabled"],
    ["of somebody whose time is over", token, { ...owner, validUntil: now }, key, "expired"],
  ])("is refused when it is one %s", async (_, text, record, stored, reason) => {
    expect(await authenticator(record, stored).authenticate(text, source)).toEqual({ ok: false, reason });
    expect(entries).toEqual([{ event: "AuthFailure", source: "192.0.2.1", detail: reason }]);
    expect(used).toEqual([]);
    expect(locked).toEqual([]);
  });

  it("is for its databases only, and a refusal is written down", async () => {
    const bearer = authenticator();
    await expect(bearer.authenticate(token, { ...source, database: "c" })).rejects.toMatchObject({
      condition: "insufficient_privilege",
      message: 'DATABASE_NOT_AUTHORIZED: permission denied for database "c"',
    });
    expect(entries.at(-1)).toMatchObject({ event: "AuthzDenied", username: "etl", tenantId: 3 });
    expect(await bearer.authenticate(token, { ...source, database: "a" })).toMatchObject({ ok: true });
  });

  it("is written down the first time that it comes from an address, and whenever a session begins", async () => {
    const bearer = authenticator();
    await bearer.authenticate(token, source);
    await bearer.authenticate(token, source);
    expect(entries.map(({ event }) => event)).toEqual(["AuthSuccess", "KeyUsed"]);
    await bearer.authenticate(token, { ...source, address: "192.0.2.2" });
    expect(entries.map(({ event }) => event).slice(2)).toEqual(["AuthSuccess", "KeyUsed"]);
    await bearer.authenticate(token, { ...source, sessionId: "s" });
    expect(entries.slice(4)).toMatchObject([{ event: "AuthSuccess", sessionId: "s", detail: "api-key" }]);
  });

  it("is refused from an address with too many failures, whatever it is, and another address is not concerned", async () => {
    const bearer = authenticator(owner, key, 2);
    await bearer.authenticate(otherToken, source);
    expect(await bearer.authenticate(token, source)).toMatchObject({ ok: true });
    await bearer.authenticate(otherToken, source);
    const before = entries.length;
    expect(await bearer.authenticate(token, source)).toEqual({ ok: false, reason: "too_many_failures" });
    expect(entries).toHaveLength(before);
    expect(await bearer.authenticate(token, { ...source, address: "192.0.2.2" })).toMatchObject({ ok: true });
  });
});
