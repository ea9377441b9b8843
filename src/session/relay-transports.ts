/** The two transports of a relay, and the back-pressure between them: what one does not take at once stops the other. */

import type { Transport } from "../wire/transport.ts";

export class RelayTransports {
  readonly client: Transport;
  readonly upstream: Transport;
  #isClientBlocked = false;
  #isUpstreamBlocked = false;
  #isAbandoned = false;
  #isStopped = false;

  constructor(client: Transport, upstream: Transport) {
    this.client = client;
    this.upstream = upstream;
  }

  get isStopped(): boolean {
    return this.#isStopped;
  }

  /** True while one side has not taken what was written to it; the other one is not read then. */
  get isBlocked(): boolean {
    return this.#isClientBlocked || this.#isUpstreamBlocked;
  }

  /** False while the client may not be read: the upstream has not taken what it sent, or the relay has stopped. */
  get mayReadClient(): boolean {
    return !this.#isStopped && !this.#isClientBlocked;
  }

  /** Neither side is read any more. */
  stop(): void {
    this.#isStopped = true;
    this.client.stop();
    this.upstream.stop();
  }

  writeToClient(view: Buffer): void {
    if (this.#isAbandoned) return;
    if (!this.client.write(view)) this.#blockUpstream();
  }

  writeUpstream(view: Buffer): void {
    if (!this.upstream.write(view)) this.#blockClient();
  }

  /** As `writeToClient`, of a read buffer. */
  forwardToClient(buffer: Buffer, start: number, end: number): void {
    if (this.#isAbandoned) return;
    if (!this.client.forward(buffer, start, end)) this.#blockUpstream();
  }

  /** As `writeUpstream`, of a read buffer. */
  forwardUpstream(buffer: Buffer, start: number, end: number): void {
    if (!this.upstream.forward(buffer, start, end)) this.#blockClient();
  }

  /** The client has taken everything; the upstream is read again. */
  onClientDrained(): void {
    if (this.#isUpstreamBlocked) this.#unblockUpstream();
  }

  /** The upstream has taken everything. @returns whether the client had been stopped for it, and may be read again */
  onUpstreamDrained(): boolean {
    if (!this.#isClientBlocked) return false;
    this.#isClientBlocked = false;
    this.client.isLent = false;
    return true;
  }

  /** Nothing more is written to the client, and so it holds the upstream up no more. */
  abandonClient(): void {
    this.#isAbandoned = true;
    if (!this.#isUpstreamBlocked) return;
    // What is still queued is a view of the buffer that is read into next.
    this.client.close();
    this.#unblockUpstream();
  }

  // Until the other side has taken what is queued, the buffer that it was read into belongs to that write.
  #blockUpstream(): void {
    this.#isUpstreamBlocked = true;
    this.upstream.isLent = true;
    this.upstream.stop();
  }

  #unblockUpstream(): void {
    this.#isUpstreamBlocked = false;
    this.upstream.isLent = false;
    if (!this.#isStopped) this.upstream.start();
  }

  #blockClient(): void {
    this.#isClientBlocked = true;
    this.client.isLent = true;
    this.client.stop();
  }
}
