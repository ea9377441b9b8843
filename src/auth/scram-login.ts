/** From a name to what a SCRAM login is checked against: the password, and the API keys that stand in for one. */

import { type ApiKeyRecord, acceptedVerifiers, keyRefusal } from "../catalog/api-keys.ts";
import type { PrincipalCache } from "../catalog/cache.ts";
import type { PrincipalRecord } from "../catalog/users.ts";
import { createMockVerifier, parseScramVerifier, type ScramVerifier } from "../scram/verifier.ts";
import type { RefusalReason } from "./identity.ts";
import { loginRefusal } from "./password.ts";
import { isSameParameters, scramParametersOf } from "./scram-parameters.ts";

/** What the verifiers of users that do not exist are made of: the salt stays the same for the same name. */
export interface MockCredentials {
  readonly secret: Buffer;
  readonly iterations: number;
}

export interface ScramLoginOptions {
  readonly cache: Pick<PrincipalCache, "findByName" | "keysOf">;
  readonly mock: MockCredentials;
  /** Whether a key is taken as the password of its owner (`auth.api_keys.pgwire`). */
  readonly areKeysPasswords: boolean;
}

/**
 * What the exchange runs against. It always runs in full: a refusal is acted upon at its last step only, so that
 * neither its course nor its time tells whether a user exists.
 */
export interface ScramLogin {
  /** Its salt and iterations are named to the client; those of `others` are the same. */
  readonly verifier: ScramVerifier;
  readonly others: readonly ScramVerifier[];
  /** What each of them belongs to; mocks to nothing. */
  readonly credentials: ReadonlyMap<ScramVerifier, ScramCredential>;
  /** Why it is refused whatever is proven. */
  readonly reason: RefusalReason | undefined;
}

export interface ScramCredential {
  readonly record: PrincipalRecord;
  /** Absent: the password. */
  readonly key?: ApiKeyRecord | undefined;
}

export type ScramLoginOutcome =
  | ({ readonly ok: true } & ScramCredential)
  | { readonly ok: false; readonly reason: RefusalReason };

/** Proofs are tried in lots of this many, so that their number does not show in the time. */
const verifiersPerLot = 8;

/** Looks up what may be proven under a name; asks only the cache. */
export function lookupScramLogin(options: ScramLoginOptions, name: string, now: Date): ScramLogin {
  const { cache, mock } = options;
  const record = cache.findByName(name);
  const keys = record === undefined || !options.areKeysPasswords ? [] : cache.keysOf(record.id);
  const nobody = createMockVerifier(mock.secret, name, mock.iterations);
  const parameters = record && scramParametersOf(record, keys, now);
  const credentials = new Map<ScramVerifier, ScramCredential>();
  const offer = (text: string | undefined, credential: ScramCredential) => {
    const verifier = text === undefined ? undefined : parseScramVerifier(text);
    if (verifier === undefined || parameters === undefined) return;
    if (isSameParameters(verifier, parameters)) credentials.set(verifier, credential);
  };
  if (record !== undefined) {
    offer(record.scramVerifier, { record });
    for (const key of keys) {
      const accepted = acceptedVerifiers(key, now);
      // Also of a key that is not accepted: the log is to tell a revoked one from a wrong one.
      for (const verifiers of accepted.length > 0 ? accepted : [key.current]) {
        offer(verifiers.scramVerifier, { record, key });
      }
    }
  }
  const [verifier = nobody, ...others] = credentials.keys();
  while ((others.length + 1) % verifiersPerLot !== 0) others.push(nobody);
  return { verifier, others, credentials, reason: refusalOf(record, credentials, now) };
}

/** Who has logged in, or why not. @param proven the verifier that the proof fits */
export function settleScramLogin(login: ScramLogin, proven: ScramVerifier, now: Date): ScramLoginOutcome {
  if (login.reason !== undefined) return { ok: false, reason: login.reason };
  const credential = login.credentials.get(proven);
  if (credential === undefined) return { ok: false, reason: "wrong_password" };
  const reason = credential.key && keyRefusal(credential.key, now);
  const { record, key } = credential;
  return reason === undefined ? { ok: true, record, key } : { ok: false, reason };
}

function refusalOf(
  record: PrincipalRecord | undefined,
  credentials: ReadonlyMap<ScramVerifier, ScramCredential>,
  now: Date,
): RefusalReason | undefined {
  if (record === undefined) return "unknown_user";
  return credentials.size === 0 ? "no_password" : loginRefusal(record, now);
}
