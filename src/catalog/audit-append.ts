/** The two round trips in which a batch gets into the audit log, before its COMMIT. */

import type { PoolClient, QueryResult } from "pg";
import type { AuditEvent } from "../observe/audit.ts";
import { type ChainedRow, type ChainHead, microsOf } from "./audit-chain.ts";

/** An entry that has no number yet. */
export type AppendedEntry = Omit<ChainedRow, "seq">;

export interface HeadRow {
  readonly seq: string;
  readonly hash: Buffer;
}

interface OutboxRow {
  readonly id: string;
  readonly at_micros: string;
  readonly event: AuditEvent;
  readonly username: string | null;
  readonly tenant_id: string | null;
  readonly source: string | null;
  readonly session_id: string | null;
  readonly detail: string | null;
}

/** What is there when the head is locked. */
export interface AppendBegun {
  /** The head's row; undefined when somebody has removed it. */
  readonly found: HeadRow | undefined;
  /** The last row of the log. */
  readonly last: HeadRow | undefined;
  /** Committed entries that were taken out of the outbox, in their order. */
  readonly outbox: readonly AppendedEntry[];
}

/**
 * Begins a transaction and locks the head; behind that lock reads the last row of whoever held it before, and empties the outbox:
 * one string, of which each statement sees what was committed when it begins.
 */
export async function beginAppend(client: PoolClient, maxFromOutbox: number): Promise<AppendBegun> {
  const results: unknown = await client.query(`
    BEGIN;
    SELECT seq, hash FROM nodedb.audit_head FOR UPDATE;
    SELECT seq, hash FROM nodedb.audit_log ORDER BY seq DESC LIMIT 1;
    DELETE FROM nodedb.audit_outbox
     WHERE id IN (SELECT o.id FROM nodedb.audit_outbox o ORDER BY o.id LIMIT ${maxFromOutbox})
    RETURNING id, ${microsOf("at")} AS at_micros, event, username, tenant_id, source, session_id, detail`);
  if (!Array.isArray(results)) throw new TypeError("several statements have one result");
  const [, head, last, outbox]: readonly (QueryResult | undefined)[] = results;
  return { found: head?.rows[0], last: last?.rows[0], outbox: entriesOf(outbox?.rows ?? []) };
}

/** Writes rows behind the head, and moves it to the last of them. */
export async function appendRows(
  client: PoolClient,
  rows: readonly { readonly row: ChainedRow; readonly hash: Buffer }[],
  head: ChainHead,
): Promise<void> {
  await client.query({
    name: "append to the audit log",
    text: append,
    values: [
      rows.map(({ row }) => String(row.seq)),
      rows.map(({ row }) => row.atMicros),
      rows.map(({ row }) => row.event),
      rows.map(({ row }) => row.username),
      rows.map(({ row }) => row.tenantId),
      rows.map(({ row }) => row.source),
      rows.map(({ row }) => row.sessionId),
      rows.map(({ row }) => row.detail),
      rows.map(({ hash }) => hash),
      String(head.seq),
      head.hash,
    ],
  });
}

const append = `
  WITH written AS (
    INSERT INTO nodedb.audit_log (seq, at, event, username, tenant_id, source, session_id, detail, hash)
    SELECT r.seq, 'epoch'::pg_catalog.timestamptz + r.micros * '1 microsecond'::pg_catalog.interval,
           r.event, r.username, r.tenant_id, r.source, r.session_id, r.detail, r.hash
      FROM unnest($1::pg_catalog.int8[], $2::pg_catalog.float8[], $3::pg_catalog.text[], $4::pg_catalog.text[],
                  $5::pg_catalog.int8[], $6::pg_catalog.text[], $7::pg_catalog.uuid[], $8::pg_catalog.text[],
                  $9::pg_catalog.bytea[])
           AS r (seq, micros, event, username, tenant_id, source, session_id, detail, hash))
  UPDATE nodedb.audit_head SET seq = $10, hash = $11`;

/** What was taken out of the outbox, in its order. */
function entriesOf(rows: readonly OutboxRow[]): AppendedEntry[] {
  return rows
    .toSorted((a, b) => Number(BigInt(a.id) - BigInt(b.id)))
    .map((row) => ({
      atMicros: row.at_micros,
      event: row.event,
      username: row.username,
      tenantId: row.tenant_id,
      source: row.source,
      sessionId: row.session_id,
      detail: row.detail,
    }));
}
