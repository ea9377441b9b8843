/** A scripted client that speaks the protocol byte by byte (PostgreSQL 18 manual 54): what it sends may be wrong on purpose. */

import { randomBytes, X509Certificate } from "node:crypto";
import { connect as connectSocket, type NetConnectOpts, type Socket } from "node:net";
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from "node:tls";
import { tlsServerEndPoint } from "../../src/scram/channel-binding.ts";
import {
  beginClientExchange,
  type ClientChannelBinding,
  type ClientSecret,
  receiveServerFinal,
  receiveServerFirst,
} from "../../src/scram/client-exchange.ts";
import {
  decodeAuthentication,
  decodeBackendKeyData,
  decodeErrorFields,
  decodeNegotiateProtocolVersion,
  decodeParameterStatus,
} from "../../src/wire/backend-message-decoding.ts";
import {
  encodeQuery,
  encodeSaslInitialResponse,
  encodeSaslResponse,
} from "../../src/wire/frontend-message-encoding.ts";

/**
 * How bytes are handed to the kernel: at once; one per write, of what is long only the beginning and the end; or in pieces of
 * these sizes, with the rest in one.
 */
export type Cutting = "whole" | "bytes" | readonly number[];

/** One message of the server; a type is its letter. */
export interface BackendMessage {
  readonly type: string;
  readonly body: Buffer;
}

/** What a server says between authentication and the first ReadyForQuery. */
export interface Greeting {
  /** Every message from the first answer to ReadyForQuery. */
  readonly messages: readonly BackendMessage[];
  readonly parameters: ReadonlyMap<string, string>;
  readonly processId: number;
  readonly secretKey: Buffer;
}

export interface Login {
  readonly user: string;
  readonly password?: string;
  readonly database?: string;
  /** More of the StartupMessage. */
  readonly parameters?: Readonly<Record<string, string>>;
  /** Minor version of protocol 3 to ask for; 0 by default. */
  readonly minor?: number;
  readonly channelBinding?: ClientChannelBinding;
}

const waitMs = 10_000;

/** The server has closed; `messages` is what nobody had read. */
export class ConnectionClosed extends Error {
  override readonly name = "ConnectionClosed";
}

/** Nothing came in time: the server waits, too. */
export class DeadlinePassed extends Error {
  override readonly name = "DeadlinePassed";
}

export class RawClient {
  /** How everything that follows is sent. */
  cutting: Cutting;
  /** What the server's parameters are, as far as ParameterStatus has told. */
  readonly parameters = new Map<string, string>();
  #socket: Socket | TLSSocket;
  #chunks: Buffer[] = [];
  #length = 0;
  #isEnded = false;
  #wake: (() => void) | undefined;

  constructor(socket: Socket, cutting: Cutting) {
    this.#socket = socket;
    this.cutting = cutting;
    this.#listen(socket);
  }

  static async open(address: NetConnectOpts, cutting: Cutting = "whole"): Promise<RawClient> {
    const socket = connectSocket(address);
    await withDeadline(
      new Promise<void>((resolve, reject) => {
        socket.once("connect", resolve);
        socket.once("error", reject);
      }),
      "a connection",
    );
    socket.setNoDelay(true);
    return new RawClient(socket, cutting);
  }

  /** Direct TLS, without an SSLRequest before. Rejects when the server does not want it. */
  static async openTls(address: ConnectionOptions, cutting: Cutting = "whole"): Promise<RawClient> {
    const socket = connectTls({ rejectUnauthorized: false, ...address });
    await secured(socket);
    socket.setNoDelay(true);
    return new RawClient(socket, cutting);
  }

  /** Goes on in TLS on the same connection, after the server has answered S. */
  async upgrade(options: ConnectionOptions = {}): Promise<void> {
    this.#socket.removeAllListeners();
    const secure = connectTls({ rejectUnauthorized: false, ...options, socket: this.#socket });
    await secured(secure);
    this.#socket = secure;
    this.#listen(secure);
  }

  /** tls-server-end-point data of the server's certificate. */
  get channelBinding(): ClientChannelBinding {
    if (!("getPeerX509Certificate" in this.#socket)) throw new Error("not a TLS connection");
    const certificate = this.#socket.getPeerX509Certificate();
    const data = certificate && tlsServerEndPoint(new X509Certificate(certificate.raw).raw);
    if (data === undefined) throw new Error("no channel binding for this certificate");
    return { kind: "tls-server-end-point", data };
  }

  get alpnProtocol(): string | false | null {
    return "alpnProtocol" in this.#socket ? this.#socket.alpnProtocol : null;
  }

  /** Sends in this client's cutting; resolves when the kernel has taken every piece. */
  async send(...parts: readonly Uint8Array[]): Promise<void> {
    const bytes = Buffer.concat(parts);
    if (this.cutting === "whole") return this.#write(bytes);
    const sizes = this.cutting === "bytes" ? singly(bytes.length) : this.cutting;
    let start = 0;
    for (const size of sizes) {
      if (start >= bytes.length || this.#isEnded) return;
      await this.#write(bytes.subarray(start, start + size));
      // Another turn of the loop: the server may read this piece before the next is there.
      await new Promise((resume) => setImmediate(resume));
      start += size;
    }
    if (start < bytes.length && !this.#isEnded) await this.#write(bytes.subarray(start));
  }

  /** @throws ConnectionClosed, or Error when nothing comes in time */
  async readByte(): Promise<string> {
    return (await this.#take(1)).toString("latin1");
  }

  async read(): Promise<BackendMessage> {
    const header = await this.#take(5);
    const type = String.fromCharCode(header[0] ?? 0);
    const body = await this.#take(header.readInt32BE(1) - 4);
    if (type === "S") {
      const { name, value } = decodeParameterStatus(body);
      this.parameters.set(name, value);
    }
    return { type, body };
  }

  /** Messages up to the first of this type, with it. */
  async readUntil(type: string): Promise<BackendMessage[]> {
    const messages: BackendMessage[] = [];
    for (;;) {
      const message = await this.read().catch((error: unknown) => {
        const seen = describeMessages(messages);
        throw new Error(`waited for ${type} after ${seen || "nothing"}: ${String(error)}`, { cause: error });
      });
      messages.push(message);
      if (message.type === type) return messages;
    }
  }

  /** Messages up to ReadyForQuery, with it. */
  readReady(): Promise<BackendMessage[]> {
    return this.readUntil("Z");
  }

  /** Messages until the server closes. */
  async readToClose(): Promise<BackendMessage[]> {
    const messages: BackendMessage[] = [];
    for (;;) {
      try {
        messages.push(await this.read());
      } catch (error) {
        if (error instanceof ConnectionClosed) return messages;
        throw error;
      }
    }
  }

  /** Sends one Query and reads everything up to its ReadyForQuery. */
  async query(text: string): Promise<BackendMessage[]> {
    await this.send(encodeQuery(text));
    return this.readReady();
  }

  /** Sends the StartupMessage, runs the SASL exchange where the server asks for one, and reads up to ReadyForQuery. */
  async logIn(login: Login): Promise<Greeting> {
    await this.send(startupMessage(login));
    const messages = await this.authenticate(login.password ?? "", login.channelBinding);
    const last = messages.at(-1);
    if (last?.type === "E") throw new Error(`login refused: ${errorOf(messages).get("M")}`);
    messages.push(...(await this.readReady()));
    const key = messages.find(({ type }) => type === "K");
    if (key === undefined) throw new Error("no BackendKeyData");
    return { messages, parameters: new Map(this.parameters), ...decodeBackendKeyData(key.body) };
  }

  /** Answers the server up to AuthenticationOk or its refusal, which is the last of the messages. */
  async authenticate(
    credential: string | ClientSecret,
    channelBinding: ClientChannelBinding = { kind: "unsupported" },
  ): Promise<BackendMessage[]> {
    const begun = beginClientExchange({
      secret: typeof credential === "string" ? { kind: "password", password: credential } : credential,
      clientNonce: randomBytes(18).toString("base64"),
      channelBinding,
    });
    const messages: BackendMessage[] = [];
    let final: Parameters<typeof receiveServerFinal>[0] | undefined;
    for (;;) {
      const message = await this.read();
      messages.push(message);
      if (message.type === "E") return messages;
      if (message.type !== "R") continue;
      const authentication = decodeAuthentication(message.body);
      switch (authentication.type) {
        case "AuthenticationOk":
          return messages;
        case "AuthenticationSASL":
          await this.send(encodeSaslInitialResponse(begun.mechanism, begun.clientFirst));
          break;
        case "AuthenticationSASLContinue": {
          const outcome = receiveServerFirst(begun.exchange, authentication.data);
          if (outcome.kind !== "continue") throw new Error(`server-first-message: ${outcome.kind}`);
          final = outcome.exchange;
          await this.send(encodeSaslResponse(outcome.clientFinal));
          break;
        }
        case "AuthenticationSASLFinal":
          if (final === undefined || receiveServerFinal(final, authentication.data).kind !== "verified")
            throw new Error("the server has not proven itself");
          break;
        default:
          throw new Error(`authentication method ${authentication.code}`);
      }
    }
  }

  /** Whether the server has closed the connection, or does so in time. */
  async isClosed(): Promise<boolean> {
    while (!this.#isEnded) await this.#more();
    return true;
  }

  /** Bytes that have arrived and not been read. */
  get unread(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  close(): void {
    this.#socket.destroy();
  }

  /** Closes only the sending side. */
  endSending(): void {
    this.#socket.end();
  }

  #listen(socket: Socket): void {
    const end = () => {
      this.#isEnded = true;
      this.#wake?.();
    };
    socket.on("data", (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#length += chunk.length;
      this.#wake?.();
    });
    socket.on("end", end);
    socket.on("close", end);
    // A reset is a close too.
    socket.on("error", end);
  }

  #write(bytes: Buffer): Promise<void> {
    // The server may have closed already: what it has said is still to be read.
    return new Promise((resolve) => {
      this.#socket.write(bytes, () => resolve());
    });
  }

  async #take(count: number): Promise<Buffer> {
    while (this.#length < count) {
      if (this.#isEnded) throw new ConnectionClosed("the server has closed the connection");
      await this.#more();
    }
    const [first] = this.#chunks;
    const all = first !== undefined && first.length >= count ? first : Buffer.concat(this.#chunks);
    const rest = all.subarray(count);
    this.#chunks = all === first ? this.#chunks.slice(1) : [];
    if (rest.length > 0) this.#chunks.unshift(rest);
    this.#length -= count;
    return all.subarray(0, count);
  }

  #more(): Promise<void> {
    const woken = new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    return withDeadline(woken, "something from the server");
  }
}

/** Longest text that is sent in single bytes from its beginning to its end. */
const maxSinglyBytes = 8_192;
/** What is, of a longer one, at either end. */
const edgeBytes = 64;

/** Sizes of pieces: single bytes, and between the ends of a long text pieces of many sizes, the same ones every time. */
function* singly(length: number): Generator<number> {
  const isLong = length > maxSinglyBytes;
  for (let left = isLong ? edgeBytes : length; left > 0; left -= 1) yield 1;
  if (!isLong) return;
  let state = length;
  for (let left = length - 2 * edgeBytes; left > 0; ) {
    // Numerical Recipes' linear congruential generator.
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    const size = Math.min(left, 1 + ((state >>> 16) % 3_000));
    yield size;
    left -= size;
  }
  for (let left = edgeBytes; left > 0; left -= 1) yield 1;
}

async function secured(socket: TLSSocket): Promise<void> {
  await withDeadline(
    new Promise<void>((resolve, reject) => {
      socket.once("secureConnect", resolve);
      socket.once("error", reject);
      socket.once("close", () => reject(new ConnectionClosed("closed during the TLS handshake")));
    }),
    "TLS",
  );
}

async function withDeadline<T>(promise: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new DeadlinePassed(`${what} did not come within ${waitMs} ms`)), waitMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A StartupMessage; nothing is checked. */
export function startupMessage(login: Omit<Login, "password" | "channelBinding">): Buffer {
  const fields = { user: login.user, database: login.database, ...login.parameters };
  const pairs = Object.entries(fields).flatMap(([name, value]) => (value === undefined ? [] : [name, value]));
  return startupPacket((3 << 16) | (login.minor ?? 0), `${pairs.map((text) => `${text}\0`).join("")}\0`);
}

/** A packet without a type: its code (a version or a request) and its content. */
export function startupPacket(code: number, content: string | Buffer = ""): Buffer {
  const bytes = typeof content === "string" ? Buffer.from(content, "utf8") : content;
  const packet = Buffer.alloc(8 + bytes.length);
  packet.writeInt32BE(packet.length, 0);
  packet.writeInt32BE(code, 4);
  bytes.copy(packet, 8);
  return packet;
}

/** A message of any type; `claimedBytes` puts a wrong length into its header. */
export function message(type: string, content: string | Buffer = "", claimedBytes?: number): Buffer {
  const bytes = typeof content === "string" ? Buffer.from(content, "utf8") : content;
  const header = Buffer.alloc(5);
  header.write(type, 0, "latin1");
  header.writeInt32BE(claimedBytes ?? bytes.length + 4, 1);
  return Buffer.concat([header, bytes]);
}

export interface BindContent {
  readonly portal?: string;
  readonly statement?: string;
  readonly values?: readonly (string | Buffer | null)[];
  readonly resultFormats?: readonly number[];
}

/** Bind with text parameters. */
export function bind(content: BindContent = {}): Buffer {
  const { portal = "", statement = "", values = [], resultFormats = [] } = content;
  const parts = [Buffer.from(`${portal}\0${statement}\0`), int16(0), int16(values.length)];
  for (const value of values) {
    const bytes = value === null ? undefined : Buffer.from(value);
    parts.push(int32(bytes?.length ?? -1), bytes ?? Buffer.alloc(0));
  }
  parts.push(int16(resultFormats.length), ...resultFormats.map(int16));
  return message("B", Buffer.concat(parts));
}

export function int16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value, 0);
  return bytes;
}

export function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value, 0);
  return bytes;
}

/** The types of messages in their order, without those that may come at any time (ParameterStatus). */
export function describeMessages(messages: readonly BackendMessage[]): string {
  return messages
    .map(({ type }) => type)
    .filter((type) => type !== "S")
    .join("");
}

/** Fields of the first ErrorResponse, by their letter. */
export function errorOf(messages: readonly BackendMessage[]): Map<string, string> {
  const error = messages.find(({ type }) => type === "E");
  if (error === undefined) throw new Error(`no ErrorResponse in ${describeMessages(messages) || "nothing"}`);
  return decodeErrorFields(error.body);
}

/** Rows of all DataRow messages, in text. */
export function rowsOf(messages: readonly BackendMessage[]): (string | null)[][] {
  return messages
    .filter(({ type }) => type === "D")
    .map(({ body }) => valuesOf(body).map((value) => value?.toString("utf8") ?? null));
}

/** Values of one DataRow. */
export function valuesOf(body: Buffer): (Buffer | null)[] {
  const values: (Buffer | null)[] = [];
  let offset = 2;
  for (let left = body.readUInt16BE(0); left > 0; left -= 1) {
    const length = body.readInt32BE(offset);
    offset += 4;
    values.push(length === -1 ? null : body.subarray(offset, offset + length));
    offset += Math.max(length, 0);
  }
  return values;
}

/** Texts of all CommandComplete messages. */
export function tagsOf(messages: readonly BackendMessage[]): string[] {
  return messages
    .filter(({ type }) => type === "C")
    .map(({ body }) => body.toString("utf8", 0, body.length - 1));
}

/** Transaction status of the last ReadyForQuery. */
export function statusOf(messages: readonly BackendMessage[]): string | undefined {
  return messages.findLast(({ type }) => type === "Z")?.body.toString("latin1");
}

/** The version and the options of NegotiateProtocolVersion. */
export function negotiationOf(
  messages: readonly BackendMessage[],
): ReturnType<typeof decodeNegotiateProtocolVersion> {
  const negotiation = messages.find(({ type }) => type === "v");
  if (negotiation === undefined) throw new Error("no NegotiateProtocolVersion");
  return decodeNegotiateProtocolVersion(negotiation.body);
}
