/** Recognizes the commands that take a session's settings back: the claims that a session carries are one of them. */

import type { LexerOptions } from "./lexer.ts";
import { findStatements } from "./splitter.ts";
import { skipWhitespace, wordEnd } from "./statement-start.ts";

/** Whether the text begins with RESET or DISCARD. Reads bytes only, for the hot path. */
export function beginsWithReset(text: Buffer, start: number, end: number): boolean {
  const at = skipWhitespace(text, start, end);
  const letter = (text[at] ?? 0) | 0x20;
  if (letter === 0x72 /* r */) return wordEnd(text, at, end, "reset") >= 0;
  return letter === 0x64 /* d */ && wordEnd(text, at, end, "discard") >= 0;
}

/** Whether one of the statements does, behind comments and other statements too. */
export function holdsReset(text: Buffer, start: number, end: number, options: LexerOptions): boolean {
  let isFound = false;
  findStatements(text, start, end, options, (statementStart, statementEnd) => {
    isFound = beginsWithReset(text, statementStart, statementEnd);
    return isFound;
  });
  return isFound;
}
