/** A transport on Node's handle of a TLS connection (src/crypto/crypto_tls.cc): the raw one, with what encryption makes different. */

import type { Socket } from "node:net";
import { HandleTransport } from "./handle-transport.ts";
import { bufferBytes, type ReadBuffers } from "./read-buffers.ts";
import { isInFlight, type StreamBinding, type StreamHandle, type WriteRequest } from "./stream-binding.ts";
import { WaitingWrites } from "./waiting-writes.ts";

/**
 * Such a handle takes one write at a time, and aborts the process at a second one. What it is given it has encrypted, and so
 * copied, when `writeBuffer` returns; that the kernel has taken it comes out some turns later, and is of interest only
 * where more waits. It decrypts all that has arrived in one go, and calls `onRead` for it also after `readStop`.
 */
export class RawTlsTransport extends HandleTransport {
  /** In flight, or free. Node tells of its completion when it has an `oncomplete`. */
  #request: WriteRequest;
  /** The one that completes is not free before its `oncomplete` has returned. */
  #otherRequest: WriteRequest;
  readonly #waiting = new WaitingWrites();
  /** `onDrain` has not been called since a write was answered by false. */
  #owesDrain = false;
  /** What has come while the reader was stopped, in copies. */
  #held: Buffer[] = [];
  /** The end has come behind what is held, or while the reader was stopped. */
  #hasHeldEnd = false;
  /** What had been read into when the reader was stopped: until the next start it may be lent. */
  #aside: Buffer | undefined;

  constructor(socket: Socket, handle: StreamHandle, binding: StreamBinding, buffers: ReadBuffers) {
    super(socket, handle, binding, buffers);
    this.#request = new binding.WriteWrap();
    this.#otherRequest = new binding.WriteWrap();
    // What came together with the end of the handshake is in the socket, and so may be the end.
    while (socket.readableLength > 0) {
      const chunk: Buffer | null = socket.read();
      if (chunk !== null) this.#held.push(chunk);
    }
    // A socket that has been emptied reads on.
    handle.readStop();
    socket.once("end", () => this.#onReadEnd());
    // A connection that breaks below TLS is closed without a word to the handle's reader.
    socket.once("close", () => this.finish());
    // What is no TLS, or was changed on its way. Of a socket that was wrapped by hand Node tells nobody.
    handle.onerror = () => this.finish();
  }

  override start(): void {
    if (this.isReading || this.isClosed) return;
    if (this.#aside !== undefined) this.buffers.give(this.#aside);
    this.#aside = undefined;
    if (this.#isHolding) queueMicrotask(() => this.#deliverHeld());
    super.start();
  }

  write(view: Uint8Array): boolean {
    if (this.isClosed || view.length === 0) return true;
    const isFree = this.isFlushed();
    if (isFree && view.length <= bufferBytes.bulk) {
      this.#send(view);
      return true;
    }
    if (this.#owesDrain || !this.#waiting.copy(view)) {
      this.#owesDrain = true;
      this.#waiting.refer(view);
    }
    if (isFree) this.#sendNext();
    else this.#request.oncomplete = this.#onComplete;
    return !this.#owesDrain;
  }

  override end(): void {
    // Whoever ends does not read any more; the completion leads to the shutdown.
    if (!this.isFlushed()) this.#request.oncomplete = this.#onComplete;
    super.end();
  }

  detach(): Socket {
    throw new Error("a connection in TLS is not handed on");
  }

  override onRead(): Buffer | undefined {
    const count = this.readCount;
    if (count < 0) this.#onReadEnd();
    if (count <= 0) return undefined;
    const { buffer } = this;
    if (!this.isReading || this.#isHolding) {
      if (!this.isClosed) this.#held.push(Buffer.from(buffer.subarray(0, count)));
      return undefined;
    }
    this.handler.onData(buffer, 0, count);
    if (!this.isReading) return this.isClosed && !this.isLent ? undefined : this.#setAside();
    if (count === buffer.length) return this.growBuffer();
    // A record is shorter than the bulk buffer, and does not fill it.
    return count <= bufferBytes.usual ? this.shrinkBuffer() : undefined;
  }

  protected override isFlushed(): boolean {
    return this.#waiting.isEmpty && !isInFlight(this.#request);
  }

  protected override release(): void {
    this.#waiting.clear();
    this.#held = [];
    if (this.#aside !== undefined && !this.isLent) this.buffers.give(this.#aside);
    this.giveBuffers();
  }

  get #isHolding(): boolean {
    return this.#held.length > 0 || this.#hasHeldEnd;
  }

  // There may be more of what has been decrypted, and it must not go over what is lent.
  #setAside(): Buffer {
    this.#aside = this.buffer;
    if (this.buffer === this.own) this.own = this.buffers.take(this.own.length);
    this.buffer = this.own;
    return this.buffer;
  }

  #deliverHeld(): void {
    while (this.isReading) {
      const chunk = this.#held.shift();
      if (chunk === undefined) break;
      this.handler.onData(chunk, 0, chunk.length);
    }
    if (this.isReading && this.#hasHeldEnd) this.finish();
  }

  #onReadEnd(): void {
    if (this.isReading && !this.#isHolding) this.finish();
    else this.#hasHeldEnd = true;
  }

  #send(view: Uint8Array): void {
    // A connection that is known to be broken fails at once, also where `writeBuffer` is content.
    if (this.handle.writeBuffer(this.#request, view) === 0 && isInFlight(this.#request)) return;
    // Told after the caller's work, as a read error would be.
    queueMicrotask(() => this.finish());
  }

  #sendNext(): void {
    const next = this.#waiting.take();
    if (next === undefined) return;
    this.#send(next);
    this.#request.oncomplete = this.#onComplete;
  }

  readonly #onComplete = (status: number): void => {
    const request = this.#request;
    request.oncomplete = undefined;
    this.#request = this.#otherRequest;
    this.#otherRequest = request;
    if (this.isClosed) return;
    if (status < 0) this.finish();
    else if (!this.#waiting.isEmpty) this.#sendNext();
    else if (this.isEnding) this.shutdown();
    else if (this.#owesDrain) {
      this.#owesDrain = false;
      this.handler.onDrain();
    }
  };
}
