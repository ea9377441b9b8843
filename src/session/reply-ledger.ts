/**
 * What a client is still owed, as the upstream will see it: the messages that were sent and are not answered, in their order
 * (PostgreSQL manual 54.2.2, 54.2.3, 54.2.6). One byte a message; nothing is kept of what is in it.
 */

import type { TransactionStatus } from "../wire/backend-message.ts";
import { ByteQueue } from "./byte-queue.ts";

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

/** What a message that was sent is owed; two bits. */
const owed = {
  /** CopyDone or CopyFail that was sent before the upstream asked for data: nothing. */
  copyEnd: 0,
  /** Query and FunctionCall: any replies, then ReadyForQuery. */
  query: 1,
  /** Parse, Bind, Describe, Execute, Close: one reply. */
  reply: 2,
  /** Sync: ReadyForQuery. */
  sync: 3,
} as const;

const entryBits = 2;
const entryMask = 3;
/** Entries that one number holds: as many as fit into the 31 bits that V8 keeps in place. */
const nearEntries = 15;

export class ReplyLedger {
  /** As of the last ReadyForQuery, and of what was answered since: in a pipeline blocks begin and end without one. */
  status: TransactionStatus = "I";
  /** ReadyForQuery messages seen: a session is idle as long as it does not move. */
  readyCount = 0;
  #count = 0;
  /** The first entries, the lowest bits first: seldom there are more, and an array would be one more thing to fetch. */
  #near = 0;
  /** The entries behind them. */
  #far: ByteQueue | undefined;
  #isSkipping = false;
  #isCopyingIn = false;
  #hasUnsynced = false;
  #hasExecuted = false;
  #hasEndedUnsynced = false;
  #isBehindEnd = false;

  /** True when nothing is running or on its way: every message has been answered as far as it can be without a Sync. */
  get isEven(): boolean {
    return this.#count === 0 && !this.#isCopyingIn;
  }

  /** How many messages are not answered. */
  get outstanding(): number {
    return this.#count;
  }

  /** True when extended-protocol messages were sent that no Sync has followed: an implicit transaction is open. */
  get hasUnsynced(): boolean {
    return this.#hasUnsynced;
  }

  /** True once a statement was executed upstream since the last Sync: there is an implicit transaction. */
  get hasExecuted(): boolean {
    return this.#hasExecuted;
  }

  /** True once a block has ended since the last Sync: the client's transactions begin and end without one. */
  get hasEndedUnsynced(): boolean {
    return this.#hasEndedUnsynced;
  }

  /** True when the end of a block was the last thing that was answered, and nothing was sent since: no transaction is open. */
  get isBehindEnd(): boolean {
    return this.#isBehindEnd && this.status === "I" && this.isEven;
  }

  /** True after an error in the extended protocol: the upstream discards every message up to the next Sync. */
  get isSkipping(): boolean {
    return this.#isSkipping;
  }

  /** True while the upstream waits for a copy's data. */
  get isCopyingIn(): boolean {
    return this.#isCopyingIn;
  }

  /** True when the data of the copy that runs have been sent already, up to their end. */
  get isCopyEndedAhead(): boolean {
    for (let index = 1; index < this.#count; index += 1) {
      const entry = this.#at(index);
      if (entry === owed.copyEnd) return true;
      if (entry !== owed.sync) return false;
    }
    return false;
  }

  /** A message that was sent upstream, by its type byte. */
  noteSent(type: number): void {
    this.#isBehindEnd = false;
    if (this.#isCopyingIn) {
      this.#noteSentInCopy(type);
      return;
    }
    switch (type) {
      case letter.query:
      case letter.functionCall:
        // While it skips, the upstream does not even see this.
        if (this.#isSkipping) return;
        this.#noteSynced();
        this.#push(owed.query);
        return;
      case letter.sync:
        this.#isSkipping = false;
        this.#noteSynced();
        this.#push(owed.sync);
        return;
      case letter.parse:
      case letter.bind:
      case letter.describe:
      case letter.execute:
      case letter.close:
        if (type === letter.execute) this.#hasExecuted = true;
        this.#hasUnsynced = true;
        if (!this.#isSkipping) this.#push(owed.reply);
        return;
      default:
        // CopyDone or CopyFail: a stray one is ignored by the upstream.
        if (this.#count > 0) this.#push(owed.copyEnd);
    }
  }

  /** One of `countedReplies`. */
  noteReply(): void {
    this.#isBehindEnd = false;
    if (this.#at(0) === owed.reply) this.#shift();
  }

  /** CommandComplete of a statement that ends a block, behind `noteReply`. */
  noteBlockEnd(): void {
    this.status = "I";
    this.#isBehindEnd = true;
    if (this.#hasUnsynced) this.#hasEndedUnsynced = true;
  }

  noteError(): void {
    this.#isCopyingIn = false;
    // An error of a Query, of a function or of the commit at Sync is followed by its ReadyForQuery.
    if (this.#count > 0 && this.#at(0) !== owed.reply) return;
    while (this.#count > 0 && this.#at(0) !== owed.sync) this.#shift();
    if (this.#count === 0) this.#isSkipping = true;
  }

  /** CopyInResponse: what was sent behind the copy's own message is taken for its data. */
  noteCopyIn(): void {
    const behind: number[] = [];
    for (let entry = this.#at(1); entry !== undefined; entry = this.#at(behind.length + 1))
      behind.push(entry);
    // The server ignores Sync while it copies in. Anything else but data is an error that uses that message up.
    const end = behind.findIndex((entry) => entry !== owed.sync);
    this.#count = Math.min(this.#count, 1);
    this.#near &= entryMask;
    this.#far = undefined;
    if (end !== -1) for (const entry of behind.slice(end + 1)) this.#push(entry);
    this.#isCopyingIn = end === -1;
  }

  noteReady(status: TransactionStatus): void {
    this.status = status;
    this.readyCount += 1;
    this.#isCopyingIn = false;
    this.#shift();
  }

  /** A Query, or a Sync, of the front-end's own. */
  noteOwnQuery(): void {
    this.#noteSynced();
    this.#push(owed.query);
  }

  /** An extended-protocol message in place of one of the client's. */
  noteOwnExtended(): void {
    this.noteSent(letter.parse);
  }

  #noteSynced(): void {
    this.#hasUnsynced = false;
    this.#hasExecuted = false;
    this.#hasEndedUnsynced = false;
  }

  #noteSentInCopy(type: number): void {
    if (type === letter.sync) return;
    // The end of the data, or a message that makes the upstream fail the copy and is used up by that.
    this.#isCopyingIn = false;
  }

  /** @returns undefined behind the last one */
  #at(index: number): number | undefined {
    if (index >= this.#count) return undefined;
    if (index < nearEntries) return (this.#near >>> (index * entryBits)) & entryMask;
    return this.#far?.at(index - nearEntries);
  }

  /** The first message has been answered, and with it the ends of copies behind it that never began. */
  #shift(): void {
    do {
      if (this.#count === 0) return;
      this.#near >>>= entryBits;
      const next = this.#count > nearEntries ? this.#far?.shift() : undefined;
      if (next !== undefined) this.#near |= next << ((nearEntries - 1) * entryBits);
      this.#count -= 1;
    } while (this.#at(0) === owed.copyEnd);
  }

  #push(entry: number): void {
    if (this.#count < nearEntries) this.#near |= entry << (this.#count * entryBits);
    else {
      this.#far ??= new ByteQueue();
      this.#far.push(entry);
    }
    this.#count += 1;
  }
}
