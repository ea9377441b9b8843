/** Decides by leading keywords alone which statements are the front-end's own and which are forwarded. */

import { isBlank, isIdentifierPart, type LexerOptions, TokenScanner } from "./lexer.ts";
import { findStatements, type StatementRange, splitStatements } from "./splitter.ts";

/** One statement of a text, and who runs it. */
export interface Classified extends StatementRange {
  readonly kind: "forward" | "ours";
}

/** Second keywords that may make a statement ours, by its first one; of those about a database the names are looked at. */
const keywords: readonly { readonly first: string; readonly second: readonly string[] }[] = [
  { first: "create", second: ["user", "role", "database"] },
  { first: "alter", second: ["user", "role", "database"] },
  { first: "drop", second: ["user", "role", "database"] },
  { first: "show", second: ["users", "session"] },
];

/** First letter of a statement, in either case → index into `keywords` plus one; 0 for every other byte. */
const firstLetter: Readonly<Uint8Array> = Uint8Array.from(
  { length: 256 },
  (_, byte) => keywords.findIndex(({ first }) => first.charCodeAt(0) === (byte | 0x20)) + 1,
);

const semicolon = 0x3b;
const dash = 0x2d;
const slash = 0x2f;

/** Longest text in which a loop finds a semicolon sooner than a native search (measured: 0.9 ns a byte to 85 ns a call). */
const longestLoopBytes = 96;

/** Most bytes behind a text that a native search may run through in vain; cheaper than making a view (80 ns to 35 ns). */
const mostOverrunBytes = 8192;

/** Position after `word` (letters in lower case) where it stands whole at `position`, or -1. */
function wordEnd(text: Buffer, position: number, end: number, word: string): number {
  const after = position + word.length;
  if (after > end) return -1;
  for (let index = 0; index < word.length; index++) {
    if (((text[position + index] ?? 0) | 0x20) !== word.charCodeAt(index)) return -1;
  }
  return after < end && isIdentifierPart(text[after]) ? -1 : after;
}

function skipWhitespace(text: Buffer, position: number, end: number): number {
  let at = position;
  while (at < end && isBlank(text[at])) at++;
  return at;
}

/** Whether a comment may begin here; a lone `-` or `/` begins no statement, so one byte is enough. */
function mayBeComment(text: Buffer, position: number, end: number): boolean {
  return position < end && (text[position] === dash || text[position] === slash);
}

/** Whether a semicolon stands before the trailing one, inside quotes and comments too. */
function hasInnerSemicolon(text: Buffer, start: number, end: number): boolean {
  let last = end - 1;
  while (last >= start && isBlank(text[last])) last--;
  if (last >= start && text[last] === semicolon) last--;
  if (last - start < longestLoopBytes) return loopFindsSemicolon(text, start, last + 1);
  // Buffer.indexOf cannot be told where to stop, and the buffer may hold far more than this statement.
  if (text.length - last > mostOverrunBytes) return text.subarray(start, last + 1).includes(semicolon);
  const found = text.indexOf(semicolon, start);
  return found >= 0 && found <= last;
}

/** Four bytes a turn: two thirds of the time of a plain loop. */
function loopFindsSemicolon(text: Buffer, start: number, end: number): boolean {
  let at = start;
  for (; at + 4 <= end; at += 4) {
    if (
      text[at] === semicolon ||
      text[at + 1] === semicolon ||
      text[at + 2] === semicolon ||
      text[at + 3] === semicolon
    ) {
      return true;
    }
  }
  for (; at < end; at++) if (text[at] === semicolon) return true;
  return false;
}

/**
 * The hot path's question: might this text hold a statement of ours, or more than one statement? `false` is
 * certain; `true` means that {@link classify} must look. Reads bytes only: nothing is decoded, and for texts of
 * usual length nothing is allocated.
 *
 * @param end position after the text's last byte, its terminating NUL excluded.
 */
export function mayNeedAttention(text: Buffer, start: number, end: number): boolean {
  const at = skipWhitespace(text, start, end);
  if (at === end) return false;
  const index = firstLetter[text[at] ?? 0] ?? 0;
  if (index === 0) return mayBeComment(text, at, end) || hasInnerSemicolon(text, at, end);
  const keyword = keywords[index - 1];
  const afterFirst = keyword === undefined ? -1 : wordEnd(text, at, end, keyword.first);
  if (keyword !== undefined && afterFirst >= 0) {
    const second = skipWhitespace(text, afterFirst, end);
    if (mayBeComment(text, second, end)) return true;
    for (const word of keyword.second) if (wordEnd(text, second, end, word) >= 0) return true;
  }
  return hasInnerSemicolon(text, at, end);
}

/** Whether the scanner stands at the end of its statement. */
function atEnd(token: TokenScanner): boolean {
  return token.kind === "end" || token.isSymbol(";");
}

/** After CREATE, ALTER or DROP USER MAPPING: a user mapping of PostgreSQL's, or a user who is named mapping? */
function isUserMapping(token: TokenScanner): boolean {
  return token.isWord("for") || token.isWord("if");
}

/** After ALTER USER name SET: the settings that are ours; every other one is a parameter of PostgreSQL's. */
function isOurSetting(token: TokenScanner): boolean {
  if (token.isWord("password")) return true;
  if (token.isWord("default")) {
    token.next();
    return token.isWord("database");
  }
  if (!token.isWord("role")) return false;
  token.next();
  // SET role TO r and SET role = r are PostgreSQL's default for its own parameter `role`.
  return !(token.isSymbol("=") || token.isWord("to") || token.isWord("from"));
}

function isOurAlter(token: TokenScanner): boolean {
  const mayBeMapping = token.isWord("mapping");
  token.next();
  if (mayBeMapping && isUserMapping(token)) return false;
  if (token.isWord("uescape")) {
    token.next();
    token.next();
  }
  if (token.isWord("reset")) return false;
  if (token.isWord("in")) {
    token.next();
    return !token.isWord("database");
  }
  if (!token.isWord("set")) return true;
  token.next();
  return isOurSetting(token);
}

/**
 * Whether the single statement between two positions begins as one of ours. Its grammar may still hand a
 * ROLE spelling back to PostgreSQL.
 */
export function isOurs(text: Buffer, start: number, end: number, options: LexerOptions): boolean {
  const token = new TokenScanner(text, start, end, options);
  token.next();
  if (token.isWord("show")) {
    token.next();
    if (!token.isWord("users") && !token.isWord("session")) return false;
    token.next();
    return atEnd(token);
  }
  const isAlter = token.isWord("alter");
  if (!isAlter && !token.isWord("create") && !token.isWord("drop")) return false;
  token.next();
  if (token.isWord("role")) {
    token.next();
    return !isAlter || isOurAlter(token);
  }
  if (!token.isWord("user")) return false;
  token.next();
  if (isAlter) return isOurAlter(token);
  if (!token.isWord("mapping")) return true;
  token.next();
  return !isUserMapping(token);
}

/** Splits the text between two byte positions and says of each statement who runs it. */
export function classify(text: Buffer, start: number, end: number, options: LexerOptions): Classified[] {
  return splitStatements(text, start, end, options).map((range) => ({
    kind: isOurs(text, range.start, range.end, options) ? "ours" : "forward",
    start: range.start,
    end: range.end,
  }));
}

/** True when one of the statements is ours. Stops at the first, and makes nothing for the others. */
export function holdsOurs(text: Buffer, start: number, end: number, options: LexerOptions): boolean {
  let isFound = false;
  findStatements(text, start, end, options, (statementStart, statementEnd) => {
    isFound =
      mayNeedAttention(text, statementStart, statementEnd) &&
      isOurs(text, statementStart, statementEnd, options);
    return isFound;
  });
  return isFound;
}
