/** Requests over HTTP: many small ones on connections that stay, and one stream; with the CPU time that the front-end used. */

import { connect, type Socket } from "node:net";
import { cpuTimeNs, processTree } from "./process-cost.ts";

/** The HTTP interface of a target, with a key for it. */
export interface HttpEndpoint {
  readonly port: number;
  readonly key: string;
}

export interface HttpRequests {
  readonly requests: number;
  readonly requestsPerSecond: number;
  /** CPU time of the front-end per request. */
  readonly cpuUs: number;
}

export interface HttpStream {
  readonly megabytesPerSecond: number;
  /** CPU seconds of the front-end per gigabyte (10^9 bytes) of lines. */
  readonly cpuSecondsPerGb: number;
}

/** As pgbench fills its table at scale 10. */
const accounts = 1_000_000;
/** Of the text in each streamed row; its line has some more. */
const textBytes = 240;

/**
 * Each connection asks for one account after the other, and never for two at a time.
 *
 * @throws Error when an answer is not 200
 */
export async function measureHttpRequests(
  endpoint: HttpEndpoint,
  pid: number,
  load: { readonly clients: number; readonly seconds: number },
): Promise<HttpRequests> {
  const pids = processTree(pid);
  const sockets = await Promise.all(Array.from({ length: load.clients }, () => openSocket(endpoint.port)));
  const cpuBefore = cpuTimeNs(pids);
  const startedAt = performance.now();
  const endsAt = startedAt + load.seconds * 1000;
  const counts = await Promise.all(sockets.map((socket) => askUntil(socket, endpoint.key, endsAt)));
  const seconds = (performance.now() - startedAt) / 1000;
  const cpuNs = cpuTimeNs(pids) - cpuBefore;
  const requests = counts.reduce((sum, count) => sum + count, 0);
  return { requests, requestsPerSecond: requests / seconds, cpuUs: cpuNs / requests / 1000 };
}

/** @throws Error when the stream does not end with its number of rows */
export async function measureHttpStream(
  endpoint: HttpEndpoint,
  pid: number,
  megabytes: number,
): Promise<HttpStream> {
  const rows = Math.round((megabytes * 1e6) / textBytes);
  const sql = `SELECT repeat('x', ${textBytes}) AS t FROM (SELECT generate_series(1, ${rows})) AS s`;
  const pids = processTree(pid);
  const cpuBefore = cpuTimeNs(pids);
  const startedAt = performance.now();
  const response = await fetch(`http://127.0.0.1:${endpoint.port}/v1/query/stream`, {
    method: "POST",
    headers: { authorization: `Bearer ${endpoint.key}`, "content-type": "application/json" },
    body: JSON.stringify({ sql, rowMode: "array" }),
  });
  let bytes = 0;
  let end = "";
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    end = (end + Buffer.from(chunk.slice(-200)).toString("latin1")).slice(-200);
  }
  const seconds = (performance.now() - startedAt) / 1000;
  const cpuSeconds = (cpuTimeNs(pids) - cpuBefore) / 1e9;
  if (!end.includes(`"rowCount":${rows}}`)) throw new Error(`the stream ended with ${end}`);
  return { megabytesPerSecond: bytes / 1e6 / seconds, cpuSecondsPerGb: cpuSeconds / (bytes / 1e9) };
}

function openSocket(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: "127.0.0.1", port, noDelay: true });
    socket.once("connect", () => resolve(socket));
    socket.once("error", reject);
  });
}

/** By hand: a client library costs more than what is measured. @returns answers that came */
function askUntil(socket: Socket, key: string, endsAt: number): Promise<number> {
  return new Promise((resolve, reject) => {
    let answers = 0;
    let received = "";
    const ask = () => {
      const aid = 1 + Math.floor(Math.random() * accounts);
      const body = `{"sql":"SELECT abalance FROM pgbench_accounts WHERE aid = $1","params":[${aid}]}`;
      socket.write(
        `POST /v1/query HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      );
    };
    socket.on("error", reject);
    socket.on("close", () => reject(new Error("the front-end has closed the connection")));
    socket.on("data", (chunk: Buffer) => {
      received += chunk.toString("latin1");
      const bodyAt = received.indexOf("\r\n\r\n") + 4;
      if (bodyAt < 4) return;
      const length = Number(/^content-length: (\d+)/im.exec(received)?.[1]);
      if (received.length < bodyAt + length) return;
      if (!received.startsWith("HTTP/1.1 200 ")) {
        reject(new Error(received));
        return;
      }
      received = "";
      answers += 1;
      if (performance.now() < endsAt) {
        ask();
        return;
      }
      socket.removeAllListeners("close");
      socket.destroy();
      resolve(answers);
    });
    ask();
  });
}
