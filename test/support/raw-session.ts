/** A client that logs in like any other and is then driven byte by byte: half messages, silence, sudden ends. */

import { once } from "node:events";
import type { Socket } from "node:net";
import pg from "pg";

export interface BackendMessage {
  readonly type: string;
  readonly body: Buffer;
}

/** A logged-in connection whose socket belongs to the test. */
export class RawSession {
  readonly socket: Socket;
  /** pg_backend_pid() and the key of a CancelRequest. */
  readonly processId: number;
  readonly secretKey: number;
  readonly messages: BackendMessage[] = [];
  /** Bytes that have come. */
  received = 0;
  /** Settles when the server's side has closed or broken. */
  readonly closed: Promise<void>;
  #bytes: Buffer = Buffer.alloc(0);
  #wake: (() => void) | undefined;
  #isClosed = false;

  constructor(socket: Socket, processId: number, secretKey: number) {
    this.socket = socket;
    this.processId = processId;
    this.secretKey = secretKey;
    socket.on("data", (chunk: Buffer) => this.#onData(chunk));
    socket.on("error", () => {});
    this.closed = once(socket, "close").then(() => {
      this.#isClosed = true;
      this.#wake?.();
    });
  }

  query(text: string): void {
    this.socket.write(message("Q", Buffer.from(`${text}\0`)));
  }

  send(type: string, body: Buffer = Buffer.alloc(0)): void {
    this.socket.write(message(type, body));
  }

  /** Takes messages off until one of the type has come. @throws when the connection ends first */
  async take(type: string): Promise<BackendMessage> {
    for (;;) {
      for (;;) {
        const next = this.messages.shift();
        if (next === undefined) break;
        if (next.type === type) return next;
      }
      if (this.#isClosed) throw new Error(`closed before a message ${type}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** The SQLSTATE of the next error. */
  async takeError(): Promise<string> {
    const { body } = await this.take("E");
    return /\0C([0-9A-Z]{5})\0/.exec(body.toString("latin1"))?.[1] ?? "";
  }

  #onData(chunk: Buffer): void {
    this.received += chunk.length;
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    while (this.#bytes.length >= 5) {
      const end = this.#bytes.readInt32BE(1) + 1;
      if (this.#bytes.length < end) break;
      const type = String.fromCharCode(this.#bytes[0] ?? 0);
      // Rows are counted in `received` only.
      if (type !== "d") this.messages.push({ type, body: Buffer.from(this.#bytes.subarray(5, end)) });
      this.#bytes = this.#bytes.subarray(end);
    }
    this.#wake?.();
  }
}

/** Logs in with node-postgres and takes its socket away from it. */
export async function openRawSession(config: pg.ClientConfig): Promise<RawSession> {
  const client = new pg.Client(config);
  client.on("error", () => {});
  await client.connect();
  const { connection, processID, secretKey } = client as unknown as {
    connection: { stream: Socket };
    processID: number;
    secretKey: number;
  };
  const { stream } = connection;
  stream.removeAllListeners();
  return new RawSession(stream, processID, secretKey);
}

export function message(type: string, body: Buffer): Buffer {
  const header = Buffer.alloc(5);
  header.write(type, "latin1");
  header.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([header, body]);
}
