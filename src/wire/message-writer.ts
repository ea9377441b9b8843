/** Builds one message: type byte, length, fields (PostgreSQL 18 manual 54.2). */

const headerBytes = 5;

/**
 * Collects the fields of one message; `finish` fills in the length and returns an exact view.
 * A writer is used for one message only.
 */
export class MessageWriter {
  #buffer: Buffer;
  #length = headerBytes;

  /** @param type the message's letter @param expectedBytes how large the body will probably get */
  constructor(type: string, expectedBytes = 64) {
    this.#buffer = Buffer.allocUnsafe(headerBytes + expectedBytes);
    this.#buffer[0] = type.charCodeAt(0);
  }

  byte(value: number): this {
    this.#reserve(1);
    this.#length = this.#buffer.writeUInt8(value, this.#length);
    return this;
  }

  int16(value: number): this {
    this.#reserve(2);
    this.#length = this.#buffer.writeInt16BE(value, this.#length);
    return this;
  }

  /** A count: the protocol's Int16 counts are read as unsigned. */
  uint16(value: number): this {
    this.#reserve(2);
    this.#length = this.#buffer.writeUInt16BE(value, this.#length);
    return this;
  }

  int32(value: number): this {
    this.#reserve(4);
    this.#length = this.#buffer.writeInt32BE(value, this.#length);
    return this;
  }

  uint32(value: number): this {
    this.#reserve(4);
    this.#length = this.#buffer.writeUInt32BE(value, this.#length);
    return this;
  }

  bytes(value: Buffer): this {
    this.#reserve(value.length);
    value.copy(this.#buffer, this.#length);
    this.#length += value.length;
    return this;
  }

  text(value: string, encoding: "utf8" | "latin1" = "utf8"): this {
    const length = Buffer.byteLength(value, encoding);
    this.#reserve(length);
    this.#buffer.write(value, this.#length, length, encoding);
    this.#length += length;
    return this;
  }

  /** NUL characters are left out: one would end the string early and shift every field after it. */
  cstring(value: string, encoding: "utf8" | "latin1" = "utf8"): this {
    return this.text(value.includes("\0") ? value.replaceAll("\0", "") : value, encoding).byte(0);
  }

  /** The whole message. */
  finish(): Buffer {
    this.#buffer.writeInt32BE(this.#length - 1, 1);
    return this.#buffer.subarray(0, this.#length);
  }

  #reserve(bytes: number): void {
    const needed = this.#length + bytes;
    if (needed <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(needed, this.#buffer.length * 2));
    this.#buffer.copy(larger, 0, 0, this.#length);
    this.#buffer = larger;
  }
}
