/** Parses one statement of the front-end's own, or hands it back to PostgreSQL. */

import { SqlError } from "../errors/sql-error.ts";
import { SyntaxError as GrammarError, parse } from "./auth-parser.js";
import { buildStatement } from "./build-statement.ts";
import { staysUpstream } from "./build-user.ts";
import type { PositionOf } from "./build-values.ts";
import { isOurs } from "./classify.ts";
import { type LexerOptions, TokenScanner } from "./lexer.ts";
import { isReservedWord } from "./reserved-words.ts";
import type { Statement } from "./statement.ts";
import type { StatementSyntax } from "./statement-syntax.ts";
import { refuseLongStatement } from "./statement-text.ts";
import { describeSyntaxError } from "./syntax-error.ts";

/** Counts characters as PostgreSQL does: a surrogate pair is one. */
function characterPositions(text: string): PositionOf {
  const pairs = Array.from(text.matchAll(/[\ud800-\udbff][\udc00-\udfff]/g), ({ index }) => index);
  return (offset) => {
    let low = 0;
    let high = pairs.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((pairs[middle] ?? 0) < offset) low = middle + 1;
      else high = middle;
    }
    return offset - low + 1;
  };
}

/**
 * Whether a statement that the grammar refuses is PostgreSQL's to refuse: a ROLE or GROUP spelling without what only our
 * grammar knows and without a string, which may be a password behind a misspelt PASSWORD: PostgreSQL would log it.
 */
function isRefusedUpstream(text: string, bytes: Buffer, options: LexerOptions): boolean {
  const scanner = new TokenScanner(bytes, 0, bytes.length, options);
  scanner.next();
  if (!scanner.isWord("create") && !scanner.isWord("alter") && !scanner.isWord("drop")) return false;
  scanner.next();
  if (!scanner.isWord("role") && !scanner.isWord("group")) return false;
  if (/login|password|\bif\s+not\b|\bset\s+inherit\b/i.test(text)) return false;
  while (scanner.next() !== "end") {
    if (scanner.kind === "string" || scanner.kind === "unterminated") return false;
  }
  return true;
}

/** Turns the end of what the lexer reads of a predicate into an offset of the parser. */
function findPredicateEnd(text: string, offset: number, options: LexerOptions): number {
  const bytes = Buffer.from(text.slice(offset));
  const token = new TokenScanner(bytes, 0, bytes.length, options);
  let depth = 1;
  while (depth > 0 && token.next() !== "end" && token.kind !== "unterminated") {
    if (token.isSymbol("(")) depth++;
    else if (token.isSymbol(")")) depth--;
    else if (token.isSymbol(";")) break;
  }
  return offset + bytes.toString("utf8", 0, token.start).length;
}

/** Whether the grammar understands a statement that is PostgreSQL's to run. */
function isForPostgres(syntax: StatementSyntax): boolean {
  switch (syntax.type) {
    case "create":
      return staysUpstream(syntax);
    case "grant_connect":
      return syntax.hasOptions;
    default:
      return false;
  }
}

/**
 * Parses the text of one statement (a trailing semicolon is fine).
 *
 * @returns "forward" when the statement belongs to PostgreSQL: it does not begin as one of ours, or it is a ROLE
 *   spelling about a role of PostgreSQL's own, or one that the grammar does not know and that holds no string, or a
 *   GRANT CONNECT with options (WITH GRANT OPTION, GRANTED BY) that the catalog does not keep.
 * @throws SqlError syntax_error with the position, in characters within `text`, and what was expected;
 *   feature_not_supported, invalid_parameter_value, reserved_name, character_not_in_repertoire for what the
 *   statement says; program_limit_exceeded and statement_too_complex for what it costs. No message holds a
 *   literal of the statement.
 */
export function parseStatement(
  text: string,
  options: LexerOptions = { standardConformingStrings: true },
): Statement | "forward" {
  refuseLongStatement(text.length);
  const bytes = Buffer.from(text);
  refuseLongStatement(bytes.length);
  if (!isOurs(bytes, 0, bytes.length, options)) return "forward";
  const positionOf = characterPositions(text);
  try {
    const syntax: StatementSyntax = parse(text, {
      isReserved: isReservedWord,
      standardConformingStrings: options.standardConformingStrings,
      findPredicateEnd: (whole: string, offset: number) => findPredicateEnd(whole, offset, options),
    });
    return isForPostgres(syntax) ? "forward" : buildStatement(syntax, positionOf);
  } catch (error) {
    if (error instanceof GrammarError) {
      if (isRefusedUpstream(text, bytes, options)) return "forward";
      const { offset } = error.location.start;
      throw describeSyntaxError(text, offset, positionOf(offset), error.expected, options);
    }
    // The generated parser recurses for each nested comment; V8 reports an exhausted stack as a RangeError.
    if (error instanceof RangeError) {
      throw new SqlError("statement_too_complex", "statement is nested too deeply", { cause: error });
    }
    throw error;
  }
}
