/**
 * Moves bytes between a client and its upstream connection, and knows at every moment what is owed to
 * whom: how many ReadyForQuery are outstanding, the transaction status, whether a message is half-way
 * through. Statements of ours are taken out of the stream and handed to an interceptor.
 */

import { SqlError } from "../errors/sql-error.ts";
import type { UpstreamConnection } from "../upstream/upstream-connection.ts";
import type { Transport } from "../wire/transport.ts";
import { ClientStream } from "./client-stream.ts";
import { HeldCommit } from "./held-commit.ts";
import type { CommitHold, Interceptor, RelayListener, ReplyDecision } from "./relay-contracts.ts";
import { RelayTransports } from "./relay-transports.ts";
import { ReplyLedger } from "./reply-ledger.ts";
import { UpstreamStream } from "./upstream-stream.ts";

const sync = 0x53; // S

type OnReply = (type: string, body: Buffer) => ReplyDecision;

export class Relay {
  readonly client: Transport;
  readonly connection: UpstreamConnection;
  readonly interceptor: Interceptor;
  readonly ledger = new ReplyLedger();
  readonly #listener: RelayListener;
  readonly #transports: RelayTransports;
  readonly #fromClient: ClientStream;
  readonly #fromUpstream: UpstreamStream;
  readonly #commit: HeldCommit;

  /** @param makeInterceptor called once, with a relay that is not to be used before it is started */
  constructor(
    client: Transport,
    connection: UpstreamConnection,
    makeInterceptor: (relay: Relay) => Interceptor,
    listener: RelayListener,
  ) {
    this.client = client;
    this.connection = connection;
    this.interceptor = makeInterceptor(this);
    this.#listener = listener;
    this.#transports = new RelayTransports(client, connection.transport);
    this.#commit = new HeldCommit((error) => listener.onFailure(error));
    this.#fromUpstream = new UpstreamStream(connection, this.ledger, this.#transports, {
      onTransactionEnd: () => {
        this.interceptor.onTransactionEnd();
        if (this.#fromClient.isPlain) this.#fromUpstream.isEndAwaited = false;
      },
      onReset: () => {
        this.areClaimsDue = true;
      },
      onNamedBySql: () => this.interceptor.onNamedBySql(),
      onCopyIn: (isOwn) => this.#noteCopyIn(isOwn),
      onExchangeEnd: () => this.#fromClient.onExchangeEnd(),
      onAnswered: () => this.#tellReady(),
      onDrained: () => this.#fromClient.resume(),
      onFailure: (error) => listener.onFailure(error),
      onGone: () => {
        this.stop();
        listener.onUpstreamGone();
      },
    });
    this.#fromClient = new ClientStream(this.ledger, this.#transports, this.#fromUpstream, this.interceptor, {
      onFailure: (error) => listener.onFailure(error),
      onClaimsDue: () => listener.onClaimsDue(),
      onHandled: () => this.#tellReady(),
      onTerminate: () => {
        this.stop();
        listener.onClientGone();
      },
      onGone: () => {
        if (this.#commit.ended === undefined) this.stop();
        listener.onClientGone();
      },
    });
  }

  /** Begins to relay; `early` is what the client had sent before. */
  start(early: Buffer): void {
    this.client.handler = this.#fromClient;
    this.#transports.upstream.handler = this.#fromUpstream;
    this.#transports.upstream.start();
    this.client.start();
    if (early.length > 0) this.#fromClient.onData(early, 0, early.length);
  }

  /** Ends relaying; neither side is read any more. */
  stop(): void {
    if (this.#transports.isStopped) return;
    this.#transports.stop();
    this.#fromClient.stop();
    this.#fromUpstream.stop();
  }

  get isStopped(): boolean {
    return this.#transports.isStopped;
  }

  /** True once the client has been told by the upstream itself why the session ends. */
  get hasSeenFatal(): boolean {
    return this.#fromUpstream.hasSeenFatal;
  }

  /** True when no statement is running or on its way, in either direction. */
  get isSettled(): boolean {
    return !this.#fromClient.isHandling && !this.isUpstreamBusy;
  }

  /** True while the upstream has something to answer. */
  get isUpstreamBusy(): boolean {
    return this.#fromUpstream.isBusy;
  }

  /** True when the upstream connection is as fresh as a reset can make it: settled, outside a transaction, no bytes missing. */
  get isReusable(): boolean {
    return (
      this.isSettled &&
      this.ledger.status === "I" &&
      !this.ledger.hasUnsynced &&
      !this.ledger.isSkipping &&
      !this.#transports.isBlocked &&
      this.#fromClient.framer.isAtBoundary &&
      this.#fromUpstream.framer.isAtBoundary
    );
  }

  /** True while the client has a part of a message: nothing else may be said to it now. */
  get isMidMessage(): boolean {
    return this.#fromUpstream.framer.isMidMessage;
  }

  /** True when all that is outstanding is a message of which the client has sent only a part. */
  get isWaitingForClient(): boolean {
    const { framer, isHandling } = this.#fromClient;
    return framer.isMidMessage && this.ledger.outstanding <= 1 && !isHandling;
  }

  /**
   * Asks for `onReady` whenever nothing is outstanding any more.
   *
   * @param acceptsMore false: nothing more is taken from the client but the data of a copy that runs, so that a client that
   *   always sends ahead comes to an end too
   */
  watchReady(acceptsMore: boolean): void {
    this.#fromUpstream.isWatched = true;
    if (acceptsMore) return;
    this.#fromClient.acceptNoMore();
    // Its Sync is not read any more.
    this.#fromUpstream.flushUnsynced();
  }

  /** Says whether Bind, Execute and Close have to be shown to the interceptor. */
  set hasOwn(hasOwn: boolean) {
    this.#fromClient.hasOwn = hasOwn;
  }

  /** Says whether the end of the transaction has to be seen coming: then every Query, Execute and Sync is shown. */
  set isWatchingTransaction(isWatching: boolean) {
    this.#fromClient.isWatchingTransaction = isWatching;
  }

  /**
   * Says that the session's claims are to be sealed anew before the client begins its next transaction: they are old, have
   * changed, or may be gone with a reset.
   */
  set areClaimsDue(areDue: boolean) {
    this.#fromClient.areClaimsDue = areDue;
  }

  /** As the session's setting is; how its string literals are read. */
  get standardConformingStrings(): boolean {
    return this.connection.parameters.get("standard_conforming_strings") !== "off";
  }

  get clientEncoding(): string | undefined {
    return this.connection.parameters.get("client_encoding");
  }

  /** Type byte of the message that the client has sent behind the one that is handled; undefined when none has come. */
  get nextFromClient(): number | undefined {
    return this.#fromClient.framer.nextKeptType;
  }

  /** Of the message that is handled: aborted when its client cancels it, and when the session ends. */
  get signal(): AbortSignal {
    return this.#fromClient.signal;
  }

  /** Ends what the front-end itself does for the client's message; what runs upstream is not its affair. */
  cancelHandling(): void {
    this.#fromClient.cancelHandling();
  }

  /**
   * The client's COMMIT is about to decide on statements of ours, which the catalog holds open. Until `end` is called the
   * upstream's answer is read on, whatever becomes of the client. When it takes too long the session ends.
   */
  holdCommit(): CommitHold {
    return this.#commit.begin();
  }

  /** Settles at the end of the COMMIT that decides on statements of ours; undefined when there is none. */
  get heldCommit(): Promise<void> | undefined {
    return this.#commit.ended;
  }

  /**
   * The client is gone, or was told that it is over. The upstream, which is to be cancelled, is read on without it for a moment;
   * then its answer is no longer waited for.
   */
  abandonClient(): void {
    this.#commit.whenCancelled(() => this.stop());
    this.#fromClient.framer.discard();
    this.#transports.abandonClient();
  }

  /** Writes a message of ours to the client. */
  writeToClient(message: Buffer): void {
    this.#transports.writeToClient(message);
  }

  /** Sends an extended-protocol message upstream that the client is owed the reply to. */
  sendExtended(message: Buffer): void {
    this.ledger.noteOwnExtended();
    this.#transports.writeUpstream(message);
  }

  /**
   * Waits until the upstream has answered everything that was sent to it, up to the messages after the
   * last Sync, which it is asked to flush.
   */
  settle(): Promise<void> {
    return this.#fromUpstream.settle();
  }

  /**
   * Sends a message of the front-end's own and decides on each reply, until `finish` is called by one.
   * `isQuery`: the message brings its own ReadyForQuery. Everything earlier must be settled.
   */
  converse(message: Buffer, isQuery: boolean, onReply: OnReply): Promise<void> {
    return this.#fromUpstream.converse(message, isQuery, onReply);
  }

  /** As `converse`; rows are shown to `onReply` too. */
  converseForRows(message: Buffer, isQuery: boolean, onReply: OnReply): Promise<void> {
    return this.#fromUpstream.converse(message, isQuery, onReply, true);
  }

  /** As `converse`, for the client's Sync: what is owed to the messages before it is owed no more. */
  converseSync(message: Buffer, onReply: OnReply): Promise<void> {
    this.ledger.noteSent(sync);
    return this.converse(message, false, onReply);
  }

  /**
   * Calls functions for the front-end itself (FunctionCall messages), each a transaction of its own.
   *
   * @returns false when PostgreSQL refused one
   */
  converseCalls(calls: readonly Buffer[]): Promise<boolean> {
    return this.#fromUpstream.converseCalls(calls);
  }

  #noteCopyIn(isOwn: boolean): void {
    if (isOwn) this.#fromClient.admitCopyData();
    else if (this.#fromClient.isHandling && !this.ledger.isCopyEndedAhead) {
      // What was taken from the stream stands where the data belong: neither side would ever go on.
      this.#listener.onFailure(
        new SqlError("protocol_violation", "unexpected message during COPY from stdin", {
          severity: "FATAL",
        }),
      );
    } else this.ledger.noteCopyIn();
  }

  #tellReady(): void {
    if (this.#fromUpstream.isWatched && !this.isStopped && this.isSettled) this.#listener.onReady();
  }
}
