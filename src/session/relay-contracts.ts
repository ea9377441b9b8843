/** What a relay asks of those around it. */

import type { Verdict } from "../wire/framer.ts";

/** Takes what concerns statements of ours out of the client's stream. */
export interface Interceptor {
  /** Decides on a whole Query, Parse, and while `hasOwn` also Bind, Execute, Close. */
  inspect(type: number, buffer: Buffer, start: number, end: number): Verdict;
  /** The beginning of a message that is too large to be inspected; whether it begins as a statement of ours. */
  mustRefuse(type: number, buffer: Buffer, start: number, end: number): boolean;
  /** Handles a message that was taken; the client's stream is paused until the promise settles. */
  handle(type: number, message: Buffer): Promise<void>;
  /** A transaction has ended: portals are gone. */
  onTransactionEnd(): void;
  /** SQL has given a name to a prepared statement or a portal, as the extended protocol does. */
  onNamedBySql(): void;
  /** The session is over. */
  close(): void;
}

export interface RelayListener {
  /** The client said Terminate, closed or broke. */
  onClientGone(): void;
  /** The upstream closed or broke; what it said last has been forwarded. */
  onUpstreamGone(): void;
  /** The client broke the protocol, or a bug broke the session. */
  onFailure(error: unknown): void;
  /** Nothing is outstanding, no transaction is open, and the claims are due; what the client has sent waits for this. */
  onClaimsDue(): Promise<void>;
  /** Nothing is outstanding; called only after `watchReady`. */
  onReady(): void;
}

/**
 * What becomes of one reply to a message of the front-end's own; `finish` keeps it from the client and ends the exchange. A
 * message is sent in its place, behind those before it, which may not have been written yet.
 */
export type ReplyDecision = "forward" | "drop" | "finish" | "forward-and-finish" | Buffer;

/** A COMMIT whose outcome the front-end has to know. */
export interface CommitHold {
  /** The upstream has answered: the time is no longer bounded. */
  answered(): void;
  /** What follows from it has been done. */
  end(): void;
}
