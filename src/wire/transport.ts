/** What a session sees of a socket: a byte transport, built so that a relayed chunk is neither copied nor wrapped in events. */

import type { Socket } from "node:net";

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
  /** As `write`, for `[start, end)` of another transport's read buffer: nothing is made for what has often the same bounds. */
  forward(buffer: Buffer, start: number, end: number): boolean;
  /** Flushes, then closes the sending side, then closes; for a last message that should be read. */
  end(): void;
  /** Closes at once; calls no handler. */
  close(): void;
  /** Closes at once and tells the handler, as if the peer had: for who does not know what waits on this transport. */
  abort(): void;
  /** Gives the socket back, unread and paused, for a TLS upgrade; the transport is unusable afterwards. */
  detach(): Socket;
}

/** How long `end` waits for the peer to close its side, in ms. */
export const lingerMs = 1_000;

/** Of a transport that nobody listens to any more, or not yet. */
export const ignoreEvents: TransportHandler = { onData() {}, onDrain() {}, onEnd() {} };
