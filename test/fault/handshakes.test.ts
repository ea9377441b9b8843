/** Handshakes that never come to their end: each gives its place back, whatever it had got to. */

import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { makeServerCertificate } from "../support/certificates.ts";
import { type FrontEnd, startFrontEnd } from "../support/front-end.ts";
import { startupPacket } from "../support/raw-client.ts";
import { openStage, runOnce, type Stage } from "../support/stage.ts";

/** More than there are places for connections that have not logged in: 256, and one for each session allowed. */
const manyConnections = 262;
const sslRequest = startupPacket((1234 << 16) | 5679);

let stage: Stage;
let frontEnd: FrontEnd;
const sockets: Socket[] = [];

beforeAll(async () => {
  stage = await openStage();
});
afterAll(() => stage?.close());
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await frontEnd?.close();
});

/** One for each test: a place that one kind of handshake does not give back is not to be another's fault. */
async function start(authenticationTimeout: string): Promise<void> {
  const { certPath, keyPath } = await makeServerCertificate();
  frontEnd = await startFrontEnd({
    upstreamUrl: stage.postgres.url,
    besides: stage.frontEnd.dataDir,
    configuration: `
      [server]
      max_connections = 4
      authentication_timeout = "${authenticationTimeout}"
      [server.tls]
      cert = "${certPath}"
      key = "${keyPath}"
      [log]
      level = "trace"`,
  });
}

async function logIn(): Promise<unknown[]> {
  const { host, port } = frontEnd;
  return (await runOnce(stage.login("alice", { host, port }), "SELECT 1 AS one")).rows;
}

async function openPlain(): Promise<Socket> {
  const socket = connect({ host: frontEnd.host, port: frontEnd.port });
  sockets.push(socket);
  socket.on("error", () => {});
  await new Promise<void>((resolve) => {
    socket.once("connect", resolve);
    socket.once("close", () => resolve());
  });
  return socket;
}

async function openWaitingForTls(): Promise<Socket> {
  const socket = await openPlain();
  socket.write(sslRequest);
  await new Promise<void>((resolve) => {
    socket.once("data", () => resolve());
    socket.once("close", () => resolve());
  });
  return socket;
}

async function openInTls(): Promise<Socket> {
  const plain = await openWaitingForTls();
  if (plain.destroyed) return plain;
  const secure = connectTls({ socket: plain, rejectUnauthorized: false });
  secure.on("error", () => {});
  await new Promise<void>((resolve) => {
    secure.once("secureConnect", resolve);
    secure.once("close", () => resolve());
  });
  secure.resume();
  return secure;
}

async function openHalfWay(): Promise<Socket> {
  const socket = await openPlain();
  socket.write(Buffer.from([0, 0, 0, 50, 0, 3]));
  return socket;
}

/** How they stop, and what they are given: enough for all of them to get there. */
const kinds = [
  ["that say nothing", openPlain, "1s"],
  ["that stop in the middle of a startup packet", openHalfWay, "1s"],
  ["that ask for TLS and do not begin it", openWaitingForTls, "1s"],
  ["that are silent in TLS", openInTls, "3s"],
] as const;

test.each(kinds)(
  "connections %s are closed after the authentication timeout, and leave room for others",
  async (_, open, timeout) => {
    await start(timeout);
    expect(await logIn()).toEqual([{ one: 1 }]);
    const opened = await Promise.all(Array.from({ length: manyConnections }, open));
    // The last two find no place.
    expect(opened.filter(({ destroyed }) => !destroyed).length).toBeGreaterThanOrEqual(manyConnections - 2);
    for (const socket of opened) socket.resume();
    await vi.waitFor(() => expect(opened.filter(({ closed }) => !closed)).toHaveLength(0), {
      timeout: 15_000,
      interval: 20,
    });
    expect(await logIn()).toEqual([{ one: 1 }]);
  },
);

test.each(kinds)("connections %s come to their end at a shutdown", async (_, open) => {
  await start("60s");
  const ended = () => frontEnd.output().split('"handshake ended"').length - 1;
  await Promise.all([open(), open()]);
  // They are accepted in their order: when the last one has been answered, all have been.
  await openWaitingForTls();
  expect(ended()).toBe(0);
  frontEnd.signal("SIGTERM");
  expect(await frontEnd.exited).toBe(0);
  expect(ended()).toBe(3);
});
