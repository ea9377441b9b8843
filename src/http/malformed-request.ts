/** What no route ever sees, because Node's parser has refused it: answered in the shape of all errors, or not at all. */

import { randomUUID } from "node:crypto";
import type { Server, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";

export function refuseMalformed(server: Server): void {
  /** The last request of each connection that is not yet answered in full. */
  const answering = new WeakMap<Duplex, ServerResponse>();
  server.prependListener("request", ({ socket }, response) => {
    answering.set(socket, response);
    response.once("close", () => {
      if (answering.get(socket) === response) answering.delete(socket);
    });
  });
  server.on("clientError", (error: NodeJS.ErrnoException, socket) => {
    const response = answering.get(socket);
    // The client would take a refusal for the answer to the request before it, or for a part of that.
    const isInTheWay = response !== undefined && (response.headersSent || response.req.complete);
    if (error.code === "ECONNRESET" || !socket.writable || isInTheWay) socket.destroy();
    else socket.end(refusalOf(error));
  });
}

function refusalOf({ code }: NodeJS.ErrnoException): string {
  const [status, reason, message] =
    code === "HPE_HEADER_OVERFLOW"
      ? [431, "Request Header Fields Too Large", "the header is too large"]
      : code === "ERR_HTTP_REQUEST_TIMEOUT"
        ? [408, "Request Timeout", "the request did not come in time"]
        : [400, "Bad Request", "the request is not HTTP/1.1"];
  const requestId = randomUUID();
  const body = JSON.stringify({ status: "error", error: { code: `NH${status}`, message, requestId } });
  const head = [
    `HTTP/1.1 ${status} ${reason}`,
    "Content-Type: application/json; charset=utf-8",
    `Content-Length: ${Buffer.byteLength(body)}`,
    `X-Request-Id: ${requestId}`,
    "Connection: close",
  ];
  return `${head.join("\r\n")}\r\n\r\n${body}`;
}
