/**
 * What a client is still owed: ReadyForQuery messages, and replies to extended-protocol messages since the
 * last Sync (PostgreSQL manual 54.2.3). Two counters per direction; no message is kept.
 */

import type { TransactionStatus } from "../wire/backend-message.ts";

const letter = {
  query: 0x51, // Q
  parse: 0x50, // P
  bind: 0x42, // B
  describe: 0x44, // D
  execute: 0x45, // E
  close: 0x43, // C
  sync: 0x53, // S
  functionCall: 0x46, // F
} as const;

/** Replies that each answer exactly one extended-protocol message; T and n answer Describe. */
export const countedReplies = "123CIsTn";

/** More than any client sends ahead; a stray CopyDone must not make a list grow without end. */
const maxCopiesAhead = 1024;

export class ReplyLedger {
  /** As of the last ReadyForQuery. */
  status: TransactionStatus = "I";
  /** ReadyForQuery messages seen: a session is idle as long as it does not move. */
  readyCount = 0;
  /** True once the upstream has reported an error since the last ReadyForQuery: it ignores messages up to Sync. */
  hasErrorSinceReady = false;
  #readyOwed = 0;
  #repliesOwed = 0;
  #repliesSeen = 0;
  #syncsSinceExecute = 0;
  #isCopyingIn = false;
  /** For each copy whose end was sent before the upstream asked for its data: Syncs in between, which it will ignore. */
  #copiesEndedAhead: number[] = [];
  #hasExecuted = false;

  /** True once a statement was executed upstream since the last Sync: there is an implicit transaction. */
  get hasExecuted(): boolean {
    return this.#hasExecuted;
  }

  /** True when nothing has been sent that is not answered, and nothing waits for a Sync. */
  get isEven(): boolean {
    return this.#readyOwed === 0 && this.#repliesOwed === 0;
  }

  /** True when everything sent so far has been answered, messages behind the last Sync included. */
  get isAnswered(): boolean {
    return this.#readyOwed === 0 && (this.hasErrorSinceReady || this.#repliesSeen >= this.#repliesOwed);
  }

  /** True when messages were sent that the upstream may answer only after a Sync or Flush. */
  get hasUnsynced(): boolean {
    return this.#repliesOwed > 0;
  }

  /** True while the upstream waits for a copy's data. */
  get isCopyingIn(): boolean {
    return this.#isCopyingIn;
  }

  /** True when the data of the next copy have been sent already, up to their end. */
  get isCopyEndedAhead(): boolean {
    return this.#copiesEndedAhead.length > 0;
  }

  /** A message that was sent upstream, by its type byte. */
  noteSent(type: number): void {
    switch (type) {
      case letter.query:
      case letter.functionCall:
        this.#readyOwed += 1;
        this.#repliesOwed = 0;
        this.#syncsSinceExecute = 0;
        this.#hasExecuted = false;
        return;
      case letter.sync:
        this.#readyOwed += 1;
        this.#repliesOwed = 0;
        this.#hasExecuted = false;
        this.#syncsSinceExecute += 1;
        return;
      case letter.execute:
        this.#hasExecuted = true;
        this.#repliesOwed += 1;
        this.#syncsSinceExecute = 0;
        return;
      case letter.parse:
      case letter.bind:
      case letter.describe:
      case letter.close:
        this.#repliesOwed += 1;
        return;
      default:
        // CopyDone or CopyFail.
        if (this.#isCopyingIn) this.#forgetIgnoredSyncs();
        else if (!this.isEven && this.#copiesEndedAhead.length < maxCopiesAhead) {
          this.#copiesEndedAhead.push(this.#syncsSinceExecute);
          this.#syncsSinceExecute = 0;
        }
    }
  }

  /** One of `countedReplies`. */
  noteReply(): void {
    this.#repliesSeen += 1;
  }

  noteError(): void {
    this.hasErrorSinceReady = true;
    // The Syncs that a copy had ignored when it failed bring no ReadyForQuery either.
    if (this.#isCopyingIn) this.#forgetIgnoredSyncs();
  }

  noteCopyIn(): void {
    const ignoredSyncs = this.#copiesEndedAhead.shift();
    if (ignoredSyncs === undefined) this.#isCopyingIn = true;
    else this.#readyOwed -= ignoredSyncs;
  }

  noteReady(status: TransactionStatus): void {
    this.status = status;
    this.readyCount += 1;
    if (this.#readyOwed > 0) this.#readyOwed -= 1;
    this.#repliesSeen = 0;
    this.hasErrorSinceReady = false;
    this.#isCopyingIn = false;
    // What is left belongs to copies that failed before they began.
    if (this.#readyOwed === 0 && this.#copiesEndedAhead.length > 0) this.#copiesEndedAhead = [];
  }

  /** A Sync is sent by `noteOwnQuery`'s way: the messages before it are closed off. */
  noteSynced(): void {
    this.#repliesOwed = 0;
    this.#hasExecuted = false;
  }

  /** A Query of the front-end's own; it leaves what is owed behind the last Sync alone. */
  noteOwnQuery(): void {
    this.#readyOwed += 1;
  }

  /** An extended-protocol message in place of one of the client's. */
  noteOwnExtended(): void {
    this.#repliesOwed += 1;
  }

  // The server ignores Sync while it copies in, so those that came before CopyDone bring no ReadyForQuery.
  #forgetIgnoredSyncs(): void {
    this.#readyOwed -= this.#syncsSinceExecute;
    this.#syncsSinceExecute = 0;
    this.#isCopyingIn = false;
  }
}
