/** The text of an API key, `ndb_<key id>_<secret>`, and what is stored so that one can be checked. */

import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { Secret } from "../config/secret.ts";
import { hmac } from "../scram/keys.ts";
import { createScramVerifier, formatScramVerifier } from "../scram/verifier.ts";
import type { ScramParameters } from "./scram-parameters.ts";

/** A key as a client presents it. */
export interface ApiKey {
  /** Names the key in SQL, logs and the audit; no secret. */
  readonly keyId: string;
  readonly secret: Secret;
}

const keyIdLength = 12;
const secretBytes = 32;
const saltBytes = 16;

/** RFC 4648 section 6 in lower case: 32 symbols, so that 5 random bits make one without bias. */
const keyIdAlphabet = "abcdefghijklmnopqrstuvwxyz234567";

/** Parses the text a client presents; undefined when it cannot be one of our keys. */
export function parseApiKey(text: string): ApiKey | undefined {
  const match = /^ndb_([A-Za-z0-9]{12})_([A-Za-z0-9_-]{43})$/.exec(text);
  const [, keyId, secret] = match ?? [];
  if (keyId === undefined || secret === undefined) return undefined;
  // The last character holds four bits only; any other spelling of the same bytes is another text, and not the key.
  if (Buffer.from(secret, "base64url").toString("base64url") !== secret) return undefined;
  return { keyId, secret: new Secret(secret) };
}

/** The inverse of `parseApiKey`: what is shown once, and what a client gives as its password or bearer. */
export function formatApiKey(key: ApiKey): Secret {
  return new Secret(`ndb_${key.keyId}_${key.secret.reveal()}`);
}

/** @param random source of bytes; the system's unless a test says otherwise */
export function generateKeyId(random: (bytes: number) => Buffer = randomBytes): string {
  return Array.from(random(keyIdLength), (byte) => keyIdAlphabet[byte & 31]).join("");
}

/** 256 random bits. */
export function generateKeySecret(random: (bytes: number) => Buffer = randomBytes): Secret {
  return new Secret(random(secretBytes).toString("base64url"));
}

/**
 * Hash kept in nodedb.api_key.secret_hash, of the secret's 32 bytes.
 * SHA-256, not a password hash: the secret is 256 random bits, so there is nothing to guess, and a slow hash would only cost
 * every request 10 ms.
 */
export function hashKeySecret(secret: Secret): Buffer {
  return createHash("sha256").update(Buffer.from(secret.reveal(), "base64url")).digest();
}

/** Whether the secret is the one that was hashed, in constant time. */
export function isKeySecret(secret: Secret, secretHash: Buffer): boolean {
  const presented = hashKeySecret(secret);
  return presented.length === secretHash.length && timingSafeEqual(presented, secretHash);
}

/** Whose keys a salt is for: a stand-alone key has one key only, and no id yet when its verifier is made. */
export type KeyHolder = { readonly ownerId: number } | { readonly keyId: string };

/**
 * The salt of the keys of an owner who has neither password nor key yet; they all share it. On pgwire a client names the owner
 * and not the key, so the server must name a salt before it can know which key the proof was made with.
 *
 * @param saltSecret a derivate of the master secret; without it nobody can compute the salt of a name
 */
export function keySalt(saltSecret: Buffer, holder: KeyHolder): Buffer {
  const label = "ownerId" in holder ? `owner ${holder.ownerId}` : `key ${holder.keyId}`;
  return hmac(saltSecret, label).subarray(0, saltBytes);
}

/** SCRAM verifier of the key's whole text, as PostgreSQL would store it; computed off the event loop. */
export async function makeKeyVerifier(key: ApiKey, parameters: ScramParameters): Promise<string> {
  return formatScramVerifier(await createScramVerifier(formatApiKey(key).reveal(), parameters));
}
