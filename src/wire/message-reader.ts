/** Cursor over one message body that checks every length against the bytes left (PostgreSQL 18 manual 54.6). */

import { SqlError } from "../errors/sql-error.ts";

/** The error for a message that does not parse; the stream behind it cannot be trusted, so it is FATAL. */
export function malformed(message: string): SqlError {
  return new SqlError("protocol_violation", message, { severity: "FATAL" });
}

/**
 * Reads the fields of one body in order.
 *
 * What it returns as Buffer is a view of the body: valid only as long as the buffer behind it is not
 * read into again. Every method throws a FATAL protocol_violation, worded as PostgreSQL words it, when
 * the body does not hold the field.
 */
export class MessageReader {
  readonly #body: Buffer;
  #offset = 0;

  constructor(body: Buffer) {
    this.#body = body;
  }

  get bytesLeft(): number {
    return this.#body.length - this.#offset;
  }

  byte(): number {
    const [value] = this.bytes(1);
    if (value === undefined) throw malformed("insufficient data left in message");
    return value;
  }

  uint16(): number {
    return this.bytes(2).readUInt16BE(0);
  }

  int32(): number {
    return this.bytes(4).readInt32BE(0);
  }

  uint32(): number {
    return this.bytes(4).readUInt32BE(0);
  }

  bytes(length: number): Buffer {
    if (length < 0 || length > this.bytesLeft) throw malformed("insufficient data left in message");
    const start = this.#offset;
    this.#offset += length;
    return this.#body.subarray(start, this.#offset);
  }

  rest(): Buffer {
    return this.bytes(this.bytesLeft);
  }

  /** The bytes up to the next NUL, which is consumed. */
  cstring(): Buffer {
    const end = this.#body.indexOf(0, this.#offset);
    if (end === -1) throw malformed("invalid string in message");
    const view = this.#body.subarray(this.#offset, end);
    this.#offset = end + 1;
    return view;
  }

  /**
   * A 16-bit count and that many items of at least `minItemBytes` each.
   * The count is checked before anything is made, so a short message cannot ask for a long array.
   */
  list<T>(minItemBytes: number, readItem: () => T): T[] {
    const count = this.uint16();
    if (count * minItemBytes > this.bytesLeft) throw malformed("insufficient data left in message");
    const items: T[] = [];
    for (let index = 0; index < count; index += 1) items.push(readItem());
    return items;
  }

  /** @throws SqlError protocol_violation when bytes are left over. */
  end(): void {
    if (this.bytesLeft !== 0) throw malformed("invalid message format");
  }
}
