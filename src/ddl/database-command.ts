/** Which databases a text creates from, alters or drops: those that PostgreSQL wants free of other connections. */

import { type LexerOptions, TokenScanner } from "./lexer.ts";
import { findStatements } from "./splitter.ts";

/** Far cheaper than the lexer, for the texts of many statements that have none of these among them. */
const mentionsDatabase = /database/i;

/**
 * Every name in the CREATE, ALTER and DROP DATABASE statements of a text, for example the new database's, its template's
 * and its owner's. A name too many does no harm to who closes idle connections; none is missing but for those written as
 * U&"…", or in an encoding other than UTF-8 and beyond ASCII.
 */
export function namesInDatabaseCommands(
  text: Buffer,
  start: number,
  end: number,
  options: LexerOptions,
): readonly string[] {
  if (!mentionsDatabase.test(text.toString("latin1", start, end))) return [];
  const names: string[] = [];
  findStatements(text, start, end, options, (statementStart, statementEnd) => {
    const token = new TokenScanner(text, statementStart, statementEnd, options);
    token.next();
    if (!token.isWord("create") && !token.isWord("alter") && !token.isWord("drop")) return false;
    token.next();
    if (!token.isWord("database")) return false;
    while (token.next() !== "end") {
      if (token.kind === "word") names.push(fold(text.toString("utf8", token.start, token.end)));
      else if (token.kind === "quoted_identifier") {
        names.push(text.toString("utf8", token.start + 1, token.end - 1).replaceAll('""', '"'));
      }
    }
    return false;
  });
  return names;
}

/** As PostgreSQL folds an unquoted name in UTF-8: the letters of ASCII only. */
function fold(word: string): string {
  return word.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}
