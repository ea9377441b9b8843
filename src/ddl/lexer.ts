/** Byte-level SQL lexer: cuts tokens where PostgreSQL's scan.l does (PostgreSQL manual, chapter 4.1), without decoding. */

/** The settings of a session that change how its SQL text is read. */
export interface LexerOptions {
  /** The session's `standard_conforming_strings`: off gives backslashes a meaning in plain '…' too. */
  readonly standardConformingStrings: boolean;
}

/**
 * `symbol` is one byte of punctuation; `other` a number or a parameter ($1); `unterminated` a quote or a
 * comment that is never closed, which takes the rest of the text.
 */
export type TokenKind = "word" | "quoted_identifier" | "string" | "symbol" | "other" | "unterminated" | "end";

const blank = 1;
const identifierStart = 2;
const digit = 4;
const dollar = 8;
const identifierPart = identifierStart | digit | dollar;

/** Class of every byte; bytes from 0x80 are identifier bytes in each ASCII-superset encoding. */
const byteClass: Readonly<Uint8Array> = Uint8Array.from({ length: 256 }, (_, byte) => {
  if ([0x20, 0x09, 0x0a, 0x0b, 0x0c, 0x0d].includes(byte)) return blank;
  if (byte >= 0x80 || byte === 0x5f) return identifierStart;
  if ((byte | 0x20) >= 0x61 && (byte | 0x20) <= 0x7a) return identifierStart;
  if (byte >= 0x30 && byte <= 0x39) return digit;
  return byte === 0x24 ? dollar : 0;
});

function isA(byte: number | undefined, mask: number): boolean {
  return byte !== undefined && ((byteClass[byte] ?? 0) & mask) !== 0;
}

/** Whether the byte is whitespace to PostgreSQL's scanner. */
export function isBlank(byte: number | undefined): boolean {
  return isA(byte, blank);
}

/** Whether the byte may stand inside an unquoted identifier or keyword. */
export function isIdentifierPart(byte: number | undefined): boolean {
  return isA(byte, identifierPart);
}

const quote = 0x27;
const doubleQuote = 0x22;
const backslash = 0x5c;
const dash = 0x2d;
const slash = 0x2f;
const star = 0x2a;

/** Position of the first byte at or after `position` that ends the line, or `limit`. */
function lineEnd(text: Buffer, position: number, limit: number): number {
  let at = position;
  while (at < limit && text[at] !== 0x0a && text[at] !== 0x0d) at++;
  return at;
}

/** Position after a block comment that begins at `position`, or -1 when it is never closed. Comments nest. */
function blockCommentEnd(text: Buffer, position: number, limit: number): number {
  let depth = 1;
  for (let at = position + 2; at + 1 < limit; at++) {
    if (text[at] === star && text[at + 1] === slash) {
      at++;
      depth--;
      if (depth === 0) return at + 1;
    } else if (text[at] === slash && text[at + 1] === star) {
      at++;
      depth++;
    }
  }
  return -1;
}

/** Position of the next token: past whitespace and comments, but at the start of a comment that is never closed. */
function skipBlank(text: Buffer, position: number, limit: number): number {
  let at = position;
  while (at < limit) {
    const byte = text[at];
    const next = at + 1 < limit ? text[at + 1] : undefined;
    if (isBlank(byte)) at++;
    else if (byte === dash && next === dash) at = lineEnd(text, at, limit);
    else if (byte === slash && next === star) {
      const end = blockCommentEnd(text, at, limit);
      if (end < 0) return at;
      at = end;
    } else return at;
  }
  return limit;
}

/** How a quoted string reads its inside: B'' and X'' know no doubled quote, E'' knows backslashes. */
type StringStyle = "plain" | "escape" | "bits";

/** Position after the closing quote of one part of a string, or -1. */
function stringPartEnd(text: Buffer, position: number, limit: number, style: StringStyle): number {
  let at = position;
  while (at < limit) {
    if (style === "escape") {
      while (at < limit && text[at] !== quote) at += text[at] === backslash ? 2 : 1;
    } else at = text.indexOf(quote, at);
    if (at < 0 || at >= limit) return -1;
    if (style === "bits" || at + 1 >= limit || text[at + 1] !== quote) return at + 1;
    at += 2;
  }
  return -1;
}

/** Position after the quote that continues a string on a later line (whitespace and -- comments between), or -1. */
function continuationStart(text: Buffer, position: number, limit: number): number {
  let seenNewline = false;
  let at = position;
  while (at < limit) {
    const byte = text[at];
    if (byte === quote) return seenNewline ? at + 1 : -1;
    if (byte === dash && at + 1 < limit && text[at + 1] === dash) at = lineEnd(text, at, limit);
    else if (isBlank(byte)) {
      seenNewline ||= byte === 0x0a || byte === 0x0d;
      at++;
    } else return -1;
  }
  return -1;
}

function stringEnd(text: Buffer, afterQuote: number, limit: number, style: StringStyle): number {
  let part = afterQuote;
  for (;;) {
    const end = stringPartEnd(text, part, limit, style);
    if (end < 0) return -1;
    part = continuationStart(text, end, limit);
    if (part < 0) return end;
  }
}

function quotedIdentifierEnd(text: Buffer, afterQuote: number, limit: number): number {
  let at = afterQuote;
  for (;;) {
    at = text.indexOf(doubleQuote, at);
    if (at < 0 || at >= limit) return -1;
    if (at + 1 >= limit || text[at + 1] !== doubleQuote) return at + 1;
    at += 2;
  }
}

/** Position after the dollar sign that completes `$tag$` at `position`, or -1 when no dollar quote begins there. */
function dollarTagEnd(text: Buffer, position: number, limit: number): number {
  let at = position + 1;
  if (at < limit && isA(text[at], identifierStart)) {
    while (at < limit && isA(text[at], identifierStart | digit)) at++;
  }
  return at < limit && text[at] === 0x24 ? at + 1 : -1;
}

/** Walks the tokens of `text` between two positions; never reads a byte at or after the second. */
export class TokenScanner {
  kind: TokenKind = "end";
  /** Bounds of the current token. */
  start: number;
  end: number;
  readonly #text: Buffer;
  readonly #limit: number;
  readonly #plainStyle: StringStyle;

  constructor(text: Buffer, start: number, end: number, options: LexerOptions) {
    this.start = start;
    this.end = start;
    this.#text = text;
    this.#limit = end;
    this.#plainStyle = options.standardConformingStrings ? "plain" : "escape";
  }

  /** Moves to the next token and says what it is. */
  next(): TokenKind {
    const start = skipBlank(this.#text, this.end, this.#limit);
    this.start = start;
    const byte = this.#at(start);
    if (byte === undefined) return this.#token("end", this.#limit);
    if (isA(byte, identifierStart)) return this.#wordOrPrefixedString(start, byte);
    if (byte === quote) return this.#string(start + 1, this.#plainStyle);
    if (byte === doubleQuote) return this.#quotedIdentifier(start + 1);
    if (byte === 0x24) return this.#parameterOrDollarQuote(start);
    if (isA(byte, digit)) return this.#number(start);
    // skipBlank passes every comment but one that is never closed.
    if (byte === slash && this.#at(start + 1) === star) return this.#token("unterminated", this.#limit);
    return this.#token("symbol", start + 1);
  }

  /** Whether the current token is this unquoted word, given in lower case. */
  isWord(word: string): boolean {
    if (this.kind !== "word" || this.end - this.start !== word.length) return false;
    for (let index = 0; index < word.length; index++) {
      const byte = this.#text[this.start + index] ?? 0;
      const folded = byte >= 0x41 && byte <= 0x5a ? byte | 0x20 : byte;
      if (folded !== word.charCodeAt(index)) return false;
    }
    return true;
  }

  /** Whether the current token is this character. */
  isSymbol(character: string): boolean {
    return this.kind === "symbol" && this.#text[this.start] === character.charCodeAt(0);
  }

  #at(position: number): number | undefined {
    return position < this.#limit ? this.#text[position] : undefined;
  }

  #token(kind: TokenKind, end: number): TokenKind {
    this.end = end;
    this.kind = kind;
    return kind;
  }

  /** Ends a quoted token at `end`, or takes the rest of the text when that is -1. */
  #quoted(kind: TokenKind, end: number): TokenKind {
    return end < 0 ? this.#token("unterminated", this.#limit) : this.#token(kind, end);
  }

  #string(afterQuote: number, style: StringStyle): TokenKind {
    return this.#quoted("string", stringEnd(this.#text, afterQuote, this.#limit, style));
  }

  #quotedIdentifier(afterQuote: number): TokenKind {
    return this.#quoted("quoted_identifier", quotedIdentifierEnd(this.#text, afterQuote, this.#limit));
  }

  #wordOrPrefixedString(start: number, byte: number): TokenKind {
    const letter = byte | 0x20;
    const next = this.#at(start + 1);
    if (next === quote) {
      if (letter === 0x65) return this.#string(start + 2, "escape");
      if (letter === 0x62 || letter === 0x78) return this.#string(start + 2, "bits");
      if (letter === 0x6e) return this.#string(start + 2, this.#plainStyle);
    } else if (letter === 0x75 && next === 0x26) {
      if (this.#at(start + 2) === quote) return this.#string(start + 3, "plain");
      if (this.#at(start + 2) === doubleQuote) return this.#quotedIdentifier(start + 3);
    }
    return this.#token("word", this.#skip(start + 1, identifierPart));
  }

  #parameterOrDollarQuote(start: number): TokenKind {
    if (isA(this.#at(start + 1), digit)) return this.#token("other", this.#skip(start + 1, digit));
    const bodyStart = dollarTagEnd(this.#text, start, this.#limit);
    if (bodyStart < 0) return this.#token("symbol", start + 1);
    const tag = this.#text.subarray(start, bodyStart);
    const close = this.#text.indexOf(tag, bodyStart);
    const end = close < 0 || close + tag.length > this.#limit ? -1 : close + tag.length;
    return this.#quoted("string", end);
  }

  /** A number and whatever sticks to it; `1$$` is a number and a dollar quote, as in scan.l. */
  #number(start: number): TokenKind {
    const end = this.#skip(start, digit);
    return this.#token("other", isA(this.#at(end), identifierStart) ? this.#skip(end, identifierPart) : end);
  }

  #skip(position: number, mask: number): number {
    let at = position;
    while (at < this.#limit && isA(this.#text[at], mask)) at++;
    return at;
  }
}
