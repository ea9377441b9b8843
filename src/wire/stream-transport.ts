/** A transport on the public API of Node's streams, for a Node whose internals have changed. */

import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { ignoreEvents, lingerMs, type Transport, type TransportHandler } from "./transport.ts";

export class StreamTransport implements Transport {
  handler: TransportHandler = ignoreEvents;
  isLent = false;
  readonly socket: Socket;
  readonly #isEncrypted: boolean;
  readonly #areSourcesReused: boolean;
  #isClosed = false;

  /** @param areSourcesReused whether the views that are written may belong to read buffers of raw transports */
  constructor(socket: Socket, areSourcesReused: boolean) {
    this.socket = socket;
    this.#isEncrypted = socket instanceof TLSSocket;
    this.#areSourcesReused = areSourcesReused;
    socket.pause();
    socket.on("data", this.#onData);
    socket.on("drain", this.#onDrain);
    socket.on("end", this.#onEnd);
    socket.on("error", this.#onEnd);
    socket.on("close", this.#onEnd);
    // Of a TLS socket that was made from another Node tells only so that what was received cannot be decrypted.
    socket.on("_tlsError", this.#onEnd);
    socket.pause();
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  start(): void {
    if (!this.#isClosed) this.socket.resume();
  }

  stop(): void {
    if (!this.#isClosed) this.socket.pause();
  }

  // A stream keeps what it cannot write yet by reference, and says "go on" long before it has written it. Only what a TLS
  // stream takes at once is encrypted, and so copied, before the call returns.
  write(view: Uint8Array): boolean {
    if (this.#isClosed) return true;
    const isTakenAtOnce = this.#isEncrypted && this.socket.writableLength === 0;
    const mustCopy = this.#areSourcesReused && !isTakenAtOnce;
    return this.socket.write(mustCopy ? Buffer.from(view) : view);
  }

  forward(buffer: Buffer, start: number, end: number): boolean {
    return this.write(buffer.subarray(start, end));
  }

  end(): void {
    if (this.#isClosed) return;
    this.handler = { onData() {}, onDrain() {}, onEnd: () => this.close() };
    this.socket.end();
    this.socket.resume();
    const timer = setTimeout(() => this.close(), lingerMs);
    timer.unref();
    this.socket.once("close", () => clearTimeout(timer));
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.handler = ignoreEvents;
    this.socket.destroy();
  }

  abort(): void {
    this.#onEnd();
  }

  detach(): Socket {
    this.#isClosed = true;
    this.handler = ignoreEvents;
    this.socket.pause();
    this.socket.off("data", this.#onData);
    this.socket.off("drain", this.#onDrain);
    this.socket.off("end", this.#onEnd);
    this.socket.off("error", this.#onEnd);
    this.socket.off("close", this.#onEnd);
    this.socket.off("_tlsError", this.#onEnd);
    return this.socket;
  }

  // A chunk of a stream is nobody else's: it stays valid however long a write takes.
  readonly #onData = (chunk: Buffer): void => this.handler.onData(chunk, 0, chunk.length);
  readonly #onDrain = (): void => this.handler.onDrain();
  readonly #onEnd = (): void => {
    if (this.#isClosed) return;
    const { handler } = this;
    this.close();
    handler.onEnd();
  };
}
