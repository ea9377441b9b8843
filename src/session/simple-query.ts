/** Runs a Query that holds statements of ours, each in its place among the others (PostgreSQL manual 54.2.2). */

import { isOurs } from "../ddl/classify.ts";
import { lexicalText } from "../ddl/multibyte.ts";
import { findStatements } from "../ddl/splitter.ts";
import type { SqlError } from "../errors/sql-error.ts";
import {
  encodeCommandComplete,
  encodeErrorResponse,
  encodeReadyForQuery,
  encodeSqlError,
} from "../wire/backend-message.ts";
import { decodeErrorFields } from "../wire/backend-message-decoding.ts";
import { encodeDescribe, encodeSync } from "../wire/frontend-message-encoding.ts";
import { encodeResultDescription } from "../wire/row-encoding.ts";
import type { Relay } from "./relay.ts";
import { encodeNotices, encodeRows, type StatementRunner } from "./statement-runner.ts";

/** Name of a portal that never exists: describing it puts a transaction into the failed state. */
export const missingPortal = "nodedb: a statement of the front-end failed";

/** Statements in the order of the text; neighbours that are PostgreSQL's stay one text and one implicit transaction. */
interface Piece {
  readonly kind: "forward" | "ours";
  readonly start: number;
  end: number;
}

function cutIntoPieces(relay: Relay, text: Buffer): Piece[] {
  const pieces: Piece[] = [];
  const options = { standardConformingStrings: relay.standardConformingStrings };
  const readable = lexicalText(text, relay.clientEncoding);
  findStatements(readable, 0, readable.length, options, (start, end) => {
    const kind = isOurs(readable, start, end, options) ? "ours" : "forward";
    const last = pieces.at(-1);
    if (kind === "forward" && last?.kind === "forward") last.end = end;
    else pieces.push({ kind, start, end });
    return false;
  });
  return pieces;
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

/**
 * Runs the pieces one after the other until one fails, then sends the one ReadyForQuery that the client waits for.
 *
 * @param text of the Query, without its NUL
 */
export async function runSimpleQuery(relay: Relay, runner: StatementRunner, text: Buffer): Promise<void> {
  await relay.settle();
  // After an error in the extended protocol PostgreSQL discards this as well, without an answer.
  if (relay.isStopped || relay.ledger.isSkipping) return;
  const characters = new CharacterCount(text);
  for (const piece of cutIntoPieces(relay, text)) {
    if (relay.isStopped) return;
    const offset = characters.before(piece.start);
    const isDone =
      piece.kind === "forward"
        ? await forwardPiece(relay, text, piece, offset)
        : await runPiece(relay, runner, text, piece, offset);
    if (!isDone) break;
  }
  if (!relay.isStopped) relay.writeToClient(encodeReadyForQuery(relay.ledger.status));
}

async function runPiece(
  relay: Relay,
  runner: StatementRunner,
  text: Buffer,
  piece: Piece,
  offset: number,
): Promise<boolean> {
  try {
    const statement = runner.parse(text.subarray(piece.start, piece.end), false);
    if (statement === "forward") return await forwardPiece(relay, text, piece, offset);
    const result = await runner.run(statement, relay.ledger.status);
    if (result === "forward") return await forwardPiece(relay, text, piece, offset);
    if (relay.isStopped) return false;
    const messages = encodeNotices(result);
    if (result.table !== undefined) {
      messages.push(encodeResultDescription(result.table.columns), ...encodeRows(result, []));
    }
    messages.push(encodeCommandComplete(result.tag));
    relay.writeToClient(Buffer.concat(messages));
    return true;
  } catch (error) {
    if (relay.isStopped) return false;
    await failTransaction(relay);
    relay.writeToClient(encodeMovedError(runner.asSqlError(error), offset));
    return false;
  }
}

/** As PostgreSQL does, an error inside a transaction block fails the block. */
async function failTransaction(relay: Relay): Promise<void> {
  if (relay.ledger.status !== "T") return;
  const message = Buffer.concat([encodeDescribe("portal", missingPortal), encodeSync()]);
  await relay.converse(message, true, (type) => (type === "Z" ? "finish" : "drop"));
}

/** @returns false when the upstream reported an error */
async function forwardPiece(relay: Relay, text: Buffer, piece: Piece, offset: number): Promise<boolean> {
  let hasFailed = false;
  await relay.converse(encodeQueryBytes(text.subarray(piece.start, piece.end)), true, (type, body) => {
    if (type === "Z") return "finish";
    if (type !== "E") return "forward";
    hasFailed = true;
    const moved = movePosition(body, offset);
    if (moved === undefined) return "forward";
    relay.writeToClient(moved);
    return "drop";
  });
  return !hasFailed;
}

function encodeQueryBytes(text: Buffer): Buffer {
  const message = Buffer.allocUnsafe(text.length + 6);
  message[0] = 0x51;
  message.writeInt32BE(text.length + 5, 1);
  text.copy(message, 5);
  message[message.length - 1] = 0;
  return message;
}

/** The error with its position counted from the beginning of the client's text; undefined when it names none. */
function movePosition(body: Buffer, offset: number): Buffer | undefined {
  // An error too large to be looked at comes without its body.
  if (body.length === 0) return undefined;
  const fields = decodeErrorFields(body);
  const position = fields.get("P");
  if (position === undefined || offset === 0) return undefined;
  fields.set("P", String(Number(position) + offset));
  return encodeErrorResponse(fields);
}

function encodeMovedError(error: SqlError, offset: number): Buffer {
  const encoded = encodeSqlError(error);
  return movePosition(encoded.subarray(5), offset) ?? encoded;
}
