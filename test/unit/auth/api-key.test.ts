/** The text of API keys, what is stored of them, and the databases that they narrow their owner to. */

import { createHash } from "node:crypto";
import { inspect } from "node:util";
import { describe, expect, it } from "vitest";
import {
  formatApiKey,
  generateKeyId,
  generateKeySecret,
  hashKeySecret,
  isKeySecret,
  keySalt,
  makeKeyVerifier,
  parseApiKey,
} from "../../../src/auth/api-key.ts";
import { effectiveDatabases, requireDatabase } from "../../../src/auth/effective-databases.ts";
import { type ApiKeyRecord, acceptedVerifiers, keyRefusal } from "../../../src/catalog/api-keys.ts";
import { SqlError } from "../../../src/errors/sql-error.ts";
import { createScramVerifierSync, formatScramVerifier } from "../../../src/scram/verifier.ts";

const secretText = Buffer.alloc(32, 0xa5).toString("base64url");
const text = `ndb_abcdefghij23_${secretText}`;

function parsed(value: string) {
  const key = parseApiKey(value);
  if (key === undefined) expect.fail("not a key");
  return key;
}

describe("the text of a key", () => {
  it("is read into its key id and its secret, and written back the same", () => {
    const key = parsed(text);
    expect(key.keyId).toBe("abcdefghij23");
    expect(key.secret.reveal()).toBe(secretText);
    expect(formatApiKey(key).reveal()).toBe(text);
  });

  it.each([
    ["nothing", ""],
    ["another prefix", text.replace("ndb_", "NDB_")],
    ["a short key id", text.replace("abcdefghij23", "abcdefghij2")],
    ["a key id with other characters", text.replace("abcdefghij23", "abcdefghij-3")],
    ["a short secret", text.slice(0, -1)],
    ["a long secret", `${text}A`],
    ["plain base64", text.replace(secretText.slice(0, 2), "+/")],
    ["white space around it", ` ${text}`],
    ["a line end behind it", `${text}\n`],
    ["another spelling of the same secret", `${text.slice(0, -1)}V`],
  ])("is refused with %s", (_what, value) => {
    expect(value).not.toBe(text);
    expect(parseApiKey(value)).toBeUndefined();
  });

  it("is generated with 12 characters of key id and 256 random bits", () => {
    const ids = new Set<string>();
    for (let count = 0; count < 100; count += 1) {
      const key = { keyId: generateKeyId(), secret: generateKeySecret() };
      expect(parseApiKey(formatApiKey(key).reveal())).toEqual(key);
      expect(Buffer.from(key.secret.reveal(), "base64url")).toHaveLength(32);
      ids.add(key.keyId).add(key.secret.reveal());
    }
    expect(ids.size).toBe(200);
  });

  it("uses every bit of what the random source gives", () => {
    expect(generateKeyId((bytes) => Buffer.from(Array.from({ length: bytes }, (_, index) => index)))).toBe(
      "abcdefghijkl",
    );
    expect(generateKeyId((bytes) => Buffer.alloc(bytes, 0xff))).toBe("777777777777");
    expect(generateKeySecret((bytes) => Buffer.alloc(bytes, 0xa5)).reveal()).toBe(secretText);
  });

  it("cannot be printed by accident", () => {
    const key = parsed(text);
    expect(`${JSON.stringify(key)} ${inspect(key)} ${String(formatApiKey(key))}`).not.toContain(secretText);
  });
});

describe("what is stored of a key", () => {
  it("is the SHA-256 of the secret, and only that secret matches", () => {
    const { secret } = parsed(text);
    const hash = hashKeySecret(secret);
    expect(hash).toEqual(createHash("sha256").update(Buffer.alloc(32, 0xa5)).digest());
    expect(isKeySecret(secret, hash)).toBe(true);
    expect(isKeySecret(generateKeySecret(), hash)).toBe(false);
    expect(isKeySecret(secret, hash.subarray(1))).toBe(false);
  });

  it("is a SCRAM verifier of the whole text with the owner's salt", async () => {
    const salt = keySalt(Buffer.alloc(32, 1), { ownerId: 7 });
    expect(await makeKeyVerifier(parsed(text), { iterations: 4096, salt })).toBe(
      formatScramVerifier(createScramVerifierSync(text, { iterations: 4096, salt })),
    );
  });

  it("has one salt per owner, which the secret decides", () => {
    const secret = Buffer.alloc(32, 1);
    const salt = keySalt(secret, { ownerId: 7 });
    expect(salt).toHaveLength(16);
    expect(keySalt(secret, { ownerId: 7 })).toEqual(salt);
    expect(keySalt(secret, { ownerId: 8 })).not.toEqual(salt);
    expect(keySalt(secret, { keyId: "7" })).not.toEqual(salt);
    expect(keySalt(Buffer.alloc(32, 2), { ownerId: 7 })).not.toEqual(salt);
  });
});

describe("a stored key", () => {
  const now = new Date("2026-01-01T00:00:00Z");
  const current = { secretHash: Buffer.alloc(32, 1), scramVerifier: "current" };
  const previous = {
    secretHash: Buffer.alloc(32, 2),
    scramVerifier: "previous",
    validUntil: new Date(now.getTime() + 1),
  };
  const key: ApiKeyRecord = {
    keyId: "abcdefghij23",
    name: "k",
    ownerId: 1,
    databases: undefined,
    current,
    previous: undefined,
    expiresAt: undefined,
    isRevoked: false,
  };

  it("is accepted until it is revoked or expired", () => {
    expect(keyRefusal(key, now)).toBeUndefined();
    expect(keyRefusal({ ...key, isRevoked: true }, now)).toBe("key_revoked");
    expect(keyRefusal({ ...key, expiresAt: now }, now)).toBe("key_expired");
    expect(keyRefusal({ ...key, expiresAt: previous.validUntil }, now)).toBeUndefined();
  });

  it("takes the secret before a rotation for the overlap only", () => {
    expect(acceptedVerifiers(key, now)).toEqual([current]);
    expect(acceptedVerifiers({ ...key, previous }, now)).toEqual([current, previous]);
    expect(acceptedVerifiers({ ...key, previous }, previous.validUntil)).toEqual([current]);
    expect(acceptedVerifiers({ ...key, previous, isRevoked: true }, now)).toEqual([]);
  });
});

describe("effective databases", () => {
  it.each([
    [undefined, undefined, undefined],
    [["a"], undefined, ["a"]],
    [undefined, ["b"], ["b"]],
    [["a", "b"], ["c", "b"], ["b"]],
    [[], undefined, []],
    [["a"], ["b"], []],
  ])("of an owner with %j and a key with %j are %j", (ofOwner, ofKey, expected) => {
    expect(effectiveDatabases(ofOwner, ofKey)).toEqual(expected);
  });

  it("refuse every other database, and none where there is no list", () => {
    expect(() => requireDatabase(undefined, "x")).not.toThrow();
    expect(() => requireDatabase(["x"], "x")).not.toThrow();
    expect(() => requireDatabase([], "x")).toThrow(SqlError);
    expect(() => requireDatabase(["a"], "x")).toThrow(/^DATABASE_NOT_AUTHORIZED: .*"x"$/);
  });
});
