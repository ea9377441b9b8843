/** Whether a session that was opened earlier may go on, and what it may say of itself, by what the catalog says now. */

import { keyRefusal } from "../catalog/api-keys.ts";
import type { PrincipalCache } from "../catalog/cache.ts";
import { effectiveDatabases } from "./effective-databases.ts";
import type { Identity } from "./identity.ts";
import { claimsOf, loginRefusal } from "./password.ts";

export type LiveCache = Pick<PrincipalCache, "findById" | "keysOf">;

/** What of a session decides that. */
export interface LiveSession {
  readonly identity: Identity;
  readonly database: string;
}

/**
 * False when its principal was dropped, locked out or has expired, when its key was dropped, revoked or has expired, when its
 * certificate or token has expired, or when it has lost the database that it is in.
 */
export function mayStay(cache: LiveCache, { identity, database }: LiveSession, now: Date): boolean {
  const { keyId, principal, expiresAt } = identity;
  if (hasOwnLifetime(identity) && expiresAt !== undefined && expiresAt <= now) return false;
  const record = cache.findById(principal.id);
  if (record === undefined || loginRefusal(record, now) !== undefined) return false;
  const key = keyId === undefined ? undefined : cache.keysOf(record.id).find((own) => own.keyId === keyId);
  if (keyId !== undefined && (key === undefined || keyRefusal(key, now) !== undefined)) return false;
  const databases = effectiveDatabases(record.databases, key?.databases);
  return databases === undefined || databases.includes(database);
}

/** What the catalog holds may be prolonged; the lifetime of these two is their own. */
function hasOwnLifetime({ method }: Identity): boolean {
  return method === "certificate" || method === "jwt";
}

/** When `mayStay` begins to be false by the clock alone, as the catalog is now; undefined: never. */
export function endsAt(cache: LiveCache, { identity }: Pick<LiveSession, "identity">): Date | undefined {
  const { keyId, principal, expiresAt } = identity;
  const key = keyId === undefined ? undefined : cache.keysOf(principal.id).find((own) => own.keyId === keyId);
  const ends = [
    cache.findById(principal.id)?.validUntil,
    key?.expiresAt,
    hasOwnLifetime(identity) ? expiresAt : undefined,
  ];
  return ends.reduce((one, other) =>
    one === undefined || (other !== undefined && other < one) ? other : one,
  );
}

/** What a session says of itself, and the PostgreSQL role that it says it as. */
export type Self = Pick<Identity, "role" | "claims">;

/** A session's principal as it is in the catalog, by another name too; the claims of a token stay what they were. */
export function selfNow(cache: Pick<PrincipalCache, "findById">, identity: Identity): Self {
  const record = identity.principal.kind === "external" ? undefined : cache.findById(identity.principal.id);
  return record === undefined ? identity : { role: record.name, claims: claimsOf(record) };
}
