/** Words a failure of the generated parser for the client: what is wrong, where, and what was expected, but no literal. */

import { SqlError } from "../errors/sql-error.ts";
import type { Expectation } from "./auth-parser.js";
import { type LexerOptions, TokenScanner } from "./lexer.ts";

/** Longest piece of a statement that a message repeats, in UTF-16 units. */
const maxEchoLength = 64;

/** Options that the grammar reads only to say that there are none. */
const refusedOptions: ReadonlySet<string> = new Set([
  "ADMIN",
  "BYPASSRLS",
  "CREATEDB",
  "CREATEROLE",
  "NOINHERIT",
  "REPLICATION",
  "SYSID",
  "UNENCRYPTED",
  "USER members",
]);

/** "Expected A, B or C.", or undefined when nothing but blanks was expected. */
function describeExpected(expected: readonly Expectation[]): string | undefined {
  const words = new Set<string>();
  for (const item of expected) {
    if (item.type === "other") {
      if (item.description !== "blank" && !refusedOptions.has(item.description)) words.add(item.description);
    } else if (item.type === "literal" && item.text === ",") words.add("a comma");
  }
  const sorted = [...words].sort();
  const last = sorted.pop();
  if (last === undefined) return undefined;
  return sorted.length === 0 ? `Expected ${last}.` : `Expected ${sorted.join(", ")} or ${last}.`;
}

function unterminatedMessage(rest: string): string {
  if (rest.startsWith("/*")) return "unterminated /* comment";
  if (/^(u&)?"/i.test(rest)) return "unterminated quoted identifier";
  return "unterminated quoted string";
}

/**
 * Whether a word or number at the error may be of a password: one that stands where PASSWORD wants its string, or what a
 * quote within a password has cut off, be it because it touches a string or because a quote behind it is never closed.
 */
function maySpellPassword(before: string, rest: Buffer, options: LexerOptions): boolean {
  if (!/password/i.test(before)) return false;
  const bytes = Buffer.from(before);
  const scanner = new TokenScanner(bytes, 0, bytes.length, options);
  let isBehindPassword = false;
  let stringEnd = -1;
  while (scanner.next() !== "end") {
    isBehindPassword = scanner.isWord("password");
    if (scanner.kind === "string") stringEnd = scanner.end;
  }
  if (isBehindPassword || stringEnd === bytes.length) return true;
  const tail = new TokenScanner(rest, 0, rest.length, options);
  while (tail.next() !== "end") if (tail.kind === "unterminated") return true;
  return false;
}

/** What stands at the error. Quoted text is never shown, nor what may be of a password. */
function describeToken(scanner: TokenScanner, bytes: Buffer, before: string, options: LexerOptions): string {
  switch (scanner.kind) {
    case "string":
      return "string literal";
    case "quoted_identifier":
      return "quoted identifier";
    case "symbol":
      return `"${bytes.toString("utf8", scanner.start, scanner.end)}"`;
    default: {
      if (maySpellPassword(before, bytes, options)) {
        return scanner.kind === "word" ? "unquoted word" : "number";
      }
      const token = bytes.toString("utf8", scanner.start, scanner.end);
      return token.length > maxEchoLength ? `"${token.slice(0, maxEchoLength)}…"` : `"${token}"`;
    }
  }
}

/**
 * The error for a statement that the grammar refuses at `offset` (UTF-16 units).
 *
 * @param position the same place as the client counts it.
 */
export function describeSyntaxError(
  text: string,
  offset: number,
  position: number,
  expected: readonly Expectation[],
  options: LexerOptions,
): SqlError {
  const rest = text.slice(offset);
  const bytes = Buffer.from(rest);
  const scanner = new TokenScanner(bytes, 0, bytes.length, options);
  scanner.next();
  const detail = describeExpected(expected);
  if (scanner.kind === "end") {
    return new SqlError("syntax_error", "syntax error at end of input", { position, detail });
  }
  if (scanner.kind === "unterminated") {
    return new SqlError("syntax_error", unterminatedMessage(rest), { position });
  }
  if (/^u&['"]/i.test(rest)) {
    return new SqlError("feature_not_supported", "Unicode escapes with U& are not supported here", {
      position,
      hint: "Write the characters themselves, or use an E'…' string.",
    });
  }
  const near = describeToken(scanner, bytes, text.slice(0, offset), options);
  return new SqlError("syntax_error", `syntax error at or near ${near}`, { position, detail });
}
