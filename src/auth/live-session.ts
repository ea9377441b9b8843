/** Whether a session that was opened earlier may go on, by what the catalog says now. */

import { keyRefusal } from "../catalog/api-keys.ts";
import type { PrincipalCache } from "../catalog/cache.ts";
import { effectiveDatabases } from "./effective-databases.ts";
import type { Identity } from "./identity.ts";
import { loginRefusal } from "./password.ts";

export type LiveCache = Pick<PrincipalCache, "findById" | "keysOf">;

/** What of a session decides that. */
export interface LiveSession {
  readonly identity: Identity;
  readonly database: string;
}

/**
 * False when its principal was dropped, locked out or has expired, when its key was dropped, revoked or has expired, or when
 * either has lost the database that it is in.
 */
export function mayStay(cache: LiveCache, { identity, database }: LiveSession, now: Date): boolean {
  const { keyId, principal } = identity;
  const record = cache.findById(principal.id);
  if (record === undefined || loginRefusal(record, now) !== undefined) return false;
  const key = keyId === undefined ? undefined : cache.keysOf(record.id).find((own) => own.keyId === keyId);
  if (keyId !== undefined && (key === undefined || keyRefusal(key, now) !== undefined)) return false;
  const databases = effectiveDatabases(record.databases, key?.databases);
  return databases === undefined || databases.includes(database);
}
