/** Two connected sockets over loopback, plain or in TLS: one for what is tested, and an ordinary one at its far end. */

import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { Duplex } from "node:stream";
import { connect as connectTls, createSecureContext, TLSSocket } from "node:tls";
import { makeServerCertificate, type TestCertificate } from "./certificates.ts";

export interface SocketPair {
  readonly near: Socket;
  readonly far: Socket;
  /** What `far` sends and receives on: itself, or the socket below its TLS. */
  readonly farTcp: Socket;
}

const sockets: Socket[] = [];
const servers: Server[] = [];

/** @param side how `near` came about; an accepted one is paused, as the listener's are */
export async function openPair(side: "accepted" | "connected"): Promise<SocketPair> {
  const server = createServer({ pauseOnConnect: side === "accepted", allowHalfOpen: true });
  servers.push(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no TCP port");
  const accepting = once(server, "connection");
  const client = connect({ port: address.port, host: "127.0.0.1", allowHalfOpen: side === "accepted" });
  const connected = once(client, "connect");
  const [accepted] = (await accepting) as [Socket];
  await connected;
  const [near, far] = side === "accepted" ? [accepted, client] : [client, accepted];
  sockets.push(near, far);
  far.on("error", () => undefined);
  return { near, far, farTcp: far };
}

let certificate: Promise<TestCertificate> | undefined;

/**
 * The same in TLS, after the handshake.
 *
 * @param side how `near` came about; the one that was accepted is TLS's server too
 * @param onRecords shown what is sent to `far`, encrypted; the version is 1.2 then, which does not hide the records' types
 */
export async function openSecurePair(
  side: "accepted" | "connected",
  onRecords?: (bytes: Buffer) => void,
): Promise<SocketPair> {
  certificate ??= makeServerCertificate();
  const { cert, key } = await certificate;
  const plain = await openPair(side);
  const far = onRecords === undefined ? plain.far : tap(plain.far, onRecords);
  const [accepted, connected] = side === "accepted" ? [plain.near, far] : [far, plain.near];
  const server = new TLSSocket(accepted, {
    isServer: true,
    secureContext: createSecureContext({ cert, key }),
  });
  const client = connectTls({
    socket: connected,
    ca: cert,
    servername: "localhost",
    ...(onRecords === undefined ? {} : { maxVersion: "TLSv1.2" as const }),
  });
  sockets.push(server, client);
  const [nearTls, farTls] = side === "accepted" ? [server, client] : [client, server];
  farTls.on("error", () => undefined);
  await Promise.all([once(server, "secure"), once(client, "secureConnect")]);
  // These events come from within OpenSSL, which a test that closes the socket below it would pull from under its own feet.
  await new Promise((resume) => setImmediate(resume));
  return { near: nearTls, far: farTls, farTcp: plain.far };
}

/** The socket, and what comes from it is shown. */
function tap(socket: Socket, onBytes: (bytes: Buffer) => void): Duplex {
  const tapped = new Duplex({
    read() {},
    write: (chunk, _, done) => socket.write(chunk, done),
    final: (done) => socket.end(done),
  });
  socket.on("data", (chunk: Buffer) => {
    onBytes(chunk);
    tapped.push(chunk);
  });
  socket.on("end", () => tapped.push(null));
  return tapped;
}

/** Closes the pairs of a test. */
export function closePairs(): void {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const server of servers.splice(0)) server.close();
}
