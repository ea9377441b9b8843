/** Puts `auth.session()`, its readers and the database's key into one database, and keeps them as this program has them. */

import { createHash } from "node:crypto";
import { type ClientBase, escapeIdentifier, escapeLiteral } from "pg";
import { SqlError } from "../errors/sql-error.ts";
import { claimsOwner } from "./built-in-groups.ts";
import { type ClaimsKey, deriveClaimsKey } from "./claims-envelope.ts";
import { claimsFunctionsSql, claimsKeyTable, withdrawnClaimsTable } from "./claims-functions.ts";
import { byteaText, copyIn } from "./copy-in.ts";

export interface ClaimsInstallation {
  /** `auth.schema` of the configuration. */
  readonly schema: string;
  readonly masterSecret: Buffer;
  readonly database: string;
}

/**
 * Installs what is missing or of another release, and removes keys of other databases and installations (a copied template, a
 * restored dump). Runs inside the caller's transaction; when two do so at once one of them fails, and tries again.
 *
 * The owner is a role that nobody logs in as and that owns nothing else: a mistake in a function that runs with its owner's
 * rights would give away these, and not the administrative login's.
 *
 * @returns false when everything stood already
 * @throws SqlError object_not_in_prerequisite_state when the schema is somebody else's
 */
export async function installClaims(client: ClientBase, installation: ClaimsInstallation): Promise<boolean> {
  const { schema, database } = installation;
  const key = deriveClaimsKey(installation.masterSecret, database);
  const sql = claimsFunctionsSql(schema);
  const mark = markOf(sql, installation, key);
  const found = await readSchema(client, schema);
  if (found !== undefined && found.owner !== claimsOwner) {
    throw new SqlError(
      "object_not_in_prerequisite_state",
      `schema "${schema}" of database "${database}" is not NodeDB's`,
      { hint: "Name another schema in auth.schema, or rename this one." },
    );
  }
  const owner = escapeIdentifier(claimsOwner);
  const s = escapeIdentifier(schema);
  if (found?.mark === mark && found.hasTables) {
    await client.query(`SET LOCAL ROLE ${owner}`);
    const kids = await client.query<{ kid: string }>(`SELECT kid FROM ${s}.${claimsKeyTable}`);
    await client.query("SET LOCAL ROLE NONE");
    if (kids.rows.length === 1 && kids.rows[0]?.kid === key.kid) return false;
  }
  if (found === undefined) await client.query(`CREATE SCHEMA ${s} AUTHORIZATION ${owner}`);
  // As the owner itself: what the administrative login makes may have default privileges for others.
  await client.query(`SET LOCAL ROLE ${owner}`);
  await client.query(sql);
  await client.query(`DELETE FROM ${s}.${claimsKeyTable}`);
  await copyIn(client, `${s}.${claimsKeyTable} (kid, inner_pad, outer_pad)`, [
    [key.kid, byteaText(key.innerPad), byteaText(key.outerPad)],
  ]);
  await client.query(`COMMENT ON SCHEMA ${s} IS ${escapeLiteral(mark)}`);
  await client.query("SET LOCAL ROLE NONE");
  return true;
}

/** Changes with everything that is installed; kept as the schema's comment, which only its owner can change. */
function markOf(sql: string, { database }: ClaimsInstallation, { kid }: ClaimsKey): string {
  const fingerprint = createHash("sha256").update([sql, database, kid].join("\0")).digest("hex").slice(0, 32);
  return `Who a session of NodeDB's is, verified. Installed by the front-end, ${fingerprint}`;
}

interface FoundSchema {
  readonly owner: string;
  readonly mark: string | null;
  readonly hasTables: boolean;
}

async function readSchema(client: ClientBase, schema: string): Promise<FoundSchema | undefined> {
  const result = await client.query<{ owner: string; mark: string | null; has_tables: boolean }>(
    `SELECT r.rolname::pg_catalog.text AS owner, pg_catalog.obj_description(n.oid, 'pg_namespace') AS mark,
            (SELECT count(*) FROM pg_catalog.pg_class c
              WHERE c.relnamespace = n.oid AND c.relname = ANY ($2) AND c.relkind = 'r') = 2 AS has_tables
       FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner
      WHERE n.nspname = $1`,
    [schema, [claimsKeyTable, withdrawnClaimsTable]],
  );
  const row = result.rows[0];
  return row && { owner: row.owner, mark: row.mark, hasTables: row.has_tables };
}
