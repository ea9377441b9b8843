/** From an accepted socket to a client that has sent its StartupMessage, encrypted or not (PostgreSQL manual 54.2.1). */

import { SqlError } from "../errors/sql-error.ts";
import { encodeNegotiateProtocolVersion } from "../wire/backend-message.ts";
import { decodeStartupPacket, newestMinorVersion, type Startup } from "../wire/startup-packet.ts";
import type { Transport, TransportFactory } from "../wire/transport.ts";
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
  readonly isEncrypted: boolean;
}

export type HandshakeOutcome =
  | Greeting
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
  let isEncrypted = false;
  const seen = new Set<string>();
  const encrypt = async (isDirect: boolean): Promise<boolean> => {
    if (options.tls === undefined) return false;
    const rest = reader.release();
    const socket = transport.detach();
    if (rest.length > 0) socket.unshift(rest);
    const secure = await upgradeToTls(socket, options.tls, isDirect, options.timeoutMs);
    if (secure === undefined) return false;
    transport = options.transports.open(secure);
    onTransport(transport);
    reader = new HandshakeReader(transport);
    isEncrypted = true;
    return true;
  };
  for (;;) {
    const packet = await reader.readStartupPacket();
    if (packet.kind === "closed") return packet;
    if (packet.kind === "tls") {
      // Direct TLS is for the very first byte only; without a certificate there is no common language.
      if (isEncrypted || seen.size > 0 || !(await encrypt(true))) return { kind: "closed" };
      continue;
    }
    const startup = decodeStartupPacket(packet.body);
    if (startup.kind === "cancel_request") return { ...startup, kind: "cancel", transport };
    if (startup.kind === "startup") {
      if (!isEncrypted && options.isTlsRequired) throw encryptionRequired();
      negotiateVersion(transport, startup);
      return { kind: "startup", startup, transport, reader, isEncrypted };
    }
    // Each kind of encryption may be asked for once, and not within encryption.
    if (isEncrypted || seen.has(startup.kind)) throw repeatedRequest();
    seen.add(startup.kind);
    // What came in the same segment was sent before the client could know the answer.
    if (reader.hasUnread) return { kind: "closed" };
    const isTls = startup.kind === "ssl_request" && options.tls !== undefined;
    transport.write(isTls ? accepted : declined);
    if (isTls && !(await encrypt(false))) return { kind: "closed" };
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
