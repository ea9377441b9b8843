/** One client from its login to its end: the identity, the upstream connection on loan, the relay, and every way to end. */

import type { Self } from "../auth/live-session.ts";
import { SqlError } from "../errors/sql-error.ts";
import { PairedTransaction } from "../exec/paired-transaction.ts";
import type { EndingMode, ManagedSession, SessionProfile } from "../exec/sessions.ts";
import type { Log } from "../observe/log.ts";
import type { Lease, Ticket } from "../upstream/lease.ts";
import { encodeParameters } from "../upstream/upstream-connection.ts";
import { UpstreamError } from "../upstream/upstream-error.ts";
import { encodeBackendKeyData, encodeReadyForQuery, encodeSqlError } from "../wire/backend-message.ts";
import type { Transport } from "../wire/transport.ts";
import { cancelKeyBytes } from "./cancel-registry.ts";
import { StatementInterceptor } from "./interceptor.ts";
import { Relay } from "./relay.ts";
import type { SessionServices } from "./services.ts";
import { SessionClaims } from "./session-claims.ts";
import { StatementRunner } from "./statement-runner.ts";

/** Who and where, and how it is spoken with. */
export interface ClientProfile extends SessionProfile {
  /** Minor version of the protocol spoken with this client. */
  readonly minorVersion: number;
}

export class Session implements ManagedSession {
  readonly profile: ClientProfile;
  readonly connectedAtMs = Date.now();
  readonly #client: Transport;
  readonly #services: SessionServices;
  readonly #log: Log;
  readonly #onClosed: (session: Session) => void;
  #ticket: Ticket | undefined;
  #lease: Lease | undefined;
  #relay: Relay | undefined;
  #claims: SessionClaims | undefined;
  /** What was told last, perhaps while the session waited for its connection. */
  #self: Self | undefined;
  #unregisterCancel: (() => void) | undefined;
  #ending: { readonly error: SqlError; readonly mode: EndingMode } | undefined;
  #isClosed = false;

  constructor(
    profile: ClientProfile,
    client: Transport,
    services: SessionServices,
    log: Log,
    onClosed: (session: Session) => void,
  ) {
    this.profile = profile;
    this.#client = client;
    this.#services = services;
    this.#log = log;
    this.#onClosed = onClosed;
  }

  /** Moves with every ReadyForQuery; a session whose number stands still is idle or running one statement. */
  get activity(): number {
    return this.#relay?.ledger.readyCount ?? 0;
  }

  /** True when no statement is running. */
  get isIdle(): boolean {
    return this.#relay?.isSettled ?? false;
  }

  /** True between BEGIN and the end of the client's transaction, failed or not. */
  get isInTransaction(): boolean {
    return this.#relay !== undefined && this.#relay.ledger.status !== "I";
  }

  /** True while the session waits for an upstream connection. */
  get isQueued(): boolean {
    return this.#ticket !== undefined;
  }

  /**
   * Waits for an upstream connection, tells the client that it may begin, and relays.
   *
   * @param greeting messages that go out before the session's parameters, in one write with them
   * @param takeEarly called when the relay takes over: gives what the client has sent ahead
   */
  async begin(ticket: Ticket, greeting: Buffer, takeEarly: () => Buffer): Promise<void> {
    this.#ticket = ticket;
    let lease: Lease;
    try {
      lease = await ticket.lease;
    } catch (error) {
      this.#ticket = undefined;
      this.fail(error);
      return;
    }
    this.#ticket = undefined;
    // The client went away, or was sent away, while the connection was on its way; what it sent ahead is not run.
    if (this.#isClosed || this.#ending !== undefined) {
      lease.release();
      if (this.#ending !== undefined) this.fail(this.#ending.error);
      return;
    }
    this.#lease = lease;
    const { connection } = lease;
    const secretKey = this.#services.randomBytes(cancelKeyBytes(this.profile.minorVersion));
    this.#unregisterCancel = this.#services.cancels.register(connection.processId, secretKey, this);
    const messages = [
      greeting,
      encodeParameters(connection),
      encodeBackendKeyData(connection.processId, secretKey),
      encodeReadyForQuery("I"),
    ];
    const relay = this.#openRelay(lease);
    this.#relay = relay;
    this.#claims = new SessionClaims(this.profile, relay, this.#services.claims, this.#log);
    // The connection was asked for with what held then.
    if (this.#self !== undefined) this.#claims.renew(this.#self);
    const early = takeEarly();
    relay.writeToClient(Buffer.concat(messages));
    relay.start(early);
  }

  /** Cancels the statement that runs: what the front-end does for it itself, and what the upstream does. */
  async cancel(): Promise<void> {
    const relay = this.#relay;
    if (relay === undefined) return;
    relay.cancelHandling();
    if (relay.isUpstreamBusy) await this.#services.cancelUpstream(relay.connection);
  }

  /** What holds for the session from its next transaction on. */
  renewClaims(self: Self): void {
    this.#self = self;
    this.#claims?.renew(self);
  }

  /** Ends the session with a FATAL error, as soon as the mode allows. */
  end(error: SqlError, mode: EndingMode): void {
    if (this.#isClosed) return;
    this.#ending = { error, mode };
    const relay = this.#relay;
    if (relay === undefined) {
      this.#ticket?.cancel(error);
      return;
    }
    if (this.#mayEndNow(relay, mode)) this.fail(error);
    else relay.watchReady(mode === "after_transaction");
  }

  /** Ends the session now: the client is told, what runs upstream is cancelled. */
  fail(error: unknown): void {
    if (this.#isClosed) return;
    // Inside of a message that is half sent, an error would be read as its data.
    if (this.#relay?.isMidMessage !== true) this.#client.write(this.#wordFailure(error));
    this.#client.end();
    this.#close();
  }

  /** The client has closed the connection, or broken it. */
  leave(): void {
    if (this.#isClosed) return;
    this.#client.close();
    this.#close();
  }

  #mayEndNow(relay: Relay, mode: EndingMode): boolean {
    if (mode === "after_statement") return relay.isSettled || relay.isWaitingForClient;
    return relay.isSettled && relay.ledger.status === "I" && !relay.ledger.hasUnsynced;
  }

  #openRelay(lease: Lease): Relay {
    const { identity, id, database, clientAddress } = this.profile;
    const runner = new StatementRunner(
      this.#services.executor,
      {
        context: { identity, sessionId: id, database, clientAddress },
        parameters: lease.connection.parameters,
      },
      this.#log,
    );
    const paired = new PairedTransaction(() => this.#services.executor.beginTransaction(lease.connection));
    const relay = new Relay(
      this.#client,
      lease.connection,
      (intercepted) =>
        new StatementInterceptor(intercepted, runner, paired, this.#services.columnsOf, (names) =>
          this.#services.databaseRelease.request(identity.role, names),
        ),
      {
        onClientGone: () => this.leave(),
        onUpstreamGone: () => this.#onUpstreamGone(),
        onClaimsDue: async () => this.#claims?.refresh(),
        onFailure: (error) => this.fail(runner.asSqlError(error)),
        onReady: () => {
          const ending = this.#ending;
          if (ending !== undefined && this.#mayEndNow(relay, ending.mode)) this.fail(ending.error);
        },
      },
    );
    return relay;
  }

  #onUpstreamGone(): void {
    if (this.#relay?.hasSeenFatal === true) {
      // The upstream has told the client itself.
      this.#client.end();
      this.#close();
      return;
    }
    this.fail(
      new SqlError("connection_failure", "the upstream server closed the connection unexpectedly", {
        severity: "FATAL",
      }),
    );
  }

  #wordFailure(error: unknown): Buffer {
    if (error instanceof UpstreamError) return error.errorResponse;
    if (error instanceof SqlError) {
      const { condition, message, detail, hint } = error;
      return encodeSqlError(new SqlError(condition, message, { severity: "FATAL", detail, hint }));
    }
    this.#log.error({ err: error, sessionId: this.profile.id }, "internal error");
    return encodeSqlError(
      new SqlError("internal_error", "internal error", {
        severity: "FATAL",
        detail: `The log has more under session ${this.profile.id}.`,
      }),
    );
  }

  #close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#unregisterCancel?.();
    this.#relay?.interceptor.close();
    this.#claims?.close();
    const relay = this.#relay;
    const lease = this.#lease;
    this.#ticket?.cancel(new SqlError("connection_failure", "the client has closed the connection"));
    const heldCommit = relay?.heldCommit;
    if (relay !== undefined && lease !== undefined && heldCommit !== undefined) {
      // It decides on statements of ours: as long as it may still succeed it is listened to.
      relay.abandonClient();
      void this.#services.cancelUpstream(lease.connection);
      void heldCommit.then(() => {
        relay.stop();
        lease.discard();
        this.#onClosed(this);
      });
      return;
    }
    if (relay !== undefined && lease !== undefined) {
      const isReusable = relay.isReusable && this.#claims?.haveChanged === false;
      const isRunning = !relay.isSettled;
      relay.stop();
      if (isReusable) lease.release();
      // PostgreSQL notices a closed connection only when it next writes to it.
      else lease.discard(isRunning ? this.#services.endUpstream(lease.connection) : undefined);
    }
    this.#onClosed(this);
  }
}
