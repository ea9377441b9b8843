/** From an accepted socket to a client that has sent its StartupMessage, encrypted or not (PostgreSQL manual 54.2.1). */

import type { X509Certificate } from "node:crypto";
import { SqlError } from "../errors/sql-error.ts";
import { encodeNegotiateProtocolVersion } from "../wire/backend-message.ts";
import { decodeStartupPacket, newestMinorVersion, type Startup } from "../wire/startup-packet.ts";
import type { Transport } from "../wire/transport.ts";
import type { TransportFactory } from "../wire/transport-factory.ts";
import { HandshakeReader } from "./handshake-reader.ts";
import { type ServerTls, upgradeToTls } from "./tls.ts";

const accepted = Buffer.from("S", "latin1");
const declined = Buffer.from("N", "latin1");

export interface HandshakeOptions {
  readonly transports: TransportFactory;
  /** Absent: TLS is declined. */
  readonly tls: ServerTls | undefined;
  readonly isTlsRequired: boolean;
  readonly timeoutMs: number;
}

/** A client that has introduced itself. */
export interface Greeting {
  readonly kind: "startup";
  readonly startup: Startup;
  readonly transport: Transport;
  readonly reader: HandshakeReader;
  /** That the connection is encrypted with; undefined when it is not. */
  readonly tls: ServerTls | undefined;
  /** The client's, verified. */
  readonly certificate: X509Certificate | undefined;
}

export type HandshakeOutcome =
  | Greeting
  /** The client's certificate is not accepted; nothing is to be answered. */
  | { readonly kind: "certificate_refused"; readonly reason: string }
  | {
      readonly kind: "cancel";
      readonly processId: number;
      readonly secretKey: Buffer;
      readonly transport: Transport;
    }
  | { readonly kind: "closed" };

/**
 * Answers encryption requests and reads the first real packet.
 *
 * @param onTransport told of the transport that carries the connection now, so that an error can be answered on it
 * @throws SqlError FATAL for a malformed packet, a version or an encryption that is not served
 */
export async function receiveStartup(
  first: Transport,
  options: HandshakeOptions,
  onTransport: (transport: Transport) => void,
): Promise<HandshakeOutcome> {
  let transport = first;
  let reader = new HandshakeReader(transport);
  let encrypted: Pick<Greeting, "tls" | "certificate"> = { tls: undefined, certificate: undefined };
  const seen = new Set<string>();
  /** @returns what ends the handshake, if anything does */
  const encrypt = async (isDirect: boolean): Promise<HandshakeOutcome | undefined> => {
    const { tls } = options;
    if (tls === undefined) return { kind: "closed" };
    const rest = reader.release();
    const socket = transport.detach();
    if (rest.length > 0) socket.unshift(rest);
    const upgrade = await upgradeToTls(socket, tls, isDirect, options.timeoutMs);
    if (upgrade.kind === "refused") return { kind: "certificate_refused", reason: upgrade.reason };
    if (upgrade.kind === "closed") return upgrade;
    transport = options.transports.open(upgrade.socket);
    onTransport(transport);
    reader = new HandshakeReader(transport);
    encrypted = { tls, certificate: upgrade.certificate };
    return undefined;
  };
  for (;;) {
    const packet = await reader.readStartupPacket();
    if (packet.kind === "closed") return packet;
    if (packet.kind === "tls") {
      // Direct TLS is for the very first byte only; without a certificate there is no common language.
      if (encrypted.tls !== undefined || seen.size > 0) return { kind: "closed" };
      const end = await encrypt(true);
      if (end !== undefined) return end;
      continue;
    }
    const startup = decodeStartupPacket(packet.body);
    if (startup.kind === "cancel_request") return { ...startup, kind: "cancel", transport };
    if (startup.kind === "startup") {
      if (encrypted.tls === undefined && options.isTlsRequired) throw encryptionRequired();
      negotiateVersion(transport, startup);
      const { tls, certificate } = encrypted;
      return { kind: "startup", startup, transport, reader, tls, certificate };
    }
    // Each kind of encryption may be asked for once, and not within encryption.
    if (encrypted.tls !== undefined || seen.has(startup.kind)) throw repeatedRequest();
    seen.add(startup.kind);
    // What came in the same segment was sent before the client could know the answer.
    if (reader.hasUnread) return { kind: "closed" };
    const isTls = startup.kind === "ssl_request" && options.tls !== undefined;
    transport.write(isTls ? accepted : declined);
    const end = isTls ? await encrypt(false) : undefined;
    if (end !== undefined) return end;
  }
}

function negotiateVersion(transport: Transport, startup: Startup): void {
  if (startup.minor <= newestMinorVersion && startup.unrecognizedProtocolOptions.length === 0) return;
  transport.write(
    encodeNegotiateProtocolVersion(
      Math.min(startup.minor, newestMinorVersion),
      startup.unrecognizedProtocolOptions,
    ),
  );
}

function encryptionRequired(): SqlError {
  return new SqlError("invalid_authorization_specification", "connection is not encrypted", {
    severity: "FATAL",
    hint: "This server requires TLS: connect with sslmode=require or stronger.",
  });
}

function repeatedRequest(): SqlError {
  return new SqlError("protocol_violation", "encryption was requested a second time", { severity: "FATAL" });
}
