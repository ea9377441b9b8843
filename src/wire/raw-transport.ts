/** A transport on Node's stream handles: reads into our own buffers and writes straight to the handle. */

import type { Socket } from "node:net";
import { BufferViews } from "./buffer-views.ts";
import { bufferBytes, type ReadBuffers } from "./read-buffers.ts";
import type { StreamBinding, StreamHandle, WriteRequest } from "./stream-binding.ts";
import { ignoreEvents, lingerMs, type Transport, type TransportHandler } from "./transport.ts";

// One function for all handles: a closure for each would be one more thing to fetch per chunk.
function onRead(this: StreamHandle): Buffer | undefined {
  return this.reader?.onRead();
}

/**
 * No stream machinery per chunk. What a chunk needs of a transport stands first, close together: with many sessions most of it
 * has left the processor's caches since the last one.
 */
export class RawTransport implements Transport {
  handler: TransportHandler = ignoreEvents;
  readonly #handle: StreamHandle;
  readonly #binding: StreamBinding;
  #buffer: Buffer;
  /** What it reads into while no bulk transfer is going on. */
  #own: Buffer;
  #isClosed = false;
  #isReading = false;
  #spareRequest: WriteRequest | undefined;
  readonly #views = new BufferViews();
  isLent = false;
  readonly socket: Socket;
  readonly #buffers: ReadBuffers;
  readonly #socketOnRead: StreamHandle["onread"];
  #pendingWrites = 0;
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
    handle.reader = this;
    handle.onread = onRead;
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
    this.#awaitCompletion(request, view);
    return false;
  }

  // Apart from `write`, which would otherwise make what this closure closes over at every call.
  #awaitCompletion(request: WriteRequest, view: Uint8Array): void {
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
  }

  forward(buffer: Buffer, start: number, end: number): boolean {
    return this.write(this.#views.of(buffer, start, end));
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
    this.handler = ignoreEvents;
    this.socket.destroy();
    if (this.#pendingWrites === 0) this.#giveBuffers();
  }

  abort(): void {
    this.#finish();
  }

  detach(): Socket {
    this.stop();
    this.#isClosed = true;
    this.handler = ignoreEvents;
    this.#handle.onread = this.#socketOnRead;
    this.socket.removeAllListeners("error");
    // Below the TLS layer the handle keeps its pointer to the buffer until it is closed.
    this.socket.once("close", () => this.#buffers.give(this.#own));
    return this.socket;
  }

  /** Called by the handle. @returns a buffer that it is to read into from now on */
  onRead(): Buffer | undefined {
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
