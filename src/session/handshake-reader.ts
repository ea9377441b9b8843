/** Reads the packets before a session is relayed, one at a time and with small limits (PostgreSQL manual 54.2.1). */

import { SqlError } from "../errors/sql-error.ts";
import { maxAuthenticationMessageBytes, maxStartupPacketBytes } from "../wire/limits.ts";
import type { Transport, TransportHandler } from "../wire/transport.ts";

/** First byte of a TLS ClientHello record (RFC 8446 section 5.1): a client that begins with TLS directly. */
const tlsHandshakeRecord = 0x16;

/** Type of SASLInitialResponse and SASLResponse. */
const saslAnswer = 0x70; // p

export type FirstPacket =
  | { readonly kind: "packet"; readonly body: Buffer }
  | { readonly kind: "tls" }
  | { readonly kind: "closed" };

export type ClientMessage = { readonly kind: "message"; readonly body: Buffer } | { readonly kind: "closed" };

/** Takes the transport's events until `release`; holds at most one packet and what came with it. */
export class HandshakeReader implements TransportHandler {
  readonly #transport: Transport;
  #bytes: Buffer = Buffer.alloc(0);
  #isEnded = false;
  #wake: (() => void) | undefined;
  /** Called when the client goes away while nobody waits for a packet. */
  onGone: (() => void) | undefined;

  constructor(transport: Transport) {
    this.#transport = transport;
    transport.handler = this;
  }

  /** True when the client has sent more than was read: before encryption starts that would be an injection. */
  get hasUnread(): boolean {
    return this.#bytes.length > 0;
  }

  /** The next untyped packet, without its length. @throws SqlError FATAL protocol_violation */
  async readStartupPacket(): Promise<FirstPacket> {
    while (this.#bytes.length < 4) {
      if (this.#bytes[0] === tlsHandshakeRecord) return { kind: "tls" };
      if (!(await this.#more())) return { kind: "closed" };
    }
    if (this.#bytes[0] === tlsHandshakeRecord) return { kind: "tls" };
    const length = this.#bytes.readInt32BE(0);
    if (length < 8 || length > maxStartupPacketBytes) throw violation("invalid length of startup packet");
    while (this.#bytes.length < length) {
      if (!(await this.#more())) return { kind: "closed" };
    }
    return { kind: "packet", body: this.#take(length).subarray(4) };
  }

  /**
   * The next message, which must be the answer to a SASL request.
   * @throws SqlError FATAL protocol_violation when it is another or larger than a login needs
   */
  async readSaslAnswer(maxBytes = maxAuthenticationMessageBytes): Promise<ClientMessage> {
    while (this.#bytes.length < 5) {
      this.#refuseOtherTypes();
      if (!(await this.#more())) return { kind: "closed" };
    }
    this.#refuseOtherTypes();
    const length = this.#bytes.readInt32BE(1);
    if (length < 4 || length > maxBytes) throw violation("invalid message length");
    while (this.#bytes.length < length + 1) {
      if (!(await this.#more())) return { kind: "closed" };
    }
    const message = this.#take(length + 1);
    return { kind: "message", body: message.subarray(5) };
  }

  // At the first byte: what follows another type is no length, and nothing that it claims is worth waiting for.
  #refuseOtherTypes(): void {
    const [type] = this.#bytes;
    if (type === undefined || type === saslAnswer) return;
    throw violation(`expected SASL response, got message type ${type}`);
  }

  /** Stops reading and gives back what the client has sent ahead. */
  release(): Buffer {
    this.#transport.stop();
    const rest = this.#bytes;
    this.#bytes = Buffer.alloc(0);
    return rest;
  }

  onData(buffer: Buffer, start: number, end: number): void {
    this.#bytes = Buffer.concat([this.#bytes, buffer.subarray(start, end)]);
    // One packet is at most this long; whatever a client sends ahead waits in the kernel.
    if (this.#bytes.length > maxStartupPacketBytes) this.#transport.stop();
    this.#wakeUp();
  }

  onDrain(): void {}

  onEnd(): void {
    this.#isEnded = true;
    if (this.#wake === undefined) this.onGone?.();
    else this.#wakeUp();
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  async #more(): Promise<boolean> {
    if (this.#isEnded) return false;
    this.#transport.start();
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    return !this.#isEnded;
  }

  #take(length: number): Buffer {
    const packet = this.#bytes.subarray(0, length);
    this.#bytes = this.#bytes.subarray(length);
    return packet;
  }
}

function violation(message: string): SqlError {
  return new SqlError("protocol_violation", message, { severity: "FATAL" });
}
