/** Which salt and iteration count a principal's SCRAM logins have: one for its password and all of its API keys. */

import { type ApiKeyRecord, keyRefusal } from "../catalog/api-keys.ts";
import type { PrincipalRecord } from "../catalog/users.ts";
import { parseScramVerifier, type VerifierOptions } from "../scram/verifier.ts";

export type ScramParameters = VerifierOptions;

/**
 * What the server-first-message names. It comes before the proof, so that a password and keys can only all be tried when they
 * were hashed alike: a new key is hashed as the password is, and a new password as the keys are.
 *
 * The password decides; without one the oldest key that is accepted, else the oldest of all, so that what a stranger sees does
 * not change when a key expires.
 *
 * @returns undefined when there is neither
 */
export function scramParametersOf(
  record: Pick<PrincipalRecord, "scramVerifier">,
  keys: readonly ApiKeyRecord[],
  now: Date,
): ScramParameters | undefined {
  const key = keys.find((candidate) => keyRefusal(candidate, now) === undefined) ?? keys[0];
  const text = record.scramVerifier ?? key?.current.scramVerifier;
  const verifier = text === undefined ? undefined : parseScramVerifier(text);
  return verifier && { salt: verifier.salt, iterations: verifier.iterations };
}

/** What the keys that are accepted were hashed with. @returns undefined when there is none */
export function parametersOfKeys(keys: readonly ApiKeyRecord[], now: Date): ScramParameters | undefined {
  const accepted = keys.filter((key) => keyRefusal(key, now) === undefined);
  return scramParametersOf({ scramVerifier: undefined }, accepted, now);
}

export function isSameParameters(one: ScramParameters, other: ScramParameters): boolean {
  return one.iterations === other.iterations && one.salt.equals(other.salt);
}

/** The keys that a verifier leaves without use as passwords: they were hashed in another way. */
export function keysCutOff(
  verifierText: string,
  keys: readonly ApiKeyRecord[],
  now: Date,
): readonly ApiKeyRecord[] {
  const verifier = parseScramVerifier(verifierText);
  if (verifier === undefined) return [];
  return keys.filter((key) => {
    const own = parseScramVerifier(key.current.scramVerifier);
    return keyRefusal(key, now) === undefined && own !== undefined && !isSameParameters(own, verifier);
  });
}
