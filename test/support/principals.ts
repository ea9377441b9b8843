/** Principals and keys as the catalog has them, for tests that ask what may be done with them. */

import type { ApiKeyRecord } from "../../src/catalog/api-keys.ts";
import type { PrincipalRecord } from "../../src/catalog/users.ts";

/** A service account of the default tenant that may read and write everywhere, but for what is said otherwise. */
export function makePrincipal(changes: Partial<PrincipalRecord> = {}): PrincipalRecord {
  return {
    id: 5,
    kind: "service_account",
    name: "etl",
    tenantId: 1,
    scramVerifier: undefined,
    canLogin: true,
    validUntil: undefined,
    connectionLimit: -1,
    defaultDatabase: undefined,
    roleVersion: 1,
    roles: ["readwrite"],
    effectiveRoles: ["readwrite"],
    databases: undefined,
    ...changes,
  };
}

/** A key of that principal, for all of its databases and without an end. */
export function makeApiKeyRecord(changes: Partial<ApiKeyRecord> = {}): ApiKeyRecord {
  return {
    keyId: "abcdefghij23",
    name: "k",
    ownerId: 5,
    databases: undefined,
    current: { secretHash: Buffer.alloc(32), scramVerifier: "" },
    previous: undefined,
    expiresAt: undefined,
    isRevoked: false,
    ...changes,
  };
}
