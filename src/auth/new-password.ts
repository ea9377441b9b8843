/** From the password of a CREATE USER or ALTER USER to the verifier that is stored. */

import { randomBytes } from "node:crypto";
import { createScramVerifier, formatScramVerifier, parseScramVerifier } from "../scram/verifier.ts";
import type { ScramParameters } from "./scram-parameters.ts";

export interface PasswordPolicy {
  /** In characters. */
  readonly minPasswordLength: number;
  readonly scramIterations: number;
}

export type NewPassword =
  | { readonly ok: true; readonly verifier: string }
  | { readonly ok: false; readonly reason: "empty" | "too_short" | "md5_hash" | "malformed_verifier" };

/**
 * Hashes a password off the event loop, or takes over a verifier that the client made (psql's \password). The length of
 * the password behind such a verifier cannot be checked.
 *
 * @param ofKeys what the user's API keys are hashed with: a password that is hashed alike leaves them of use as passwords
 */
export async function makeVerifier(
  password: string,
  policy: PasswordPolicy,
  ofKeys?: ScramParameters,
): Promise<NewPassword> {
  if (password === "") return { ok: false, reason: "empty" };
  if (/^md5[0-9a-f]{32}$/.test(password)) return { ok: false, reason: "md5_hash" };
  if (password.startsWith("SCRAM-SHA-256$")) {
    const verifier = parseScramVerifier(password);
    if (verifier === undefined) return { ok: false, reason: "malformed_verifier" };
    return { ok: true, verifier: formatScramVerifier(verifier) };
  }
  if ([...password].length < policy.minPasswordLength) return { ok: false, reason: "too_short" };
  // A password gets at least the work that the configuration asks for, also where that costs the keys their use.
  const parameters =
    ofKeys !== undefined && ofKeys.iterations >= policy.scramIterations
      ? ofKeys
      : { iterations: policy.scramIterations, salt: randomBytes(16) };
  const verifier = await createScramVerifier(password, parameters);
  return { ok: true, verifier: formatScramVerifier(verifier) };
}
