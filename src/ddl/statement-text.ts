/** From the bytes of a statement to its text: encoding, NUL bytes and length are checked here. */

import { SqlError } from "../errors/sql-error.ts";

/** Longest statement of ours, in bytes; longer is program_limit_exceeded. Forwarded statements have no such limit. */
export const maxStatementBytes = 1024 * 1024;

/** @throws SqlError program_limit_exceeded when the statement has more than {@link maxStatementBytes}. */
export function refuseLongStatement(bytes: number): void {
  if (bytes <= maxStatementBytes) return;
  throw new SqlError("program_limit_exceeded", "statement is too long", {
    detail: `A statement that manages users has at most ${maxStatementBytes} bytes.`,
  });
}

function invalidBytes(encoding: string, byte: number): SqlError {
  const shown = `0x${byte.toString(16).padStart(2, "0")}`;
  return new SqlError(
    "character_not_in_repertoire",
    `invalid byte sequence for encoding "${encoding}": ${shown}`,
  );
}

function decodesAsUtf8(bytes: Buffer): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/**
 * The first byte of the first sequence that is not UTF-8. Only that one byte is shown: PostgreSQL shows up to
 * four, but they may come from a password.
 */
function firstInvalidByte(bytes: Buffer): number {
  let at = 0;
  while (at < bytes.length) {
    const lead = bytes[at] ?? 0;
    const length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (decodesAsUtf8(bytes.subarray(at, at + length)) === undefined) return lead;
    at += length;
  }
  return 0;
}

function decodeUtf8(bytes: Buffer): string {
  const text = decodesAsUtf8(bytes);
  if (text === undefined) throw invalidBytes("UTF8", firstInvalidByte(bytes));
  return text;
}

function isAscii(bytes: Buffer): boolean {
  return bytes.every((byte) => byte < 0x80);
}

/**
 * Decodes the text of a statement of ours.
 *
 * @param bytes the statement without the NUL that ends a Query.
 * @param clientEncoding the session's `client_encoding`, as ParameterStatus reports it.
 * @throws SqlError character_not_in_repertoire when the bytes hold a NUL or are not valid in their encoding;
 *   feature_not_supported when another encoding than UTF8, SQL_ASCII and LATIN1 meets bytes beyond ASCII;
 *   program_limit_exceeded when there are more than {@link maxStatementBytes}.
 */
export function decodeStatementText(bytes: Buffer, clientEncoding: string): string {
  refuseLongStatement(bytes.length);
  if (bytes.includes(0)) throw invalidBytes(clientEncoding, 0);
  switch (clientEncoding.toUpperCase().replaceAll(/[^A-Z0-9]/g, "")) {
    case "UTF8":
    case "UNICODE":
    // SQL_ASCII converts nothing, so the bytes have to be valid where names are kept, and that is UTF8.
    case "SQLASCII":
      return decodeUtf8(bytes);
    case "LATIN1":
    case "ISO88591":
      return bytes.toString("latin1");
    default:
      // Each client encoding of PostgreSQL's reads bytes below 0x80 as ASCII when no others are around.
      if (isAscii(bytes)) return bytes.toString("latin1");
      throw new SqlError(
        "feature_not_supported",
        `statements that manage users cannot be read in client encoding "${clientEncoding}"`,
        { hint: "Use SET client_encoding TO 'UTF8'." },
      );
  }
}
