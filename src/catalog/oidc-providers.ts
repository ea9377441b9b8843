/** OIDC providers in the catalog: rows of nodedb.oidc_provider. */

import type { Queryable } from "./users.ts";

/** One rule of a claim mapping; `value` null matches any non-empty value, as '*' does. */
export interface ClaimMappingRule {
  readonly claim: string;
  readonly value: string | null;
  readonly defaultDatabase: string | undefined;
  readonly addDatabases: readonly string[];
  readonly addRoles: readonly string[];
}

/** What a statement sets of a provider. */
export interface OidcProviderSettings {
  readonly issuer: string;
  /** undefined: to be found by discovery. */
  readonly jwksUrl: string | undefined;
  /** undefined: any. */
  readonly audience: string | undefined;
  readonly tenantId: number;
  /** undefined: every algorithm that is allowed at all. */
  readonly algorithms: readonly string[] | undefined;
  readonly claimMapping: readonly ClaimMappingRule[];
}

export interface OidcProviderRecord extends OidcProviderSettings {
  readonly id: number;
  readonly name: string;
  /** When REFRESH JWKS was last run: keys that were fetched before are to be fetched again. */
  readonly jwksRefreshRequestedAt: Date | undefined;
}

/** A rule as jsonb. */
interface StoredRule {
  readonly claim: string;
  readonly value: string | null;
  readonly default_database?: string;
  readonly add_databases: readonly string[];
  readonly add_roles: readonly string[];
}

interface ProviderRow {
  readonly id: string;
  readonly name: string;
  readonly issuer: string;
  readonly jwks_url: string | null;
  readonly audience: string | null;
  readonly tenant_id: string;
  readonly algorithms: string[] | null;
  readonly claim_mapping: StoredRule[];
  readonly jwks_refresh_requested_at: Date | null;
}

const selectProvider = `
  SELECT o.id, o.name, o.issuer, o.jwks_url, o.audience, o.tenant_id, o.algorithms, o.claim_mapping,
         o.jwks_refresh_requested_at
    FROM nodedb.oidc_provider o`;

function toRecord(row: ProviderRow): OidcProviderRecord {
  return {
    id: Number(row.id),
    name: row.name,
    issuer: row.issuer,
    jwksUrl: row.jwks_url ?? undefined,
    audience: row.audience ?? undefined,
    tenantId: Number(row.tenant_id),
    algorithms: row.algorithms ?? undefined,
    claimMapping: row.claim_mapping.map((rule) => ({
      claim: rule.claim,
      value: rule.value,
      defaultDatabase: rule.default_database,
      addDatabases: rule.add_databases,
      addRoles: rule.add_roles,
    })),
    jwksRefreshRequestedAt: row.jwks_refresh_requested_at ?? undefined,
  };
}

function toStored(rule: ClaimMappingRule): StoredRule {
  return {
    claim: rule.claim,
    value: rule.value,
    ...(rule.defaultDatabase === undefined ? {} : { default_database: rule.defaultDatabase }),
    add_databases: rule.addDatabases,
    add_roles: rule.addRoles,
  };
}

function valuesOf(settings: OidcProviderSettings): unknown[] {
  return [
    settings.issuer,
    settings.jwksUrl ?? null,
    settings.audience ?? null,
    String(settings.tenantId),
    settings.algorithms === undefined ? null : [...settings.algorithms],
    JSON.stringify(settings.claimMapping.map(toStored)),
  ];
}

/** Reads every provider. */
export async function loadOidcProviders(client: Queryable): Promise<OidcProviderRecord[]> {
  const result = await client.query<ProviderRow>(`${selectProvider} ORDER BY o.name`);
  return result.rows.map(toRecord);
}

/** Reads one provider. @returns undefined when there is none of that name */
export async function findOidcProvider(
  client: Queryable,
  name: string,
): Promise<OidcProviderRecord | undefined> {
  const result = await client.query<ProviderRow>(`${selectProvider} WHERE o.name = $1`, [name]);
  const row = result.rows[0];
  return row === undefined ? undefined : toRecord(row);
}

/**
 * Finds a provider that a token of this issuer and audience could belong to as well: one without an audience takes every
 * token of its issuer.
 *
 * @param except name of the provider that is being changed
 */
export async function findAmbiguousProvider(
  client: Queryable,
  issuer: string,
  audience: string | undefined,
  except: string | undefined,
): Promise<string | undefined> {
  const result = await client.query<{ name: string }>(
    `SELECT o.name FROM nodedb.oidc_provider o
      WHERE o.issuer = $1 AND ($2::pg_catalog.text IS NULL OR o.audience IS NULL OR o.audience = $2)
        AND ($3::pg_catalog.text IS NULL OR o.name <> $3)
      ORDER BY o.name LIMIT 1`,
    [issuer, audience ?? null, except ?? null],
  );
  return result.rows[0]?.name;
}

/** Creates a provider's row. */
export async function createOidcProviderRow(
  client: Queryable,
  name: string,
  settings: OidcProviderSettings,
): Promise<void> {
  await client.query(
    `INSERT INTO nodedb.oidc_provider (issuer, jwks_url, audience, tenant_id, algorithms, claim_mapping, name)
     VALUES ($1, $2, $3, $4, $5::pg_catalog.text[], $6::pg_catalog.jsonb, $7)`,
    [...valuesOf(settings), name],
  );
}

/** Replaces all settings of a provider. */
export async function updateOidcProviderRow(
  client: Queryable,
  name: string,
  settings: OidcProviderSettings,
): Promise<void> {
  await client.query(
    `UPDATE nodedb.oidc_provider
        SET issuer = $1, jwks_url = $2, audience = $3, tenant_id = $4, algorithms = $5::pg_catalog.text[],
            claim_mapping = $6::pg_catalog.jsonb
      WHERE name = $7`,
    [...valuesOf(settings), name],
  );
}

/** Notes that the provider's keys are to be fetched again; the notification of the write tells every process. */
export async function requestJwksRefresh(client: Queryable, name: string): Promise<void> {
  await client.query(
    "UPDATE nodedb.oidc_provider SET jwks_refresh_requested_at = pg_catalog.clock_timestamp() WHERE name = $1",
    [name],
  );
}

/** Deletes a provider's row. */
export async function deleteOidcProviderRow(client: Queryable, name: string): Promise<void> {
  await client.query("DELETE FROM nodedb.oidc_provider WHERE name = $1", [name]);
}
