/** What a SCRAM login is checked against, which credential a proof was made with, and why it is refused. */

import { describe, expect, it } from "vitest";
import { lookupScramLogin, settleScramLogin } from "../../../src/auth/scram-login.ts";
import { scramParametersOf } from "../../../src/auth/scram-parameters.ts";
import type { ApiKeyRecord } from "../../../src/catalog/api-keys.ts";
import type { PrincipalRecord } from "../../../src/catalog/users.ts";
import { beginClientExchange, receiveServerFirst } from "../../../src/scram/client-exchange.ts";
import { receiveClientFinal, receiveClientFirst } from "../../../src/scram/server-exchange.ts";
import {
  createMockVerifier,
  createScramVerifierSync,
  formatScramVerifier,
} from "../../../src/scram/verifier.ts";
import { makePrincipal } from "../../support/principals.ts";

const now = new Date("2030-01-01T00:00:00Z");
const later = new Date(now.getTime() + 1);
const mock = { secret: Buffer.alloc(32, 9), iterations: 4096 };
const nobody = createMockVerifier(mock.secret, "alice", 4096);
const salt = Buffer.alloc(16, 3);
const hashed = (password: string, ownSalt = salt, iterations = 4096) =>
  formatScramVerifier(createScramVerifierSync(password, { iterations, salt: ownSalt }));

const alice: PrincipalRecord = makePrincipal({
  kind: "user",
  name: "alice",
  scramVerifier: hashed("the password"),
  roles: ["readonly"],
  effectiveRoles: ["readonly"],
});

function key(keyId: string, changes: Partial<ApiKeyRecord> = {}): ApiKeyRecord {
  return {
    keyId,
    name: keyId,
    ownerId: 5,
    databases: undefined,
    current: { secretHash: Buffer.alloc(32), scramVerifier: hashed(`secret of ${keyId}`) },
    previous: undefined,
    expiresAt: undefined,
    isRevoked: false,
    ...changes,
  };
}

function lookup(
  record: PrincipalRecord | undefined,
  keys: readonly ApiKeyRecord[] = [],
  areKeysPasswords = true,
) {
  const cache = { findByName: () => record, keysOf: () => keys };
  return lookupScramLogin({ cache, mock, areKeysPasswords }, "alice", now);
}

/** Runs a whole exchange with this password. */
function logIn(login: ReturnType<typeof lookup>, password: string) {
  const begun = beginClientExchange({
    secret: { kind: "password", password },
    clientNonce: "clientnonce",
  });
  const first = receiveClientFirst(
    { ...login, serverNonce: "servernonce", channelBinding: { data: undefined } },
    begun.mechanism,
    Buffer.from(begun.clientFirst),
  );
  if (first.kind !== "continue") throw new Error(first.kind);
  const answer = receiveServerFirst(begun.exchange, Buffer.from(first.serverFirst));
  if (answer.kind !== "continue") throw new Error(answer.kind);
  const final = receiveClientFinal(first.exchange, Buffer.from(answer.clientFinal));
  if (final.kind !== "accepted") return { ok: false, reason: login.reason ?? "wrong_password" };
  return settleScramLogin(login, final.verifier, now);
}

describe("a SCRAM login", () => {
  it("is one with the password, or with any key of the same salt", () => {
    const keys = [key("a"), key("b")];
    const login = lookup(alice, keys);
    expect(logIn(login, "the password")).toEqual({ ok: true, record: alice });
    expect(logIn(login, "secret of a")).toEqual({ ok: true, record: alice, key: keys[0] });
    expect(logIn(login, "secret of b")).toEqual({ ok: true, record: alice, key: keys[1] });
    expect(logIn(login, "secret of c")).toEqual({ ok: false, reason: "wrong_password" });
  });

  it("takes the secret before a rotation within the overlap only", () => {
    const old = { secretHash: Buffer.alloc(32), scramVerifier: hashed("old") };
    expect(
      logIn(lookup(alice, [key("a", { previous: { ...old, validUntil: later } })]), "old"),
    ).toMatchObject({
      ok: true,
    });
    expect(logIn(lookup(alice, [key("a", { previous: { ...old, validUntil: now } })]), "old")).toMatchObject({
      ok: false,
    });
  });

  it("tells a revoked and an expired key from a wrong one, for the log", () => {
    const keys = [key("a", { isRevoked: true }), key("b", { expiresAt: now })];
    expect(logIn(lookup(alice, keys), "secret of a")).toEqual({ ok: false, reason: "key_revoked" });
    expect(logIn(lookup(alice, keys), "secret of b")).toEqual({ ok: false, reason: "key_expired" });
  });

  it("takes no key where the configuration says so", () => {
    const login = lookup(alice, [key("a")], false);
    expect(logIn(login, "secret of a")).toEqual({ ok: false, reason: "wrong_password" });
    expect(logIn(login, "the password")).toMatchObject({ ok: true });
    expect(lookup({ ...alice, scramVerifier: undefined }, [key("a")], false)).toMatchObject({
      verifier: nobody,
      reason: "no_password",
    });
  });

  it("leaves out a key that was hashed with another salt or count", () => {
    const other = key("a", {
      current: { secretHash: Buffer.alloc(32), scramVerifier: hashed("secret of a", Buffer.alloc(16, 4)) },
    });
    const costlier = key("b", {
      current: { secretHash: Buffer.alloc(32), scramVerifier: hashed("secret of b", salt, 5000) },
    });
    const login = lookup(alice, [other, costlier]);
    expect(logIn(login, "secret of a")).toMatchObject({ ok: false });
    expect(logIn(login, "secret of b")).toMatchObject({ ok: false });
    const account = { ...alice, scramVerifier: undefined };
    expect(logIn(lookup(account, [other, costlier]), "secret of a")).toMatchObject({ ok: true });
  });

  it("names the same salt whether keys are accepted or not", () => {
    const account = { ...alice, scramVerifier: undefined };
    const before = lookup(account, [key("a")]);
    const after = lookup(account, [key("a", { isRevoked: true })]);
    expect(after.verifier.salt).toEqual(before.verifier.salt);
    expect(scramParametersOf(account, [], now)).toBeUndefined();
  });

  it("gives an unknown user, and one without password and keys, the same mock verifier", () => {
    expect(lookup(undefined)).toMatchObject({ verifier: nobody, reason: "unknown_user" });
    expect(lookup({ ...alice, scramVerifier: undefined })).toMatchObject({
      verifier: nobody,
      reason: "no_password",
    });
    expect(logIn(lookup(undefined), "the password")).toEqual({ ok: false, reason: "unknown_user" });
  });

  it("keeps the reason aside of a user who may not log in, whatever is proven", () => {
    expect(logIn(lookup({ ...alice, canLogin: false }, [key("a")]), "secret of a")).toEqual({
      ok: false,
      reason: "login_disabled",
    });
    expect(logIn(lookup({ ...alice, validUntil: now }), "the password")).toEqual({
      ok: false,
      reason: "expired",
    });
    expect(logIn(lookup({ ...alice, validUntil: later }), "the password")).toMatchObject({ ok: true });
  });

  it("tries as many verifiers for a name without keys as for one with seven", () => {
    const tried = (count: number) => {
      const keys = Array.from({ length: count }, (_, index) => key(`k${index}`));
      return 1 + lookup(alice, keys).others.length;
    };
    expect(1 + lookup(undefined).others.length).toBe(8);
    expect([0, 1, 7, 8].map(tried)).toEqual([8, 8, 8, 16]);
  });
});
