/** Encodes the messages that the front-end itself sends upstream (PostgreSQL 18 manual 54.7). */

import { serialize } from "pg-protocol";
import { SqlError } from "../errors/sql-error.ts";
import type { DescribeTarget, ObjectName } from "./frontend-message.ts";
import { MessageWriter } from "./message-writer.ts";

const cancelRequestCode = (1234 << 16) | 5678;

/**
 * StartupMessage for protocol 3.`minor`.
 * Not pg-protocol's: that one speaks 3.0 only and always appends `client_encoding=UTF8`, which would
 * override the client's own.
 *
 * @throws SqlError character_not_in_repertoire when a name is empty or anything holds a NUL: either
 * would end a field early, and a client's value could then smuggle in a parameter that was filtered.
 */
export function encodeStartupMessage(parameters: ReadonlyMap<string, string>, minor: number): Buffer {
  const fields: string[] = [];
  for (const [name, value] of parameters) {
    if (name === "") throw new SqlError("character_not_in_repertoire", "startup parameter without a name");
    fields.push(withoutNul(name), withoutNul(value));
  }
  const body = Buffer.from(fields.map((field) => `${field}\0`).join(""), "utf8");
  const packet = Buffer.allocUnsafe(8 + body.length + 1);
  packet.writeInt32BE(packet.length, 0);
  packet.writeUInt16BE(3, 4);
  packet.writeUInt16BE(minor, 6);
  body.copy(packet, 8);
  packet[packet.length - 1] = 0;
  return packet;
}

/** SSLRequest, before a StartupMessage on the same connection. */
export function encodeSslRequest(): Buffer {
  return serialize.requestSsl();
}

/** CancelRequest with a key of any length (protocol 3.2); pg-protocol's takes one int32. */
export function encodeCancelRequest(processId: number, secretKey: Buffer): Buffer {
  const packet = Buffer.allocUnsafe(12 + secretKey.length);
  packet.writeInt32BE(packet.length, 0);
  packet.writeInt32BE(cancelRequestCode, 4);
  packet.writeInt32BE(processId, 8);
  secretKey.copy(packet, 12);
  return packet;
}

/** Query of the front-end's own, in UTF-8. @throws SqlError character_not_in_repertoire */
export function encodeQuery(text: string): Buffer {
  return serialize.query(withoutNul(text));
}

/** Parse with the client's bytes (or our own text in UTF-8) as the statement. @throws SqlError character_not_in_repertoire */
export function encodeParse(
  statement: ObjectName,
  text: Buffer | string,
  parameterTypeOids: readonly number[] = [],
): Buffer {
  const bytes = typeof text === "string" ? Buffer.from(text, "utf8") : text;
  if (bytes.includes(0)) throw nulByte();
  const writer = new MessageWriter("P", bytes.length + statement.length + 4 + parameterTypeOids.length * 4);
  writer.cstring(withoutNul(statement), "latin1").bytes(bytes).byte(0).uint16(parameterTypeOids.length);
  for (const oid of parameterTypeOids) writer.uint32(oid);
  return writer.finish();
}

/**
 * Bind with text parameters and a text result, of the unnamed portal to the unnamed statement unless names are given.
 * That is all the front-end binds itself; a client's Bind is forwarded as it came.
 */
export function encodeBind(
  values: readonly (string | null)[],
  { portal = "", statement = "" }: { readonly portal?: string; readonly statement?: string } = {},
): Buffer {
  return serialize.bind({ portal, statement, values: [...values] });
}

/** Describe; the name is written as latin1, so that a client's bytes come out as they went in. */
export function encodeDescribe(target: DescribeTarget, name: ObjectName): Buffer {
  return encodeTarget("D", target, name);
}

/** Close, with the name written as in `encodeDescribe`. */
export function encodeClose(target: DescribeTarget, name: ObjectName): Buffer {
  return encodeTarget("C", target, name);
}

/** Execute; `maxRows` 0 is no limit. */
export function encodeExecute(portal: ObjectName, maxRows = 0): Buffer {
  return new MessageWriter("E").cstring(withoutNul(portal), "latin1").int32(maxRows).finish();
}

/** FunctionCall by the function's OID, with arguments and result in text; it is its own Sync. @throws SqlError character_not_in_repertoire */
export function encodeFunctionCall(oid: number, values: readonly string[]): Buffer {
  const writer = new MessageWriter("F", 64).uint32(oid).uint16(0).uint16(values.length);
  for (const value of values) {
    const bytes = Buffer.from(withoutNul(value), "utf8");
    writer.int32(bytes.length).bytes(bytes);
  }
  return writer.uint16(0).finish();
}

export function encodeFlush(): Buffer {
  return serialize.flush();
}

export function encodeSync(): Buffer {
  return serialize.sync();
}

export function encodeTerminate(): Buffer {
  return serialize.end();
}

/** CopyFail, with which a COPY that lost its client is ended. @throws SqlError character_not_in_repertoire */
export function encodeCopyFail(reason: string): Buffer {
  return serialize.copyFail(withoutNul(reason));
}

/** SASLInitialResponse with a SCRAM client-first-message. */
export function encodeSaslInitialResponse(mechanism: string, initialResponse: string): Buffer {
  return serialize.sendSASLInitialResponseMessage(mechanism, initialResponse);
}

/** SASLResponse with a SCRAM client-final-message. */
export function encodeSaslResponse(data: string): Buffer {
  return serialize.sendSCRAMClientFinalMessage(data);
}

function encodeTarget(type: "D" | "C", target: DescribeTarget, name: ObjectName): Buffer {
  const subtype = target === "statement" ? "S" : "P";
  return new MessageWriter(type).text(subtype).cstring(withoutNul(name), "latin1").finish();
}

function withoutNul(text: string): string {
  if (text.includes("\0")) throw nulByte();
  return text;
}

function nulByte(): SqlError {
  return new SqlError("character_not_in_repertoire", 'invalid byte sequence for encoding "UTF8": 0x00');
}
