/** The value of a string constant: '…', E'…' and $tag$…$tag$ (PostgreSQL manual, 4.1.2). */

import { SqlError } from "../errors/sql-error.ts";
import type { StringSyntax } from "./statement-syntax.ts";

const letterEscapes: Readonly<Record<string, string>> = { b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };

/** What a backslash or a doubled quote in E'…' can begin; the last branch is one character as it is. */
const escapePattern =
  /''|\\x([0-9A-Fa-f]{1,2})|\\([0-7]{1,3})|\\u([0-9A-Fa-f]{4})|\\U([0-9A-Fa-f]{8})|\\([uU])|\\(.)|([^'\\]+)/gsu;

function invalidEscape(message: string, position: number, hint?: string): SqlError {
  return new SqlError("syntax_error", message, { position, hint });
}

/**
 * Decodes the inside of E'…' to the bytes that it stands for: \x and \o give bytes of a UTF-8 text, not
 * characters. A surrogate pair may be written as two \u escapes.
 */
function decodeEscapes(body: string, position: number): Buffer {
  const pieces: Buffer[] = [];
  let highSurrogate: number | undefined;
  for (const match of body.matchAll(escapePattern)) {
    const [whole, hex, octal, short, long, cutShort, single, literal] = match;
    const unicode = short ?? long;
    if (cutShort !== undefined) {
      throw invalidEscape(
        "invalid Unicode escape",
        position,
        "Unicode escapes must be \\uXXXX or \\UXXXXXXXX.",
      );
    }
    const codePoint = unicode === undefined ? undefined : Number.parseInt(unicode, 16);
    const isLow = codePoint !== undefined && codePoint >= 0xdc00 && codePoint <= 0xdfff;
    if (isLow !== (highSurrogate !== undefined)) {
      throw invalidEscape("invalid Unicode surrogate pair", position);
    }
    if (codePoint !== undefined) {
      if (codePoint === 0 || codePoint > 0x10ffff)
        throw invalidEscape("invalid Unicode escape value", position);
      if (codePoint >= 0xd800 && codePoint <= 0xdbff) {
        highSurrogate = codePoint;
        continue;
      }
      const high = highSurrogate === undefined ? "" : String.fromCharCode(highSurrogate);
      const low = high === "" ? String.fromCodePoint(codePoint) : String.fromCharCode(codePoint);
      pieces.push(Buffer.from(high + low));
      highSurrogate = undefined;
    } else if (hex !== undefined) pieces.push(Buffer.of(Number.parseInt(hex, 16)));
    else if (octal !== undefined) pieces.push(Buffer.of(Number.parseInt(octal, 8) & 0xff));
    else if (whole === "''") pieces.push(Buffer.of(0x27));
    else pieces.push(Buffer.from(literal ?? letterEscapes[single ?? ""] ?? single ?? ""));
  }
  if (highSurrogate !== undefined) throw invalidEscape("invalid Unicode surrogate pair", position);
  return Buffer.concat(pieces);
}

function decodeEscapeString(body: string, position: number): string {
  const bytes = decodeEscapes(body, position);
  try {
    const value = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    if (!value.includes("\0")) return value;
  } catch {
    // The bytes belong to a literal: they are not shown, unlike PostgreSQL's message.
  }
  throw new SqlError("character_not_in_repertoire", 'invalid byte sequence for encoding "UTF8"', {
    position,
  });
}

/**
 * The value of a string constant.
 *
 * @param position where it stands in the statement, for errors, which never show any of it.
 * @throws SqlError syntax_error when an escape is malformed, character_not_in_repertoire when \x or \o escapes
 *   make invalid UTF-8 or a NUL.
 */
export function decodeString(syntax: StringSyntax, position: number): string {
  const body = syntax.parts.join("");
  switch (syntax.style) {
    case "plain":
      return body.replaceAll("''", "'");
    case "escape":
      return decodeEscapeString(body, position);
    case "dollar":
      return body;
  }
}
