/** Chooses, at start, between the raw transport and the public one by trying the raw one out. */

import { createServer, connect as netConnect, type Server, type Socket } from "node:net";
import { findStreamBinding } from "./stream-binding.ts";
import { TransportFactory } from "./transport-factory.ts";

/**
 * Chooses the transport by moving bytes over a loopback connection: small writes, a write larger than
 * the kernel's buffers, a change of read buffer, and the peer's close must all be seen as expected.
 *
 * @returns a factory of raw transports, or of public ones where the raw ones do not behave
 */
export async function chooseTransports(preferred: "raw" | "public" = "raw"): Promise<TransportFactory> {
  const binding = preferred === "raw" ? findStreamBinding() : undefined;
  if (binding === undefined) return new TransportFactory(undefined);
  const raw = new TransportFactory(binding);
  return (await probeTransport(raw)) ? raw : new TransportFactory(undefined);
}

const probeBytes = 4 * 1024 * 1024;
const probeTimeoutMs = 2_000;

async function probeTransport(factory: TransportFactory): Promise<boolean> {
  const server = createServer({ pauseOnConnect: true });
  const client = await connectTo(server);
  if (client === undefined) return false;
  const { near, far } = client;
  try {
    return await new Promise<boolean>((resolve) => {
      const timer = setTimeout(() => resolve(false), probeTimeoutMs);
      const settle = (result: boolean) => {
        clearTimeout(timer);
        resolve(result);
      };
      const writer = factory.open(near);
      const reader = factory.open(far);
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
        onEnd: () => settle(isIntact && received === probeBytes + 256),
      };
      writer.handler = {
        onData() {},
        onDrain: () => writer.end(),
        onEnd: () => settle(false),
      };
      const bytes = Buffer.alloc(probeBytes);
      for (let index = 0; index < probeBytes; index += 1) bytes[index] = index & 0xff;
      const smallTaken = writer.write(bytes.subarray(0, 256));
      const largeTaken = writer.write(bytes);
      if (!smallTaken || largeTaken) return settle(false);
      reader.start();
      writer.start();
    });
  } finally {
    near.destroy();
    far.destroy();
    server.close();
  }
}

async function connectTo(server: Server): Promise<{ near: Socket; far: Socket } | undefined> {
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
