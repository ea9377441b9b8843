/**
 * The upstream's half of a relay: passes replies on, notes what they settle and what they tell of the session, and keeps those
 * that answer the front-end itself.
 */

import { SqlError } from "../errors/sql-error.ts";
import { noteParameterStatus, type UpstreamConnection } from "../upstream/upstream-connection.ts";
import {
  type ActionTable,
  type FramerVisitor,
  MessageFramer,
  type Verdict,
  verdicts,
} from "../wire/framer.ts";
import { encodeFlush } from "../wire/frontend-message-encoding.ts";
import type { TransportHandler } from "../wire/transport.ts";
import { meaningOfTag } from "./command-tags.ts";
import {
  framerLimits,
  upstreamTable,
  upstreamTableInCalls,
  upstreamTableInExchange,
  upstreamTableInOwnQuery,
} from "./message-tables.ts";
import type { RelayListener, ReplyDecision } from "./relay-contracts.ts";
import type { RelayTransports } from "./relay-transports.ts";
import type { ReplyLedger } from "./reply-ledger.ts";

const reply = {
  readyForQuery: 0x5a, // Z
  commandComplete: 0x43, // C
  parameterStatus: 0x53, // S
  errorResponse: 0x45, // E
  copyInResponse: 0x47, // G
  copyBothResponse: 0x57, // W
} as const;
const status = { idle: 0x49, inTransaction: 0x54 } as const;

/** The severity field of an ErrorResponse that ends the session, never translated (PostgreSQL manual 54.8). */
const fatalSeverity = Buffer.from("\0VFATAL\0", "latin1");

const flush = encodeFlush();
const nothing = Buffer.alloc(0);

type OnReply = (type: string, body: Buffer) => ReplyDecision;

/** A conversation of the front-end's own with the upstream, while the client waits. */
interface Exchange {
  readonly onReply: OnReply;
  finish(): void;
}

/** What concerns the rest of the relay. */
export interface UpstreamStreamListener extends Pick<RelayListener, "onFailure"> {
  /** ReadyForQuery outside a transaction; called only while `isEndAwaited`. */
  onTransactionEnd(): void;
  /** The session's settings may have been reset. */
  onReset(): void;
  /** SQL has given a name to a prepared statement or a portal. */
  onNamedBySql(): void;
  /** The upstream waits for the client's data. @param isOwn the copy belongs to an exchange of the front-end's own */
  onCopyIn(isOwn: boolean): void;
  onExchangeEnd(): void;
  /** Something was answered; called only while `isWatched`. */
  onAnswered(): void;
  /** The upstream has taken everything, and the client had been stopped for it. */
  onDrained(): void;
  /** The upstream has closed the connection, or broken it. */
  onGone(): void;
}

export class UpstreamStream implements TransportHandler, FramerVisitor {
  /** True once the client has been told by the upstream itself why the session ends. */
  hasSeenFatal = false;
  isWatched = false;
  /** True while something waits for the end of the client's transaction: most sessions never run a statement of ours. */
  isEndAwaited = false;
  readonly framer: MessageFramer;
  readonly #connection: UpstreamConnection;
  readonly #ledger: ReplyLedger;
  readonly #transports: RelayTransports;
  readonly #listener: UpstreamStreamListener;
  #exchange: Exchange | undefined;
  /** Of the reply that is being taken. */
  #replacement: Buffer | undefined;
  #settledWaiter: (() => void) | undefined;

  constructor(
    connection: UpstreamConnection,
    ledger: ReplyLedger,
    transports: RelayTransports,
    listener: UpstreamStreamListener,
  ) {
    this.#connection = connection;
    this.#ledger = ledger;
    this.#transports = transports;
    this.#listener = listener;
    this.framer = new MessageFramer(upstreamTable, this, framerLimits);
  }

  /** True while the front-end itself talks to the upstream. */
  get isInExchange(): boolean {
    return this.#exchange !== undefined;
  }

  /** True while there is something to answer. */
  get isBusy(): boolean {
    return !this.#ledger.isEven || this.#exchange !== undefined;
  }

  /** The relay has stopped: whoever waits goes on. */
  stop(): void {
    this.framer.discard();
    this.#settledWaiter?.();
  }

  /**
   * Waits until everything that was sent has been answered, up to the messages after the last Sync, which the upstream is
   * asked to flush.
   */
  async settle(): Promise<void> {
    if (this.#transports.isStopped || this.#ledger.isEven) return;
    this.flushUnsynced();
    await new Promise<void>((resolve) => {
      this.#settledWaiter = resolve;
    });
  }

  /** Without a Sync, the upstream keeps its answers to itself. */
  flushUnsynced(): void {
    if (this.#ledger.hasUnsynced) this.#transports.writeUpstream(flush);
  }

  /** As `Relay.converse`. @param areRowsOwn rows are shown to `onReply` too */
  converse(message: Buffer, isQuery: boolean, onReply: OnReply, areRowsOwn = false): Promise<void> {
    const table = areRowsOwn ? upstreamTableInOwnQuery : upstreamTableInExchange;
    return this.#exchangeIn(table, message, isQuery ? 1 : 0, onReply);
  }

  /** As `Relay.converseCalls`. */
  async converseCalls(calls: readonly Buffer[]): Promise<boolean> {
    let outstanding = calls.length;
    let isAccepted = true;
    await this.#exchangeIn(upstreamTableInCalls, Buffer.concat(calls), calls.length, (type) => {
      if (type === "E") isAccepted = false;
      if (type === "Z") outstanding -= 1;
      return outstanding === 0 ? "finish" : "drop";
    });
    return isAccepted;
  }

  /** @param queries how many ReadyForQuery the message brings */
  async #exchangeIn(table: ActionTable, message: Buffer, queries: number, onReply: OnReply): Promise<void> {
    if (this.#transports.isStopped) return;
    await new Promise<void>((resolve) => {
      this.#settledWaiter = resolve;
      this.framer.table = table;
      const finish = () => {
        this.#exchange = undefined;
        this.#settledWaiter = undefined;
        this.framer.table = upstreamTable;
        this.#listener.onExchangeEnd();
        queueMicrotask(resolve);
      };
      this.#exchange = { onReply, finish };
      for (let query = 0; query < queries; query += 1) this.#ledger.noteOwnQuery();
      this.#transports.writeUpstream(message);
    });
  }

  // ---- for the transport

  onData(buffer: Buffer, start: number, end: number): void {
    try {
      this.framer.push(buffer, start, end);
    } catch (error) {
      // An error while framing must end this session and no other.
      if (!this.#transports.isStopped) this.#listener.onFailure(error);
    }
  }

  onDrain(): void {
    if (this.#transports.onUpstreamDrained()) this.#listener.onDrained();
  }

  onEnd(): void {
    this.#listener.onGone();
  }

  // ---- for the framer

  onInspect(type: number, buffer: Buffer, start: number, end: number): Verdict {
    const exchange = this.#exchange;
    if (type === reply.readyForQuery) this.#noteReady(buffer[start + 5] ?? 0);
    else this.#noteReply(type, buffer, start, end);
    if (exchange === undefined || type === reply.parameterStatus) return verdicts.pass;
    const decision = exchange.onReply(String.fromCharCode(type), buffer.subarray(start + 5, end));
    if (decision === "forward") return verdicts.pass;
    if (typeof decision !== "string") this.#replacement = decision;
    else if (decision !== "drop") exchange.finish();
    return decision === "forward-and-finish" ? verdicts.pass : verdicts.take;
  }

  onObserve(type: number): void {
    if (type === reply.errorResponse) {
      // Too large to be looked at whole; what it means is known all the same.
      this.#ledger.noteError();
      this.#exchange?.onReply("E", nothing);
    } else this.#ledger.noteReply();
    this.#noteAnswered();
  }

  onOversized(): Verdict {
    return verdicts.pass;
  }

  onTake(): void {
    // The exchange has kept a reply from the client.
    if (this.#replacement === undefined) return;
    this.#transports.writeToClient(this.#replacement);
    this.#replacement = undefined;
  }

  onForward(buffer: Buffer, start: number, end: number): void {
    this.#transports.forwardToClient(buffer, start, end);
  }

  onViolation(): void {
    this.#listener.onFailure(
      new SqlError("protocol_violation", "the upstream server broke the protocol", { severity: "FATAL" }),
    );
  }

  // ----

  #noteReply(type: number, buffer: Buffer, start: number, end: number): void {
    switch (type) {
      case reply.commandComplete:
        if (this.#exchange === undefined) this.onObserve(type);
        this.#noteTag(buffer, start, end);
        return;
      case reply.parameterStatus:
        noteParameterStatus(this.#connection, buffer.subarray(start + 5, end));
        return;
      case reply.errorResponse:
        this.#ledger.noteError();
        if (buffer.subarray(start, end).includes(fatalSeverity)) this.hasSeenFatal = true;
        if (this.#settledWaiter !== undefined) this.#checkSettled();
        return;
      case reply.copyInResponse:
      case reply.copyBothResponse:
        this.#listener.onCopyIn(this.#exchange !== undefined);
        return;
      default:
        return;
    }
  }

  #noteTag(buffer: Buffer, start: number, end: number): void {
    const meaning = meaningOfTag(buffer, start, end);
    if (meaning === undefined) return;
    switch (meaning) {
      case "reset":
        this.#listener.onReset();
        return;
      case "name":
        this.#listener.onNamedBySql();
        return;
      case "begin":
        this.#ledger.status = "T";
        return;
      case "end":
        this.#ledger.noteBlockEnd();
    }
  }

  #noteReady(transaction: number): void {
    this.#ledger.noteReady(
      transaction === status.idle ? "I" : transaction === status.inTransaction ? "T" : "E",
    );
    if (this.isEndAwaited && transaction === status.idle) this.#listener.onTransactionEnd();
    this.#noteAnswered();
  }

  #noteAnswered(): void {
    if (this.#settledWaiter !== undefined) this.#checkSettled();
    if (this.isWatched) queueMicrotask(() => this.#listener.onAnswered());
  }

  // Resolved in a microtask: by then the bytes that are being scanned have been forwarded.
  #checkSettled(): void {
    if (this.#exchange !== undefined || !this.#ledger.isEven) return;
    const waiter = this.#settledWaiter;
    this.#settledWaiter = undefined;
    if (waiter !== undefined) queueMicrotask(waiter);
  }
}
