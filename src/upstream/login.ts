/** Logs in to the upstream as one role (PostgreSQL manual 54.2.1; RFC 5802). */

import { SqlError } from "../errors/sql-error.ts";
import {
  type AwaitingServerFinal,
  type AwaitingServerFirst,
  beginClientExchange,
  type ClientSecret,
  receiveServerFinal,
  receiveServerFirst,
} from "../scram/client-exchange.ts";
import { decodeAuthentication, decodeBackendKeyData } from "../wire/backend-message-decoding.ts";
import {
  encodeSaslInitialResponse,
  encodeSaslResponse,
  encodeStartupMessage,
} from "../wire/frontend-message-encoding.ts";
import type { Transport } from "../wire/transport.ts";
import type { TransportFactory } from "../wire/transport-factory.ts";
import { Conversation } from "./conversation.ts";
import { openUpstreamSocket, type UpstreamEndpoint } from "./endpoint.ts";
import type { RoleCredential } from "./role-credential.ts";
import { noteParameterStatus, type UpstreamConnection } from "./upstream-connection.ts";
import { UpstreamError } from "./upstream-error.ts";

export interface LoginOptions {
  readonly endpoint: UpstreamEndpoint;
  readonly transports: TransportFactory;
  readonly database: string;
  readonly role: string;
  /** Absent: the private socket of the embedded PostgreSQL, where only AuthenticationOk is accepted. */
  readonly credential?: RoleCredential;
  /** Of a login of the front-end's own, proven by SCRAM where it is asked for; PostgreSQL may let it in without. */
  readonly password?: string | undefined;
  /** The client's settings, already filtered. */
  readonly parameters: ReadonlyMap<string, string>;
  readonly timeoutMs: number;
  /** A fresh SCRAM nonce; printable ASCII without commas. */
  readonly nonce: () => string;
}

/** The role's verifier is not the one that the front-end installed: somebody has changed it. */
export class ForeignVerifierError extends Error {
  override readonly name = "ForeignVerifierError";
}

/**
 * What no role may change about itself in a way that outlives a session: startup values win over
 * ALTER ROLE … SET, and RESET ALL returns to them.
 */
const pinnedParameters: ReadonlyMap<string, string> = new Map([
  ["role", "none"],
  ["local_preload_libraries", ""],
]);

/**
 * Opens a connection and waits until it is ready for a query.
 *
 * @throws UpstreamError with the upstream's own refusal
 * @throws ForeignVerifierError before any proof was sent, when salt or iteration count are not ours
 * @throws SqlError cannot_connect_now, connection_failure
 */
export async function openUpstreamConnection(options: LoginOptions): Promise<UpstreamConnection> {
  const socket = await openUpstreamSocket(options.endpoint, options.timeoutMs);
  const transport = options.transports.open(socket);
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => fail(notAvailable("The upstream server did not answer in time.")),
      options.timeoutMs,
    );
    const fail = (error: Error) => {
      clearTimeout(timer);
      transport.close();
      reject(error);
    };
    const login = new Login(options, transport, (connection) => {
      clearTimeout(timer);
      transport.stop();
      resolve(connection);
    });
    new Conversation(transport, {
      onMessage: (type, body) => {
        try {
          login.onMessage(type, body);
        } catch (error) {
          fail(error instanceof Error ? error : new Error(String(error)));
        }
      },
      onEnd: () => fail(notAvailable("The upstream server closed the connection during the login.")),
    });
    const parameters = new Map([
      ["user", options.role],
      ["database", options.database],
      ...options.parameters,
      ...pinnedParameters,
    ]);
    transport.write(encodeStartupMessage(parameters, 0));
  });
}

class Login {
  readonly #options: LoginOptions;
  readonly #transport: Transport;
  readonly #onReady: (connection: UpstreamConnection) => void;
  readonly #connection: UpstreamConnection;
  #key: { processId: number; secretKey: Buffer } | undefined;
  #awaitingServerFirst: AwaitingServerFirst | undefined;
  #awaitingServerFinal: AwaitingServerFinal | undefined;
  #isServerProven = false;
  #isAuthenticated = false;

  constructor(
    options: LoginOptions,
    transport: Transport,
    onReady: (connection: UpstreamConnection) => void,
  ) {
    this.#options = options;
    this.#transport = transport;
    this.#onReady = onReady;
    this.#connection = {
      transport,
      processId: 0,
      secretKey: Buffer.alloc(0),
      clientPort: options.endpoint.kind === "socket" ? null : undefined,
      claimsDueAtMs: 0,
      claimsWithdrawnMs: 0,
      parameters: new Map(),
      openedAtMs: Date.now(),
      cancels: new Set(),
      isReusable: true,
    };
  }

  onMessage(type: string, body: Buffer): void {
    switch (type) {
      case "R":
        this.#onAuthentication(body);
        return;
      case "S":
        noteParameterStatus(this.#connection, body);
        return;
      case "K":
        this.#key = decodeBackendKeyData(body);
        return;
      case "E":
        throw new UpstreamError(body);
      case "N":
        return;
      case "Z":
        if (!this.#isAuthenticated || this.#key === undefined) throw unexpected();
        this.#onReady({ ...this.#connection, ...this.#key });
        return;
      default:
        throw unexpected();
    }
  }

  // Nothing but SASL is answered: a clear-text or MD5 request would be an attempt to get a secret.
  #onAuthentication(body: Buffer): void {
    const message = decodeAuthentication(body);
    const { credential } = this.#options;
    if (message.type === "AuthenticationOk") {
      const isProofOwed = credential !== undefined || this.#awaitingServerFirst !== undefined;
      if (isProofOwed && !this.#isServerProven) throw unexpected();
      this.#isAuthenticated = true;
      return;
    }
    const secret = secretOf(this.#options);
    if (secret === undefined) throw unexpected();
    if (message.type === "AuthenticationSASL" && this.#awaitingServerFirst === undefined) {
      if (!message.mechanisms.includes("SCRAM-SHA-256")) throw unexpected();
      const begun = beginClientExchange({
        secret,
        clientNonce: this.#options.nonce(),
      });
      this.#awaitingServerFirst = begun.exchange;
      this.#transport.write(encodeSaslInitialResponse(begun.mechanism, begun.clientFirst));
    } else if (message.type === "AuthenticationSASLContinue" && this.#awaitingServerFirst !== undefined) {
      const outcome = receiveServerFirst(this.#awaitingServerFirst, message.data);
      if (outcome.kind === "unexpected_verifier")
        throw new ForeignVerifierError("the role's verifier is not ours");
      if (outcome.kind !== "continue") throw unexpected();
      this.#awaitingServerFinal = outcome.exchange;
      this.#transport.write(encodeSaslResponse(outcome.clientFinal));
    } else if (message.type === "AuthenticationSASLFinal" && this.#awaitingServerFinal !== undefined) {
      if (receiveServerFinal(this.#awaitingServerFinal, message.data).kind !== "verified") throw unexpected();
      this.#isServerProven = true;
    } else throw unexpected();
  }
}

function secretOf({ credential, password }: LoginOptions): ClientSecret | undefined {
  if (credential !== undefined) return { kind: "keys", ...credential };
  return password === undefined ? undefined : { kind: "password", password };
}

function notAvailable(detail: string): SqlError {
  return new SqlError("cannot_connect_now", "the database system is not available", {
    severity: "FATAL",
    detail,
  });
}

function unexpected(): SqlError {
  return new SqlError("connection_failure", "the upstream server could not be trusted", {
    severity: "FATAL",
    detail: "Its answers during the login were not those of a server that knows the role.",
  });
}
