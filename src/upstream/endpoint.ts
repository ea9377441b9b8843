/** Where the upstream listens, and how a socket to it is opened (PostgreSQL manual 54.2.11 for TLS). */

import { connect as connectSocket, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { SqlError } from "../errors/sql-error.ts";

/** As libpq's sslmode; `verify-full` checks the certificate and its name. */
export type UpstreamTlsMode = "disable" | "prefer" | "verify-full";

export type UpstreamEndpoint =
  | { readonly kind: "socket"; readonly path: string }
  | {
      readonly kind: "tcp";
      readonly host: string;
      readonly port: number;
      readonly tls: UpstreamTlsMode;
    };

const sslRequest = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]);

/**
 * Opens a socket to the upstream, with TLS where the endpoint asks for it.
 *
 * @throws SqlError cannot_connect_now when nobody listens, the time is over or TLS cannot be agreed on
 */
export async function openUpstreamSocket(endpoint: UpstreamEndpoint, timeoutMs: number): Promise<Socket> {
  const socket =
    endpoint.kind === "socket"
      ? connectSocket({ path: endpoint.path })
      : connectSocket({ host: endpoint.host, port: endpoint.port });
  try {
    await settled(socket, "connect", timeoutMs);
    if (endpoint.kind === "socket" || endpoint.tls === "disable") return socket;
    return await startTls(socket, endpoint, timeoutMs);
  } catch (cause) {
    socket.destroy();
    if (cause instanceof SqlError) throw cause;
    throw new SqlError("cannot_connect_now", "the database system is not available", {
      severity: "FATAL",
      detail: "The connection to the upstream server could not be opened.",
      cause,
    });
  }
}

async function startTls(
  socket: Socket,
  endpoint: UpstreamEndpoint & { kind: "tcp" },
  timeoutMs: number,
): Promise<Socket> {
  const answered = settled(socket, "data", timeoutMs);
  socket.write(sslRequest);
  const answer = await answered;
  socket.pause();
  const bytes = answer instanceof Buffer ? answer : Buffer.alloc(0);
  // More than one byte before the TLS handshake would be read as if it had come encrypted.
  if (bytes.length === 1 && bytes[0] === 0x53 /* S */) {
    const secure = connectTls({
      socket,
      host: endpoint.host,
      servername: /^[\d.]+$|:/.test(endpoint.host) ? "" : endpoint.host,
      minVersion: "TLSv1.2",
      rejectUnauthorized: endpoint.tls === "verify-full",
    });
    await settled(secure, "secureConnect", timeoutMs);
    return secure;
  }
  if (bytes.length === 1 && bytes[0] === 0x4e /* N */ && endpoint.tls === "prefer") return socket;
  throw new SqlError("cannot_connect_now", "the database system is not available", {
    severity: "FATAL",
    detail: "The upstream server does not offer the TLS connection that is required.",
  });
}

/** Waits for one event; rejects on error, close, and when the time is over. */
function settled(socket: Socket, event: string, timeoutMs: number): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const finish = (settle: () => void) => {
      clearTimeout(timer);
      socket.off(event, onEvent);
      socket.off("error", onError);
      socket.off("close", onClose);
      settle();
    };
    const onEvent = (value: unknown) => finish(() => resolve(value));
    const onError = (error: Error) => finish(() => reject(error));
    const onClose = () => finish(() => reject(new Error("the upstream closed the connection")));
    const timer = setTimeout(
      () => finish(() => reject(new Error("the upstream did not answer in time"))),
      timeoutMs,
    );
    socket.once(event, onEvent);
    socket.once("error", onError);
    socket.once("close", onClose);
  });
}
