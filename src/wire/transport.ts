/**
 * A byte transport over one socket, built so that a relayed chunk is neither copied nor wrapped in
 * stream events. It is the only file that knows Node's sockets from the inside; a `TransportFactory` falls
 * back to the public API where the inside does not stand the test of `chooseTransports`, and for TLS.
 */

import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { bufferBytes, ReadBuffers } from "./read-buffers.ts";

/** Who receives a transport's events; exactly one at a time. */
export interface TransportHandler {
  /**
   * Bytes `[start, end)` of `buffer` have arrived. They are valid until the call returns, and, where a
   * part of them was handed to a `write` that answered "queued", until that transport's `onDrain`:
   * the reader must be stopped before the call returns then.
   */
  onData(buffer: Buffer, start: number, end: number): void;
  /** Everything that was queued has been taken by the kernel. */
  onDrain(): void;
  /** The peer has closed or the connection broke; called once, nothing follows. */
  onEnd(): void;
}

/** A connection to read from and write to. */
export interface Transport {
  handler: TransportHandler;
  /** The socket, for addresses and options; reading or writing through it directly is an error. */
  readonly socket: Socket;
  readonly isClosed: boolean;
  /**
   * Set while bytes of this transport's read buffer are queued in another one's `write`. The buffer then goes to nobody
   * else, even when this transport is closed: what is queued is still a view of it.
   */
  isLent: boolean;
  /** Starts or resumes reading. */
  start(): void;
  /** Stops reading; no `onData` follows before the next `start`. */
  stop(): void;
  /** True: taken whole. False: queued; see `onData` for the bytes' life, and `onDrain`. */
  write(view: Uint8Array): boolean;
  /** Flushes, then closes the sending side, then closes; for a last message that should be read. */
  end(): void;
  /** Closes at once; calls no handler. */
  close(): void;
  /** Closes at once and tells the handler, as if the peer had: for who does not know what waits on this transport. */
  abort(): void;
  /** Gives the socket back, unread and paused, for a TLS upgrade; the transport is unusable afterwards. */
  detach(): Socket;
}

/** How long `end` waits for the peer to close its side. */
const lingerMs = 1_000;

const ignore: TransportHandler = { onData() {}, onDrain() {}, onEnd() {} };

// What this file uses of Node's stream handles (lib/internal/stream_base_commons.js, src/stream_base.cc).
interface StreamHandle {
  onread: ((arrayBuffer?: ArrayBuffer) => Buffer | undefined) | undefined;
  readStart(): number;
  readStop(): number;
  useUserBuffer(buffer: Uint8Array): void;
  writeBuffer(request: WriteRequest, buffer: Uint8Array): number;
  shutdown(request: ShutdownRequest): number;
}
interface WriteRequest {
  oncomplete: ((status: number) => void) | undefined;
  /** Keeps the bytes alive while the kernel has not taken them. */
  buffer: Uint8Array | undefined;
}
interface ShutdownRequest {
  oncomplete: (() => void) | undefined;
}

/** Node's internals behind the raw transport. */
export interface StreamBinding {
  readonly WriteWrap: new () => WriteRequest;
  readonly ShutdownWrap: new () => ShutdownRequest;
  readonly streamBaseState: Int32Array;
  readonly kReadBytesOrError: number;
  readonly kLastWriteWasAsync: number;
}

function isStreamBinding(value: unknown): value is StreamBinding {
  if (typeof value !== "object" || value === null) return false;
  const candidate = value as Partial<Record<keyof StreamBinding, unknown>>;
  return (
    typeof candidate.WriteWrap === "function" &&
    typeof candidate.ShutdownWrap === "function" &&
    candidate.streamBaseState instanceof Int32Array &&
    typeof candidate.kReadBytesOrError === "number" &&
    typeof candidate.kLastWriteWasAsync === "number"
  );
}

/** @returns undefined where this Node does not lend its internals out */
export function findStreamBinding(): StreamBinding | undefined {
  const { binding } = process as unknown as { binding?: (name: string) => unknown };
  if (typeof binding !== "function") return undefined;
  try {
    const found = binding.call(process, "stream_wrap");
    return isStreamBinding(found) ? found : undefined;
  } catch {
    // This Node does not lend the binding out: the public API serves.
    return undefined;
  }
}

function rawHandleOf(socket: Socket): StreamHandle | undefined {
  const handle = (socket as unknown as { _handle?: Partial<StreamHandle> | null })._handle;
  if (handle === null || handle === undefined) return undefined;
  const isUsable =
    typeof handle.readStart === "function" &&
    typeof handle.readStop === "function" &&
    typeof handle.useUserBuffer === "function" &&
    typeof handle.writeBuffer === "function" &&
    typeof handle.shutdown === "function";
  return isUsable ? (handle as StreamHandle) : undefined;
}

/** Reads into our own buffers and writes straight to the handle: no stream machinery per chunk. */
class RawTransport implements Transport {
  handler: TransportHandler = ignore;
  isLent = false;
  readonly socket: Socket;
  readonly #handle: StreamHandle;
  readonly #binding: StreamBinding;
  readonly #buffers: ReadBuffers;
  readonly #socketOnRead: StreamHandle["onread"];
  /** What it reads into while no bulk transfer is going on. */
  #own: Buffer;
  #buffer: Buffer;
  #spareRequest: WriteRequest | undefined;
  #pendingWrites = 0;
  #isReading = false;
  #isClosed = false;
  #isEnding = false;

  constructor(socket: Socket, handle: StreamHandle, binding: StreamBinding, buffers: ReadBuffers) {
    this.socket = socket;
    this.#handle = handle;
    this.#binding = binding;
    this.#buffers = buffers;
    this.#own = buffers.take(bufferBytes.first);
    this.#buffer = this.#own;
    this.#socketOnRead = handle.onread;
    // A socket begins to read by itself when it has connected; libuv refuses a second readStart.
    socket.pause();
    handle.readStop();
    handle.useUserBuffer(this.#buffer);
    handle.onread = () => this.#onRead();
    // The handle reports errors to us; the socket only reports those of its own destroy().
    socket.on("error", () => this.#finish());
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  start(): void {
    if (this.#isReading || this.#isClosed) return;
    this.#isReading = true;
    if (this.#handle.readStart() !== 0) this.#finish();
  }

  stop(): void {
    if (!this.#isReading || this.#isClosed) return;
    this.#isReading = false;
    this.#handle.readStop();
  }

  write(view: Uint8Array): boolean {
    if (this.#isClosed) return true;
    const request = this.#spareRequest ?? new this.#binding.WriteWrap();
    const status = this.#handle.writeBuffer(request, view);
    if (status !== 0) {
      // A reset connection; told after the caller's work, as a read error would be.
      queueMicrotask(() => this.#finish());
      return true;
    }
    if (this.#binding.streamBaseState[this.#binding.kLastWriteWasAsync] === 0) {
      // Taken whole by the kernel: libuv has not seen the request, so it serves again.
      this.#spareRequest = request;
      return true;
    }
    this.#spareRequest = undefined;
    request.buffer = view;
    this.#pendingWrites += 1;
    request.oncomplete = (completion) => {
      request.buffer = undefined;
      this.#pendingWrites -= 1;
      if (this.#isClosed) {
        if (this.#pendingWrites === 0) this.#giveBuffers();
        return;
      }
      if (completion < 0) this.#finish();
      else if (this.#pendingWrites === 0) {
        if (this.#isEnding) this.#shutdown();
        else this.handler.onDrain();
      }
    };
    return false;
  }

  end(): void {
    if (this.#isClosed || this.#isEnding) return;
    this.#isEnding = true;
    this.handler = { onData() {}, onDrain() {}, onEnd: () => this.close() };
    if (this.#pendingWrites === 0) this.#shutdown();
    // Unread input would turn the close into a reset, which can overtake the last message.
    this.start();
    const timer = setTimeout(() => this.close(), lingerMs);
    timer.unref();
    this.socket.once("close", () => clearTimeout(timer));
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#isReading = false;
    this.handler = ignore;
    this.socket.destroy();
    if (this.#pendingWrites === 0) this.#giveBuffers();
  }

  abort(): void {
    this.#finish();
  }

  detach(): Socket {
    this.stop();
    this.#isClosed = true;
    this.handler = ignore;
    this.#handle.onread = this.#socketOnRead;
    this.socket.removeAllListeners("error");
    // Below the TLS layer the handle keeps its pointer to the buffer until it is closed.
    this.socket.once("close", () => this.#buffers.give(this.#own));
    return this.socket;
  }

  #onRead(): Buffer | undefined {
    const count = this.#binding.streamBaseState[this.#binding.kReadBytesOrError] ?? -1;
    if (count > 0) {
      const buffer = this.#buffer;
      this.handler.onData(buffer, 0, count);
      if (this.#isClosed) return undefined;
      return count === buffer.length ? this.#growBuffer() : this.#shrinkBuffer();
    }
    if (count < 0) this.#finish();
    return undefined;
  }

  // A buffer from which a write may be pending is kept; the reader is stopped then (see onData).
  #growBuffer(): Buffer | undefined {
    if (!this.#isReading || this.#buffer.length === bufferBytes.bulk) return undefined;
    if (this.#buffer.length === bufferBytes.first) {
      this.#buffers.give(this.#own);
      this.#own = this.#buffers.take(bufferBytes.usual);
      this.#buffer = this.#own;
    } else this.#buffer = this.#buffers.take(bufferBytes.bulk);
    return this.#buffer;
  }

  #shrinkBuffer(): Buffer | undefined {
    if (this.#buffer === this.#own || !this.#isReading) return undefined;
    this.#buffers.give(this.#buffer);
    this.#buffer = this.#own;
    return this.#buffer;
  }

  #shutdown(): void {
    const request = new this.#binding.ShutdownWrap();
    request.oncomplete = () => {};
    if (this.#handle.shutdown(request) !== 0) this.close();
  }

  #finish(): void {
    if (this.#isClosed) return;
    const { handler } = this;
    this.close();
    handler.onEnd();
  }

  // The libuv handle holds a bare pointer to the read buffer until it is closed. A buffer that is lent is left to the
  // garbage collector: the write that still refers to it keeps it alive, and nobody else may read into it.
  #giveBuffers(): void {
    if (this.isLent) return;
    const giveBack = () => {
      if (this.#buffer !== this.#own) this.#buffers.give(this.#buffer);
      this.#buffers.give(this.#own);
    };
    if (this.socket.closed) giveBack();
    else this.socket.once("close", giveBack);
  }
}

/** The same on the public API: for TLS, and for a Node whose internals have changed. */
class StreamTransport implements Transport {
  handler: TransportHandler = ignore;
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
    this.handler = ignore;
    this.socket.destroy();
  }

  abort(): void {
    this.#onEnd();
  }

  detach(): Socket {
    this.#isClosed = true;
    this.handler = ignore;
    this.socket.pause();
    this.socket.off("data", this.#onData);
    this.socket.off("drain", this.#onDrain);
    this.socket.off("end", this.#onEnd);
    this.socket.off("error", this.#onEnd);
    this.socket.off("close", this.#onEnd);
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

/** Makes transports of one kind, raw or public, for a process. */
export class TransportFactory {
  readonly #binding: StreamBinding | undefined;
  readonly #buffers = new ReadBuffers();

  constructor(binding: StreamBinding | undefined) {
    this.#binding = binding;
  }

  /** `raw` when Node's internals are used, `public` when its documented streams are. */
  get kind(): "raw" | "public" {
    return this.#binding === undefined ? "public" : "raw";
  }

  /** Wraps a connected, paused socket that has no data handler yet. */
  open(socket: Socket): Transport {
    socket.setNoDelay(true);
    if (this.#binding !== undefined && !(socket instanceof TLSSocket)) {
      const handle = rawHandleOf(socket);
      if (handle !== undefined) return new RawTransport(socket, handle, this.#binding, this.#buffers);
    }
    return new StreamTransport(socket, this.#binding !== undefined);
  }
}
