/** Cuts a byte stream into protocol messages without copying or making objects (PostgreSQL manual, chapter 54.7). */

/** What to do with a message, by its type byte; `actionTable` makes the lookup table. */
export const actions = {
  /** Not a message of this direction or state: a protocol violation. */
  refuse: 0,
  /** Part of the stream; nobody looks at it. */
  pass: 1,
  /** Part of the stream; its header is reported. */
  observe: 2,
  /** Wanted whole, however the stream is cut, before any of it goes on. */
  inspect: 3,
} as const;

export type ActionTable = Uint8Array;

/** Builds the 256-entry table that maps a message's type byte to its action. */
export function actionTable(entries: { readonly [K in keyof typeof actions]?: string }): ActionTable {
  const table = new Uint8Array(256);
  for (const name of ["pass", "observe", "inspect"] as const) {
    for (const letter of entries[name] ?? "") table[letter.charCodeAt(0)] = actions[name];
  }
  return table;
}

/** What `onInspect` makes of a whole message. */
export const verdicts = {
  /** Goes on with the stream, unchanged. */
  pass: 0,
  /** Is the visitor's: does not go on. */
  take: 1,
} as const;
export type Verdict = (typeof verdicts)[keyof typeof verdicts];

export interface FramerVisitor {
  /** The header of a message that goes on; `bodyLength` in bytes. */
  onObserve(type: number, bodyLength: number): void;
  /** A whole message `[start, end)`, header included; says whether it goes on. Must not keep the buffer. */
  onInspect(type: number, buffer: Buffer, start: number, end: number): Verdict;
  /**
   * The beginning of a message that is to be inspected and is too large for it: `[start, end)`, header included, at least
   * `oversizedPrefixBytes` or all. "take" ends the framing: the visitor has refused it.
   */
  onOversized(type: number, buffer: Buffer, start: number, end: number): Verdict;
  /** The message that `onInspect` took; everything before it has been forwarded. May pause the framer. */
  onTake(type: number, buffer: Buffer, start: number, end: number): void;
  /** A run of bytes that goes on. */
  onForward(buffer: Buffer, start: number, end: number): void;
  /** A type or length that cannot be; nothing more is framed. `type` is the type byte. */
  onViolation(type: number, length: number): void;
}

export interface FramerLimits {
  /** Largest length field accepted, in bytes; larger is a violation. */
  readonly maxMessageBytes: number;
  /** Messages to be inspected that are larger than this pass with `onOversized` and `onObserve` only, in bytes. */
  readonly maxInspectedBytes: number;
}

const headerBytes = 5;
/** What is seen of a message that is too large to be inspected, in bytes. */
const oversizedPrefixBytes = 4096;
const smallestStash = 1024;

// As Buffer.readInt32BE, which checks what is checked already, for every message: a third of what framing costs.
function int32At(buffer: Buffer, position: number): number {
  const high = ((buffer[position] ?? 0) << 8) | (buffer[position + 1] ?? 0);
  return (high << 16) | ((buffer[position + 2] ?? 0) << 8) | (buffer[position + 3] ?? 0);
}

/**
 * One direction of one connection. Its state between chunks is the number of bytes that the current
 * message still has to pass, or the beginning of a message that could not be decided yet.
 */
export class MessageFramer {
  /** May be exchanged between messages. */
  table: ActionTable;
  readonly #visitor: FramerVisitor;
  readonly #limits: FramerLimits;
  #remaining = 0;
  #stash: Buffer | undefined;
  #stashLength = 0;
  #isPaused = false;
  #isBroken = false;

  constructor(table: ActionTable, visitor: FramerVisitor, limits: FramerLimits) {
    this.table = table;
    this.#visitor = visitor;
    this.#limits = limits;
  }

  /** True when no message is half-way through. */
  get isAtBoundary(): boolean {
    return this.#remaining === 0 && this.#stashLength === 0;
  }

  /** True when a part of a message has gone on and its rest has not come yet. */
  get isMidMessage(): boolean {
    return this.#remaining > 0;
  }

  /** Type byte of the message that is kept next; undefined when nothing is. */
  get nextKeptType(): number | undefined {
    return this.#stashLength > 0 ? this.#stash?.[0] : undefined;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** Bytes that wait for `resume`, or for the rest of their message. */
  get keptBytes(): number {
    return this.#stashLength;
  }

  /** Keeps what follows the message that was just taken; the caller stops reading before that is too much. */
  pause(): void {
    this.#isPaused = true;
  }

  /** Goes on with what was kept. May be paused again before it returns. */
  resume(): void {
    this.#isPaused = false;
    const stash = this.#stash;
    if (stash === undefined) return;
    const length = this.#stashLength;
    this.#stash = undefined;
    this.#stashLength = 0;
    this.#scan(stash, 0, length);
  }

  /** Takes the next bytes of the stream. */
  push(buffer: Buffer, start: number, end: number): void {
    if (this.#isBroken) return;
    if (this.#stashLength === 0 && !this.#isPaused) this.#scan(buffer, start, end);
    else this.#pushToStash(buffer, start, end);
  }

  // The undecided beginning grows to the end of its message only; the rest is scanned in place.
  #pushToStash(buffer: Buffer, start: number, end: number): void {
    let position = start;
    while (position < end && this.#stashLength > 0 && !this.#isPaused) {
      const wanted = this.#stashLength < headerBytes ? headerBytes : this.#stashedMessageBytes();
      const count = Math.min(end - position, wanted - this.#stashLength);
      this.#keep(buffer, position, position + count);
      position += count;
      if (this.#stashLength < wanted) return;
      this.resume();
      if (this.#isBroken) return;
    }
    if (position === end) return;
    if (this.#isPaused) this.#keep(buffer, position, end);
    else this.#scan(buffer, position, end);
  }

  #stashedMessageBytes(): number {
    if (this.#stash === undefined) return headerBytes;
    const length = this.#stash.readInt32BE(1);
    return length > this.#limits.maxInspectedBytes ? Math.min(length + 1, oversizedPrefixBytes) : length + 1;
  }

  #scan(buffer: Buffer, start: number, end: number): void {
    let position = start;
    let runStart = start;
    if (this.#remaining > 0) {
      const count = Math.min(this.#remaining, end - position);
      position += count;
      this.#remaining -= count;
    }
    while (end - position >= headerBytes) {
      const type = buffer[position] ?? 0;
      const length = int32At(buffer, position + 1);
      let action = this.table[type];
      if (action === actions.refuse || length < 4 || length > this.#limits.maxMessageBytes) {
        this.#isBroken = true;
        if (position > runStart) this.#visitor.onForward(buffer, runStart, position);
        this.#visitor.onViolation(type, length);
        return;
      }
      const messageEnd = position + 1 + length;
      if (action === actions.inspect) {
        if (length > this.#limits.maxInspectedBytes) {
          if (end - position < Math.min(length + 1, oversizedPrefixBytes)) break;
          if (this.#visitor.onOversized(type, buffer, position, end) === verdicts.take) {
            this.#isBroken = true;
            return;
          }
          action = actions.observe;
        } else if (messageEnd > end) break;
        else if (this.#visitor.onInspect(type, buffer, position, messageEnd) === verdicts.take) {
          if (position > runStart) this.#visitor.onForward(buffer, runStart, position);
          this.#visitor.onTake(type, buffer, position, messageEnd);
          position = messageEnd;
          runStart = position;
          if (this.#isPaused || this.#isBroken) break;
          continue;
        }
      }
      if (action === actions.observe) this.#visitor.onObserve(type, length - 4);
      if (messageEnd > end) {
        this.#remaining = messageEnd - end;
        position = end;
      } else position = messageEnd;
    }
    if (position > runStart) this.#visitor.onForward(buffer, runStart, position);
    if (position < end) this.#keep(buffer, position, end);
  }

  // Grows with the bytes that have arrived, never with a length that was claimed.
  #keep(buffer: Buffer, start: number, end: number): void {
    if (this.#isBroken) return;
    const needed = this.#stashLength + (end - start);
    const old = this.#stash;
    let stash = old;
    if (stash === undefined || stash.length < needed) {
      stash = Buffer.allocUnsafeSlow(Math.max(smallestStash, needed, (old?.length ?? 0) * 2));
      old?.copy(stash, 0, 0, this.#stashLength);
      this.#stash = stash;
    }
    buffer.copy(stash, this.#stashLength, start, end);
    this.#stashLength = needed;
  }

  /** Frames nothing more and frees what was kept; `isAtBoundary` goes on telling how the stream was left. */
  discard(): void {
    this.#isBroken = true;
    this.#stash = undefined;
  }
}
