/** Whom principals of kind external are, in the catalog: rows of nodedb.external_identity. */

import { liveSessions } from "./session-table.ts";
import type { Queryable } from "./users.ts";

/** A subject of a provider. */
export interface ExternalIdentity {
  /** Whether the provider stands in the catalog or in the configuration. */
  readonly source: "catalog" | "configuration";
  readonly provider: string;
  readonly issuer: string;
  readonly subject: string;
}

/** Creates the row beside that of the principal. */
export async function createExternalRow(
  client: Queryable,
  principalId: number,
  { source, provider, issuer, subject }: ExternalIdentity,
): Promise<void> {
  await client.query(
    `INSERT INTO nodedb.external_identity (principal_id, source, provider, issuer, subject)
     VALUES ($1, $2, $3, $4, $5)`,
    [String(principalId), source, provider, issuer, subject],
  );
}

/** The principals of a provider of the catalog. */
export async function externalPrincipalsOf(client: Queryable, provider: string): Promise<number[]> {
  const result = await client.query<{ id: string }>(
    "SELECT e.principal_id AS id FROM nodedb.external_identity e WHERE e.source = 'catalog' AND e.provider = $1",
    [provider],
  );
  return result.rows.map((row) => Number(row.id));
}

/** Puts an external identity into another tenant: that of its provider. */
export async function setTenant(client: Queryable, principalId: number, tenantId: number): Promise<void> {
  await client.query("UPDATE nodedb.principal SET tenant_id = $2 WHERE id = $1", [
    String(principalId),
    String(tenantId),
  ]);
}

/**
 * External identities that nobody has used for so long, and that have no session on any front-end. Not those that somebody has
 * forbidden to log in: they would come back without that.
 *
 * @param unusedMs in milliseconds
 * @param which at most so many, chosen anew each time, so that those that stay are in nobody's way; or only this one
 */
export async function unusedExternals(
  client: Queryable,
  unusedMs: number,
  which: { readonly limit: number } | { readonly id: number },
): Promise<{ readonly id: number; readonly name: string }[]> {
  const result = await client.query<{ id: string; name: string }>(
    `SELECT p.id, p.name FROM nodedb.principal p
      WHERE p.kind = 'external' AND p.can_login
        AND coalesce(p.last_login_at, p.created_at)
            < pg_catalog.now() - $1 * '1 millisecond'::pg_catalog.interval
        AND NOT EXISTS (SELECT FROM ${liveSessions} WHERE s.principal_id = p.id)
        AND ($2::pg_catalog.int8 IS NULL OR p.id = $2)
      ORDER BY pg_catalog.random() LIMIT $3`,
    "id" in which ? [unusedMs, String(which.id), 1] : [unusedMs, null, which.limit],
  );
  return result.rows.map(({ id, name }) => ({ id: Number(id), name }));
}
