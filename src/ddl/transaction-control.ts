/** The statements that begin, end and mark transactions (PostgreSQL's TransactionStmt), told by the lexer alone. */

import { type LexerOptions, TokenScanner } from "./lexer.ts";
import { foldIdentifier, isReservedWord } from "./reserved-words.ts";
import { mayBeComment, skipWhitespace, wordEnd } from "./statement-start.ts";

export type TransactionControl =
  /** BEGIN and START TRANSACTION, whatever their modes. */
  | { readonly kind: "begin" }
  /** COMMIT and END; `chain` is AND CHAIN. */
  | { readonly kind: "commit"; readonly chain: boolean }
  /** ROLLBACK and ABORT of the whole transaction. */
  | { readonly kind: "rollback"; readonly chain: boolean }
  /** Names are folded and cut as PostgreSQL does, so that equal ones mean the same savepoint. */
  | { readonly kind: "savepoint"; readonly name: string }
  | { readonly kind: "rollback_to"; readonly name: string }
  | { readonly kind: "release"; readonly name: string }
  | { readonly kind: "prepare_transaction" };

/** The words that a TransactionStmt can begin with. */
const firstWords = [
  "begin",
  "commit",
  "rollback",
  "start",
  "savepoint",
  "end",
  "release",
  "abort",
  "prepare",
] as const;

type FirstWord = (typeof firstWords)[number];

/** First letter in either case → the words that begin with it. */
const wordsByLetter: readonly (readonly FirstWord[] | undefined)[] = Array.from(
  { length: 256 },
  (_, byte) => {
    const words = firstWords.filter((word) => word.charCodeAt(0) === (byte | 0x20));
    return words.length > 0 && byte >= 0x41 ? words : undefined;
  },
);

/** Longest name in bytes (PostgreSQL's NAMEDATALEN - 1); what is longer is cut. */
const maxNameBytes = 63;

const on: LexerOptions = { standardConformingStrings: true };

/**
 * Whether {@link parseTransactionControl} might find something. `false` is certain. Reads bytes only.
 *
 * @param end position after the text's last byte, its terminating NUL excluded.
 */
export function mayBeTransactionControl(text: Buffer, start: number, end: number): boolean {
  const at = skipWhitespace(text, start, end);
  if (at === end) return false;
  const words = wordsByLetter[text[at] ?? 0];
  if (words === undefined) return mayBeComment(text, at, end);
  for (const word of words) {
    const after = wordEnd(text, at, end, word);
    if (after < 0) continue;
    if (word !== "prepare") return true;
    // PREPARE of a statement is common; PREPARE TRANSACTION is not.
    const second = skipWhitespace(text, after, end);
    return mayBeComment(text, second, end) || wordEnd(text, second, end, "transaction") >= 0;
  }
  return false;
}

/** Cuts a name at 63 bytes, but not within a character. */
function cutName(name: string): string {
  if (Buffer.byteLength(name) <= maxNameBytes) return name;
  let cut = "";
  let bytes = 0;
  for (const character of name) {
    bytes += Buffer.byteLength(character);
    if (bytes > maxNameBytes) break;
    cut += character;
  }
  return cut;
}

/** Bytes that are not UTF-8 (another client encoding) stay distinct. */
function decode(bytes: Buffer): string {
  const text = bytes.toString("utf8");
  return text.includes("\ufffd") ? bytes.toString("latin1") : text;
}

/** The inside of U&"…", its escapes decoded (PostgreSQL manual, 4.1.2.3). */
function decodeUnicodeEscapes(body: string, marker: string): string {
  const escaped = `\\u{${marker.codePointAt(0)?.toString(16)}}`;
  const pattern = new RegExp(`${escaped}(?:(${escaped})|([0-9A-Fa-f]{4})|\\+([0-9A-Fa-f]{6}))`, "gu");
  return body.replaceAll(pattern, (whole, doubled?: string, short?: string, long?: string) => {
    if (doubled !== undefined) return marker;
    const codePoint = Number.parseInt(short ?? long ?? "", 16);
    return codePoint <= 0x10ffff ? String.fromCodePoint(codePoint) : whole;
  });
}

/** Reads a statement token by token; each `take` moves on when it finds what it asks for. */
class Reader {
  readonly #token: TokenScanner;
  readonly #text: Buffer;

  constructor(text: Buffer, start: number, end: number, options: LexerOptions) {
    this.#text = text;
    this.#token = new TokenScanner(text, start, end, options);
    this.#token.next();
  }

  takeWord(...words: readonly string[]): string | undefined {
    const word = words.find((candidate) => this.#token.isWord(candidate));
    if (word !== undefined) this.#token.next();
    return word;
  }

  takeComma(): boolean {
    const isComma = this.#token.isSymbol(",");
    if (isComma) this.#token.next();
    return isComma;
  }

  takeString(): boolean {
    const isString = this.#token.kind === "string";
    if (isString) this.#token.next();
    return isString;
  }

  takeName(): string | undefined {
    const { kind, start, end } = this.#token;
    const written = decode(this.#text.subarray(start, end));
    if (kind === "word" && !isReservedWord(written)) {
      this.#token.next();
      return cutName(foldIdentifier(written));
    }
    if (kind !== "quoted_identifier") return undefined;
    this.#token.next();
    const body = written.slice(written.indexOf('"') + 1, -1).replaceAll('""', '"');
    const name = written.startsWith('"') ? body : decodeUnicodeEscapes(body, this.#takeEscape());
    return name === "" ? undefined : cutName(name);
  }

  isAtEnd(): boolean {
    return this.#token.kind === "end" || this.#token.isSymbol(";");
  }

  /** Whether nothing follows but semicolons. */
  isFinished(): boolean {
    while (this.#token.isSymbol(";")) this.#token.next();
    return this.#token.kind === "end";
  }

  /** The character of UESCAPE 'c', or a backslash. */
  #takeEscape(): string {
    if (this.takeWord("uescape") === undefined || this.#token.kind !== "string") return "\\";
    const { start, end } = this.#token;
    this.#token.next();
    return this.#text.toString("latin1", start + 1, end - 1).slice(0, 1) || "\\";
  }
}

function takeMode(reader: Reader): boolean {
  switch (reader.takeWord("isolation", "read", "deferrable", "not")) {
    case "isolation": {
      if (reader.takeWord("level") === undefined) return false;
      const level = reader.takeWord("read", "repeatable", "serializable");
      if (level === "read") return reader.takeWord("committed", "uncommitted") !== undefined;
      return level === "repeatable" ? reader.takeWord("read") !== undefined : level !== undefined;
    }
    case "read":
      return reader.takeWord("only", "write") !== undefined;
    case "not":
      return reader.takeWord("deferrable") !== undefined;
    case "deferrable":
      return true;
    default:
      return false;
  }
}

function readBegin(reader: Reader): TransactionControl | undefined {
  if (reader.isAtEnd()) return { kind: "begin" };
  // The modes of PostgreSQL's list may be divided by commas or by nothing.
  do {
    if (!takeMode(reader)) return undefined;
  } while (reader.takeComma() || !reader.isAtEnd());
  return { kind: "begin" };
}

function readSavepointName(reader: Reader): string | undefined {
  const word = reader.takeWord("savepoint");
  // SAVEPOINT is optional and no reserved word: RELEASE savepoint names one.
  return word !== undefined && reader.isAtEnd() ? word : reader.takeName();
}

function readEnd(reader: Reader, kind: "commit" | "rollback"): TransactionControl | undefined {
  reader.takeWord("work", "transaction");
  if (kind === "rollback" && reader.takeWord("to") !== undefined) {
    const name = readSavepointName(reader);
    return name === undefined ? undefined : { kind: "rollback_to", name };
  }
  if (reader.takeWord("and") === undefined) return { kind, chain: false };
  const isNo = reader.takeWord("no") !== undefined;
  return reader.takeWord("chain") === undefined ? undefined : { kind, chain: !isNo };
}

function read(reader: Reader): TransactionControl | undefined {
  const first = reader.takeWord(...firstWords) as FirstWord | undefined;
  switch (first) {
    case "begin":
      reader.takeWord("work", "transaction");
      return readBegin(reader);
    case "start":
      return reader.takeWord("transaction") === undefined ? undefined : readBegin(reader);
    case "commit":
    case "end":
      return readEnd(reader, "commit");
    case "rollback":
      return readEnd(reader, "rollback");
    case "abort": {
      const control = readEnd(reader, "rollback");
      return control?.kind === "rollback_to" ? undefined : control;
    }
    case "savepoint": {
      const name = reader.takeName();
      return name === undefined ? undefined : { kind: "savepoint", name };
    }
    case "release": {
      const name = readSavepointName(reader);
      return name === undefined ? undefined : { kind: "release", name };
    }
    case "prepare": {
      const isTransaction = reader.takeWord("transaction") !== undefined && reader.takeString();
      return isTransaction ? { kind: "prepare_transaction" } : undefined;
    }
    case undefined:
      return undefined;
  }
}

/**
 * What the single statement between two positions does to the transaction (a trailing semicolon is fine).
 *
 * @returns undefined for every other statement: COMMIT PREPARED and ROLLBACK PREPARED, which end a transaction of
 *   nobody's session, and what PostgreSQL will refuse as a syntax error.
 */
export function parseTransactionControl(
  text: Buffer,
  start: number,
  end: number,
  options: LexerOptions = on,
): TransactionControl | undefined {
  if (!mayBeTransactionControl(text, start, end)) return undefined;
  const reader = new Reader(text, start, end, options);
  const control = read(reader);
  return reader.isFinished() ? control : undefined;
}
