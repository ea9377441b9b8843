/** What is stored to check a SCRAM password, in PostgreSQL's own text form (PostgreSQL 18 manual 52.8, RFC 5803). */

import { decodeBase64 } from "./base64.ts";
import { deriveKeys, deriveKeysSync, hmac, keyBytes, type ScramKeys, storedKeyOf } from "./keys.ts";

/** Largest iteration count that PostgreSQL's int holds. */
const maxIterations = 0x7fffffff;

/** As PostgreSQL's SCRAM_DEFAULT_SALT_LEN. */
const saltBytes = 16;

export interface ScramVerifier {
  /** `mock` stands in for a user who does not exist or has no password, and never matches. */
  readonly kind: "stored" | "mock";
  readonly iterations: number;
  readonly salt: Buffer;
  readonly storedKey: Buffer;
  readonly serverKey: Buffer;
}

export interface VerifierOptions {
  readonly iterations: number;
  /** Random; 16 bytes, as PostgreSQL's own. */
  readonly salt: Buffer;
}

/**
 * Parses `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, as `pg_authid` and psql's
 * `\password` have it. Stricter than PostgreSQL, which also takes white space, signs and an empty salt.
 *
 * @returns undefined when the text is no verifier; it is then a clear-text password.
 */
export function parseScramVerifier(text: string): ScramVerifier | undefined {
  const match = /^SCRAM-SHA-256\$([1-9][0-9]{0,9}):([^$:]+)\$([^$:]+):([^$:]+)$/.exec(text);
  if (match === null) return undefined;
  const [, iterationsText = "", saltText = "", storedKeyText = "", serverKeyText = ""] = match;
  const iterations = Number(iterationsText);
  const salt = decodeBase64(saltText);
  const storedKey = decodeBase64(storedKeyText);
  const serverKey = decodeBase64(serverKeyText);
  if (iterations > maxIterations || salt === undefined) return undefined;
  if (storedKey?.length !== keyBytes || serverKey?.length !== keyBytes) return undefined;
  return { kind: "stored", iterations, salt, storedKey, serverKey };
}

/** The inverse of `parseScramVerifier`. A secret: whoever has it can try passwords offline. */
export function formatScramVerifier(verifier: ScramVerifier): string {
  const { iterations, salt, storedKey, serverKey } = verifier;
  return `SCRAM-SHA-256$${iterations}:${salt.toString("base64")}$${storedKey.toString("base64")}:${serverKey.toString("base64")}`;
}

/** Verifier of a clear-text password, after SASLprep; the work is done on node's thread pool. */
export async function createScramVerifier(
  password: string,
  options: VerifierOptions,
): Promise<ScramVerifier> {
  return verifierOf(await deriveKeys(password, options.salt, options.iterations), options);
}

/** As `createScramVerifier`, on the calling thread. */
export function createScramVerifierSync(password: string, options: VerifierOptions): ScramVerifier {
  return verifierOf(deriveKeysSync(password, options.salt, options.iterations), options);
}

/**
 * Verifier for a name that has none, so that the exchange runs as for a user with another password.
 * The salt is the same each time a name is tried; without the secret nobody can compute it to tell the
 * name from a real one.
 */
export function createMockVerifier(secret: Buffer, name: string, iterations: number): ScramVerifier {
  const bytes = hmac(secret, name);
  const salt = bytes.subarray(0, saltBytes);
  const hidden = bytes.subarray(saltBytes);
  return {
    kind: "mock",
    iterations,
    salt,
    // Unguessable though never accepted: even a lost check of `kind` would let nobody in.
    storedKey: Buffer.concat([hidden, hidden]),
    serverKey: Buffer.concat([hidden, salt]),
  };
}

function verifierOf(keys: ScramKeys, options: VerifierOptions): ScramVerifier {
  return {
    kind: "stored",
    iterations: options.iterations,
    salt: options.salt,
    storedKey: storedKeyOf(keys.clientKey),
    serverKey: keys.serverKey,
  };
}
