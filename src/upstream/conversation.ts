/** Reads an upstream connection message by message while no client is relayed: login, reset, idle. */

import { actions, type FramerVisitor, MessageFramer, type Verdict, verdicts } from "../wire/framer.ts";
import { maxMessageBytes } from "../wire/limits.ts";
import type { Transport, TransportHandler } from "../wire/transport.ts";

const everyMessage = new Uint8Array(256).fill(actions.inspect);

/** Largest message expected outside of a relay; an upstream that sends a larger one is not PostgreSQL. */
const maxConversationBytes = 1024 * 1024;

export interface ConversationListener {
  /** One message; `body` is a view that is valid during the call. */
  onMessage(type: string, body: Buffer): void;
  /** The upstream has closed, or sent what is not the protocol. */
  onEnd(): void;
}

/** Attaches to the transport on construction and reads until another handler is set. */
export class Conversation implements TransportHandler, FramerVisitor {
  readonly #transport: Transport;
  readonly #listener: ConversationListener;
  readonly #framer: MessageFramer;

  constructor(transport: Transport, listener: ConversationListener) {
    this.#transport = transport;
    this.#listener = listener;
    this.#framer = new MessageFramer(everyMessage, this, {
      maxMessageBytes: Math.min(maxConversationBytes, maxMessageBytes),
      maxInspectedBytes: maxConversationBytes,
    });
    transport.handler = this;
    transport.start();
  }

  /** False while a message is half read: the connection cannot change hands then. */
  get isAtBoundary(): boolean {
    return this.#framer.isAtBoundary;
  }

  onData(buffer: Buffer, start: number, end: number): void {
    this.#framer.push(buffer, start, end);
  }

  onDrain(): void {}

  onEnd(): void {
    this.#listener.onEnd();
  }

  onObserve(): void {}

  onOversized(): Verdict {
    return verdicts.pass;
  }

  onInspect(): Verdict {
    return verdicts.take;
  }

  onTake(type: number, buffer: Buffer, start: number, end: number): void {
    this.#listener.onMessage(String.fromCharCode(type), buffer.subarray(start + 5, end));
  }

  onForward(): void {}

  onViolation(): void {
    this.#transport.close();
    this.#listener.onEnd();
  }
}
