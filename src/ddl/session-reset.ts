/** Recognizes the commands that take a session's settings back: the claims that a session carries are one of them. */

import { skipWhitespace, wordEnd } from "./statement-start.ts";

/** Whether the text begins with RESET or DISCARD. Reads bytes only, for the hot path. */
export function beginsWithReset(text: Buffer, start: number, end: number): boolean {
  const at = skipWhitespace(text, start, end);
  const letter = (text[at] ?? 0) | 0x20;
  if (letter === 0x72 /* r */) return wordEnd(text, at, end, "reset") >= 0;
  return letter === 0x64 /* d */ && wordEnd(text, at, end, "discard") >= 0;
}
