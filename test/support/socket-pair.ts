/** Two connected sockets over loopback: one for what is tested, and an ordinary one at its far end. */

import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";

export interface SocketPair {
  readonly near: Socket;
  readonly far: Socket;
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
  return { near, far };
}

/** Closes the pairs of a test. */
export function closePairs(): void {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const server of servers.splice(0)) server.close();
}
