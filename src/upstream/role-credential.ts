/** SCRAM keys with which the front-end logs in upstream as a role; derived, never a password (design: RFC 5869, RFC 5802 section 3). */

import { createHash, hkdfSync } from "node:crypto";

/** Pinned: an upstream that names another count has had its verifier replaced. */
export const roleScramIterations = 4096;

export interface RoleCredential {
  /** 16 bytes; what the upstream must name in its server-first message. */
  readonly salt: Buffer;
  readonly iterations: number;
  readonly clientKey: Buffer;
  readonly serverKey: Buffer;
  /** What the reconciler installs with ALTER ROLE … PASSWORD. */
  readonly verifier: string;
}

/**
 * Derives the credential of one role from the front-end's master secret.
 *
 * @param masterSecret at least 32 random bytes
 * @param version counts replacements, so that a leaked or overwritten verifier can be retired
 * @see RFC 5802 section 3: StoredKey = H(ClientKey); no salted password exists, and none is needed.
 */
export function deriveRoleCredential(masterSecret: Buffer, role: string, version: number): RoleCredential {
  const info = Buffer.from(`nodedb upstream role\0${version}\0${role}`, "utf8");
  const bytes = Buffer.from(hkdfSync("sha256", masterSecret, Buffer.alloc(0), info, 80));
  const salt = bytes.subarray(0, 16);
  const clientKey = bytes.subarray(16, 48);
  const serverKey = bytes.subarray(48, 80);
  const storedKey = createHash("sha256").update(clientKey).digest();
  const verifier = `SCRAM-SHA-256$${roleScramIterations}:${salt.toString("base64")}$${storedKey.toString("base64")}:${serverKey.toString("base64")}`;
  return { salt, iterations: roleScramIterations, clientKey, serverKey, verifier };
}

/** A secret for another purpose from the same master secret, for example the salts of unknown users. */
export function deriveSecret(masterSecret: Buffer, purpose: string): Buffer {
  return Buffer.from(
    hkdfSync("sha256", masterSecret, Buffer.alloc(0), Buffer.from(`nodedb ${purpose}`, "utf8"), 32),
  );
}
