/** Looks at the first bytes of a statement without decoding them or making objects: the hot path's tools. */

import { isBlank, isIdentifierPart } from "./lexer.ts";

const dash = 0x2d;
const slash = 0x2f;

/** Position after `word` (letters in lower case) where it stands whole at `position`, or -1. */
export function wordEnd(text: Buffer, position: number, end: number, word: string): number {
  const after = position + word.length;
  if (after > end) return -1;
  for (let index = 0; index < word.length; index++) {
    if (((text[position + index] ?? 0) | 0x20) !== word.charCodeAt(index)) return -1;
  }
  return after < end && isIdentifierPart(text[after]) ? -1 : after;
}

/** Position of the first byte at or after `position` that is no whitespace, or `end`. */
export function skipWhitespace(text: Buffer, position: number, end: number): number {
  let at = position;
  while (at < end && isBlank(text[at])) at++;
  return at;
}

/** Whether a comment may begin here; a lone `-` or `/` begins no statement, so one byte is enough. */
export function mayBeComment(text: Buffer, position: number, end: number): boolean {
  return position < end && (text[position] === dash || text[position] === slash);
}
