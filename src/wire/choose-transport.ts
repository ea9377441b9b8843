/** Chooses, at start, between the raw transports and the public one by trying the raw ones out. */

import { once } from "node:events";
import { createServer, connect as netConnect, type Server, type Socket } from "node:net";
import { connect as connectTls, createServer as createTlsServer } from "node:tls";
import { findStreamBinding } from "./stream-binding.ts";
import { TransportFactory, type TransportKind } from "./transport-factory.ts";

/**
 * Chooses the transports by moving bytes over a loopback connection, and over one in TLS: small writes, a write larger than
 * the kernel's buffers, a change of read buffer, and the peer's close must all be seen as expected.
 *
 * @returns a factory of raw transports, or of public ones where the raw ones do not behave
 */
export async function chooseTransports(preferred: TransportKind = "raw"): Promise<TransportFactory> {
  const binding = preferred === "raw" ? findStreamBinding() : undefined;
  if (binding === undefined) return new TransportFactory(undefined, "public");
  const raw = new TransportFactory(binding, "raw");
  const [isUsable, isUsableInTls] = await Promise.all([tryOut(raw, asItIs), tryOut(raw, encrypt)]);
  if (!isUsable) return new TransportFactory(undefined, "public");
  return isUsableInTls ? raw : new TransportFactory(binding, "public");
}

const probeBytes = 4 * 1024 * 1024;
const maxProbeBytes = 16 * probeBytes;
const probeTimeoutMs = 2_000;

interface Connection {
  readonly near: Socket;
  readonly far: Socket;
}

async function tryOut(
  factory: TransportFactory,
  prepare: (connection: Connection) => Promise<Connection>,
): Promise<boolean> {
  const server = createServer({ pauseOnConnect: true });
  const connection = await connectTo(server);
  if (connection === undefined) return false;
  let timer: NodeJS.Timeout | undefined;
  const timeIsOver = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), probeTimeoutMs);
  });
  try {
    const isBehaving = prepare(connection).then((prepared) => moveBytes(factory, prepared));
    // A handshake that fails: of this kind of encryption nothing is known.
    return await Promise.race([isBehaving.catch(() => false), timeIsOver]);
  } finally {
    clearTimeout(timer);
    connection.near.destroy();
    connection.far.destroy();
    server.close();
  }
}

function moveBytes(factory: TransportFactory, { near, far }: Connection): Promise<boolean> {
  return new Promise<boolean>((resolve) => {
    const writer = factory.open(near);
    const reader = factory.open(far);
    let sent = 0;
    let received = 0;
    let isIntact = true;
    reader.handler = {
      onData(buffer, start, end) {
        for (let index = start; index < end; index += 1009) {
          if (buffer[index] !== ((received + index - start) & 0xff)) isIntact = false;
        }
        received += end - start;
      },
      onDrain() {},
      onEnd: () => resolve(isIntact && received === sent),
    };
    writer.handler = {
      onData() {},
      onDrain: () => writer.end(),
      onEnd: () => resolve(false),
    };
    const bytes = Buffer.alloc(probeBytes);
    for (let index = 0; index < probeBytes; index += 1) bytes[index] = index & 0xff;
    const write = (view: Uint8Array) => {
      sent += view.length;
      return writer.write(view);
    };
    if (!write(bytes.subarray(0, 256))) return resolve(false);
    // How much the kernel takes depends on how soon it makes room at the other end.
    while (write(bytes)) if (sent > maxProbeBytes) return resolve(false);
    reader.start();
    writer.start();
  });
}

async function asItIs(connection: Connection): Promise<Connection> {
  return connection;
}

/** Without a certificate, by a key that both ends have (RFC 5487): this is about bytes, and nobody else is on the connection. */
async function encrypt({ near, far }: Connection): Promise<Connection> {
  const shared = { identity: "probe", psk: Buffer.alloc(32) };
  const options = { ciphers: "PSK-AES128-GCM-SHA256", maxVersion: "TLSv1.2" } as const;
  const server = createTlsServer({ ...options, pskCallback: () => shared.psk });
  const secured = once(server, "secureConnection");
  server.emit("connection", far);
  const client = connectTls({
    socket: near,
    ...options,
    pskCallback: () => shared,
    checkServerIdentity: () => undefined,
  });
  const [[secure]] = await Promise.all([secured, once(client, "secureConnect")]);
  return { near: client, far: secure };
}

async function connectTo(server: Server): Promise<Connection | undefined> {
  return new Promise((resolve) => {
    server.once("error", () => resolve(undefined));
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      if (address === null || typeof address === "string") return resolve(undefined);
      const near = netConnect({ port: address.port, host: "127.0.0.1" });
      near.once("error", () => resolve(undefined));
      let far: Socket | undefined;
      let isConnected = false;
      const settle = () => {
        if (far !== undefined && isConnected) resolve({ near, far });
      };
      server.once("connection", (socket) => {
        far = socket;
        settle();
      });
      near.once("connect", () => {
        isConnected = true;
        settle();
      });
    });
  });
}
