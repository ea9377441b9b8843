/**
 * Client encodings in which the second byte of a character may look like ASCII (PostgreSQL manual 23.3.1: the client-only
 * encodings). Read byte by byte, such a byte would pass for a quote, a backslash or a semicolon.
 */

const asciiLookalikes = new Set(["SJIS", "SHIFT_JIS_2004", "BIG5", "GBK", "GB18030", "UHC", "JOHAB"]);

/** Takes the place of such a byte: as every byte over 0x7f, it is a part of a word. */
const harmless = 0x80;

/**
 * The text as the lexer may read it: the same bytes at the same positions, except that no part of a multi-byte character
 * looks like ASCII.
 *
 * @param clientEncoding as the session's `client_encoding` is reported
 * @returns `text` itself where nothing has to be changed
 */
export function lexicalText(text: Buffer, clientEncoding: string | undefined): Buffer {
  if (clientEncoding === undefined || !asciiLookalikes.has(clientEncoding)) return text;
  const masked = Buffer.from(text);
  for (let at = 0; at < masked.length; ) {
    const length = characterBytes(masked, at, clientEncoding);
    for (let index = 1; index < length && at + index < masked.length; index += 1)
      masked[at + index] = harmless;
    at += length;
  }
  return masked;
}

/** Bytes of the character at a position, by the rules of PostgreSQL's src/common/wchar.c. */
function characterBytes(text: Buffer, at: number, encoding: string): number {
  const lead = text[at] ?? 0;
  if (lead < 0x80) return 1;
  const isShiftJis = encoding === "SJIS" || encoding === "SHIFT_JIS_2004";
  // Half-width katakana are single bytes.
  if (isShiftJis && lead >= 0xa1 && lead <= 0xdf) return 1;
  if (encoding === "GB18030") {
    const second = text[at + 1] ?? 0;
    return second >= 0x30 && second <= 0x39 ? 4 : 2;
  }
  return 2;
}
