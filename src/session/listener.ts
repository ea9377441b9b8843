/** Accepts clients on the pgwire port and takes each through handshake, login and database to its session. */

import { randomUUID } from "node:crypto";
import { createServer, type Server, type Socket } from "node:net";
import { requireDatabase } from "../auth/effective-databases.ts";
import type { Identity, RefusalReason } from "../auth/identity.ts";
import { mayStay, selfNow } from "../auth/live-session.ts";
import { isCurrent } from "../auth/password.ts";
import { SqlError } from "../errors/sql-error.ts";
import { upstreamTargetOf } from "../exec/upstream-target.ts";
import type { Log } from "../observe/log.ts";
import { UpstreamError } from "../upstream/upstream-error.ts";
import { encodeAuthenticationOk, encodeSqlError } from "../wire/backend-message.ts";
import { newestMinorVersion, type Startup } from "../wire/startup-packet.ts";
import type { Transport } from "../wire/transport.ts";
import type { TransportFactory } from "../wire/transport-factory.ts";
import { type Greeting, receiveStartup } from "./handshake.ts";
import { type LoginServices, logIn, refusal } from "./login.ts";
import type { SessionServices } from "./services.ts";
import { Session } from "./session.ts";
import type { SessionRegistry } from "./session-registry.ts";
import { sessionSettings } from "./startup-parameters.ts";
import type { ServerTls } from "./tls.ts";

/** Connections that may be on their way to a login beyond the sessions allowed: cancel requests are among them. */
const spareConnections = 256;

export interface ListenerOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly maxConnections: number;
  /** From accept to AuthenticationOk. */
  readonly authenticationTimeoutMs: number;
  readonly isTlsRequired: boolean;
  /** Used when the startup packet names no database, or the user's name and no such database exists. */
  readonly defaultDatabase: string;
  readonly transports: TransportFactory;
  readonly services: SessionServices;
  readonly registry: SessionRegistry;
  readonly log: Log;
}

export class Listener {
  readonly #options: ListenerOptions;
  readonly #loginServices: LoginServices;
  readonly #server: Server;
  readonly #pending = new Set<Transport>();
  #tls: ServerTls | undefined;
  #isClosing = false;
  /** Connections that came before `open`. */
  #early: Socket[] | undefined = [];

  constructor(options: ListenerOptions, tls: ServerTls | undefined) {
    this.#options = options;
    this.#loginServices = { ...options.services, log: options.log };
    this.#tls = tls;
    this.#server = createServer({ pauseOnConnect: true, noDelay: true, keepAlive: true }, (socket) =>
      this.#accept(socket),
    );
  }

  /** New connections get the new certificate; established ones keep theirs. */
  set tls(tls: ServerTls | undefined) {
    this.#tls = tls;
  }

  /** Takes the port; clients wait, unread, until `open`. @returns the port @throws the error of listen(2) */
  listen(): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen({ host: this.#options.host, port: this.#options.port, backlog: 1024 }, () => {
        this.#server.off("error", reject);
        // Running out of file descriptors must not end the sessions that there are.
        this.#server.on("error", (error) =>
          this.#options.log.error({ err: error }, "cannot accept connections"),
        );
        const address = this.#server.address();
        resolve(typeof address === "object" && address !== null ? address.port : this.#options.port);
      });
    });
  }

  /** Begins to serve. */
  open(): void {
    const early = this.#early ?? [];
    this.#early = undefined;
    for (const socket of early) this.#accept(socket);
  }

  /** Stops accepting, and drops the clients that have not logged in. */
  stopAccepting(): void {
    this.#isClosing = true;
    this.#server.close();
    for (const socket of this.#early ?? []) socket.destroy();
    for (const transport of [...this.#pending]) drop(transport);
  }

  #accept(socket: Socket): void {
    if (this.#early !== undefined && !this.#isClosing) {
      socket.on("error", () => undefined);
      this.#early.push(socket);
      return;
    }
    const { registry, maxConnections, transports } = this.#options;
    if (this.#isClosing || registry.size + this.#pending.size >= maxConnections + spareConnections) {
      socket.destroy();
      return;
    }
    const transport = transports.open(socket);
    this.#pending.add(transport);
    void this.#serve(transport);
  }

  /** Owns the connection until a session has taken it over; settles whatever happens. */
  async #serve(first: Transport): Promise<void> {
    const { log } = this.#options;
    let transport = first;
    const timeoutMs = this.#options.authenticationTimeoutMs;
    const timer = setTimeout(() => transport.abort(), timeoutMs);
    const address = first.socket.remoteAddress ?? "?";
    const peer = `${address}:${first.socket.remotePort ?? "?"}`;
    try {
      const outcome = await receiveStartup(
        first,
        {
          transports: this.#options.transports,
          tls: this.#tls,
          isTlsRequired: this.#options.isTlsRequired,
          timeoutMs,
        },
        (upgraded) => {
          this.#pending.delete(transport);
          transport = upgraded;
          this.#pending.add(transport);
        },
      );
      if (outcome.kind === "cancel") {
        await this.#options.services.cancels.cancel(outcome.processId, outcome.secretKey);
        transport.close();
      } else if (outcome.kind === "closed") transport.close();
      else if (outcome.kind === "certificate_refused") {
        log.info({ peer, reason: outcome.reason }, "client certificate refused");
        this.#options.services.loginGuard.recordCertificateFailure(address, "certificate_refused");
      } else await this.#logIn(outcome, address, peer, timer);
    } catch (error) {
      this.#refuse(transport, error, peer);
    } finally {
      clearTimeout(timer);
      this.#pending.delete(transport);
      if (log.level === "trace") log.trace({ peer }, "handshake ended");
    }
  }

  async #logIn(greeting: Greeting, address: string, peer: string, timer: NodeJS.Timeout): Promise<void> {
    const { services, log } = this.#options;
    const { startup, transport, reader } = greeting;
    const settings = sessionSettings(startup.parameters);
    const sessionId = randomUUID();
    const outcome = await logIn(greeting, { address, peer, sessionId }, this.#loginServices);
    if (outcome === undefined) {
      transport.close();
      return;
    }
    clearTimeout(timer);
    const authenticated = Buffer.concat([outcome.finalMessage, encodeAuthenticationOk()]);
    const { identity } = outcome;
    const database = await this.#databaseFor(startup, identity);
    if (!outcome.isRecorded) services.loginGuard.recordSuccess(startup.user, address, identity, sessionId);
    try {
      requireDatabase(identity.databases, database);
    } catch (error) {
      services.loginGuard.recordDatabaseDenied(address, identity, database, sessionId);
      throw error;
    }
    await services.prepareDatabase(database, identity);
    if (transport.isClosed) return;
    // From here on the registry ends the session when its user or its key goes.
    const { cache } = services.logins;
    const now = new Date();
    const { certificateId } = identity;
    const isRevoked =
      certificateId !== undefined && greeting.tls?.clients?.policy.isRevoked(certificateId) === true;
    if (isRevoked || !isCurrent(cache, identity, now) || !mayStay(cache, { identity, database }, now)) {
      const reason: RefusalReason = "changed_meanwhile";
      log.info({ peer, user: startup.user, reason }, "login refused");
      services.audit.record({
        event: "AuthFailure",
        username: startup.user,
        source: address,
        sessionId,
        detail: reason,
      });
      throw refusal(outcome.credential, startup.user);
    }
    const session = new Session(
      {
        id: sessionId,
        identity,
        database,
        clientAddress: address,
        protocol: "pgwire",
        minorVersion: Math.min(startup.minor, newestMinorVersion),
      },
      transport,
      services,
      log,
      (closed) => this.#options.registry.remove(closed),
    );
    // What has changed since the credential was verified, the registry has told nobody of.
    session.renewClaims(selfNow(cache, identity));
    await this.#options.registry.admit(session);
    if (transport.isClosed) {
      session.leave();
      return;
    }
    if (!outcome.isRecorded) services.recordLogin(identity);
    const ticket = services.pool.acquire(upstreamTargetOf(identity, database, settings));
    // A client that leaves while it waits gives up its place.
    reader.onGone = () => session.leave();
    await session.begin(ticket, authenticated, () => reader.release());
  }

  // libpq always names a database, the user's own when it was given none; where there is no such database
  // that wish is nobody's, and the user's default is meant.
  async #databaseFor(startup: Startup, identity: Identity): Promise<string> {
    const wanted = startup.parameters.get("database") ?? "";
    const fallback = identity.defaultDatabase ?? this.#options.defaultDatabase;
    if (wanted === "") return fallback;
    if (wanted !== startup.user) return wanted;
    return (await this.#options.services.databaseExists(wanted)) ? wanted : fallback;
  }

  #refuse(transport: Transport, error: unknown, peer: string): void {
    if (transport.isClosed) return;
    if (error instanceof UpstreamError) transport.write(error.errorResponse);
    else if (error instanceof SqlError) {
      const { condition, message, detail, hint } = error;
      transport.write(encodeSqlError(new SqlError(condition, message, { severity: "FATAL", detail, hint })));
    } else {
      this.#options.log.error({ err: error, peer }, "internal error");
      transport.write(
        encodeSqlError(new SqlError("internal_error", "internal error", { severity: "FATAL" })),
      );
    }
    transport.end();
  }
}

/** Closes it and tells who waits on it; in a TLS handshake, for which the transport has given its socket away, that socket. */
function drop(transport: Transport): void {
  transport.abort();
  transport.socket.destroy();
}
