/** Handshakes that never come to their end: each gives its place back, whatever it had got to. */

import { connect, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { makeServerCertificate } from "../support/certificates.ts";
import { startupPacket } from "../support/raw-client.ts";
import { openStage, runOnce, type Stage } from "../support/stage.ts";

/** More than there are places for connections that have not logged in: 256, and one for each session allowed. */
const manyConnections = 262;
const sslRequest = startupPacket((1234 << 16) | 5679);

let stage: Stage;
const sockets: Socket[] = [];

beforeAll(async () => {
  const { certPath, keyPath } = await makeServerCertificate();
  stage = await openStage({
    configuration: `
      [server]
      max_connections = 4
      authentication_timeout = "1s"
      [server.tls]
      cert = "${certPath}"
      key = "${keyPath}"
      [log]
      level = "trace"`,
  });
});
afterAll(() => stage?.close());
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});

async function openPlain(): Promise<Socket> {
  const socket = connect({ host: stage.frontEnd.host, port: stage.frontEnd.port });
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

function endedHandshakes(): number {
  return stage.frontEnd.output().split('"handshake ended"').length - 1;
}

describe.each([
  ["that say nothing", openPlain, manyConnections],
  ["that stop in the middle of a startup packet", openHalfWay, manyConnections],
  ["that ask for TLS and do not begin it", openWaitingForTls, manyConnections],
  ["that are silent in TLS", openInTls, manyConnections],
])("connections %s", (_, open, count) => {
  test("are closed after the authentication timeout, and leave room for others", async () => {
    const opened = await Promise.all(Array.from({ length: count }, open));
    for (const socket of opened) socket.resume();
    await vi.waitFor(() => expect(opened.filter(({ closed }) => !closed)).toHaveLength(0), {
      timeout: 15_000,
      interval: 20,
    });
    const { rows } = await runOnce(stage.login("alice"), "SELECT 1 AS one");
    expect(rows).toEqual([{ one: 1 }]);
  });
});

test("at a shutdown every handshake that is under way comes to its end", async () => {
  await vi.waitFor(async () => void (await runOnce(stage.login("alice"), "SELECT 1")), { timeout: 5_000 });
  const before = endedHandshakes();
  await Promise.all([openPlain(), openHalfWay(), openWaitingForTls(), openInTls()]);
  stage.frontEnd.signal("SIGTERM");
  await stage.frontEnd.exited;
  expect(endedHandshakes() - before).toBe(4);
});
