/** Variants of the claims' functions with one defence taken out, and envelopes with one thing wrong: to show what each is for. */

import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type pg from "pg";
import {
  type ClaimsBinding,
  type ClaimsKey,
  deriveClaimsKey,
  type SealableClaims,
} from "../../src/upstream/claims-envelope.ts";
import { claimsFunctionsSql } from "../../src/upstream/claims-functions.ts";
import type { Stage } from "./stage.ts";

/** What stands in an envelope; everything can be made wrong. */
export interface EnvelopeContent {
  typ: string;
  pid: number;
  port: number | null;
  su: string;
  db: string;
  iat: number;
  exp: number;
  claims: SealableClaims;
}

/** The key of the stage's database: what an attacker does not have. */
export function keyOf(stage: Stage, database = "postgres"): ClaimsKey {
  const secret = readFileSync(join(stage.frontEnd.dataDir, "master.secret"), "utf8").trim();
  return deriveClaimsKey(Buffer.from(secret, "hex"), database);
}

/** What PostgreSQL knows of a client's connection. */
export async function bindingOf(client: pg.Client): Promise<ClaimsBinding> {
  const { rows } = await client.query(
    `SELECT pg_backend_pid() AS "processId", inet_client_port() AS "clientPort", session_user AS "sessionUser",
            current_database() AS database`,
  );
  return rows[0];
}

/** A good envelope for a connection, but for `changes`. */
export function sealWith(key: ClaimsKey, binding: ClaimsBinding, changes: Partial<EnvelopeContent>): string {
  const now = Date.now() / 1000;
  const json = JSON.stringify({
    typ: "nodedb-session",
    pid: binding.processId,
    port: binding.clientPort,
    su: binding.sessionUser,
    db: binding.database,
    iat: now,
    exp: now + 3600,
    claims: { id: "mallory" },
    ...changes,
  });
  return `${createHmac("sha256", key.secret).update(`${key.kid}${json}`).digest("hex")}${key.kid}${json}`;
}

/**
 * Installs the functions of the program under another schema, changed.
 *
 * @param edits what is replaced; each has to be found
 */
export async function installVariant(
  stage: Stage,
  schema: string,
  edits: readonly (readonly [from: string | RegExp, to: string])[],
): Promise<void> {
  let sql = claimsFunctionsSql(schema);
  for (const [from, to] of edits) {
    const edited = sql.replaceAll(typeof from === "string" ? from : new RegExp(from, "g"), to);
    if (edited === sql) throw new Error(`the functions have no ${from} to take out`);
    sql = edited;
  }
  await stage.past(`
    CREATE SCHEMA ${schema} AUTHORIZATION nodedb_auth;
    SET ROLE nodedb_auth;
    ${sql}
    INSERT INTO ${schema}.claims_key SELECT * FROM auth.claims_key;`);
}
