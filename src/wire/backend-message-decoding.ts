/** Decodes the upstream's messages that the front-end reads itself; the rest is forwarded unread (PostgreSQL 18 manual 54.7). */

import type { TransactionStatus } from "./backend-message.ts";
import { MessageReader, malformed } from "./message-reader.ts";

/** An Authentication… message under the manual's name; `AuthenticationOther` is a method we do not speak. */
export type AuthenticationMessage =
  | { readonly type: "AuthenticationOk" }
  | { readonly type: "AuthenticationSASL"; readonly mechanisms: readonly string[] }
  | { readonly type: "AuthenticationSASLContinue"; readonly data: Buffer }
  | { readonly type: "AuthenticationSASLFinal"; readonly data: Buffer }
  | { readonly type: "AuthenticationOther"; readonly code: number };

/**
 * Decodes a message of type `R`. Its data are views of the body.
 * @throws SqlError FATAL protocol_violation when malformed, as every function here.
 */
export function decodeAuthentication(body: Buffer): AuthenticationMessage {
  const reader = new MessageReader(body);
  const code = reader.int32();
  switch (code) {
    case 0:
      reader.end();
      return { type: "AuthenticationOk" };
    case 10: {
      const mechanisms: string[] = [];
      for (let name = text(reader); name !== ""; name = text(reader)) mechanisms.push(name);
      reader.end();
      return { type: "AuthenticationSASL", mechanisms };
    }
    case 11:
      return { type: "AuthenticationSASLContinue", data: reader.rest() };
    case 12:
      return { type: "AuthenticationSASLFinal", data: reader.rest() };
    default:
      return { type: "AuthenticationOther", code };
  }
}

/** Fields of an ErrorResponse or NoticeResponse by their letter (manual 54.8); for reading, not for passing on. */
export function decodeErrorFields(body: Buffer): Map<string, string> {
  const reader = new MessageReader(body);
  const fields = new Map<string, string>();
  for (let code = reader.byte(); code !== 0; code = reader.byte()) {
    fields.set(String.fromCharCode(code), text(reader));
  }
  reader.end();
  return fields;
}

export function decodeParameterStatus(body: Buffer): { readonly name: string; readonly value: string } {
  const reader = new MessageReader(body);
  const name = text(reader);
  const value = text(reader);
  reader.end();
  return { name, value };
}

/** The key is a copy: it is kept as long as the connection lives. */
export function decodeBackendKeyData(body: Buffer): {
  readonly processId: number;
  readonly secretKey: Buffer;
} {
  const reader = new MessageReader(body);
  const processId = reader.int32();
  const secretKey = Buffer.from(reader.rest());
  if (secretKey.length < 4 || secretKey.length > 256) throw malformed("invalid message format");
  return { processId, secretKey };
}

export function decodeReadyForQuery(body: Buffer): TransactionStatus {
  const reader = new MessageReader(body);
  const status = String.fromCharCode(reader.byte());
  reader.end();
  if (status !== "I" && status !== "T" && status !== "E") throw malformed("invalid message format");
  return status;
}

/** The command tag, for example `COMMIT`. */
export function decodeCommandComplete(body: Buffer): string {
  const reader = new MessageReader(body);
  const tag = text(reader);
  reader.end();
  return tag;
}

/** Newest version spoken and unknown options, as the upstream answers a newer StartupMessage. */
export function decodeNegotiateProtocolVersion(body: Buffer): {
  readonly major: number;
  readonly minor: number;
  readonly unrecognizedOptions: readonly string[];
} {
  const reader = new MessageReader(body);
  const major = reader.uint16();
  const minor = reader.uint16();
  const count = reader.int32();
  if (count < 0 || count > reader.bytesLeft) throw malformed("insufficient data left in message");
  const unrecognizedOptions: string[] = [];
  for (let index = 0; index < count; index += 1) unrecognizedOptions.push(text(reader));
  reader.end();
  return { major, minor, unrecognizedOptions };
}

function text(reader: MessageReader): string {
  return reader.cstring().toString("utf8");
}
