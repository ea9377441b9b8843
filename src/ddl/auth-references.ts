/** Finds and replaces `$auth.…` in a statement: the claims of the identity that runs it (auth SQL: row-level security). */

import { SqlError } from "../errors/sql-error.ts";
import { type LexerOptions, TokenScanner } from "./lexer.ts";
import { foldIdentifier } from "./reserved-words.ts";

/** One reference; bounds are byte positions in the statement. */
export interface AuthReference {
  readonly start: number;
  readonly end: number;
  /** What follows `$auth.`, folded to lower case unless it was quoted. */
  readonly name: string;
  /** The string literal of `$auth.scopes CONTAINS 'x'` as it is written, quotes included: it may be sent on as SQL. */
  readonly contains?: string;
}

const dollar = 0x24;
const dot = 0x2e;
const doubleQuote = 0x22;
const prefix = "$auth.";

const on: LexerOptions = { standardConformingStrings: true };

/** @throws SqlError character_not_in_repertoire when the bytes are not UTF-8: they go into new SQL text. */
function decode(text: Buffer, start: number, end: number): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(text.subarray(start, end));
  } catch (error) {
    throw new SqlError("character_not_in_repertoire", "a $auth reference has to be valid in UTF8", {
      cause: error,
    });
  }
}

function isPrefixAt(text: Buffer, position: number, end: number): boolean {
  if (position + prefix.length > end) return false;
  for (let index = 0; index < prefix.length; index++) {
    const byte = text[position + index] ?? 0;
    // Only letters have two cases: setting the bit in others would take another byte for a dollar or a dot.
    const folded = byte >= 0x41 && byte <= 0x5a ? byte | 0x20 : byte;
    if (folded !== prefix.charCodeAt(index)) return false;
  }
  return true;
}

/**
 * The hot path's question: might a reference stand between two positions? `false` is certain. Native search for the
 * dollar sign, no decoding.
 */
export function mayHoldAuthReference(text: Buffer, start: number, end: number): boolean {
  let at = text.indexOf(dollar, start);
  while (at >= 0 && at < end) {
    if (isPrefixAt(text, at, end)) return true;
    at = text.indexOf(dollar, at + 1);
  }
  return false;
}

/** The name's token directly behind `$auth.`, or undefined when there is none. */
function readName(token: TokenScanner, text: Buffer): string | undefined {
  // `auth`, the dot and the name: each has to touch the one before it.
  token.next();
  const afterAuth = token.end;
  token.next();
  if (token.start !== afterAuth || text[token.start] !== dot) return undefined;
  const afterDot = token.end;
  token.next();
  if (token.start !== afterDot) return undefined;
  if (token.kind === "word") return foldIdentifier(decode(text, token.start, token.end));
  if (token.kind !== "quoted_identifier" || text[token.start] !== doubleQuote) return undefined;
  return decode(text, token.start + 1, token.end - 1).replaceAll('""', '"');
}

/** Looks behind a reference without moving the scanner that found it. */
function readContains(
  text: Buffer,
  start: number,
  limit: number,
  options: LexerOptions,
): { readonly end: number; readonly contains: string } | undefined {
  const token = new TokenScanner(text, start, limit, options);
  token.next();
  if (!token.isWord("contains")) return undefined;
  token.next();
  return token.kind === "string"
    ? { end: token.end, contains: decode(text, token.start, token.end) }
    : undefined;
}

/**
 * The references between two positions, in their order. Inside string constants, quoted identifiers, comments and
 * dollar quotes there are none, and `a$auth.x` is a column of a table named `a$auth`.
 *
 * @throws SqlError character_not_in_repertoire when a reference is not UTF-8.
 */
export function findAuthReferences(
  text: Buffer,
  start: number,
  end: number,
  options: LexerOptions = on,
): AuthReference[] {
  const references: AuthReference[] = [];
  if (!mayHoldAuthReference(text, start, end)) return references;
  let token = new TokenScanner(text, start, end, options);
  while (token.next() !== "end") {
    if (!token.isSymbol("$") || !isPrefixAt(text, token.start, end)) continue;
    const referenceStart = token.start;
    const name = readName(token, text);
    if (name === undefined) {
      token = new TokenScanner(text, referenceStart + 1, end, options);
      continue;
    }
    const reference = { start: referenceStart, end: token.end, name };
    const tail = name === "scopes" ? readContains(text, token.end, end, options) : undefined;
    references.push(tail === undefined ? reference : { ...reference, ...tail });
    if (tail !== undefined) token = new TokenScanner(text, tail.end, end, options);
  }
  return references;
}

/**
 * The statement with each reference replaced; all other bytes stay what they are.
 *
 * @param replace gives SQL text in parentheses, so that it cannot grow together with what stands beside it; it may throw for a name that it does not know.
 * @returns the same buffer when there is no reference.
 * @throws SqlError character_not_in_repertoire when a reference is not UTF-8.
 */
export function rewriteAuthReferences(
  text: Buffer,
  replace: (reference: AuthReference) => string,
  options: LexerOptions = on,
): Buffer {
  const references = findAuthReferences(text, 0, text.length, options);
  if (references.length === 0) return text;
  const pieces: Buffer[] = [];
  let copied = 0;
  for (const reference of references) {
    pieces.push(text.subarray(copied, reference.start), Buffer.from(replace(reference)));
    copied = reference.end;
  }
  pieces.push(text.subarray(copied));
  return Buffer.concat(pieces);
}
