/** Builds packets and messages byte by byte, independently of the code under test. */

export function int16(value: number): Buffer {
  return Buffer.from([(value >> 8) & 0xff, value & 0xff]);
}

export function int32(value: number): Buffer {
  return Buffer.from([(value >> 24) & 0xff, (value >> 16) & 0xff, (value >> 8) & 0xff, value & 0xff]);
}

export function cstring(text: string | Buffer): Buffer {
  return Buffer.concat([typeof text === "string" ? Buffer.from(text, "utf8") : text, Buffer.from([0])]);
}

/** A value with its length; null is -1. */
export function value(bytes: Buffer | null): Buffer {
  return bytes === null ? int32(-1) : Buffer.concat([int32(bytes.length), bytes]);
}

/** A count and its items. */
export function list(items: readonly Buffer[]): Buffer {
  return Buffer.concat([int16(items.length), ...items]);
}

/** Type byte and body of an encoded message, whose length field must be true. */
export function split(message: Buffer): { type: string; body: Buffer } {
  if (message.readInt32BE(1) !== message.length - 1) throw new Error("length field is not true");
  return { type: String.fromCharCode(message[0] ?? 0), body: message.subarray(5) };
}
