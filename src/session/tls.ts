/** TLS towards clients: the server's certificate, and the upgrade of a connection (PostgreSQL manual 54.2.11). */

import { X509Certificate } from "node:crypto";
import type { Socket } from "node:net";
import { createSecureContext, type SecureContext, TLSSocket } from "node:tls";
import { tlsServerEndPoint } from "../scram/channel-binding.ts";

/** ALPN name that PostgreSQL 17 and later require of direct TLS connections. */
const alpnProtocol = "postgresql";

export interface TlsOptions {
  /** PEM text: the certificate, then its chain. */
  readonly cert: string;
  /** PEM text. */
  readonly key: string;
}

/** What the listener needs of a loaded certificate; replaced whole when it is reloaded. */
export interface ServerTls {
  readonly context: SecureContext;
  /** tls-server-end-point data (RFC 5929 section 4.1); undefined when the certificate's hash has none. */
  readonly channelBinding: Buffer | undefined;
}

/** @throws Error of node:tls when certificate and key do not fit */
export function loadServerTls(options: TlsOptions): ServerTls {
  return {
    context: createSecureContext({ cert: options.cert, key: options.key, minVersion: "TLSv1.2" }),
    channelBinding: tlsServerEndPoint(new X509Certificate(options.cert).raw),
  };
}

/**
 * Runs the server's side of the handshake on a socket from which nothing has been read that is not in its
 * stream.
 *
 * @param isDirect the client began with TLS: it must have named the protocol by ALPN
 * @returns undefined when the handshake fails, the time is over or the client goes away
 */
export function upgradeToTls(
  socket: Socket,
  tls: ServerTls,
  isDirect: boolean,
  timeoutMs: number,
): Promise<TLSSocket | undefined> {
  return new Promise((resolve) => {
    const secure = new TLSSocket(socket, {
      isServer: true,
      secureContext: tls.context,
      ALPNProtocols: [alpnProtocol],
    });
    const settle = (result: TLSSocket | undefined) => {
      clearTimeout(timer);
      secure.off("secure", onSecure);
      secure.off("close", onClose);
      if (result === undefined) secure.destroy();
      resolve(result);
    };
    const onSecure = () => {
      const isNamed = secure.alpnProtocol === alpnProtocol;
      settle(isDirect && !isNamed ? undefined : secure);
    };
    const onClose = () => settle(undefined);
    const timer = setTimeout(() => settle(undefined), timeoutMs);
    // A failed handshake is the client's affair; "close" follows.
    secure.on("error", () => undefined);
    secure.once("close", onClose);
    secure.once("secure", onSecure);
  });
}
