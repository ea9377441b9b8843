/**
 * Moves bytes between a client and its upstream connection, and knows at every moment what is owed to
 * whom: how many ReadyForQuery are outstanding, the transaction status, whether a message is half-way
 * through. Statements of ours are taken out of the stream and handed to an interceptor.
 */

import { SqlError } from "../errors/sql-error.ts";
import { noteParameterStatus, type UpstreamConnection } from "../upstream/upstream-connection.ts";
import { type FramerVisitor, MessageFramer, type Verdict, verdicts } from "../wire/framer.ts";
import { encodeFlush } from "../wire/frontend-message-encoding.ts";
import { maxMessageBytes } from "../wire/limits.ts";
import type { Transport, TransportHandler } from "../wire/transport.ts";
import { meaningOfTag } from "./command-tags.ts";
import {
  clientTable,
  clientTableInCopy,
  clientTableInTransaction,
  clientTableWhenDue,
  clientTableWithOwn,
  upstreamTable,
  upstreamTableInCalls,
  upstreamTableInExchange,
  upstreamTableInOwnQuery,
} from "./message-tables.ts";
import type { CommitHold, Interceptor, RelayListener, ReplyDecision } from "./relay-contracts.ts";
import { ReplyLedger } from "./reply-ledger.ts";

/**
 * Largest Query or Parse that is searched for statements of ours, in bytes: a little more than the longest of those. Of
 * larger ones only the beginning is looked at.
 */
const maxInspectedBytes = 1024 * 1024 + 64 * 1024;

/** What a client may send ahead while it waits for a statement of ours, in bytes; the rest waits in the kernel. */
const maxKeptBytes = 64 * 1024;

/** Longest COMMIT with statements of ours in it, in ms. */
const maxHeldCommitMs = 5_000;
/** How long the upstream has to end a COMMIT that was cancelled, in ms. */
const maxCancelledCommitMs = 2_000;

const limits = { maxMessageBytes, maxInspectedBytes };

const terminate = 0x58; // X
const sync = 0x53; // S
const flush = encodeFlush();
const nothing = Buffer.alloc(0);

const reply = {
  readyForQuery: 0x5a, // Z
  commandComplete: 0x43, // C
  parameterStatus: 0x53, // S
  errorResponse: 0x45, // E
  copyInResponse: 0x47, // G
  copyBothResponse: 0x57, // W
} as const;

/** The severity field of an ErrorResponse that ends the session, never translated (PostgreSQL manual 54.8). */
const fatalSeverity = Buffer.from("\0VFATAL\0", "latin1");

/** A conversation of the front-end's own with the upstream, while the client waits. */
interface Exchange {
  onReply(type: string, body: Buffer): ReplyDecision;
  finish(): void;
}

export class Relay {
  readonly client: Transport;
  readonly connection: UpstreamConnection;
  readonly ledger = new ReplyLedger();
  /** True once the client has been told by the upstream itself why the session ends. */
  hasSeenFatal = false;
  readonly #upstream: Transport;
  readonly #interceptor: Interceptor;
  readonly #listener: RelayListener;
  readonly #fromClient: MessageFramer;
  readonly #fromUpstream: MessageFramer;
  #clientTable = clientTable;
  #hasOwn = false;
  #isWatchingTransaction = false;
  #areClaimsDue = false;
  #isHeldForClaims = false;
  #isClientBlocked = false;
  #isUpstreamBlocked = false;
  #isHandling = false;
  /** Of the message that the interceptor handles, or has handled last. */
  #handling = new AbortController();
  #exchange: Exchange | undefined;
  #settledWaiter: (() => void) | undefined;
  #isReadyWatched = false;
  #acceptsMore = true;
  #isStopped = false;
  #heldCommit: Promise<void> | undefined;
  #commitTimer: NodeJS.Timeout | undefined;
  #isAbandoned = false;

  constructor(
    client: Transport,
    connection: UpstreamConnection,
    interceptor: Interceptor,
    listener: RelayListener,
  ) {
    this.client = client;
    this.connection = connection;
    this.#upstream = connection.transport;
    this.#interceptor = interceptor;
    this.#listener = listener;
    this.#fromClient = new MessageFramer(clientTable, new ClientSide(this), limits);
    this.#fromUpstream = new MessageFramer(upstreamTable, new UpstreamSide(this), limits);
  }

  /** Begins to relay; `early` is what the client had sent before. */
  start(early: Buffer): void {
    this.client.handler = this.#clientHandler;
    this.#upstream.handler = this.#upstreamHandler;
    this.#upstream.start();
    this.client.start();
    if (early.length > 0) this.#clientHandler.onData(early, 0, early.length);
  }

  /** Ends relaying; neither side is read any more. */
  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#handling.abort();
    this.client.stop();
    this.#upstream.stop();
    this.#fromClient.discard();
    this.#fromUpstream.discard();
    this.#settledWaiter?.();
  }

  /** True when no statement is running or on its way, in either direction. */
  get isSettled(): boolean {
    return !this.#isHandling && !this.isUpstreamBusy;
  }

  /** True while the upstream has something to answer. */
  get isUpstreamBusy(): boolean {
    return !this.ledger.isEven || this.#exchange !== undefined;
  }

  /** True when the upstream connection is as fresh as a reset can make it: settled, outside a transaction, no bytes missing. */
  get isReusable(): boolean {
    return (
      this.isSettled &&
      this.ledger.status === "I" &&
      !this.ledger.hasUnsynced &&
      !this.ledger.isSkipping &&
      !this.#isClientBlocked &&
      !this.#isUpstreamBlocked &&
      this.#fromClient.isAtBoundary &&
      this.#fromUpstream.isAtBoundary
    );
  }

  /** True while the client has a part of a message: nothing else may be said to it now. */
  get isMidMessage(): boolean {
    return this.#fromUpstream.isMidMessage;
  }

  /**
   * Asks for `onReady` whenever nothing is outstanding any more.
   *
   * @param acceptsMore false: nothing more is taken from the client but the data of a copy that runs, so that a client that
   *   always sends ahead comes to an end too
   */
  watchReady(acceptsMore: boolean): void {
    this.#isReadyWatched = true;
    this.#acceptsMore = acceptsMore;
    if (acceptsMore) return;
    if (!this.ledger.isCopyingIn) this.client.stop();
    // Without a Sync, which is not read any more, the upstream keeps its answers to itself.
    if (this.ledger.hasUnsynced) this.#writeUpstream(flush);
  }

  /** True when all that is outstanding is a message of which the client has sent only a part. */
  get isWaitingForClient(): boolean {
    return this.#fromClient.isMidMessage && this.ledger.outstanding <= 1 && !this.#isHandling;
  }

  /** Says whether Bind, Execute and Close have to be shown to the interceptor. */
  set hasOwn(hasOwn: boolean) {
    this.#hasOwn = hasOwn;
    this.#chooseTable();
  }

  /** Says whether the end of the transaction has to be seen coming: then every Query, Execute and Sync is shown. */
  set isWatchingTransaction(isWatching: boolean) {
    this.#isWatchingTransaction = isWatching;
    this.#chooseTable();
  }

  /**
   * Says that the session's claims are to be sealed anew before the client begins its next transaction: they are old, have
   * changed, or may be gone with a reset.
   */
  set areClaimsDue(areDue: boolean) {
    this.#areClaimsDue = areDue;
    this.#chooseTable();
  }

  /** As the session's setting is; how its string literals are read. */
  get standardConformingStrings(): boolean {
    return this.connection.parameters.get("standard_conforming_strings") !== "off";
  }

  /** Type byte of the message that the client has sent behind the one that is handled; undefined when none has come. */
  get nextFromClient(): number | undefined {
    return this.#fromClient.nextKeptType;
  }

  get clientEncoding(): string | undefined {
    return this.connection.parameters.get("client_encoding");
  }

  get isStopped(): boolean {
    return this.#isStopped;
  }

  /** Of the message that is handled: aborted when its client cancels it, and when the session ends. */
  get signal(): AbortSignal {
    return this.#handling.signal;
  }

  /** Ends what the front-end itself does for the client's message; what runs upstream is not its affair. */
  cancelHandling(): void {
    if (this.#isHandling) this.#handling.abort();
  }

  /**
   * The client's COMMIT is about to decide on statements of ours, which the catalog holds open. Until `end` is called the
   * upstream's answer is read on, whatever becomes of the client. The time is bounded: a client's deferred triggers may run
   * for as long as they like, and every administrator would wait for them. When it is over the session ends.
   */
  holdCommit(): CommitHold {
    let end = () => {};
    this.#heldCommit = new Promise<void>((resolve) => {
      end = resolve;
    });
    this.#commitTimer = setTimeout(() => {
      this.#listener.onFailure(
        new SqlError(
          "query_canceled",
          "COMMIT took too long for a transaction that changes users, roles or keys",
          {
            severity: "FATAL",
            hint: "Do what takes long in a transaction of its own.",
          },
        ),
      );
    }, maxHeldCommitMs);
    return {
      answered: () => clearTimeout(this.#commitTimer),
      end: () => {
        clearTimeout(this.#commitTimer);
        this.#heldCommit = undefined;
        end();
      },
    };
  }

  /** Settles at the end of the COMMIT that decides on statements of ours; undefined when there is none. */
  get heldCommit(): Promise<void> | undefined {
    return this.#heldCommit;
  }

  /**
   * The client is gone, or was told that it is over. The upstream, which is to be cancelled, is read on without it for a moment;
   * then its answer is no longer waited for.
   */
  abandonClient(): void {
    this.#isAbandoned = true;
    clearTimeout(this.#commitTimer);
    this.#commitTimer = setTimeout(() => this.stop(), maxCancelledCommitMs);
    this.#fromClient.discard();
    if (!this.#isUpstreamBlocked) return;
    // What is still queued is a view of the buffer that is read into next.
    this.client.close();
    this.#isUpstreamBlocked = false;
    this.#upstream.isLent = false;
    if (!this.#isStopped) this.#upstream.start();
  }

  /** Writes a message of ours to the client. */
  writeToClient(message: Buffer): void {
    if (this.#isAbandoned) return;
    if (!this.client.write(message)) this.#blockUpstream();
  }

  /** Sends an extended-protocol message upstream that the client is owed the reply to. */
  sendExtended(message: Buffer): void {
    this.ledger.noteOwnExtended();
    this.#writeUpstream(message);
  }

  /**
   * Waits until the upstream has answered everything that was sent to it, up to the messages after the
   * last Sync, which it is asked to flush.
   */
  async settle(): Promise<void> {
    if (this.#isStopped || this.ledger.isEven) return;
    if (this.ledger.hasUnsynced) this.#writeUpstream(flush);
    await new Promise<void>((resolve) => {
      this.#settledWaiter = resolve;
    });
  }

  /** As `converse`, for the client's Sync: what is owed to the messages before it is owed no more. */
  converseSync(message: Buffer, onReply: (type: string, body: Buffer) => ReplyDecision): Promise<void> {
    this.ledger.noteSent(sync);
    return this.converse(message, false, onReply);
  }

  /** As `converse`; rows are shown to `onReply` too. */
  converseForRows(
    message: Buffer,
    isQuery: boolean,
    onReply: (type: string, body: Buffer) => ReplyDecision,
  ): Promise<void> {
    const done = this.converse(message, isQuery, onReply);
    if (this.#exchange !== undefined) this.#fromUpstream.table = upstreamTableInOwnQuery;
    return done;
  }

  /**
   * Calls functions for the front-end itself (FunctionCall messages), each a transaction of its own.
   *
   * @returns false when PostgreSQL refused one
   */
  async converseCalls(calls: readonly Buffer[]): Promise<boolean> {
    let outstanding = calls.length;
    let isAccepted = true;
    // `converse` counts one of them.
    for (let further = 1; further < calls.length; further += 1) this.ledger.noteOwnQuery();
    const done = this.converse(Buffer.concat(calls), true, (type) => {
      if (type === "E") isAccepted = false;
      if (type === "Z") outstanding -= 1;
      return outstanding === 0 ? "finish" : "drop";
    });
    if (this.#exchange !== undefined) this.#fromUpstream.table = upstreamTableInCalls;
    await done;
    return isAccepted;
  }

  /**
   * Sends a message of the front-end's own and decides on each reply, until `finish` is called by one.
   * `isQuery`: the message brings its own ReadyForQuery. Everything earlier must be settled.
   */
  async converse(
    message: Buffer,
    isQuery: boolean,
    onReply: (type: string, body: Buffer) => ReplyDecision,
  ): Promise<void> {
    if (this.#isStopped) return;
    await new Promise<void>((resolve) => {
      this.#settledWaiter = resolve;
      this.#fromUpstream.table = upstreamTableInExchange;
      const finish = () => {
        this.#exchange = undefined;
        this.#settledWaiter = undefined;
        this.#fromUpstream.table = upstreamTable;
        // A COPY of the exchange may have let the client speak meanwhile.
        this.#fromClient.table = this.#clientTable;
        this.#fromClient.pause();
        queueMicrotask(resolve);
      };
      this.#exchange = { onReply, finish };
      if (isQuery) this.ledger.noteOwnQuery();
      this.#writeUpstream(message);
    });
  }

  // ---- the client's stream

  /** @internal for ClientSide */
  inspectClient(type: number, buffer: Buffer, start: number, end: number): Verdict {
    if (type === terminate) return verdicts.take;
    if (this.#exchange !== undefined) return verdicts.take; // CopyDone or CopyFail within an exchange
    // In place of a copy's data no statement is run; the upstream says so, and waiting for it to settle would last forever.
    if (this.ledger.isCopyingIn) {
      this.ledger.noteSent(type);
      return verdicts.pass;
    }
    this.#isHeldForClaims = this.#areClaimsDue && this.#mayBeginTransaction;
    if (this.#isHeldForClaims) return verdicts.take;
    const verdict = this.#interceptor.inspect(type, buffer, start, end);
    if (verdict === verdicts.pass) this.ledger.noteSent(type);
    return verdict;
  }

  /** A statement of ours that is too long is refused: it must not reach PostgreSQL for its length. */
  inspectOversized(type: number, buffer: Buffer, start: number, end: number): Verdict {
    if (this.ledger.isCopyingIn || !this.#interceptor.beginsAsOwn(type, buffer, start, end))
      return verdicts.pass;
    this.#listener.onFailure(
      new SqlError("program_limit_exceeded", "statement is too long", {
        severity: "FATAL",
        detail: "A statement that the front-end runs itself may have up to 1 MB.",
      }),
    );
    return verdicts.take;
  }

  takeFromClient(type: number, buffer: Buffer, start: number, end: number): void {
    if (type === terminate) {
      this.stop();
      this.#listener.onClientGone();
      return;
    }
    // Read on: a client that goes away while it waits has to be noticed.
    this.#fromClient.pause();
    if (this.#exchange !== undefined) {
      this.#writeUpstream(Buffer.from(buffer.subarray(start, end)));
      return;
    }
    this.#isHandling = true;
    if (this.#handling.signal.aborted) this.#handling = new AbortController();
    void this.#handle(type, Buffer.from(buffer.subarray(start, end)));
  }

  forwardFromClient(buffer: Buffer, start: number, end: number): void {
    if (!this.#upstream.write(buffer.subarray(start, end))) this.#blockClient();
  }

  violate(message: string): void {
    this.#listener.onFailure(new SqlError("protocol_violation", message, { severity: "FATAL" }));
  }

  /** As far as it is known: what is outstanding may end the transaction that the client is in. */
  get #mayBeginTransaction(): boolean {
    const { status, hasUnsynced, isEven } = this.ledger;
    return !hasUnsynced && (status === "I" || !isEven);
  }

  async #handle(type: number, message: Buffer): Promise<void> {
    try {
      if (this.#isHeldForClaims) await this.#handleHeld(type, message);
      else await this.#interceptor.handle(type, message);
      this.#isHandling = false;
      if (this.#isStopped) return;
      this.#resumeClient();
      this.#tellReady();
    } catch (error) {
      if (!this.#isStopped) this.#listener.onFailure(error);
    }
  }

  async #handleHeld(type: number, message: Buffer): Promise<void> {
    await this.settle();
    if (!this.#isStopped && this.ledger.status === "I") {
      this.areClaimsDue = false;
      await this.#listener.onClaimsDue();
    }
    if (this.#isStopped) return;
    if (this.#interceptor.inspect(type, message, 0, message.length) === verdicts.take) {
      await this.#interceptor.handle(type, message);
      return;
    }
    this.ledger.noteSent(type);
    this.#writeUpstream(message);
  }

  #resumeClient(): void {
    if (this.#isStopped || this.#isClientBlocked) return;
    if (this.#fromClient.isPaused && !this.#isHandling) this.#fromClient.resume();
    this.#startClient();
  }

  #hasClientSentEnough(): boolean {
    return this.#fromClient.isPaused && this.#fromClient.keptBytes >= maxKeptBytes;
  }

  #writeUpstream(message: Buffer): void {
    if (!this.#upstream.write(message)) this.#blockClient();
  }

  // ---- the upstream's stream

  inspectUpstream(type: number, buffer: Buffer, start: number, end: number): Verdict {
    const exchange = this.#exchange;
    if (exchange !== undefined) this.#noteReply(type, buffer, start, end);
    else if (type === reply.readyForQuery) this.#noteReady(buffer[start + 5] ?? 0);
    else this.#noteReply(type, buffer, start, end);
    if (exchange === undefined || type === reply.parameterStatus) return verdicts.pass;
    const decision = exchange.onReply(String.fromCharCode(type), buffer.subarray(start + 5, end));
    if (decision === "forward") return verdicts.pass;
    if (decision !== "drop") exchange.finish();
    return decision === "forward-and-finish" ? verdicts.pass : verdicts.take;
  }

  observeUpstream(type: number): void {
    if (type === reply.errorResponse) {
      // Too large to be looked at whole; what it means is known all the same.
      this.ledger.noteError();
      this.#exchange?.onReply("E", nothing);
    } else this.ledger.noteReply();
    if (this.#settledWaiter !== undefined) this.#checkSettled();
    if (this.#isReadyWatched) queueMicrotask(() => this.#tellReady());
  }

  forwardFromUpstream(buffer: Buffer, start: number, end: number): void {
    if (this.#isAbandoned) return;
    if (!this.client.write(buffer.subarray(start, end))) this.#blockUpstream();
  }

  #noteReply(type: number, buffer: Buffer, start: number, end: number): void {
    switch (type) {
      case reply.readyForQuery:
        this.#noteReady(buffer[start + 5] ?? 0);
        return;
      case reply.commandComplete:
        this.#noteTag(buffer, start, end);
        if (this.#exchange === undefined) this.observeUpstream(type);
        return;
      case reply.parameterStatus:
        noteParameterStatus(this.connection, buffer.subarray(start + 5, end));
        return;
      case reply.errorResponse:
        this.ledger.noteError();
        if (buffer.subarray(start, end).includes(fatalSeverity)) this.hasSeenFatal = true;
        if (this.#settledWaiter !== undefined) this.#checkSettled();
        return;
      case reply.copyInResponse:
      case reply.copyBothResponse:
        this.#noteCopyIn();
        return;
      default:
        return;
    }
  }

  #noteTag(buffer: Buffer, start: number, end: number): void {
    switch (meaningOfTag(buffer, start, end)) {
      case "reset":
        this.areClaimsDue = true;
        return;
      case "begin":
        this.ledger.status = "T";
        return;
      case "end":
        this.ledger.status = "I";
        return;
      default:
        return;
    }
  }

  #noteCopyIn(): void {
    if (this.#exchange !== undefined) {
      this.#fromClient.table = clientTableInCopy;
      this.#fromClient.resume();
      this.#startClient();
      return;
    }
    if (this.#isHandling && !this.ledger.isCopyEndedAhead) {
      // What was taken from the stream stands where the data belong: neither side would ever go on.
      this.violate("unexpected message during COPY from stdin");
      return;
    }
    this.ledger.noteCopyIn();
  }

  #noteReady(status: number): void {
    this.ledger.noteReady(status === 0x49 ? "I" : status === 0x54 ? "T" : "E");
    if (status === 0x49) this.#interceptor.onTransactionEnd();
    if (this.#settledWaiter !== undefined) this.#checkSettled();
    if (this.#isReadyWatched) queueMicrotask(() => this.#tellReady());
  }

  #tellReady(): void {
    if (this.#isReadyWatched && !this.#isStopped && this.isSettled) this.#listener.onReady();
  }

  // Resolved in a microtask: by then the bytes that are being scanned have been forwarded.
  #checkSettled(): void {
    if (this.#exchange !== undefined || !this.ledger.isEven) return;
    const waiter = this.#settledWaiter;
    this.#settledWaiter = undefined;
    if (waiter !== undefined) queueMicrotask(waiter);
  }

  #chooseTable(): void {
    if (this.#areClaimsDue) this.#clientTable = clientTableWhenDue;
    else if (this.#isWatchingTransaction) this.#clientTable = clientTableInTransaction;
    else this.#clientTable = this.#hasOwn ? clientTableWithOwn : clientTable;
    this.#fromClient.table = this.#clientTable;
  }

  // Until the other side has taken what is queued, the buffer that it was read into belongs to that write.
  #blockUpstream(): void {
    this.#isUpstreamBlocked = true;
    this.#upstream.isLent = true;
    this.#upstream.stop();
  }

  #blockClient(): void {
    this.#isClientBlocked = true;
    this.client.isLent = true;
    this.client.stop();
  }

  #startClient(): void {
    if (this.#isStopped || this.#isClientBlocked || this.#hasClientSentEnough()) return;
    if (this.#acceptsMore || this.ledger.isCopyingIn) this.client.start();
  }

  // An error while framing must end this session and no other.
  #push(framer: MessageFramer, buffer: Buffer, start: number, end: number): void {
    try {
      framer.push(buffer, start, end);
    } catch (error) {
      if (!this.#isStopped) this.#listener.onFailure(error);
    }
  }

  readonly #clientHandler: TransportHandler = {
    onData: (buffer, start, end) => {
      this.#push(this.#fromClient, buffer, start, end);
      if (this.#hasClientSentEnough()) this.client.stop();
    },
    onDrain: () => {
      if (!this.#isUpstreamBlocked) return;
      this.#isUpstreamBlocked = false;
      this.#upstream.isLent = false;
      if (!this.#isStopped) this.#upstream.start();
    },
    onEnd: () => {
      if (this.#heldCommit === undefined) this.stop();
      this.#listener.onClientGone();
    },
  };

  readonly #upstreamHandler: TransportHandler = {
    onData: (buffer, start, end) => this.#push(this.#fromUpstream, buffer, start, end),
    onDrain: () => {
      if (!this.#isClientBlocked) return;
      this.#isClientBlocked = false;
      this.client.isLent = false;
      this.#resumeClient();
    },
    onEnd: () => {
      this.stop();
      this.#listener.onUpstreamGone();
    },
  };
}

class ClientSide implements FramerVisitor {
  readonly #relay: Relay;

  constructor(relay: Relay) {
    this.#relay = relay;
  }

  onObserve(type: number): void {
    this.#relay.ledger.noteSent(type);
  }

  onInspect(type: number, buffer: Buffer, start: number, end: number): Verdict {
    return this.#relay.inspectClient(type, buffer, start, end);
  }

  onOversized(type: number, buffer: Buffer, start: number, end: number): Verdict {
    return this.#relay.inspectOversized(type, buffer, start, end);
  }

  onTake(type: number, buffer: Buffer, start: number, end: number): void {
    this.#relay.takeFromClient(type, buffer, start, end);
  }

  onForward(buffer: Buffer, start: number, end: number): void {
    this.#relay.forwardFromClient(buffer, start, end);
  }

  onViolation(type: number, length: number): void {
    this.#relay.violate(
      length < 4 || length > maxMessageBytes
        ? "invalid message length"
        : `invalid frontend message type ${type}`,
    );
  }
}

class UpstreamSide implements FramerVisitor {
  readonly #relay: Relay;

  constructor(relay: Relay) {
    this.#relay = relay;
  }

  onObserve(type: number): void {
    this.#relay.observeUpstream(type);
  }

  onInspect(type: number, buffer: Buffer, start: number, end: number): Verdict {
    return this.#relay.inspectUpstream(type, buffer, start, end);
  }

  onOversized(): Verdict {
    return verdicts.pass;
  }

  onTake(): void {
    // A reply that the exchange has kept from the client.
  }

  onForward(buffer: Buffer, start: number, end: number): void {
    this.#relay.forwardFromUpstream(buffer, start, end);
  }

  onViolation(): void {
    this.#relay.violate("the upstream server broke the protocol");
  }
}
