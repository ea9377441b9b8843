/** The keys of SCRAM-SHA-256 and what is computed from them (RFC 5802 section 3, RFC 7677). */

import { hash, pbkdf2, pbkdf2Sync } from "node:crypto";
import { promisify } from "node:util";
import { preparePassword } from "./saslprep.ts";

/** Bytes of a SHA-256 digest, and so of every key, signature and proof. */
export const keyBytes = 32;

/** What a password becomes; whoever has the client key can log in, whoever has the server key can pose as the server. */
export interface ScramKeys {
  readonly clientKey: Buffer;
  readonly serverKey: Buffer;
}

/** Block of SHA-256, in bytes, and what a key is padded with for the two hashes (RFC 2104 section 2). */
const blockBytes = 64;
const innerPad = 0x36;
const outerPad = 0x5c;

/** HMAC-SHA-256 (RFC 2104). As two hashes in one call each: a login needs a dozen, and an Hmac object costs twice as much. */
export function hmac(key: Buffer, data: Buffer | string): Buffer {
  const short = key.length > blockBytes ? sha256(key) : key;
  const bytes = typeof data === "string" ? Buffer.from(data, "utf8") : data;
  // Of node's own pool: memory of its own for each would cost more than the hashes.
  const inner = Buffer.allocUnsafe(blockBytes + bytes.length);
  const outer = Buffer.allocUnsafe(blockBytes + keyBytes);
  for (let index = 0; index < blockBytes; index += 1) {
    const byte = short[index] ?? 0;
    inner[index] = byte ^ innerPad;
    outer[index] = byte ^ outerPad;
  }
  bytes.copy(inner, blockBytes);
  outer.write(hash("sha256", inner, "binary"), blockBytes, "latin1");
  return sha256(outer);
}

/** A buffer that the hash makes itself has memory of its own, which is dearer than a string in between. */
function sha256(data: Buffer): Buffer {
  return Buffer.from(hash("sha256", data, "binary"), "latin1");
}

/** StoredKey = H(ClientKey) */
export function storedKeyOf(clientKey: Buffer): Buffer {
  return sha256(clientKey);
}

/** @throws RangeError when the buffers differ in length */
export function xor(left: Buffer, right: Buffer): Buffer {
  if (left.length !== right.length) throw new RangeError("xor of buffers that differ in length");
  const result = Buffer.from(left);
  for (let index = 0; index < result.length; index += 1)
    result[index] = (left[index] ?? 0) ^ (right[index] ?? 0);
  return result;
}

/** Keys of a password, computed on node's thread pool: for everything that happens while sessions are served. */
export async function deriveKeys(password: string, salt: Buffer, iterations: number): Promise<ScramKeys> {
  return keysOf(await promisify(pbkdf2)(preparePassword(password), salt, iterations, keyBytes, "sha256"));
}

/** As `deriveKeys`, on the calling thread: about a millisecond per 4096 iterations. */
export function deriveKeysSync(password: string, salt: Buffer, iterations: number): ScramKeys {
  return keysOf(pbkdf2Sync(preparePassword(password), salt, iterations, keyBytes, "sha256"));
}

function keysOf(saltedPassword: Buffer): ScramKeys {
  return {
    clientKey: hmac(saltedPassword, "Client Key"),
    serverKey: hmac(saltedPassword, "Server Key"),
  };
}
