/**
 * Writes the audit log: entries are collected and appended in batches, off the path of what they tell of.
 *
 * Front-ends on one catalog append to one chain: each batch locks the row of the chain's head in a short transaction of its own.
 * Entries of statements take another way. They are put into an outbox by the statement's own transaction, so that they exist
 * exactly when the change does, and a batch moves them into the chain after the commit: chained in the statement's transaction,
 * the head would stay locked until that ends, and administrators would wait for each other.
 */

import type { Pool, PoolClient } from "pg";
import { type Audit, type AuditEntry, type AuditLevel, isRecorded } from "../observe/audit.ts";
import { hideTokens } from "../observe/hide-tokens.ts";
import type { Log } from "../observe/log.ts";
import { type AppendedEntry, appendRows, beginAppend, type HeadRow } from "./audit-append.ts";
import { type ChainHead, chainHash, chainStart, verifyChain } from "./audit-chain.ts";
import type { ChangeListener } from "./change-listener.ts";
import { FlushSchedule } from "./flush-schedule.ts";
import type { Queryable } from "./users.ts";

/** Channel on which front-ends learn of entries in the outbox. */
export const auditChannel = "nodedb_audit";

export interface AuditLogOptions {
  readonly pool: Pool;
  readonly changes: ChangeListener;
  /** Derived from the master secret; the same on every front-end of the catalog. */
  readonly key: Buffer;
  readonly level: AuditLevel;
  readonly log: Log;
  readonly flushDelayMs?: number;
}

/** With the time that a batch takes, an entry is written within 100 ms of what it tells of. */
const defaultFlushDelayMs = 50;
const retryDelayMs = 1_000;
const entriesPerBatch = 500;
/** Entries that wait for a PostgreSQL that is away; more are counted only. */
const maxPending = 10_000;
/** How often the chain's head goes to the program's log when it has moved. */
const headIntervalMs = 10 * 60_000;
const maxDetailLength = 1_000;
const maxNameLength = 128;
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

const printableAscii = /^[ -~]*$/;

export class AuditLog implements Audit {
  readonly #options: AuditLogOptions;
  #pending: AppendedEntry[] = [];
  #lost = 0;
  readonly #schedule = new FlushSchedule(
    () => this.#writeAll(),
    (error) => {
      this.#options.log.debug({ err: error }, "cannot write the audit log yet");
      if (!this.#isClosed) this.#schedule.later(retryDelayMs);
    },
  );
  #headTimer: NodeJS.Timeout | undefined;
  #head: ChainHead = chainStart;
  /** The last head before the log was found to end earlier than this process knows: evidence, kept. */
  #removedHead: ChainHead | undefined;
  #loggedSeq = 0n;
  #isClosed = false;

  constructor(options: AuditLogOptions) {
    this.#options = options;
  }

  /** Takes over what a front-end that crashed has left in the outbox, and says where the chain stands. */
  async open(): Promise<void> {
    await this.flush();
    await this.#options.changes.subscribe({
      channel: auditChannel,
      spacingMs: this.#options.flushDelayMs ?? defaultFlushDelayMs,
      pollIntervalMs: retryDelayMs,
      check: async () => {
        if (await this.#hasOutbox()) await this.flush();
      },
    });
    this.#logHead();
    this.#headTimer = setInterval(() => this.#logHead(), headIntervalMs).unref();
  }

  record(entry: AuditEntry): void {
    if (!isRecorded(entry.event, this.#options.level)) return;
    if (this.#pending.length >= maxPending) {
      if (this.#lost === 0) this.#options.log.error("audit entries are lost: the catalog is not available");
      this.#lost += 1;
      return;
    }
    // Cut to its columns now and not when it is written: what clients claim to be called may be long, and wait long.
    this.#pending.push(pendingEntry(entry));
    this.#schedule.later(this.#options.flushDelayMs ?? defaultFlushDelayMs);
  }

  /**
   * Puts an entry into the outbox, as a part of the transaction that the client is in: it is in the log when that has committed.
   */
  async recordIn(client: Queryable, entry: AuditEntry): Promise<void> {
    if (!isRecorded(entry.event, this.#options.level)) return;
    const { username, tenantId, source, sessionId, detail } = toColumns(entry);
    await client.query(
      `INSERT INTO nodedb.audit_outbox (event, username, tenant_id, source, session_id, detail)
       VALUES ($1, $2, $3, $4, $5, $6)`,
      [entry.event, username, tenantId, source, sessionId, detail],
    );
    await client.query(`NOTIFY ${auditChannel}`);
  }

  /** Writes all that is there now. @throws when it cannot; what was collected is kept for the next time */
  flush(): Promise<void> {
    return this.#schedule.now();
  }

  /** Checks the chain against itself, and against what this process knows of its head. @see verifyChain */
  verify(client: Queryable): ReturnType<typeof verifyChain> {
    return verifyChain(client, this.#options.key, this.#removedHead ?? this.#head);
  }

  /** Writes what was collected; close the change listener after this and the pool last. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearInterval(this.#headTimer);
    try {
      do await this.flush();
      while (this.#pending.length > 0);
    } catch (error) {
      this.#options.log.error({ err: error, entries: this.#pending.length }, "audit entries are lost");
    }
    this.#schedule.cancel();
    this.#logHead();
  }

  async #hasOutbox(): Promise<boolean> {
    return (await this.#options.pool.query("SELECT FROM nodedb.audit_outbox LIMIT 1")).rowCount !== 0;
  }

  async #writeAll(): Promise<void> {
    // What comes meanwhile has a timer of its own: many logins would else make one small batch after another.
    let due = this.#pending.length;
    for (;;) {
      const batch = this.#pending.slice(0, Math.min(due, entriesPerBatch));
      const fromOutbox = await this.#append(batch);
      this.#pending.splice(0, batch.length);
      due -= batch.length;
      if (this.#pending.length === 0 && this.#lost > 0) {
        this.#pending.push(
          pendingEntry({
            event: "AdminAction",
            detail: `${this.#lost} audit entries were lost while the catalog was not available`,
          }),
        );
        this.#lost = 0;
        due = 1;
      }
      if (due === 0 && fromOutbox < entriesPerBatch) return;
    }
  }

  /** @returns how many entries the outbox gave */
  async #append(batch: readonly AppendedEntry[]): Promise<number> {
    const client = await this.#options.pool.connect();
    let failure: Error | undefined;
    const ignore = () => undefined;
    client.on("error", ignore);
    try {
      const { found, last, outbox } = await beginAppend(client, entriesPerBatch);
      const head = this.#headOf(found, last);
      const next = await this.#insert(client, head, [...outbox, ...batch]);
      await client.query("COMMIT");
      this.#head = next;
      return outbox.length;
    } catch (error) {
      failure = error instanceof Error ? error : new Error(String(error));
      throw error;
    } finally {
      client.off("error", ignore);
      // What state the connection is in after an error is unknown: closed, not reused.
      client.release(failure);
    }
  }

  #headOf(found: HeadRow | undefined, last: HeadRow | undefined): ChainHead {
    if (found === undefined) throw new Error("the audit log has lost its head row");
    const head = { seq: BigInt(found.seq), hash: found.hash };
    this.#noticeRemoval(head, BigInt(last?.seq ?? 0));
    if (last === undefined || BigInt(last.seq) <= head.seq) return head;
    this.#options.log.error(
      { seq: last.seq, head: found.seq },
      "the head of the audit chain has been set back",
    );
    return { seq: BigInt(last.seq), hash: last.hash };
  }

  #noticeRemoval(head: ChainHead, lastSeq: bigint): void {
    const known = this.#head;
    const isShorter = head.seq < known.seq || lastSeq < known.seq;
    const isOther = head.seq === known.seq && !head.hash.equals(known.hash);
    if (this.#removedHead !== undefined || !(isShorter || isOther)) return;
    this.#removedHead = known;
    this.#options.log.error(
      { seq: String(lastSeq), knownSeq: String(known.seq), knownHash: known.hash.toString("hex") },
      "the end of the audit log has been removed",
    );
  }

  async #insert(client: PoolClient, head: ChainHead, entries: readonly AppendedEntry[]): Promise<ChainHead> {
    if (entries.length === 0) return head;
    let { seq, hash } = head;
    const rows = entries.map(({ atMicros, event, username, tenantId, source, sessionId, detail }) => {
      seq += 1n;
      const row = { seq, atMicros, event, username, tenantId, source, sessionId, detail };
      hash = chainHash(this.#options.key, hash, row);
      return { row, hash };
    });
    const next = { seq, hash };
    await appendRows(client, rows, next);
    return next;
  }

  #logHead(): void {
    const { seq, hash } = this.#head;
    if (seq === this.#loggedSeq) return;
    this.#loggedSeq = seq;
    this.#options.log.info({ seq: String(seq), hash: hash.toString("hex") }, "audit chain head");
  }
}

function pendingEntry(entry: AuditEntry): AppendedEntry {
  const { username, tenantId, source, sessionId, detail } = toColumns(entry);
  const { event } = entry;
  return { event, username, tenantId, source, sessionId, detail, atMicros: `${Date.now()}000` };
}

function toColumns(entry: AuditEntry): Omit<AppendedEntry, "atMicros" | "event"> {
  return {
    username: storable(entry.username, maxNameLength),
    tenantId: entry.tenantId === undefined ? null : String(entry.tenantId),
    source: storable(entry.source, maxNameLength),
    sessionId: entry.sessionId !== undefined && uuid.test(entry.sessionId) ? entry.sessionId : null,
    detail: storable(entry.detail, maxDetailLength),
  };
}

/** The text as PostgreSQL can hold it: names in refused logins are whatever the client sent. Keys and tokens in it are cut out. */
function storable(text: string | undefined, maxLength: number): string | null {
  if (text === undefined) return null;
  if (text.length <= maxLength && printableAscii.test(text)) return hideTokens(text);
  // As bytes and back: a part of a string would keep all of it in memory, and half a surrogate pair is nothing to PostgreSQL.
  return hideTokens(Buffer.from(text.slice(0, maxLength)).toString().replaceAll("\0", ""));
}
