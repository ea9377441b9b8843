/** API keys in the catalog: rows of nodedb.api_key, each owned by the principal that it acts as. */

import { type InTransit, type Queryable, readMoment } from "./users.ts";

/** One key; of its secret only what checks it. Never changed after it was read. */
export interface ApiKeyRecord {
  readonly keyId: string;
  readonly name: string;
  readonly ownerId: number;
  /** undefined: the owner's. */
  readonly databases: readonly string[] | undefined;
  readonly current: KeyVerifiers;
  /** The secret before the last rotation, as long as it is still accepted. */
  readonly previous: (KeyVerifiers & { readonly validUntil: Date }) | undefined;
  /** undefined is never. */
  readonly expiresAt: Date | undefined;
  readonly isRevoked: boolean;
}

/** What checks a secret. */
export interface KeyVerifiers {
  /** SHA-256 of the secret. */
  readonly secretHash: Buffer;
  /** SCRAM-SHA-256 verifier of the whole key, as text. */
  readonly scramVerifier: string;
}

interface ApiKeyRow {
  readonly key_id: string;
  readonly name: string;
  readonly owner_id: string;
  readonly databases: string[] | null;
  readonly secret_hash: Buffer;
  readonly scram_verifier: string;
  readonly previous_secret_hash: Buffer | null;
  readonly previous_scram_verifier: string | null;
  readonly previous_valid_until_ms: number | null;
  readonly expires_at_ms: number | null;
  readonly is_revoked: boolean;
}

const selectKey = `
  SELECT k.key_id, k.name, k.owner_id, k.databases, k.secret_hash, k.scram_verifier, k.previous_secret_hash,
         k.previous_scram_verifier, k.revoked_at IS NOT NULL AS is_revoked,
         pg_catalog.date_part('epoch', k.previous_valid_until) * 1000 AS previous_valid_until_ms,
         pg_catalog.date_part('epoch', k.expires_at) * 1000 AS expires_at_ms
    FROM nodedb.api_key k`;

function toRecord(row: ApiKeyRow): ApiKeyRecord {
  const validUntil = readMoment(row.previous_valid_until_ms);
  return {
    keyId: row.key_id,
    name: row.name,
    ownerId: Number(row.owner_id),
    databases: row.databases ?? undefined,
    current: { secretHash: row.secret_hash, scramVerifier: row.scram_verifier },
    previous:
      row.previous_secret_hash === null || row.previous_scram_verifier === null || validUntil === undefined
        ? undefined
        : {
            secretHash: row.previous_secret_hash,
            scramVerifier: row.previous_scram_verifier,
            validUntil,
          },
    expiresAt: readMoment(row.expires_at_ms),
    isRevoked: row.is_revoked,
  };
}

/** Why a key is not accepted now. @returns undefined when it is */
export function keyRefusal(key: ApiKeyRecord, now: Date): "key_revoked" | "key_expired" | undefined {
  if (key.isRevoked) return "key_revoked";
  if (key.expiresAt !== undefined && key.expiresAt <= now) return "key_expired";
  return undefined;
}

/** What a presented secret may be checked against now: the current one, and in an overlap the one before. */
export function acceptedVerifiers(key: ApiKeyRecord, now: Date): readonly KeyVerifiers[] {
  if (keyRefusal(key, now) !== undefined) return [];
  const { current, previous } = key;
  return previous !== undefined && previous.validUntil > now ? [current, previous] : [current];
}

/** Reads every key, in the order of their creation. */
export async function loadApiKeys(client: Queryable): Promise<ApiKeyRecord[]> {
  const result = await client.query<ApiKeyRow>(`${selectKey} ORDER BY k.id`);
  return result.rows.map(toRecord);
}

/** Reads the keys of these principals, in the order of their creation. */
export async function loadApiKeysOf(client: Queryable, ownerIds: readonly number[]): Promise<ApiKeyRecord[]> {
  const result = await client.query<ApiKeyRow>(
    `${selectKey} WHERE k.owner_id = ANY ($1::pg_catalog.int8[]) ORDER BY k.id`,
    [ownerIds.map(String)],
  );
  return result.rows.map(toRecord);
}

/** Reads one key. @returns undefined when there is none */
export async function findApiKey(
  client: Queryable,
  by: { readonly name: string } | { readonly keyId: string },
): Promise<ApiKeyRecord | undefined> {
  const result =
    "name" in by
      ? await client.query<ApiKeyRow>(`${selectKey} WHERE k.name = $1`, [by.name])
      : await client.query<ApiKeyRow>(`${selectKey} WHERE k.key_id = $1`, [by.keyId]);
  const row = result.rows[0];
  return row === undefined ? undefined : toRecord(row);
}

/** What is stored of a key's secret; the hash as text of a bytea. */
export interface KeyVerifiersInTransit {
  readonly secretHash: InTransit;
  readonly scramVerifier: InTransit;
}

export interface NewApiKey extends KeyVerifiersInTransit {
  readonly keyId: string;
  readonly name: string;
  readonly ownerId: number;
  readonly databases: readonly string[] | undefined;
  /** PostgreSQL's text of the moment in ISO form. */
  readonly expiresAt: string | undefined;
}

/** Creates a key's row. */
export async function createApiKeyRow(client: Queryable, key: NewApiKey): Promise<void> {
  await client.query(
    `INSERT INTO nodedb.api_key (key_id, name, owner_id, databases, secret_hash, scram_verifier, expires_at)
     VALUES ($1, $2, $3, $4::pg_catalog.text[], pg_catalog.current_setting($5)::bytea, pg_catalog.current_setting($6), $7::pg_catalog.timestamptz)`,
    [
      key.keyId,
      key.name,
      String(key.ownerId),
      key.databases === undefined ? null : [...key.databases],
      key.secretHash.setting,
      key.scramVerifier.setting,
      key.expiresAt ?? null,
    ],
  );
}

/** Replaces the databases of a key. */
export async function setKeyDatabases(
  client: Queryable,
  keyId: string,
  databases: readonly string[],
): Promise<void> {
  await client.query("UPDATE nodedb.api_key SET databases = $2::pg_catalog.text[] WHERE key_id = $1", [
    keyId,
    [...databases],
  ]);
}

/**
 * Gives a key a new secret.
 *
 * @param overlapUntil until when the secret before stays accepted, as ISO text; undefined: not at all
 */
export async function rotateKeyRow(
  client: Queryable,
  keyId: string,
  next: KeyVerifiersInTransit,
  overlapUntil: string | undefined,
): Promise<void> {
  await client.query(
    `UPDATE nodedb.api_key
        SET previous_secret_hash = CASE WHEN o.until IS NOT NULL THEN secret_hash END,
            previous_scram_verifier = CASE WHEN o.until IS NOT NULL THEN scram_verifier END,
            previous_valid_until = o.until,
            secret_hash = pg_catalog.current_setting($2)::bytea, scram_verifier = pg_catalog.current_setting($3)
       FROM (SELECT $4::pg_catalog.timestamptz AS until) o
      WHERE key_id = $1`,
    [keyId, next.secretHash.setting, next.scramVerifier.setting, overlapUntil ?? null],
  );
}

/** Marks a key as revoked; the moment of the first time stays. */
export async function revokeKeyRow(client: Queryable, keyId: string): Promise<void> {
  await client.query(
    "UPDATE nodedb.api_key SET revoked_at = coalesce(revoked_at, pg_catalog.now()) WHERE key_id = $1",
    [keyId],
  );
}

/** Deletes a key's row. */
export async function deleteKeyRow(client: Queryable, keyId: string): Promise<void> {
  await client.query("DELETE FROM nodedb.api_key WHERE key_id = $1", [keyId]);
}
