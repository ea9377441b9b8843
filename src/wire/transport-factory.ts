/** Makes the transports of a process: raw ones where Node's internals are as expected, and public ones elsewhere. */

import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { RawTlsTransport } from "./raw-tls-transport.ts";
import { RawTransport } from "./raw-transport.ts";
import { ReadBuffers } from "./read-buffers.ts";
import { rawHandleOf, type StreamBinding } from "./stream-binding.ts";
import { StreamTransport } from "./stream-transport.ts";
import type { Transport } from "./transport.ts";

export type TransportKind = "raw" | "public";

export class TransportFactory {
  /** `raw` where Node's internals are used, `public` where its documented streams are. */
  readonly kind: TransportKind;
  /** The same of connections in TLS. */
  readonly tlsKind: TransportKind;
  readonly #binding: StreamBinding | undefined;
  readonly #buffers = new ReadBuffers();

  /** @param tlsKind `raw` has a meaning only with a binding */
  constructor(binding: StreamBinding | undefined, tlsKind: TransportKind) {
    this.#binding = binding;
    this.kind = binding === undefined ? "public" : "raw";
    this.tlsKind = binding === undefined ? "public" : tlsKind;
  }

  /** Wraps a connected, paused socket that has no data handler yet; one in TLS, when its handshake is over. */
  open(socket: Socket): Transport {
    socket.setNoDelay(true);
    const isTls = socket instanceof TLSSocket;
    const kind = isTls ? this.tlsKind : this.kind;
    const handle = kind === "raw" ? rawHandleOf(socket) : undefined;
    if (this.#binding === undefined || handle === undefined) {
      return new StreamTransport(socket, this.#binding !== undefined);
    }
    const Raw = isTls ? RawTlsTransport : RawTransport;
    return new Raw(socket, handle, this.#binding, this.#buffers);
  }
}
