/** An API key that was presented as a bearer token, to the identity of its owner. */

import { acceptedVerifiers, keyRefusal } from "../catalog/api-keys.ts";
import type { PrincipalCache } from "../catalog/cache.ts";
import { isKeySecret, parseApiKey } from "./api-key.ts";
import type { BearerOutcome } from "./bearer-outcome.ts";
import { identityOf, loginRefusal } from "./password.ts";

/** What an unknown key is compared with, so that its refusal takes as long. */
const nobodysHash = Buffer.alloc(32);

/** Looks the key up and checks its lifetime, its secret and its owner; asks only the cache. */
export function authenticateApiKey(
  cache: Pick<PrincipalCache, "findById" | "findKeyById">,
  token: string,
  now: Date,
): BearerOutcome {
  const presented = parseApiKey(token);
  if (presented === undefined) return { ok: false, reason: "malformed_token" };
  const key = cache.findKeyById(presented.keyId);
  if (key === undefined) {
    isKeySecret(presented.secret, nobodysHash);
    return { ok: false, reason: "unknown_key" };
  }
  const isSecret = acceptedVerifiers(key, now).some(({ secretHash }) =>
    isKeySecret(presented.secret, secretHash),
  );
  const owner = cache.findById(key.ownerId);
  const reason = keyRefusal(key, now) ?? (isSecret ? undefined : "wrong_secret");
  if (reason !== undefined) return { ok: false, reason };
  if (owner === undefined) return { ok: false, reason: "unknown_user" };
  const ownersReason = loginRefusal(owner, now);
  return ownersReason === undefined
    ? { ok: true, identity: identityOf(owner, "api-key", key) }
    : { ok: false, reason: ownersReason };
}
