/** Whether a principal may log in, and its Identity once its credential has been verified. */

import type { ApiKeyRecord } from "../catalog/api-keys.ts";
import type { PrincipalCache } from "../catalog/cache.ts";
import type { PrincipalRecord } from "../catalog/users.ts";
import { rankOf } from "../config/built-in-roles.ts";
import { effectiveDatabases } from "./effective-databases.ts";
import type { AuthMethod, Claims, Identity } from "./identity.ts";

/** Why this user may not log in now, however it proves who it is. @returns undefined when it may */
export function loginRefusal(
  record: PrincipalRecord,
  now: Date,
): "login_disabled" | "expired" | "provider_dropped" | undefined {
  if (!record.canLogin) return "login_disabled";
  if (record.isOrphaned === true) return "provider_dropped";
  if (record.validUntil !== undefined && record.validUntil <= now) return "expired";
  return undefined;
}

/**
 * Whether an identity still stands for the same user: what a login awaits after its exchange takes time, in which the
 * user may have been dropped and another one have got its name, and with it its PostgreSQL role.
 */
export function isCurrent(cache: Pick<PrincipalCache, "findByName">, identity: Identity, now: Date): boolean {
  const record = cache.findByName(identity.role);
  return record?.id === identity.principal.id && loginRefusal(record, now) === undefined;
}

/**
 * The identity of a principal whose credential has been verified.
 *
 * @param key the API key that was the credential; it narrows what its owner may
 */
export function identityOf(record: PrincipalRecord, method: AuthMethod, key?: ApiKeyRecord): Identity {
  const databases = effectiveDatabases(record.databases, key?.databases);
  const { defaultDatabase } = record;
  const isDefaultAllowed =
    databases === undefined || (defaultDatabase !== undefined && databases.includes(defaultDatabase));
  return {
    principal: { id: record.id, kind: record.kind, name: record.name },
    role: record.name,
    roleVersion: record.roleVersion,
    tenantId: record.tenantId,
    roles: record.roles,
    effectiveRoles: record.effectiveRoles,
    isSuperuser: record.roles.includes("superuser"),
    defaultDatabase: isDefaultAllowed ? defaultDatabase : databases[0],
    databases,
    keyId: key?.keyId,
    connectionLimit: record.connectionLimit,
    method,
    claims: claimsOf(record),
    expiresAt: earlier(record.validUntil, key?.expiresAt),
  };
}

/** What `$auth` reads of a principal that the catalog knows all of. */
export function claimsOf({ name, roles, tenantId }: PrincipalRecord): Claims {
  const [role = null] = roles.toSorted((one, other) => rankOf(other) - rankOf(one));
  return { id: name, role, roles, tenant_id: tenantId };
}

function earlier(one: Date | undefined, other: Date | undefined): Date | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return one < other ? one : other;
}
