/** The port of the HTTP interface: plain HTTP and TLS on the same one, told apart by the first byte. */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import {
  createServer as createTlsServer,
  type SecureContextOptions,
  type Server as TlsServer,
} from "node:tls";
import type { Log } from "../observe/log.ts";

export interface HttpListenerOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly maxConnections: number;
  /** From accept to the whole header, and for a TLS handshake. */
  readonly headersTimeoutMs: number;
  readonly log: Log;
}

/** PEM texts. */
export type HttpTls = Pick<SecureContextOptions, "cert" | "key">;

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
  #tls: TlsServer | undefined;
  #secureContext: HttpTls | undefined;

  constructor(options: HttpListenerOptions, tls: HttpTls | undefined) {
    this.#options = options;
    this.#secureContext = tls;
  }

  /** New connections get the new certificate. */
  setTls(tls: HttpTls | undefined): void {
    this.#secureContext = tls;
    if (tls !== undefined) this.#tls?.setSecureContext(tls);
  }

  /** @param handler answers requests */
  makeServer(handler: Handler): Server {
    const { headersTimeoutMs, maxConnections } = this.#options;
    const server = createServer(
      {
        maxHeaderSize: maxHeaderBytes,
        insecureHTTPParser: false,
        headersTimeout: headersTimeoutMs,
        requestTimeout: Math.max(requestTimeoutMs, headersTimeoutMs),
        keepAliveTimeout: keepAliveTimeoutMs,
        connectionsCheckingInterval: 1_000,
        noDelay: true,
        keepAlive: true,
        rejectNonStandardBodyWrites: true,
      },
      handler,
    );
    server.maxConnections = maxConnections;
    server.on("clientError", (error: NodeJS.ErrnoException, socket) =>
      refuseMalformed(error, socket as Socket),
    );
    this.#server = server;
    if (this.#secureContext !== undefined) this.#offerTls(server, this.#secureContext);
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

  // The connection's first byte tells; Node lets connections be injected into a server (http.Server, event 'connection').
  #offerTls(server: Server, context: HttpTls): void {
    const { headersTimeoutMs } = this.#options;
    const tls = createTlsServer(
      { ...context, minVersion: "TLSv1.2", ALPNProtocols: ["http/1.1"], handshakeTimeout: headersTimeoutMs },
      (socket) => serve(socket),
    );
    // A failed handshake is the client's affair.
    tls.on("tlsClientError", (_error, socket) => socket.destroy());
    this.#tls = tls;
    const listeners = server.listeners("connection");
    const serve = (socket: Socket) => {
      for (const listener of listeners) listener.call(server, socket);
    };
    server.removeAllListeners("connection");
    server.on("connection", (socket: Socket) => {
      const timer = setTimeout(() => socket.destroy(), headersTimeoutMs);
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
        } else {
          // It reads what is left in the stream, and then from below it: a stream that flowed would lose the first part.
          tls.emit("connection", socket);
        }
      });
    });
  }
}

/** What no route ever sees: the parser has refused it. */
function refuseMalformed(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === "ECONNRESET" || !socket.writable) {
    socket.destroy();
    return;
  }
  const [status, reason, message] =
    error.code === "HPE_HEADER_OVERFLOW"
      ? [431, "Request Header Fields Too Large", "the header is too large"]
      : error.code === "ERR_HTTP_REQUEST_TIMEOUT"
        ? [408, "Request Timeout", "the request did not come in time"]
        : [400, "Bad Request", "the request is not HTTP/1.1"];
  const body = JSON.stringify({ status: "error", error: { code: `NH${status}`, message } });
  socket.end(
    `HTTP/1.1 ${status} ${reason}\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}
