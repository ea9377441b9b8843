/** Parses one statement of the front-end's own, or hands it back to PostgreSQL. */

import { SqlError } from "../errors/sql-error.ts";
import { SyntaxError as GrammarError, parse } from "./auth-parser.js";
import { buildStatement, type PositionOf } from "./build-statement.ts";
import { isOurs } from "./classify.ts";
import { type LexerOptions, TokenScanner } from "./lexer.ts";
import { isReservedWord } from "./reserved-words.ts";
import type { Statement } from "./statement.ts";
import type { OptionSyntax, StatementSyntax } from "./statement-syntax.ts";
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

/** Whether the second keyword is ROLE. */
function isRoleSpelling(bytes: Buffer, options: LexerOptions): boolean {
  const scanner = new TokenScanner(bytes, 0, bytes.length, options);
  scanner.next();
  scanner.next();
  return scanner.isWord("role");
}

function isLoginOrPassword(option: OptionSyntax): boolean {
  if (option.type === "password") return option.value !== null;
  return option.word === "LOGIN" || option.word === "UNENCRYPTED PASSWORD";
}

/** Options of ALTER that the catalog keeps for a user. */
function isKeptForUsers(option: OptionSyntax): boolean {
  return option.type !== "flag" || option.word === "LOGIN" || option.word === "NOLOGIN";
}

/**
 * Whether a ROLE spelling is about a role of PostgreSQL's own. A statement with a password never is: PostgreSQL
 * would write it to its log.
 */
function staysUpstream(syntax: StatementSyntax): boolean {
  if (syntax.type !== "create" && syntax.type !== "alter") return false;
  if (syntax.spelling === "USER") return false;
  return !syntax.options.some(syntax.type === "create" ? isLoginOrPassword : isKeptForUsers);
}

/**
 * Parses the text of one statement (a trailing semicolon is fine).
 *
 * @returns "forward" when the statement belongs to PostgreSQL: it does not begin as one of ours, or it is a ROLE
 *   spelling about a role that is not a user, or one that the grammar does not know and that holds no password.
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
    });
    return staysUpstream(syntax) ? "forward" : buildStatement(syntax, positionOf);
  } catch (error) {
    if (error instanceof GrammarError) {
      if (isRoleSpelling(bytes, options) && !/login|password/i.test(text)) return "forward";
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
