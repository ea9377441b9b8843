/** The port of the HTTP interface: plain HTTP and TLS on the same one, told apart by the first byte. */

import type { X509Certificate } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import {
  createServer as createTlsServer,
  type SecureContextOptions,
  type TLSSocket,
  type Server as TlsServer,
} from "node:tls";
import type { Log } from "../observe/log.ts";
import { refuseMalformed } from "./malformed-request.ts";

/** The limits are read for each connection; `limitsChanged` gives them to the server that there is. */
export interface HttpListenerOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly maxConnections: number;
  /** From accept to the whole header, and for a TLS handshake. */
  readonly headersTimeoutMs: number;
  /** Told of each client whose certificate is not accepted. */
  readonly onCertificateRefused: (address: string) => void;
  readonly log: Log;
}

export interface HttpTls {
  readonly contextOptions: SecureContextOptions;
  /** undefined: clients are not asked for a certificate. */
  readonly clients: { readonly isRequired: boolean } | undefined;
}

/** Largest request line and header together, in bytes; more gets 431. */
const maxHeaderBytes = 16 * 1024;
/** A client that sends nothing keeps its connection so long. */
const keepAliveTimeoutMs = 60_000;
/** For the whole request, body included; a slow one costs a connection at most so long. */
const requestTimeoutMs = 120_000;
const tlsHandshake = 0x16;

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

export class HttpListener {
  readonly #options: HttpListenerOptions;
  #server: Server | undefined;
  #serve: ((socket: Socket) => void) | undefined;
  readonly #certificates = new WeakMap<Socket, X509Certificate>();
  /** Not listening: connections are injected. */
  #tls: TlsServer | undefined;
  #looksForTls = false;

  constructor(options: HttpListenerOptions, tls: HttpTls | undefined) {
    this.#options = options;
    this.setTls(tls);
  }

  /** New connections get the new certificates; TLS is offered from the first ones on. */
  setTls(tls: HttpTls | undefined): void {
    this.#tls = tls && this.#makeTlsServer(tls);
    this.#lookForTls();
  }

  /** The certificate of the client, as the handshake has verified it; undefined without one. */
  certificateOf(socket: Socket): X509Certificate | undefined {
    return this.#certificates.get(socket);
  }

  limitsChanged(): void {
    if (this.#server === undefined) return;
    const { maxConnections, headersTimeoutMs } = this.#options;
    this.#server.maxConnections = maxConnections;
    this.#server.headersTimeout = headersTimeoutMs;
    this.#server.requestTimeout = Math.max(requestTimeoutMs, headersTimeoutMs);
  }

  /** @param handler answers requests */
  makeServer(handler: Handler): Server {
    const server = createServer(
      {
        maxHeaderSize: maxHeaderBytes,
        insecureHTTPParser: false,
        keepAliveTimeout: keepAliveTimeoutMs,
        connectionsCheckingInterval: 1_000,
        noDelay: true,
        keepAlive: true,
        rejectNonStandardBodyWrites: true,
      },
      handler,
    );
    refuseMalformed(server);
    this.#server = server;
    this.limitsChanged();
    this.#lookForTls();
    return server;
  }

  /** Takes the port. @returns it @throws the error of listen(2) */
  listen(): Promise<number> {
    const server = this.#server;
    if (server === undefined) throw new TypeError("there is no server yet");
    const { host, port, log } = this.#options;
    return new Promise((resolve, reject) => {
      server.once("error", reject);
      server.listen({ host, port, backlog: 1024 }, () => {
        server.off("error", reject);
        server.on("error", (error) => log.error({ err: error }, "cannot accept HTTP connections"));
        const address = server.address();
        resolve(typeof address === "object" && address !== null ? address.port : port);
      });
    });
  }

  /** Accepts nobody any more, and closes the connections that wait for a request. */
  stopAccepting(): void {
    this.#server?.close();
    this.#server?.closeIdleConnections();
  }

  /** Resolves when every answer has been sent; those that are not within the time are cut off. */
  async close(timeoutMs: number): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    this.stopAccepting();
    const deadline = setTimeout(() => server.closeAllConnections(), timeoutMs);
    // A connection becomes idle, and can be closed, when its answer is through.
    const sweep = setInterval(() => server.closeIdleConnections(), 20);
    await new Promise<void>((resolve) => {
      server.once("close", resolve);
      // It had no connection, and has told already.
      if (!server.listening) server.close(() => resolve());
    });
    clearTimeout(deadline);
    clearInterval(sweep);
  }

  #makeTlsServer({ contextOptions, clients }: HttpTls): TlsServer {
    const { headersTimeoutMs, log } = this.#options;
    const server = createTlsServer(
      {
        ...contextOptions,
        ALPNProtocols: ["http/1.1"],
        handshakeTimeout: headersTimeoutMs,
        requestCert: clients !== undefined,
        // A client without a certificate may have another credential; one whose certificate is not accepted is refused below.
        rejectUnauthorized: false,
      },
      (socket) => {
        const judgement = clients === undefined ? noCertificate : judgeClient(socket, clients.isRequired);
        if (judgement.ok) {
          const { certificate } = judgement;
          if (certificate !== undefined) this.#certificates.set(socket, certificate);
          this.#serve?.(socket);
          return;
        }
        const { reason } = judgement;
        log.info(
          { peer: `${socket.remoteAddress}:${socket.remotePort}`, reason },
          "client certificate refused",
        );
        this.#options.onCertificateRefused(socket.remoteAddress ?? "?");
        socket.destroy();
      },
    );
    // A failed handshake is the client's affair.
    server.on("tlsClientError", (_error, socket) => socket.destroy());
    return server;
  }

  // The connection's first byte tells; Node lets connections be injected into a server (http.Server, event 'connection').
  // Without certificates there is nothing to tell apart, and connections go to the parser as they are.
  #lookForTls(): void {
    const server = this.#server;
    if (server === undefined || this.#tls === undefined || this.#looksForTls) return;
    this.#looksForTls = true;
    const listeners = server.listeners("connection");
    const serve = (socket: Socket) => {
      for (const listener of listeners) listener.call(server, socket);
    };
    this.#serve = serve;
    server.removeAllListeners("connection");
    server.on("connection", (socket: Socket) => {
      const timer = setTimeout(() => socket.destroy(), this.#options.headersTimeoutMs);
      const onError = () => socket.destroy();
      socket.on("error", onError);
      socket.once("close", () => clearTimeout(timer));
      socket.once("data", (first: Buffer) => {
        clearTimeout(timer);
        socket.off("error", onError);
        socket.pause();
        socket.unshift(first);
        if (first[0] !== tlsHandshake) {
          serve(socket);
          socket.resume();
        } else if (this.#tls === undefined) {
          socket.destroy();
        } else {
          // It reads what is left in the stream, and then from below it: a stream that flowed would lose the first part.
          this.#tls.emit("connection", socket);
        }
      });
    });
  }
}

type Judgement =
  | { readonly ok: true; readonly certificate: X509Certificate | undefined }
  | { readonly ok: false; readonly reason: string };

const noCertificate: Judgement = { ok: true, certificate: undefined };

/** Whether a client may go on after its TLS handshake: nothing that it has sent has been read yet. */
function judgeClient(socket: TLSSocket, isRequired: boolean): Judgement {
  // There are no tickets to resume with. Should one be accepted all the same, its verification is as old as it is.
  if (socket.isSessionReused()) return { ok: false, reason: "resumed session" };
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) return isRequired ? { ok: false, reason: "no certificate" } : noCertificate;
  if (!socket.authorized) return { ok: false, reason: String(socket.authorizationError) };
  return { ok: true, certificate };
}
