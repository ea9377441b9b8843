/** Encodes the messages that the server side sends to a client (PostgreSQL 18 manual 54.7, 54.8). */

import type { SqlError } from "../errors/sql-error.ts";
import { MessageWriter } from "./message-writer.ts";

/** I: idle, T: in a transaction block, E: in a failed one. */
export type TransactionStatus = "I" | "T" | "E";

/** One field of an ErrorResponse or NoticeResponse: its letter (manual 54.8) and its text. */
export type ErrorField = readonly [code: string, text: string];

/** 0 is text, 1 is binary. */
export type FormatCode = 0 | 1;

export interface RowDescriptionColumn {
  readonly name: string;
  readonly typeOid: number;
  /** Bytes of a value; -1 when it varies. */
  readonly typeSize: number;
  readonly format: FormatCode;
}

export function encodeAuthenticationOk(): Buffer {
  return new MessageWriter("R", 4).int32(0).finish();
}

export function encodeAuthenticationSasl(mechanisms: readonly string[]): Buffer {
  const writer = new MessageWriter("R").int32(10);
  for (const mechanism of mechanisms) writer.cstring(mechanism);
  return writer.byte(0).finish();
}

/** @param data a SCRAM server-first-message, or "" when the client sent no initial response */
export function encodeAuthenticationSaslContinue(data: string): Buffer {
  return new MessageWriter("R", 128).int32(11).text(data).finish();
}

/** @param data a SCRAM server-final-message */
export function encodeAuthenticationSaslFinal(data: string): Buffer {
  return new MessageWriter("R", 64).int32(12).text(data).finish();
}

/** @param secretKey 4 bytes for protocol 3.0, up to 256 for 3.2 */
export function encodeBackendKeyData(processId: number, secretKey: Buffer): Buffer {
  return new MessageWriter("K", 4 + secretKey.length).int32(processId).bytes(secretKey).finish();
}

export function encodeParameterStatus(name: string, value: string): Buffer {
  return new MessageWriter("S").cstring(name).cstring(value).finish();
}

export function encodeReadyForQuery(status: TransactionStatus): Buffer {
  return new MessageWriter("Z", 1).text(status).finish();
}

/**
 * @param minor the version the session will speak: never larger than the client's, which libpq refuses
 * @param unrecognizedOptions names of the `_pq_.` options that are not supported
 *
 * The manual calls the field the minor version; PostgreSQL sends, and libpq reads, major and minor.
 */
export function encodeNegotiateProtocolVersion(
  minor: number,
  unrecognizedOptions: readonly string[],
): Buffer {
  const writer = new MessageWriter("v").uint16(3).uint16(minor).int32(unrecognizedOptions.length);
  for (const option of unrecognizedOptions) writer.cstring(option);
  return writer.finish();
}

export function encodeErrorResponse(fields: Iterable<ErrorField>): Buffer {
  return encodeFields("E", fields);
}

export function encodeNoticeResponse(fields: Iterable<ErrorField>): Buffer {
  return encodeFields("N", fields);
}

/** ErrorResponse for an expected failure, with every field that it has. */
export function encodeSqlError(error: SqlError): Buffer {
  const fields: ErrorField[] = [
    ["S", error.severity],
    ["V", error.severity],
    ["C", error.sqlstate],
    ["M", error.message],
  ];
  if (error.detail !== undefined) fields.push(["D", error.detail]);
  if (error.hint !== undefined) fields.push(["H", error.hint]);
  if (error.position !== undefined) fields.push(["P", String(error.position)]);
  return encodeErrorResponse(fields);
}

/** NoticeResponse of severity NOTICE and SQLSTATE 00000 (successful_completion), as for IF EXISTS. */
export function encodeNotice(message: string): Buffer {
  return encodeNoticeResponse([
    ["S", "NOTICE"],
    ["V", "NOTICE"],
    ["C", "00000"],
    ["M", message],
  ]);
}

export function encodeCommandComplete(tag: string): Buffer {
  return new MessageWriter("C").cstring(tag).finish();
}

export function encodeEmptyQueryResponse(): Buffer {
  return new MessageWriter("I", 0).finish();
}

export function encodeParseComplete(): Buffer {
  return new MessageWriter("1", 0).finish();
}

export function encodeBindComplete(): Buffer {
  return new MessageWriter("2", 0).finish();
}

export function encodeCloseComplete(): Buffer {
  return new MessageWriter("3", 0).finish();
}

export function encodePortalSuspended(): Buffer {
  return new MessageWriter("s", 0).finish();
}

export function encodeNoData(): Buffer {
  return new MessageWriter("n", 0).finish();
}

export function encodeParameterDescription(typeOids: readonly number[]): Buffer {
  const writer = new MessageWriter("t", 2 + typeOids.length * 4).uint16(typeOids.length);
  for (const oid of typeOids) writer.uint32(oid);
  return writer.finish();
}

/** RowDescription of columns that belong to no table. */
export function encodeRowDescription(columns: readonly RowDescriptionColumn[]): Buffer {
  const writer = new MessageWriter("T", 2 + columns.length * 40).uint16(columns.length);
  for (const column of columns) {
    writer.cstring(column.name).uint32(0).int16(0);
    writer.uint32(column.typeOid).int16(column.typeSize).int32(-1).int16(column.format);
  }
  return writer.finish();
}

export function encodeDataRow(values: readonly (Buffer | null)[]): Buffer {
  const bodyBytes = values.reduce((sum, value) => sum + 4 + (value?.length ?? 0), 2);
  const writer = new MessageWriter("D", bodyBytes).uint16(values.length);
  for (const value of values) {
    if (value === null) writer.int32(-1);
    else writer.int32(value.length).bytes(value);
  }
  return writer.finish();
}

function encodeFields(type: "E" | "N", fields: Iterable<ErrorField>): Buffer {
  const writer = new MessageWriter(type, 256);
  for (const [code, text] of fields) writer.text(code).cstring(text);
  return writer.byte(0).finish();
}
