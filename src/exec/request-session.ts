/** A session that lasts for one request: admitted and listed like any other, with an upstream connection on loan and an end. */

import type { Self } from "../auth/live-session.ts";
import { SqlError } from "../errors/sql-error.ts";
import type { Log } from "../observe/log.ts";
import type { Lease, Ticket } from "../upstream/lease.ts";
import type { UpstreamPool } from "../upstream/pool.ts";
import { QueryClient } from "../upstream/query-client.ts";
import type { ResultLimits } from "../upstream/query-result.ts";
import type { UpstreamConnection } from "../upstream/upstream-connection.ts";
import type { DatabaseRelease } from "./database-release.ts";
import type { Executor } from "./execute.ts";
import { PairedTransaction } from "./paired-transaction.ts";
import { RequestStatements } from "./request-statements.ts";
import { SessionStatements } from "./session-statements.ts";
import type { EndingMode, ManagedSession, SessionGate, SessionProfile } from "./sessions.ts";
import { upstreamTargetOf } from "./upstream-target.ts";

/** What the requests of a process share. */
export interface RequestServices {
  readonly gate: SessionGate;
  readonly pool: Pick<UpstreamPool, "acquire">;
  readonly databaseRelease: DatabaseRelease;
  readonly executor: Executor;
  /** Never rejects. */
  readonly cancelUpstream: (connection: UpstreamConnection) => Promise<void>;
  /** Cancels what runs on a connection that is given up, and sees to it that it ends. Never rejects. */
  readonly endUpstream: (connection: UpstreamConnection) => Promise<void>;
  readonly log: Log;
  /** Told of each request's statements, from the connection to their end. */
  readonly onDone?: (tookMs: number, outcome: "ok" | "error") => void;
}

export interface RequestLimits extends ResultLimits {
  /** For all statements of the request, from the moment that it has a connection. */
  readonly timeoutMs: number;
}

/** How long PostgreSQL may take to act on a cancel before the request is answered without it, in ms. */
const cancelGraceMs = 5_000;

/**
 * What values look like is the front-end's to say, whatever the role's own settings are: fixed at the upstream login, and with
 * that what RESET returns to.
 */
const startupParameters: ReadonlyMap<string, string> = new Map([
  ["client_encoding", "UTF8"],
  ["DateStyle", "ISO, MDY"],
  ["IntervalStyle", "postgres"],
  ["bytea_output", "hex"],
  ["extra_float_digits", "1"],
  ["application_name", "nodedb http"],
]);

export class RequestSession implements ManagedSession {
  readonly profile: SessionProfile;
  readonly connectedAtMs = Date.now();
  readonly isIdle = false;
  readonly activity = 0;
  readonly #services: RequestServices;
  /** Changes while it waits for its connection. */
  #self: Self;
  #ticket: Ticket | undefined;
  #client: QueryClient | undefined;
  /** What the client is told instead of whatever its statement ends with. */
  #interruption: unknown;
  /** Ends the request before its next statement. */
  #ending: SqlError | undefined;
  #onInterrupted: (() => void) | undefined;

  constructor(profile: SessionProfile, services: RequestServices) {
    this.profile = profile;
    this.#services = services;
    const { role, claims } = profile.identity;
    this.#self = { role, claims };
  }

  get isInTransaction(): boolean {
    return this.#client !== undefined && this.#client.status !== "I";
  }

  get isQueued(): boolean {
    return this.#ticket !== undefined;
  }

  /**
   * Waits for a connection, runs the work on it, and gives it back.
   *
   * @throws SqlError too_many_connections, query_canceled, admin_shutdown; UpstreamError; whatever the work throws
   */
  async run<T>(limits: RequestLimits, work: (statements: RequestStatements) => Promise<T>): Promise<T> {
    const { gate } = this.#services;
    await gate.admit(this);
    try {
      const lease = await this.#acquire();
      const client = new QueryClient(lease.connection, limits.maxBytes);
      this.#client = client;
      const timer = setTimeout(() => this.fail(statementTimeout()), limits.timeoutMs);
      const startedAtMs = performance.now();
      let outcome: "ok" | "error" = "error";
      try {
        const result = await this.#unlessInterrupted(work(this.#openStatements(lease, client, limits)));
        outcome = "ok";
        return result;
      } finally {
        clearTimeout(timer);
        this.#services.onDone?.(performance.now() - startedAtMs, outcome);
        this.#client = undefined;
        this.#giveBack(lease, client);
      }
    } finally {
      gate.remove(this);
    }
  }

  /** Holds PostgreSQL back while the client does not take what there is. */
  pause(): void {
    this.#client?.pause();
  }

  resume(): void {
    this.#client?.resume();
  }

  /** They are sealed anew for each request; one that has its connection goes on with those that it began with. */
  renewClaims(self: Self): void {
    if (JSON.stringify(self.claims) !== JSON.stringify(this.#self.claims)) this.#self = self;
  }

  end(error: SqlError, mode: EndingMode): void {
    if (mode === "after_transaction") return;
    this.#ending ??= error;
    this.#ticket?.cancel(error);
  }

  fail(error: unknown): void {
    if (this.#interruption !== undefined) return;
    this.#interruption = error;
    if (error instanceof SqlError) this.#ticket?.cancel(error);
    this.#onInterrupted?.();
    this.resume();
    this.#cancel();
  }

  async #acquire(): Promise<Lease> {
    const { identity, database } = this.profile;
    for (;;) {
      const self = this.#self;
      const target = upstreamTargetOf({ ...identity, ...self }, database, startupParameters);
      const ticket = this.#services.pool.acquire(target);
      this.#ticket = ticket;
      try {
        const lease = await ticket.lease;
        const error = this.#interruption ?? this.#ending;
        if (error === undefined && self === this.#self) return lease;
        lease.release();
        if (error !== undefined) throw error;
      } finally {
        this.#ticket = undefined;
      }
    }
  }

  #openStatements(lease: Lease, client: QueryClient, limits: ResultLimits): RequestStatements {
    const { executor, databaseRelease, log } = this.#services;
    const { identity, id, database, clientAddress } = this.profile;
    return new RequestStatements({
      client,
      statements: new SessionStatements(
        executor,
        {
          context: { identity, sessionId: id, database, clientAddress },
          parameters: lease.connection.parameters,
        },
        log,
      ),
      paired: new PairedTransaction(() => executor.beginTransaction(lease.connection)),
      limits,
      cancel: () => this.#cancel(),
      checkpoint: () => {
        const error = this.#interruption ?? this.#ending;
        if (error !== undefined) throw error;
      },
      freeDatabases: (names) => databaseRelease.request(identity.role, names),
    });
  }

  /** The work's outcome; after an interruption its error, as soon as the work has ended or the grace is over. */
  async #unlessInterrupted<T>(work: Promise<T>): Promise<T> {
    let grace: NodeJS.Timeout | undefined;
    const interrupted = new Promise<never>((_, reject) => {
      this.#onInterrupted = () => {
        grace = setTimeout(() => reject(this.#interruption), cancelGraceMs);
      };
      if (this.#interruption !== undefined) this.#onInterrupted();
    });
    try {
      return await Promise.race([work, interrupted]);
    } catch (error) {
      throw this.#interruption ?? error;
    } finally {
      clearTimeout(grace);
      this.#onInterrupted = undefined;
    }
  }

  #cancel(): void {
    const client = this.#client;
    if (client?.isRunning === true) void this.#services.cancelUpstream(client.connection);
  }

  #giveBack(lease: Lease, client: QueryClient): void {
    client.detach();
    if (client.isReusable) lease.release();
    else {
      // PostgreSQL notices a closed connection only when it next writes to it.
      const ended = client.isRunning ? this.#services.endUpstream(client.connection) : undefined;
      client.abandon();
      lease.discard(ended);
    }
  }
}

function statementTimeout(): SqlError {
  return new SqlError("query_canceled", "canceling statement due to statement timeout");
}
