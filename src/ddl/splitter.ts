/** Cuts the text of a simple Query into its statements, where PostgreSQL's grammar would. */

import { type LexerOptions, TokenScanner } from "./lexer.ts";

/** One statement: `start` is at its first token, `end` is its semicolon or the end of the text. */
export interface StatementRange {
  readonly start: number;
  readonly end: number;
}

/** Follows the first words of a statement: is it CREATE [OR REPLACE] FUNCTION | PROCEDURE? */
type Head = "start" | "create" | "or" | "replace" | "routine" | "other";

function nextHead(head: Head, token: TokenScanner): Head {
  switch (head) {
    case "start":
      return token.isWord("create") ? "create" : "other";
    case "create":
      if (token.isWord("or")) return "or";
      return token.isWord("function") || token.isWord("procedure") ? "routine" : "other";
    case "or":
      return token.isWord("replace") ? "replace" : "other";
    case "replace":
      return token.isWord("function") || token.isWord("procedure") ? "routine" : "other";
    default:
      return head;
  }
}

/** What precedes a word of a routine's body and changes how it counts. */
type Previous = "begin" | "label" | "other";

/**
 * Counts the BEGIN ATOMIC … END and CASE … END that are open in a CREATE FUNCTION or PROCEDURE. Unlike psql,
 * which counts every BEGIN, it asks for ATOMIC (a routine may be named begin), and END after AS or a dot is a
 * label.
 */
class RoutineBody {
  depth = 0;
  #previous: Previous = "other";

  follow(token: TokenScanner): void {
    if (this.depth === 0) {
      if (this.#previous === "begin" && token.isWord("atomic")) this.depth = 1;
    } else if (this.#previous !== "label") {
      if (token.isWord("case")) this.depth++;
      else if (token.isWord("end")) this.depth--;
    }
    if (token.isWord("begin")) this.#previous = "begin";
    else this.#previous = token.isWord("as") || token.isSymbol(".") ? "label" : "other";
  }
}

/**
 * Finds the statements of `text` between two byte positions, in their order; empty ones are left out. Semicolons inside
 * quotes, comments, parentheses (CREATE RULE … DO (a; b)) and SQL-standard routine bodies do not split. A quote or comment
 * that is never closed makes the rest one statement, so that PostgreSQL reports it.
 *
 * @param onStatement is told the positions of `StatementRange`; true ends the search
 */
export function findStatements(
  text: Buffer,
  start: number,
  end: number,
  options: LexerOptions,
  onStatement: (start: number, end: number) => boolean,
): void {
  const token = new TokenScanner(text, start, end, options);
  let statementStart = -1;
  let head: Head = "start";
  let parenthesisDepth = 0;
  let body: RoutineBody | undefined;
  while (token.next() !== "end") {
    if (token.isSymbol(";") && parenthesisDepth === 0 && (body?.depth ?? 0) === 0) {
      if (statementStart >= 0 && onStatement(statementStart, token.start)) return;
      statementStart = -1;
      head = "start";
      body = undefined;
      continue;
    }
    if (statementStart < 0) statementStart = token.start;
    if (token.isSymbol("(")) parenthesisDepth++;
    else if (token.isSymbol(")") && parenthesisDepth > 0) parenthesisDepth--;
    head = nextHead(head, token);
    if (head === "routine" && parenthesisDepth === 0) {
      body ??= new RoutineBody();
      body.follow(token);
    }
  }
  if (statementStart >= 0) onStatement(statementStart, end);
}

/** The statements that `findStatements` finds, as a list. */
export function splitStatements(
  text: Buffer,
  start: number,
  end: number,
  options: LexerOptions,
): StatementRange[] {
  const statements: StatementRange[] = [];
  findStatements(text, start, end, options, (statementStart, statementEnd) => {
    statements.push({ start: statementStart, end: statementEnd });
    return false;
  });
  return statements;
}
