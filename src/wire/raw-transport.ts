/** A transport on Node's stream handles: reads into our own buffers and writes straight to the handle. */

import type { Socket } from "node:net";
import { HandleTransport } from "./handle-transport.ts";
import type { WriteRequest } from "./stream-binding.ts";
import { ignoreEvents } from "./transport.ts";

export class RawTransport extends HandleTransport {
  #spareRequest: WriteRequest | undefined;
  #pendingWrites = 0;

  write(view: Uint8Array): boolean {
    if (this.isClosed) return true;
    const request = this.#spareRequest ?? new this.binding.WriteWrap();
    const status = this.handle.writeBuffer(request, view);
    if (status !== 0) {
      // A reset connection; told after the caller's work, as a read error would be.
      queueMicrotask(() => this.finish());
      return true;
    }
    if (this.binding.streamBaseState[this.binding.kLastWriteWasAsync] === 0) {
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
      if (this.isClosed) {
        if (this.#pendingWrites === 0) this.giveBuffers();
        return;
      }
      if (completion < 0) this.finish();
      else if (this.#pendingWrites === 0) {
        if (this.isEnding) this.shutdown();
        else this.handler.onDrain();
      }
    };
  }

  detach(): Socket {
    this.stop();
    this.isClosed = true;
    this.handler = ignoreEvents;
    this.handle.onread = this.socketOnRead;
    this.socket.removeAllListeners("error");
    // Below the TLS layer the handle keeps its pointer to the buffer until it is closed.
    this.socket.once("close", () => this.buffers.give(this.own));
    return this.socket;
  }

  override onRead(): Buffer | undefined {
    const count = this.readCount;
    if (count > 0) {
      const { buffer } = this;
      this.handler.onData(buffer, 0, count);
      if (this.isClosed) return undefined;
      return count === buffer.length ? this.growBuffer() : this.shrinkBuffer();
    }
    if (count < 0) this.finish();
    return undefined;
  }

  protected override isFlushed(): boolean {
    return this.#pendingWrites === 0;
  }

  // The kernel still reads from what is pending.
  protected override release(): void {
    if (this.#pendingWrites === 0) this.giveBuffers();
  }
}
