/** Decodes the messages that clients send after the startup packet (PostgreSQL 18 manual 54.7). */

import { SqlError } from "../errors/sql-error.ts";
import { MessageReader, malformed } from "./message-reader.ts";

/**
 * Name of a prepared statement or portal: one UTF-16 unit per byte (latin1).
 * The client's encoding may be any, so the bytes are kept as they are; unlike a Buffer the result is
 * a Map key, and equal exactly when the bytes are. Write it back as latin1.
 */
export type ObjectName = string;

/** What Describe and Close point at. */
export type DescribeTarget = "statement" | "portal";

/**
 * A decoded message under the manual's name. Texts and values are views of the body in the client's
 * encoding, without their NUL: copy them when they must outlive the buffer that was read into.
 */
export type FrontendMessage =
  | { readonly type: "Query"; readonly text: Buffer }
  | {
      readonly type: "Parse";
      readonly statement: ObjectName;
      readonly text: Buffer;
      readonly parameterTypeOids: readonly number[];
    }
  | {
      readonly type: "Bind";
      readonly portal: ObjectName;
      readonly statement: ObjectName;
      /** None: all text; one: for every parameter; else one each. Values are not checked. */
      readonly parameterFormats: readonly number[];
      readonly parameters: readonly (Buffer | null)[];
      readonly resultFormats: readonly number[];
    }
  | { readonly type: "Describe"; readonly target: DescribeTarget; readonly name: ObjectName }
  /** `maxRows` of 0 or less: no limit. */
  | { readonly type: "Execute"; readonly portal: ObjectName; readonly maxRows: number }
  | { readonly type: "Close"; readonly target: DescribeTarget; readonly name: ObjectName }
  | { readonly type: "Flush" }
  | { readonly type: "Sync" }
  | { readonly type: "Terminate" }
  | { readonly type: "CopyData"; readonly data: Buffer }
  | { readonly type: "CopyDone" }
  | { readonly type: "CopyFail"; readonly reason: Buffer }
  | {
      readonly type: "FunctionCall";
      readonly functionOid: number;
      readonly argumentFormats: readonly number[];
      readonly arguments: readonly (Buffer | null)[];
      readonly resultFormat: number;
    };

/** The first answer to AuthenticationSASL; `initialResponse` is null when the client sent none. */
export interface SaslInitialResponse {
  readonly mechanism: string;
  readonly initialResponse: Buffer | null;
}

/**
 * Decodes one message body (without type and length).
 *
 * `p` is not among the types: what it means depends on the exchange in progress, so the session calls
 * `decodeSaslInitialResponse` and its siblings, and anywhere else `p` is out of place.
 *
 * @param type the message's type byte
 * @throws SqlError FATAL protocol_violation when malformed or of no known type; ERROR
 * protocol_violation when the message parses but its counts disagree, as PostgreSQL does.
 */
export function decodeFrontendMessage(type: number, body: Buffer): FrontendMessage {
  const reader = new MessageReader(body);
  const message = decodeBody(type, reader);
  reader.end();
  return message;
}

function decodeBody(type: number, reader: MessageReader): FrontendMessage {
  switch (String.fromCharCode(type)) {
    case "Q":
      return { type: "Query", text: reader.cstring() };
    case "P":
      return {
        type: "Parse",
        statement: readName(reader),
        text: reader.cstring(),
        parameterTypeOids: reader.list(4, () => reader.uint32()),
      };
    case "B":
      return decodeBind(reader);
    case "D":
      return { type: "Describe", target: readTarget(reader, "DESCRIBE"), name: readName(reader) };
    case "E":
      return { type: "Execute", portal: readName(reader), maxRows: reader.int32() };
    case "C":
      return { type: "Close", target: readTarget(reader, "CLOSE"), name: readName(reader) };
    case "F":
      return decodeFunctionCall(reader);
    case "H":
      return { type: "Flush" };
    case "S":
      return { type: "Sync" };
    case "X":
      return { type: "Terminate" };
    case "d":
      return { type: "CopyData", data: reader.rest() };
    case "c":
      return { type: "CopyDone" };
    case "f":
      return { type: "CopyFail", reason: reader.cstring() };
    default:
      throw malformed(`invalid frontend message type ${type}`);
  }
}

function decodeBind(reader: MessageReader): FrontendMessage {
  const portal = readName(reader);
  const statement = readName(reader);
  const parameterFormats = reader.list(2, () => reader.uint16());
  const parameters = reader.list(4, () => readValue(reader));
  if (parameterFormats.length > 1 && parameterFormats.length !== parameters.length) {
    throw new SqlError(
      "protocol_violation",
      `bind message has ${parameterFormats.length} parameter formats but ${parameters.length} parameters`,
    );
  }
  const resultFormats = reader.list(2, () => reader.uint16());
  return { type: "Bind", portal, statement, parameterFormats, parameters, resultFormats };
}

function decodeFunctionCall(reader: MessageReader): FrontendMessage {
  const functionOid = reader.uint32();
  const argumentFormats = reader.list(2, () => reader.uint16());
  const values = reader.list(4, () => readValue(reader));
  if (argumentFormats.length > 1 && argumentFormats.length !== values.length) {
    throw new SqlError(
      "protocol_violation",
      `function call message contains ${argumentFormats.length} argument formats but ${values.length} arguments`,
    );
  }
  const resultFormat = reader.uint16();
  return { type: "FunctionCall", functionOid, argumentFormats, arguments: values, resultFormat };
}

/** Decodes a `p` message that answers AuthenticationSASL. @throws SqlError FATAL protocol_violation */
export function decodeSaslInitialResponse(body: Buffer): SaslInitialResponse {
  const reader = new MessageReader(body);
  const mechanism = reader.cstring().toString("latin1");
  const initialResponse = readValue(reader);
  reader.end();
  return { mechanism, initialResponse };
}

/** A `p` message that answers AuthenticationSASLContinue is its data and nothing else. */
export function decodeSaslResponse(body: Buffer): Buffer {
  return body;
}

/** Decodes a `p` message that answers AuthenticationCleartextPassword. @throws SqlError FATAL protocol_violation */
export function decodePasswordMessage(body: Buffer): Buffer {
  const reader = new MessageReader(body);
  const password = reader.cstring();
  reader.end();
  return password;
}

function readName(reader: MessageReader): ObjectName {
  return reader.cstring().toString("latin1");
}

/** A length and that many bytes; -1 is null. */
function readValue(reader: MessageReader): Buffer | null {
  const length = reader.int32();
  return length === -1 ? null : reader.bytes(length);
}

function readTarget(reader: MessageReader, message: "DESCRIBE" | "CLOSE"): DescribeTarget {
  const subtype = reader.byte();
  if (subtype === 0x53) return "statement";
  if (subtype === 0x50) return "portal";
  throw malformed(`invalid ${message} message subtype ${subtype}`);
}
