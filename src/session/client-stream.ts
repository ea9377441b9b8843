/**
 * The client's half of a relay: passes its messages on, and takes those out that the interceptor wants. While one of them is
 * handled, what the client sends behind it waits.
 */

import { SqlError } from "../errors/sql-error.ts";
import { type FramerVisitor, MessageFramer, type Verdict, verdicts } from "../wire/framer.ts";
import { maxMessageBytes } from "../wire/limits.ts";
import type { TransportHandler } from "../wire/transport.ts";
import {
  clientTable,
  clientTableInCopy,
  clientTableInTransaction,
  clientTableWhenDue,
  clientTableWithOwn,
  framerLimits,
} from "./message-tables.ts";
import type { Interceptor, RelayListener } from "./relay-contracts.ts";
import type { RelayTransports } from "./relay-transports.ts";
import type { ReplyLedger } from "./reply-ledger.ts";
import type { UpstreamStream } from "./upstream-stream.ts";

/** What a client may send ahead while it waits for a statement of ours, in bytes; the rest waits in the kernel. */
const maxKeptBytes = 64 * 1024;

const terminate = 0x58; // X

/** What concerns the rest of the relay. */
export interface ClientStreamListener extends Pick<RelayListener, "onFailure" | "onClaimsDue"> {
  /** A message that was taken has been handled. */
  onHandled(): void;
  onTerminate(): void;
  /** It has closed the connection, or broken it. */
  onGone(): void;
}

export class ClientStream implements TransportHandler, FramerVisitor {
  readonly framer: MessageFramer;
  readonly #ledger: ReplyLedger;
  readonly #transports: RelayTransports;
  readonly #upstream: UpstreamStream;
  readonly #interceptor: Interceptor;
  readonly #listener: ClientStreamListener;
  /** As it is outside exchanges. */
  #table = clientTable;
  #hasOwn = false;
  #isWatchingTransaction = false;
  #areClaimsDue = false;
  #isHeldForClaims = false;
  #acceptsMore = true;
  #isHandling = false;
  #isStopped = false;
  /** Of the message that the interceptor handles, or has handled last; made when it is asked for, which is seldom. */
  #handling: AbortController | undefined;

  constructor(
    ledger: ReplyLedger,
    transports: RelayTransports,
    upstream: UpstreamStream,
    interceptor: Interceptor,
    listener: ClientStreamListener,
  ) {
    this.#ledger = ledger;
    this.#transports = transports;
    this.#upstream = upstream;
    this.#interceptor = interceptor;
    this.#listener = listener;
    this.framer = new MessageFramer(clientTable, this, framerLimits);
  }

  /** True while a message that was taken is handled. */
  get isHandling(): boolean {
    return this.#isHandling;
  }

  /** True while nothing has to be remembered of a transaction: no message is handled, and no Bind is looked at. */
  get isPlain(): boolean {
    return this.#table === clientTable && !this.#isHandling;
  }

  /** Of the message that is handled. */
  get signal(): AbortSignal {
    if (this.#handling === undefined) {
      this.#handling = new AbortController();
      if (this.#isStopped) this.#handling.abort();
    }
    return this.#handling.signal;
  }

  set hasOwn(hasOwn: boolean) {
    this.#hasOwn = hasOwn;
    this.#chooseTable();
  }

  set isWatchingTransaction(isWatching: boolean) {
    this.#isWatchingTransaction = isWatching;
    this.#chooseTable();
  }

  set areClaimsDue(areDue: boolean) {
    this.#areClaimsDue = areDue;
    this.#chooseTable();
  }

  /** The relay has stopped. */
  stop(): void {
    this.#isStopped = true;
    this.#handling?.abort();
    this.framer.discard();
  }

  cancelHandling(): void {
    if (!this.#isHandling) return;
    this.#handling ??= new AbortController();
    this.#handling.abort();
  }

  /** Nothing more is taken from the client but the data of a copy that runs. */
  acceptNoMore(): void {
    this.#acceptsMore = false;
    if (!this.#ledger.isCopyingIn) this.#transports.client.stop();
  }

  /** The upstream has taken everything, or a message has been handled. */
  resume(): void {
    if (!this.#transports.mayReadClient) return;
    if (this.framer.isPaused && !this.#isHandling) this.framer.resume();
    this.#read();
  }

  /** A copy within an exchange waits for the client's data. */
  admitCopyData(): void {
    this.framer.table = clientTableInCopy;
    this.framer.resume();
    this.#read();
  }

  /** An exchange is over; a copy in it may have let the client speak meanwhile. */
  onExchangeEnd(): void {
    this.framer.table = this.#table;
    this.framer.pause();
  }

  // ---- for the transport

  onData(buffer: Buffer, start: number, end: number): void {
    try {
      this.framer.push(buffer, start, end);
    } catch (error) {
      // An error while framing must end this session and no other.
      if (!this.#transports.isStopped) this.#listener.onFailure(error);
    }
    if (this.#hasSentEnough()) this.#transports.client.stop();
  }

  onDrain(): void {
    this.#transports.onClientDrained();
  }

  onEnd(): void {
    this.#listener.onGone();
  }

  // ---- for the framer

  onObserve(type: number): void {
    this.#ledger.noteSent(type);
  }

  onInspect(type: number, buffer: Buffer, start: number, end: number): Verdict {
    if (type === terminate) return verdicts.take;
    if (this.#upstream.isInExchange) return verdicts.take; // CopyDone or CopyFail
    // In place of a copy's data no statement is run; the upstream says so, and waiting for it to settle would last forever.
    if (this.#ledger.isCopyingIn) {
      this.#ledger.noteSent(type);
      return verdicts.pass;
    }
    this.#isHeldForClaims = this.#areClaimsDue && this.#mayBeginTransaction;
    if (this.#isHeldForClaims) return verdicts.take;
    const verdict = this.#interceptor.inspect(type, buffer, start, end);
    if (verdict === verdicts.pass) this.#ledger.noteSent(type);
    return verdict;
  }

  /** A statement of ours that is too long is refused: it must not reach PostgreSQL for its length. */
  onOversized(type: number, buffer: Buffer, start: number, end: number): Verdict {
    if (this.#ledger.isCopyingIn || !this.#interceptor.mustRefuse(type, buffer, start, end))
      return verdicts.pass;
    this.#listener.onFailure(
      new SqlError("program_limit_exceeded", "statement is too long", {
        severity: "FATAL",
        detail: "A statement that the front-end runs itself may have up to 1 MB.",
      }),
    );
    return verdicts.take;
  }

  onTake(type: number, buffer: Buffer, start: number, end: number): void {
    if (type === terminate) {
      this.#listener.onTerminate();
      return;
    }
    // Read on: a client that goes away while it waits has to be noticed.
    this.framer.pause();
    const message = Buffer.from(buffer.subarray(start, end));
    if (this.#upstream.isInExchange) {
      this.#transports.writeUpstream(message);
      return;
    }
    this.#isHandling = true;
    this.#upstream.isEndAwaited = true;
    if (this.#handling?.signal.aborted === true) this.#handling = undefined;
    void this.#handle(type, message);
  }

  onForward(buffer: Buffer, start: number, end: number): void {
    this.#transports.forwardUpstream(buffer, start, end);
  }

  onViolation(type: number, length: number): void {
    const isLengthWrong = length < 4 || length > maxMessageBytes;
    this.#listener.onFailure(
      new SqlError(
        "protocol_violation",
        isLengthWrong ? "invalid message length" : `invalid frontend message type ${type}`,
        { severity: "FATAL" },
      ),
    );
  }

  // ----

  /** As far as it is known: what is outstanding may end the transaction that the client is in. */
  get #mayBeginTransaction(): boolean {
    const { status, hasUnsynced, hasEndedUnsynced, isBehindEnd, isEven } = this.#ledger;
    if (hasUnsynced) return isBehindEnd || (hasEndedUnsynced && !isEven);
    return status === "I" || !isEven;
  }

  async #handle(type: number, message: Buffer): Promise<void> {
    try {
      if (this.#isHeldForClaims) await this.#handleHeld(type, message);
      else await this.#interceptor.handle(type, message);
      this.#isHandling = false;
      if (this.#transports.isStopped) return;
      this.resume();
      this.#listener.onHandled();
    } catch (error) {
      if (!this.#transports.isStopped) this.#listener.onFailure(error);
    }
  }

  async #handleHeld(type: number, message: Buffer): Promise<void> {
    await this.#upstream.settle();
    const { status, isSkipping, hasUnsynced, isBehindEnd } = this.#ledger;
    // After an error in the extended protocol the upstream would discard this until the client's Sync.
    if (!this.#transports.isStopped && status === "I" && !isSkipping && (!hasUnsynced || isBehindEnd)) {
      this.areClaimsDue = false;
      await this.#listener.onClaimsDue();
    }
    if (this.#transports.isStopped) return;
    if (this.#interceptor.inspect(type, message, 0, message.length) === verdicts.take) {
      await this.#interceptor.handle(type, message);
      return;
    }
    this.#ledger.noteSent(type);
    this.#transports.writeUpstream(message);
  }

  #hasSentEnough(): boolean {
    return this.framer.isPaused && this.framer.keptBytes >= maxKeptBytes;
  }

  #read(): void {
    if (!this.#transports.mayReadClient || this.#hasSentEnough()) return;
    if (this.#acceptsMore || this.#ledger.isCopyingIn) this.#transports.client.start();
  }

  #chooseTable(): void {
    if (this.#areClaimsDue) this.#table = clientTableWhenDue;
    else if (this.#isWatchingTransaction) this.#table = clientTableInTransaction;
    else this.#table = this.#hasOwn ? clientTableWithOwn : clientTable;
    this.framer.table = this.#table;
    if (this.#table !== clientTable) this.#upstream.isEndAwaited = true;
  }
}
