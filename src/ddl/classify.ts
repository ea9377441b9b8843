/** Decides by leading keywords alone which statements are the front-end's own and which are forwarded. */

import { isBlank, isIdentifierPart, type LexerOptions, TokenScanner } from "./lexer.ts";
import { findStatements, type StatementRange, splitStatements } from "./splitter.ts";
import { mayBeComment, skipWhitespace, wordEnd } from "./statement-start.ts";

/** One statement of a text, and who runs it. */
export interface Classified extends StatementRange {
  readonly kind: "forward" | "ours";
}

/** Objects that PostgreSQL has no word for: whatever follows, the statement is ours. */
const objects = ["api key", "service account", "oidc provider", "rls policy", "tenant"];

/**
 * The statements that only the front-end knows, by their first words, with what has to follow (`end` is the end of
 * the statement); without it everything may.
 */
const phrases: Readonly<Record<string, readonly { readonly words: string; readonly before?: string }[]>> = {
  create: objects.map((words) => ({ words })),
  alter: objects.map((words) => ({ words })),
  drop: objects.map((words) => ({ words })),
  show: [
    { words: "users", before: "end" },
    { words: "session", before: "end" },
    { words: "sessions", before: "end" },
    { words: "roles", before: "end" },
    { words: "tenants", before: "end" },
    { words: "grants", before: "end for" },
    { words: "permissions", before: "end on for" },
    { words: "api keys" },
    { words: "service accounts" },
    { words: "oidc providers" },
    { words: "rls policies" },
    { words: "audit log" },
    { words: "auth help" },
  ],
  list: [{ words: "api keys" }],
  kill: [{ words: "session" }],
  verify: [{ words: "audit chain" }],
  revoke: [{ words: "api key" }],
};

/** What GRANT and REVOKE may begin with, but no role without quotes: these words are reserved. */
const reservedInGrant = ["select", "all", "create", "references", "grant"];

/**
 * Second keywords that may make a statement ours, by its first one; `grant` means that any word may. Of the commands about a
 * database the names are looked at.
 */
const keywords: readonly { readonly first: string; readonly second: readonly string[] | "grant" }[] = [
  { first: "create", second: secondWords("create", "user", "role", "group", "database") },
  { first: "alter", second: secondWords("alter", "user", "role", "group", "database") },
  { first: "drop", second: secondWords("drop", "user", "role", "group", "database") },
  { first: "show", second: secondWords("show") },
  { first: "grant", second: "grant" },
  { first: "revoke", second: "grant" },
  { first: "list", second: secondWords("list") },
  { first: "kill", second: secondWords("kill") },
  { first: "verify", second: secondWords("verify") },
];

function secondWords(first: string, ...others: readonly string[]): readonly string[] {
  return [...others, ...(phrases[first] ?? []).map(({ words }) => words.split(" ")[0] ?? "")];
}

/** First letter of a statement, in either case → index into `keywords` plus one; 0 for every other byte. */
const firstLetter: Readonly<Uint8Array> = Uint8Array.from(
  { length: 256 },
  (_, byte) => keywords.findIndex(({ first }) => first.charCodeAt(0) === (byte | 0x20)) + 1,
);

const semicolon = 0x3b;

/** Longest text in which a loop finds a semicolon sooner than a native search (measured: 0.9 ns a byte to 85 ns a call). */
const longestLoopBytes = 96;

/** Most bytes behind a text that a native search may run through in vain; cheaper than making a view (80 ns to 35 ns). */
const mostOverrunBytes = 8192;

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

/** Behind GRANT or REVOKE: false when it is about a privilege on an object, except CONNECT ON DATABASE. */
function mayGrantRole(text: Buffer, start: number, end: number): boolean {
  for (const word of reservedInGrant) if (wordEnd(text, start, end, word) >= 0) return false;
  let at = start;
  while (at < end && isIdentifierPart(text[at])) at++;
  const next = skipWhitespace(text, at, end);
  return wordEnd(text, next, end, "on") < 0 || wordEnd(text, start, end, "connect") >= 0;
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
    if (keyword.second === "grant") {
      if (mayGrantRole(text, second, end)) return true;
    } else {
      for (const word of keyword.second) if (wordEnd(text, second, end, word) >= 0) return true;
    }
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

/**
 * Whether a string stands behind the word that the scanner is at: SET passwrd 'secret' and RESET PASSWORD 'secret' are no SQL at all, and
 * PostgreSQL would write them to its log.
 */
function isFollowedByString(token: TokenScanner): boolean {
  const next = token.next();
  return next === "string" || next === "unterminated";
}

/** PostgreSQL's settings that take a string without an equals sign or TO. */
const settingsOfStrings = ["names", "schema", "catalog"];

/** After ALTER USER name SET: the settings that are ours; every other one is a parameter of PostgreSQL's. */
function isOurSetting(token: TokenScanner): boolean {
  if (token.isWord("password")) return true;
  if (token.isWord("default")) {
    token.next();
    return token.isWord("database");
  }
  const isRole = token.isWord("role");
  if (!isRole && !token.isWord("inherit")) {
    if (settingsOfStrings.some((word) => token.isWord(word))) return false;
    return isFollowedByString(token);
  }
  token.next();
  if (token.isWord("from")) return false;
  if (!token.isSymbol("=") && !token.isWord("to")) return true;
  if (!isRole) return false;
  // SET role = DEFAULT takes such a setting away.
  token.next();
  return !token.isWord("default");
}

function isOurAlter(token: TokenScanner): boolean {
  const mayBeMapping = token.isWord("mapping");
  token.next();
  if (mayBeMapping && isUserMapping(token)) return false;
  if (token.isWord("uescape")) {
    token.next();
    token.next();
  }
  if (token.isWord("reset")) {
    token.next();
    return isFollowedByString(token);
  }
  if (token.isWord("in")) {
    token.next();
    return !token.isWord("database");
  }
  if (!token.isWord("set")) return true;
  token.next();
  return isOurSetting(token);
}

/** After GRANT or REVOKE: roles to users, or CONNECT ON DATABASE; the first ON or TO decides. */
function isOurGrant(token: TokenScanner): boolean {
  if (reservedInGrant.some((word) => token.isWord(word))) return false;
  const isConnect = token.isWord("connect");
  token.next();
  if (isConnect && token.isWord("on")) {
    token.next();
    return token.isWord("database");
  }
  if (token.isWord("option")) {
    // REVOKE ADMIN OPTION FOR r FROM n: what options are granted is PostgreSQL's alone.
    token.next();
    if (token.isWord("for")) return false;
  }
  while (!atEnd(token) && !token.isWord("to") && !token.isWord("from")) {
    if (token.isWord("on")) return false;
    token.next();
  }
  return true;
}

/** After the first word of a statement: does one of its phrases follow? */
function beginsPhrase(first: string, token: TokenScanner): boolean {
  for (const { words, before } of phrases[first] ?? []) {
    const [second = "", third] = words.split(" ");
    if (!token.isWord(second)) continue;
    token.next();
    if (third !== undefined) return token.isWord(third);
    if (before === undefined) return true;
    return before.split(" ").some((word) => (word === "end" ? atEnd(token) : token.isWord(word)));
  }
  return false;
}

/** After CREATE, ALTER or DROP: a user, or a role? */
function isUserOrRole(token: TokenScanner, isAlter: boolean): boolean {
  if (token.isWord("group")) return true;
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

/**
 * Whether the single statement between two positions begins as one of ours. Its grammar may still hand a
 * ROLE spelling or a GRANT back to PostgreSQL.
 */
export function isOurs(text: Buffer, start: number, end: number, options: LexerOptions): boolean {
  const token = new TokenScanner(text, start, end, options);
  token.next();
  const first = keywords.find((keyword) => token.isWord(keyword.first))?.first;
  if (first === undefined) return false;
  const afterFirst = token.end;
  token.next();
  if (beginsPhrase(first, token)) return true;
  const again = new TokenScanner(text, afterFirst, end, options);
  again.next();
  if (first === "grant" || first === "revoke") return isOurGrant(again);
  if (first !== "create" && first !== "alter" && first !== "drop") return false;
  return isUserOrRole(again, first === "alter");
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
