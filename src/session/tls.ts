/** TLS towards clients: certificates of both sides, and the upgrade of a connection (PostgreSQL manual 54.2.11). */

import { constants, X509Certificate } from "node:crypto";
import type { Socket } from "node:net";
import { createSecureContext, type SecureContext, type SecureContextOptions, TLSSocket } from "node:tls";
import type { CertificatePolicy } from "../auth/certificate.ts";
import { tlsServerEndPoint } from "../scram/channel-binding.ts";

/** ALPN name that PostgreSQL 17 and later require of direct TLS connections. */
const alpnProtocol = "postgresql";

export interface TlsOptions {
  /** PEM text: the certificate, then its chain. */
  readonly cert: string;
  /** PEM text. */
  readonly key: string;
  /** Present: clients are asked for a certificate. */
  readonly clients?: ClientCertificates & {
    /** The authorities that may have signed it, each as PEM text; at least one. */
    readonly authorities: readonly string[];
    /** Lists of revoked certificates, each as PEM text. With any, each authority of a chain must have one. */
    readonly revocationLists: readonly string[];
  };
}

export interface ClientCertificates {
  /** Whether a client without one is refused. */
  readonly isRequired: boolean;
  readonly policy: CertificatePolicy;
}

/** What the listener needs of loaded certificates; replaced whole when they are reloaded. */
export interface ServerTls {
  /** The same for a server of node's own, which is to ask for certificates and not to reject on its own. */
  readonly contextOptions: SecureContextOptions;
  readonly context: SecureContext;
  /** tls-server-end-point data (RFC 5929 section 4.1); undefined when the certificate's hash has none. */
  readonly channelBinding: Buffer | undefined;
  /** undefined: clients are not asked for a certificate. */
  readonly clients: ClientCertificates | undefined;
}

export type TlsUpgrade =
  | {
      readonly kind: "secure";
      readonly socket: TLSSocket;
      /** Of the client, verified: chain, lifetime, purpose and revocation. */
      readonly certificate: X509Certificate | undefined;
    }
  /** The handshake failed, the time is over or the client went away. */
  | { readonly kind: "closed" }
  /** The client's certificate is not accepted, or missing. */
  | { readonly kind: "refused"; readonly reason: string };

/** @throws Error of node:tls when a text does not parse, or certificate and key do not fit */
export function loadServerTls(options: TlsOptions): ServerTls {
  const { cert, key, clients } = options;
  // Without any, Node would trust every public authority.
  if (clients !== undefined && clients.authorities.length === 0) throw new Error("no authority for clients");
  const contextOptions: SecureContextOptions = {
    cert,
    key,
    minVersion: "TLSv1.2",
    // As PostgreSQL: a resumed session would bring a certificate back that has been revoked since, and a renegotiated one (which
    // Node allows) another certificate, of which nobody would ask whether it has been verified.
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
    ...(clients === undefined ? {} : { ca: [...clients.authorities] }),
    ...(clients === undefined || clients.revocationLists.length === 0
      ? {}
      : { crl: [...clients.revocationLists] }),
  };
  return {
    contextOptions,
    context: createSecureContext(contextOptions),
    channelBinding: tlsServerEndPoint(new X509Certificate(cert).raw),
    clients: clients && { isRequired: clients.isRequired, policy: clients.policy },
  };
}

/**
 * Runs the server's side of the handshake on a socket from which nothing has been read that is not in its
 * stream.
 *
 * @param isDirect the client began with TLS: it must have named the protocol by ALPN
 */
export function upgradeToTls(
  socket: Socket,
  tls: ServerTls,
  isDirect: boolean,
  timeoutMs: number,
): Promise<TlsUpgrade> {
  return new Promise((resolve) => {
    const secure = new TLSSocket(socket, {
      isServer: true,
      secureContext: tls.context,
      ALPNProtocols: [alpnProtocol],
      requestCert: tls.clients !== undefined,
      // Node would ask and then not look: whoever makes the socket itself judges the certificate itself.
      rejectUnauthorized: false,
    });
    const settle = (result: TlsUpgrade) => {
      clearTimeout(timer);
      secure.off("secure", onSecure);
      secure.off("close", onClose);
      if (result.kind !== "secure") secure.destroy();
      resolve(result);
    };
    const onSecure = () => {
      const isNamed = secure.alpnProtocol === alpnProtocol;
      settle(isDirect && !isNamed ? { kind: "closed" } : judgeClient(secure, tls.clients));
    };
    const onClose = () => settle({ kind: "closed" });
    const timer = setTimeout(() => settle({ kind: "closed" }), timeoutMs);
    // A failed handshake is the client's affair; "close" follows.
    secure.on("error", () => undefined);
    secure.once("close", onClose);
    secure.once("secure", onSecure);
  });
}

/**
 * What OpenSSL found out about the client's certificate. In TLS 1.3 the client believes by now that the handshake is done, and
 * may have sent more; nothing of that has been read.
 */
function judgeClient(secure: TLSSocket, clients: ClientCertificates | undefined): TlsUpgrade {
  if (clients === undefined) return { kind: "secure", socket: secure, certificate: undefined };
  // There are no tickets to resume with. Should one be accepted all the same, its verification is as old as it is.
  if (secure.isSessionReused()) return { kind: "refused", reason: "resumed session" };
  const certificate = secure.getPeerX509Certificate();
  if (certificate === undefined) {
    if (clients.isRequired) return { kind: "refused", reason: "no certificate" };
    return { kind: "secure", socket: secure, certificate };
  }
  const error = verificationError(secure);
  if (error !== undefined) return { kind: "refused", reason: error };
  return { kind: "secure", socket: secure, certificate };
}

/**
 * Why OpenSSL did not accept the certificate. For a TLSSocket that is made from a socket Node leaves `authorized` false
 * whatever the outcome, and gives the outcome by this function of its handle only; where that is missing nobody is accepted.
 */
function verificationError(secure: TLSSocket): string | undefined {
  const { _handle: handle } = secure as unknown as {
    readonly _handle?: {
      readonly verifyError?: () => (Error & { readonly code?: string }) | null | undefined;
    };
  };
  if (typeof handle?.verifyError !== "function") return "verification is not available";
  const error = handle.verifyError();
  return error === null || error === undefined ? undefined : (error.code ?? error.message);
}
