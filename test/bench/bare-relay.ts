/**
 * Program `bare-relay <port> <socket path>`: passes bytes between 127.0.0.1:<port> and a unix socket and looks at none, on the
 * handles of Node that the front-end's transport uses. What it costs is what Node and the kernel cost any relay. It is no more
 * than that: what the kernel does not take at once it queues without stopping the sender.
 */

import { connect, createServer, type Socket } from "node:net";
import {
  findStreamBinding,
  rawHandleOf,
  type StreamBinding,
  type StreamHandle,
} from "../../src/wire/stream-binding.ts";

const readBufferBytes = 8 * 1024;

const [port, path] = process.argv.slice(2);
const binding = findStreamBinding();
if (port === undefined || path === undefined || binding === undefined) {
  throw new Error("usage: bare-relay <port> <socket path>, on a Node that lends its stream handles out");
}

createServer({ pauseOnConnect: true, noDelay: true }, (client) => {
  const upstream = connect({ path });
  const close = () => {
    client.destroy();
    upstream.destroy();
  };
  client.on("error", close);
  upstream.on("error", close);
  upstream.once("connect", () => {
    const [near, far] = [handleOf(client), handleOf(upstream)];
    pass(near, far, binding, close);
    pass(far, near, binding, close);
  });
}).listen(Number(port), "127.0.0.1");

function handleOf(socket: Socket): StreamHandle {
  socket.pause();
  const handle = rawHandleOf(socket);
  if (handle === undefined) throw new Error("the socket has no handle");
  handle.readStop();
  return handle;
}

function pass(from: StreamHandle, to: StreamHandle, node: StreamBinding, onEnd: () => void): void {
  const buffer = Buffer.allocUnsafeSlow(readBufferBytes);
  let request = new node.WriteWrap();
  from.useUserBuffer(buffer);
  from.onread = () => {
    const count = node.streamBaseState[node.kReadBytesOrError] ?? -1;
    if (count < 0) onEnd();
    if (count <= 0) return undefined;
    to.writeBuffer(request, buffer.subarray(0, count));
    if (node.streamBaseState[node.kLastWriteWasAsync] === 0) return undefined;
    // Bytes that are queued must not be read over.
    request = new node.WriteWrap();
    return Buffer.allocUnsafeSlow(readBufferBytes);
  };
  from.readStart();
}
