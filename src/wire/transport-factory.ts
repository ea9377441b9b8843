/** Makes the transports of a process: raw ones where Node's internals are as expected, public ones elsewhere and for TLS. */

import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { RawTransport } from "./raw-transport.ts";
import { ReadBuffers } from "./read-buffers.ts";
import { rawHandleOf, type StreamBinding } from "./stream-binding.ts";
import { StreamTransport } from "./stream-transport.ts";
import type { Transport } from "./transport.ts";

export class TransportFactory {
  readonly #binding: StreamBinding | undefined;
  readonly #buffers = new ReadBuffers();

  constructor(binding: StreamBinding | undefined) {
    this.#binding = binding;
  }

  /** `raw` when Node's internals are used, `public` when its documented streams are. */
  get kind(): "raw" | "public" {
    return this.#binding === undefined ? "public" : "raw";
  }

  /** Wraps a connected, paused socket that has no data handler yet. */
  open(socket: Socket): Transport {
    socket.setNoDelay(true);
    if (this.#binding !== undefined && !(socket instanceof TLSSocket)) {
      const handle = rawHandleOf(socket);
      if (handle !== undefined) return new RawTransport(socket, handle, this.#binding, this.#buffers);
    }
    return new StreamTransport(socket, this.#binding !== undefined);
  }
}
