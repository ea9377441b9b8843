/** Attribute-value pairs of SCRAM messages (RFC 5802 section 5.1 and 7), with PostgreSQL's wording of what is wrong with one. */

/** A SCRAM message that does not parse. Thrown inside this folder only; the exchanges return it as a value. */
export class MalformedMessage extends Error {
  override readonly name = "MalformedMessage";
  readonly detail: string | undefined;

  constructor(detail: string | undefined, message = "malformed SCRAM message") {
    super(message);
    this.detail = detail;
  }
}

export interface Attribute {
  readonly name: string;
  readonly value: string;
}

/** Cursor over one message. Its text has one UTF-16 unit per byte (latin1), so that signatures cover the bytes as sent. */
export class AttributeReader {
  readonly text: string;
  #offset = 0;

  constructor(message: Buffer) {
    if (message.length === 0) throw new MalformedMessage("The message is empty.");
    if (message.includes(0)) throw new MalformedMessage("Message length does not match input length.");
    this.text = message.toString("latin1");
  }

  get offset(): number {
    return this.#offset;
  }

  get isAtEnd(): boolean {
    return this.#offset >= this.text.length;
  }

  /** The next character, "" at the end. */
  peek(): string {
    return this.text.charAt(this.#offset);
  }

  skip(): void {
    this.#offset += 1;
  }

  /** Value of the attribute that must come next. */
  value(name: string): string {
    if (this.peek() !== name) {
      throw new MalformedMessage(`Expected attribute "${name}" but found "${sanitize(this.peek())}".`);
    }
    return this.next().value;
  }

  /** The next attribute, whatever it is called. */
  next(): Attribute {
    const name = this.peek();
    if (name === "") throw new MalformedMessage("Attribute expected, but found end of string.");
    if (!/[A-Za-z]/.test(name)) {
      throw new MalformedMessage(`Attribute expected, but found invalid character "${sanitize(name)}".`);
    }
    if (this.text.charAt(this.#offset + 1) !== "=") {
      throw new MalformedMessage(`Expected character "=" for attribute "${name}".`);
    }
    const comma = this.text.indexOf(",", this.#offset);
    const end = comma === -1 ? this.text.length : comma;
    const value = this.text.slice(this.#offset + 2, end);
    this.#offset = end + 1;
    return { name, value };
  }
}

/** A character as a detail may show it: printable ASCII quoted, anything else in hexadecimal. */
export function sanitize(character: string): string {
  if (/^[\x21-\x7e]$/.test(character)) return `'${character}'`;
  return `0x${(character.charCodeAt(0) || 0).toString(16).padStart(2, "0")}`;
}

/** Whether a nonce is made of `printable` (RFC 5802 section 7); the comma cannot occur in a value. */
export function isPrintable(text: string): boolean {
  return /^[\x21-\x2b\x2d-\x7e]*$/.test(text);
}
