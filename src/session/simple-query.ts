/**
 * Runs a Query that holds statements of ours, or that ends a transaction with some, each in its place among the others
 * (PostgreSQL manual 54.2.2).
 */

import { isOurs } from "../ddl/classify.ts";
import type { LexerOptions } from "../ddl/lexer.ts";
import { lexicalText } from "../ddl/multibyte.ts";
import { findStatements } from "../ddl/splitter.ts";
import { parseTransactionControl, type TransactionControl } from "../ddl/transaction-control.ts";
import { encodeCommandComplete, encodeReadyForQuery } from "../wire/backend-message.ts";
import { encodeClose, encodeFlush, encodeQuery } from "../wire/frontend-message-encoding.ts";
import { encodeResultDescription } from "../wire/row-encoding.ts";
import { lendConnection } from "./client-connection.ts";
import { forwardText, type TextPart } from "./forward-text.ts";
import { failTransaction, moveError } from "./query-errors.ts";
import type { QuerySession } from "./query-session.ts";
import type { Relay } from "./relay.ts";
import { encodeNotices, encodeRows } from "./statement-runner.ts";
import { type ControlMode, runTransactionControl } from "./transaction-end.ts";

const closeUnnamed = Buffer.concat([encodeClose("statement", ""), encodeClose("portal", ""), encodeFlush()]);

/** A part of the text: one statement of ours, one that controls the transaction, or neighbours that are PostgreSQL's. */
interface Piece extends TextPart {
  readonly kind: "forward" | "ours" | "control";
  readonly control: TransactionControl | undefined;
}

/** True when the text ends, begins or marks a transaction somewhere. */
export function hasTransactionControl(relay: Relay, text: Buffer): boolean {
  let isFound = false;
  eachStatement(relay, text, (readable, start, end) => {
    isFound = parseTransactionControl(readable, start, end) !== undefined;
    return isFound;
  });
  return isFound;
}

/**
 * Runs the pieces one after the other until one fails, then sends the one ReadyForQuery that the client waits for. Several
 * statements outside a transaction block are one transaction, as in PostgreSQL: the front-end begins and commits it, because
 * the upstream gets them in several Querys.
 *
 * @param text of the Query, without its NUL
 */
export async function runSimpleQuery(session: QuerySession, text: Buffer): Promise<void> {
  const { relay, paired } = session;
  await relay.settle();
  // After an error in the extended protocol PostgreSQL discards this as well, without an answer.
  if (relay.isStopped || relay.ledger.isSkipping) return;
  const pieces = cutIntoPieces(relay, text);
  // What a pipeline did without a Sync is part of the transaction of the Query behind it.
  const isImplicit = pieces.length > 1 || paired.isOpen || relay.ledger.hasUnsynced;
  let isOwnBlock = false;
  let hasFailed = false;
  if (pieces[0]?.kind === "ours") await forgetUnnamed(relay);
  for (const piece of pieces) {
    if (relay.isStopped) return;
    const mayBegin = piece.control === undefined || (paired.isOpen && piece.control.kind !== "begin");
    if (isImplicit && relay.ledger.status === "I" && mayBegin) {
      await runQuietly(relay, "BEGIN");
      isOwnBlock = true;
    }
    if (isOwnBlock && piece.control !== undefined && piece.control.kind !== "begin") {
      // To PostgreSQL there is no block that this could be about: what it says to that, it says when ours is over.
      hasFailed = !(await endOwnBlock(session, isCommit(piece.control) ? "COMMIT" : "ROLLBACK"));
      if (hasFailed) break;
    }
    const isTakenOver = isOwnBlock && piece.control?.kind === "begin";
    isOwnBlock &&= piece.control === undefined;
    hasFailed = !(await runPiece(session, text, piece, isTakenOver ? "takes over" : "told"));
    if (relay.ledger.status === "I") isOwnBlock = false;
    if (hasFailed) break;
  }
  if (relay.isStopped) return;
  if (isOwnBlock) await endOwnBlock(session, hasFailed ? "ROLLBACK" : "COMMIT");
  else if (hasFailed && relay.ledger.status === "I") await paired.discard(relay.signal);
  if (!relay.isStopped) relay.writeToClient(encodeReadyForQuery(relay.ledger.status));
}

/** Whether what PostgreSQL does without a block that it could end is to commit. */
function isCommit(control: TransactionControl): boolean {
  return (control.kind === "commit" && !control.chain) || control.kind === "prepare_transaction";
}

/** @returns false when it failed, and the client has been told */
function endOwnBlock(session: QuerySession, how: "COMMIT" | "ROLLBACK"): Promise<boolean> {
  const text = Buffer.from(how, "latin1");
  const control = { kind: how === "COMMIT" ? "commit" : "rollback", chain: false } as const;
  return runTransactionControl(session, text, { start: 0, end: text.length, offset: 0 }, control, "silent");
}

function cutIntoPieces(relay: Relay, text: Buffer): Piece[] {
  const pieces: Piece[] = [];
  const characters = new CharacterCount(text);
  eachStatement(relay, text, (readable, start, end, options) => {
    const isOwn = isOurs(readable, start, end, options);
    const control = isOwn ? undefined : parseTransactionControl(readable, start, end);
    const last = pieces.at(-1);
    if (!isOwn && control === undefined && last?.kind === "forward") last.end = end;
    else {
      const kind = isOwn ? "ours" : control === undefined ? "forward" : "control";
      pieces.push({ kind, start, end, control, offset: characters.before(start) });
    }
    return false;
  });
  // Has an answer of its own.
  if (pieces.length === 0) pieces.push({ kind: "forward", start: 0, end: 0, control: undefined, offset: 0 });
  return pieces;
}

function eachStatement(
  relay: Relay,
  text: Buffer,
  onStatement: (readable: Buffer, start: number, end: number, options: LexerOptions) => boolean,
): void {
  const options = { standardConformingStrings: relay.standardConformingStrings };
  const readable = lexicalText(text, relay.clientEncoding);
  findStatements(readable, 0, readable.length, options, (start, end) =>
    onStatement(readable, start, end, options),
  );
}

/** Counts characters up to positions that only grow, so that many statements in one text are counted once. */
class CharacterCount {
  readonly #text: Buffer;
  #bytes = 0;
  #characters = 0;

  constructor(text: Buffer) {
    this.#text = text;
  }

  /** Characters, not bytes: PostgreSQL counts positions so. A byte that continues a UTF-8 character counts none. */
  before(position: number): number {
    for (; this.#bytes < position; this.#bytes += 1) {
      if (((this.#text[this.#bytes] ?? 0) & 0xc0) !== 0x80) this.#characters += 1;
    }
    return this.#characters;
  }
}

/** @returns false when it failed, and the client has been told */
async function runPiece(
  session: QuerySession,
  text: Buffer,
  piece: Piece,
  mode: ControlMode,
): Promise<boolean> {
  const { relay } = session;
  if (piece.control !== undefined) return runTransactionControl(session, text, piece, piece.control, mode);
  try {
    if (piece.kind === "ours") return await runOwn(session, text, piece);
    const part = text.subarray(piece.start, piece.end);
    const rewritten = session.runner.rewriteAuth(part);
    if (rewritten === part) return await forwardText(relay, text, piece);
    return await forwardText(relay, rewritten, { start: 0, end: rewritten.length, offset: piece.offset });
  } catch (error) {
    if (relay.isStopped) return false;
    await failTransaction(relay);
    relay.writeToClient(moveError(session.runner.encodeError(error), piece.offset));
    return false;
  }
}

async function runOwn(session: QuerySession, text: Buffer, piece: Piece): Promise<boolean> {
  const { relay, runner, paired } = session;
  const statement = runner.parse(text.subarray(piece.start, piece.end), false);
  if (statement === "forward") return forwardText(relay, text, piece);
  const isInTransaction = relay.ledger.status !== "I";
  const result = await runner.run(
    statement,
    relay.ledger.status,
    lendConnection(relay, "simple"),
    isInTransaction ? paired : undefined,
  );
  if (result === "forward") return forwardText(relay, text, piece);
  relay.isWatchingTransaction = paired.isOpen;
  if (relay.isStopped) return false;
  const messages = encodeNotices(result);
  if (result.table !== undefined) {
    messages.push(encodeResultDescription(result.table.columns), ...encodeRows(result, []));
  }
  messages.push(encodeCommandComplete(result.tag));
  relay.writeToClient(Buffer.concat(messages));
  return true;
}

/** A Query ends the unnamed statement and portal, and one that the front-end runs is no Query to the upstream. */
async function forgetUnnamed(relay: Relay): Promise<void> {
  let closed = 0;
  await relay.converse(closeUnnamed, false, (type) => {
    if (type === "3") closed += 1;
    return closed === 2 ? "finish" : "drop";
  });
}

/** Runs a command of the front-end's own, of which the client sees nothing. */
async function runQuietly(relay: Relay, command: string): Promise<void> {
  await relay.converse(encodeQuery(command), true, (type) => (type === "Z" ? "finish" : "drop"));
}
