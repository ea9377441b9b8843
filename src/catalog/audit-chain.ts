/**
 * The chain over the audit log: each row carries a MAC of itself and of the row before it.
 *
 * HMAC-SHA-256 and not a bare hash: whoever may edit the table could compute bare hashes anew for all that follows. The key
 * is derived from the master secret, which PostgreSQL never sees.
 */

import { createHmac, timingSafeEqual } from "node:crypto";
import type { Queryable } from "./users.ts";

/** What the chain covers, as text where PostgreSQL's own text is exact. */
export interface ChainedRow {
  readonly seq: bigint;
  /** Microseconds since 1970-01-01 UTC, in decimal. */
  readonly atMicros: string;
  readonly event: string;
  readonly username: string | null;
  readonly tenantId: string | null;
  readonly source: string | null;
  readonly sessionId: string | null;
  readonly detail: string | null;
}

/** Where the chain ends. */
export interface ChainHead {
  /** 0 when nothing has been written. */
  readonly seq: bigint;
  readonly hash: Buffer;
}

export type ChainVerdict =
  | { readonly ok: true; readonly entries: bigint }
  | {
      readonly ok: false;
      /** The first number that is not as it was written. */
      readonly seq: bigint;
      readonly reason: "missing" | "changed" | "unexpected" | "head";
    };

/** What the first row is chained to. */
export const chainStart: ChainHead = { seq: 0n, hash: Buffer.alloc(32) };

/** Rows that a verification holds in memory at once. */
const rowsPerFetch = 1_000;

/** The hash of a row that follows one with `previous`. Each field has its length before it, so that none can run into another. */
export function chainHash(key: Buffer, previous: Buffer, row: ChainedRow): Buffer {
  const mac = createHmac("sha256", key).update(previous);
  const fields = [
    String(row.seq),
    row.atMicros,
    row.event,
    row.username,
    row.tenantId,
    row.source,
    row.sessionId,
    row.detail,
  ];
  for (const field of fields) {
    if (field === null) {
      mac.update("\0");
      continue;
    }
    const bytes = Buffer.from(field, "utf8");
    const head = Buffer.alloc(5);
    head[0] = 1;
    head.writeUInt32BE(bytes.length, 1);
    mac.update(head).update(bytes);
  }
  return mac.digest();
}

interface StoredRow {
  readonly seq: string;
  readonly at_micros: string;
  readonly event: string;
  readonly username: string | null;
  readonly tenant_id: string | null;
  readonly source: string | null;
  readonly session_id: string | null;
  readonly detail: string | null;
  readonly hash: Buffer | null;
}

/**
 * Checks every row and the head, in bounded memory.
 *
 * Cutting off the tail and setting the head back cannot be found from inside; `known` helps where this process has written or
 * seen a later head, else the heads in the program's log do.
 *
 * @param client inside a transaction
 */
export async function verifyChain(
  client: Queryable,
  key: Buffer,
  known: ChainHead = chainStart,
): Promise<ChainVerdict> {
  // Read first: rows that are appended meanwhile only come after it.
  const head = await readHead(client);
  await client.query(
    `DECLARE nodedb_audit_chain NO SCROLL CURSOR FOR
     SELECT seq, ${microsOf("at")} AS at_micros, event, username, tenant_id, source, session_id, detail, hash
       FROM nodedb.audit_log ORDER BY seq`,
  );
  let last: ChainHead = chainStart;
  try {
    for (;;) {
      const { rows } = await client.query<StoredRow>(`FETCH ${rowsPerFetch} FROM nodedb_audit_chain`);
      for (const row of rows) {
        const verdict = follow(key, last, row, [head, known]);
        if ("ok" in verdict) return verdict;
        last = verdict;
      }
      if (rows.length < rowsPerFetch) break;
    }
  } finally {
    await client.query("CLOSE nodedb_audit_chain").catch(() => undefined);
  }
  const wanted = head.seq > known.seq ? head.seq : known.seq;
  if (last.seq < wanted) return { ok: false, seq: last.seq + 1n, reason: "missing" };
  if (head.seq < known.seq) return { ok: false, seq: known.seq, reason: "head" };
  if (head.seq === 0n && !head.hash.equals(chainStart.hash)) return { ok: false, seq: 0n, reason: "head" };
  return { ok: true, entries: last.seq };
}

/** Checks one row against the one before it, and against the heads that are known to be at its number. */
function follow(
  key: Buffer,
  last: ChainHead,
  row: StoredRow,
  heads: readonly ChainHead[],
): ChainHead | Extract<ChainVerdict, { ok: false }> {
  const seq = BigInt(row.seq);
  const wanted = last.seq + 1n;
  if (seq > wanted) return { ok: false, seq: wanted, reason: "missing" };
  if (seq < wanted) return { ok: false, seq, reason: "unexpected" };
  const hash = chainHash(key, last.hash, {
    seq,
    atMicros: row.at_micros,
    event: row.event,
    username: row.username,
    tenantId: row.tenant_id,
    source: row.source,
    sessionId: row.session_id,
    detail: row.detail,
  });
  if (row.hash?.length !== hash.length || !timingSafeEqual(row.hash, hash)) {
    return { ok: false, seq, reason: "changed" };
  }
  for (const head of heads) {
    if (head.seq === seq && !head.hash.equals(hash)) return { ok: false, seq, reason: "head" };
  }
  return { seq, hash };
}

async function readHead(client: Queryable): Promise<ChainHead> {
  const result = await client.query<{ seq: string; hash: Buffer }>("SELECT seq, hash FROM nodedb.audit_head");
  const row = result.rows[0];
  // Without the row nobody can append either; the rows that are there count as unexpected ones.
  return row === undefined ? { seq: -1n, hash: Buffer.alloc(0) } : { seq: BigInt(row.seq), hash: row.hash };
}

/** SQL: a timestamptz as microseconds since 1970, exactly. */
export function microsOf(expression: string): string {
  return `(EXTRACT(epoch FROM ${expression}) * 1000000)::pg_catalog.int8::pg_catalog.text`;
}
