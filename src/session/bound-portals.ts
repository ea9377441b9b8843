/**
 * Portals that are not the upstream's alone to run. A portal lives until its transaction ends; clients bind ahead, so the end
 * that is answered now may be that of an earlier transaction.
 */

import type { Statement } from "../ddl/statement.ts";
import type { TransactionControl } from "../ddl/transaction-control.ts";
import type { Column } from "../exec/result.ts";
import type { ObjectName } from "../wire/frontend-message.ts";

/** A prepared statement of ours. */
export interface OwnStatement {
  readonly statement: Statement;
  readonly columns: readonly Column[] | undefined;
}

export interface OwnPortal extends OwnStatement {
  /** As in the Bind; checked at the first Execute. */
  readonly resultFormats: readonly number[];
  /** Rows not yet fetched, and the tag; absent before the first Execute. */
  progress: Progress | undefined;
}

export interface Progress {
  readonly rows: readonly Buffer[];
  readonly tag: string;
  fetched: number;
}

/** What is known of a portal: a statement of ours, one that controls the transaction, or neither. */
export interface BoundPortal {
  readonly own?: OwnPortal | undefined;
  readonly control?: TransactionControl | undefined;
}

interface Entry extends BoundPortal {
  /** How many messages that bring a ReadyForQuery were sent before the Bind, since the session began. */
  readonly boundAfter: number;
}

export class BoundPortals {
  readonly #entries = new Map<ObjectName, Entry>();

  get size(): number {
    return this.#entries.size;
  }

  get(name: ObjectName): BoundPortal | undefined {
    return this.#entries.get(name);
  }

  /** @param boundAfter as `ReplyLedger.sentReadies` is at the Bind */
  set(name: ObjectName, portal: BoundPortal, boundAfter: number): void {
    this.#entries.set(name, { ...portal, boundAfter });
  }

  delete(name: ObjectName): void {
    this.#entries.delete(name);
  }

  /** No transaction is open at a ReadyForQuery. @param readyCount as the ledger's, that one included */
  noteEnd(readyCount: number): void {
    for (const [name, { boundAfter }] of this.#entries)
      if (boundAfter < readyCount) this.#entries.delete(name);
  }

  /** The transaction was ended by a statement, not by a Sync: what was said of the portals that are neither ours nor control it. */
  forgetOthers(): void {
    for (const [name, { own, control }] of this.#entries) {
      if (own === undefined && control === undefined) this.#entries.delete(name);
    }
  }
}
