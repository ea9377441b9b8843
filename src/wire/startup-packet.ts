/** The packet that opens a connection, before messages have a type byte (PostgreSQL 18 manual 54.2.1, 54.7). */

import { isUtf8 } from "node:buffer";
import { SqlError } from "../errors/sql-error.ts";
import { maxStartupPacketBytes } from "./limits.ts";
import { malformed } from "./message-reader.ts";

/** Newest protocol 3 minor version spoken; a client that asks for more gets NegotiateProtocolVersion. */
export const newestMinorVersion = 2;

const sslRequestCode = (1234 << 16) | 5679;
const gssencRequestCode = (1234 << 16) | 5680;
const cancelRequestCode = (1234 << 16) | 5678;

/** Protocol 3.0 has 4 bytes; 3.2 allows up to 256. */
const minCancelKeyBytes = 4;
const maxCancelKeyBytes = 256;

export interface Startup {
  readonly kind: "startup";
  readonly major: 3;
  /** As asked for; may be larger than `newestMinorVersion`. */
  readonly minor: number;
  /** The `user` parameter; not empty. */
  readonly user: string;
  /**
   * Every parameter except the `_pq_.` ones, names as the client spelled them: the last of equal names
   * wins. PostgreSQL takes `user`, `database`, `options` and `replication` in exactly this spelling, and
   * every other name as a setting in any case. Nothing here has been checked for what it means.
   */
  readonly parameters: ReadonlyMap<string, string>;
  /** Names of the `_pq_.` protocol options asked for; none is supported. */
  readonly unrecognizedProtocolOptions: readonly string[];
}

export type StartupPacket =
  | { readonly kind: "ssl_request" }
  | { readonly kind: "gssenc_request" }
  | { readonly kind: "cancel_request"; readonly processId: number; readonly secretKey: Buffer }
  | Startup;

/**
 * Decodes the body of a startup packet: the bytes after its length field.
 *
 * @throws SqlError FATAL protocol_violation when malformed, feature_not_supported for another major
 * version, invalid_authorization_specification without a user, character_not_in_repertoire when a
 * parameter is not UTF-8.
 */
export function decodeStartupPacket(body: Buffer): StartupPacket {
  if (body.length < 4 || body.length > maxStartupPacketBytes) {
    throw malformed("invalid length of startup packet");
  }
  const code = body.readInt32BE(0);
  if (code === sslRequestCode || code === gssencRequestCode) {
    if (body.length !== 4) throw malformed("invalid length of startup packet");
    return { kind: code === sslRequestCode ? "ssl_request" : "gssenc_request" };
  }
  return code === cancelRequestCode ? decodeCancelRequest(body) : decodeStartup(body);
}

function decodeCancelRequest(body: Buffer): StartupPacket {
  if (body.length < 8) throw malformed("invalid length of cancel request packet");
  const keyBytes = body.length - 8;
  if (keyBytes < minCancelKeyBytes || keyBytes > maxCancelKeyBytes) {
    throw malformed("invalid length of cancel key in cancel request packet");
  }
  return {
    kind: "cancel_request",
    processId: body.readInt32BE(4),
    // A copy: the lookup may outlive the buffer that the packet was read into.
    secretKey: Buffer.from(body.subarray(8)),
  };
}

function decodeStartup(body: Buffer): Startup {
  const major = body.readUInt16BE(0);
  const minor = body.readUInt16BE(2);
  if (major !== 3) {
    throw new SqlError(
      "feature_not_supported",
      `unsupported frontend protocol ${major}.${minor}: server supports 3.0 to 3.${newestMinorVersion}`,
      { severity: "FATAL" },
    );
  }
  const parameters = new Map<string, string>();
  const unrecognizedProtocolOptions: string[] = [];
  for (const [name, value] of startupParameters(body)) {
    if (name.startsWith("_pq_.")) unrecognizedProtocolOptions.push(name);
    else parameters.set(name, value);
  }
  const user = parameters.get("user");
  if (user === undefined || user === "") {
    throw new SqlError(
      "invalid_authorization_specification",
      "no PostgreSQL user name specified in startup packet",
      { severity: "FATAL" },
    );
  }
  return { kind: "startup", major: 3, minor, user, parameters, unrecognizedProtocolOptions };
}

/** Name and value pairs up to the empty name, which must be the packet's last byte. */
function* startupParameters(body: Buffer): Generator<readonly [name: string, value: string]> {
  let offset = 4;
  while (offset < body.length && body[offset] !== 0) {
    const nameEnd = body.indexOf(0, offset);
    const valueEnd = nameEnd === -1 ? -1 : body.indexOf(0, nameEnd + 1);
    if (valueEnd === -1) break;
    yield [
      parameterText(body.subarray(offset, nameEnd)),
      parameterText(body.subarray(nameEnd + 1, valueEnd)),
    ];
    offset = valueEnd + 1;
  }
  // PostgreSQL takes any last byte for the terminator when a name begins with it.
  if (offset !== body.length - 1 || body[offset] !== 0) {
    throw malformed("invalid startup packet layout: expected terminator as last byte");
  }
}

/** Strict, because replacement characters would make two different names equal. */
function parameterText(bytes: Buffer): string {
  if (!isUtf8(bytes)) {
    throw new SqlError("character_not_in_repertoire", 'invalid byte sequence for encoding "UTF8"', {
      severity: "FATAL",
      detail: "A startup parameter is not valid UTF-8.",
    });
  }
  return bytes.toString("utf8");
}
