/** What the raw transports have in common: a handle of Node's, and a read buffer of ours that grows and shrinks with the traffic. */

import type { Socket } from "node:net";
import { BufferViews } from "./buffer-views.ts";
import { bufferBytes, type ReadBuffers } from "./read-buffers.ts";
import type { StreamBinding, StreamHandle } from "./stream-binding.ts";
import { ignoreEvents, lingerMs, type Transport, type TransportHandler } from "./transport.ts";

// One function for all handles: a closure for each would be one more thing to fetch per chunk.
function onRead(this: StreamHandle): Buffer | undefined {
  return this.reader?.onRead();
}

/**
 * No stream machinery per chunk. What a chunk needs of a transport stands first, close together: with many sessions most of it
 * has left the processor's caches since the last one.
 */
export abstract class HandleTransport implements Transport {
  handler: TransportHandler = ignoreEvents;
  protected readonly handle: StreamHandle;
  protected readonly binding: StreamBinding;
  protected buffer: Buffer;
  /** What it reads into while no bulk transfer is going on. */
  protected own: Buffer;
  isClosed = false;
  protected isReading = false;
  readonly #views = new BufferViews();
  isLent = false;
  protected isEnding = false;
  readonly socket: Socket;
  protected readonly buffers: ReadBuffers;
  protected readonly socketOnRead: StreamHandle["onread"];

  constructor(socket: Socket, handle: StreamHandle, binding: StreamBinding, buffers: ReadBuffers) {
    this.socket = socket;
    this.handle = handle;
    this.binding = binding;
    this.buffers = buffers;
    this.own = buffers.take(bufferBytes.first);
    this.buffer = this.own;
    this.socketOnRead = handle.onread;
    // A socket begins to read by itself when it has connected; libuv refuses a second readStart.
    socket.pause();
    handle.readStop();
    handle.useUserBuffer(this.buffer);
    handle.reader = this;
    handle.onread = onRead;
    // The handle reports errors to us; the socket only reports those of its own destroy().
    socket.on("error", () => this.finish());
  }

  start(): void {
    if (this.isReading || this.isClosed) return;
    this.isReading = true;
    if (this.handle.readStart() !== 0) this.finish();
  }

  stop(): void {
    if (!this.isReading || this.isClosed) return;
    this.isReading = false;
    this.handle.readStop();
  }

  abstract write(view: Uint8Array): boolean;

  forward(buffer: Buffer, start: number, end: number): boolean {
    return this.write(this.#views.of(buffer, start, end));
  }

  end(): void {
    if (this.isClosed || this.isEnding) return;
    this.isEnding = true;
    this.handler = { onData() {}, onDrain() {}, onEnd: () => this.close() };
    if (this.isFlushed()) this.shutdown();
    // Unread input would turn the close into a reset, which can overtake the last message.
    this.start();
    const timer = setTimeout(() => this.close(), lingerMs);
    timer.unref();
    this.socket.once("close", () => clearTimeout(timer));
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.isReading = false;
    this.handler = ignoreEvents;
    this.socket.destroy();
    this.release();
  }

  abort(): void {
    this.finish();
  }

  abstract detach(): Socket;

  /** Called by the handle. @returns a buffer that it is to read into from now on */
  abstract onRead(): Buffer | undefined;

  /** Whether everything that was written has been taken; where not, `shutdown` is to be called when it has been. */
  protected abstract isFlushed(): boolean;

  /** Called once, when it is closed: gives back what it has borrowed. */
  protected abstract release(): void;

  /** Of the last call of `onRead`: how many bytes have come, or a negative number of libuv's for an end or an error. */
  protected get readCount(): number {
    return this.binding.streamBaseState[this.binding.kReadBytesOrError] ?? -1;
  }

  // A buffer from which a write may be pending is kept; the reader is stopped then (see onData).
  protected growBuffer(): Buffer | undefined {
    if (!this.isReading || this.buffer.length === bufferBytes.bulk) return undefined;
    if (this.buffer.length === bufferBytes.first) {
      this.buffers.give(this.own);
      this.own = this.buffers.take(bufferBytes.usual);
      this.buffer = this.own;
    } else this.buffer = this.buffers.take(bufferBytes.bulk);
    return this.buffer;
  }

  protected shrinkBuffer(): Buffer | undefined {
    if (this.buffer === this.own || !this.isReading) return undefined;
    this.buffers.give(this.buffer);
    this.buffer = this.own;
    return this.buffer;
  }

  protected shutdown(): void {
    const request = new this.binding.ShutdownWrap();
    request.oncomplete = () => {};
    if (this.handle.shutdown(request) !== 0) this.close();
  }

  protected finish(): void {
    if (this.isClosed) return;
    const { handler } = this;
    this.close();
    handler.onEnd();
  }

  // The handle holds a bare pointer to the read buffer until it is closed. A buffer that is lent is left to the
  // garbage collector: the write that still refers to it keeps it alive, and nobody else may read into it.
  protected giveBuffers(): void {
    if (this.isLent) return;
    const giveBack = () => {
      if (this.buffer !== this.own) this.buffers.give(this.buffer);
      this.buffers.give(this.own);
    };
    if (this.socket.closed) giveBack();
    else this.socket.once("close", giveBack);
  }
}
