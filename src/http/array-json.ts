/** PostgreSQL's array literal (manual 8.15.6) as a JSON array. */

/** How deep arrays may nest; PostgreSQL's own limit (MAXDIM) is 6. */
const maxDimensions = 6;

/**
 * @param text as PostgreSQL prints it: `{1,NULL,"a b"}`, `{{1},{2}}`, `[0:1]={1,2}` (the bounds are left out)
 * @param encodeElement one element's text as JSON
 * @throws TypeError when it is no array literal: PostgreSQL prints no other
 */
export function arrayToJson(
  text: string,
  delimiter: string,
  encodeElement: (text: string) => string,
): string {
  const start = text.startsWith("[") ? text.indexOf("=") + 1 : 0;
  const reader = new ArrayReader(text, start, delimiter, encodeElement);
  const json = reader.array(1);
  if (!reader.isAtEnd) throw notAnArray();
  return json;
}

class ArrayReader {
  readonly #text: string;
  readonly #delimiter: string;
  readonly #encodeElement: (text: string) => string;
  #position: number;

  constructor(text: string, position: number, delimiter: string, encodeElement: (text: string) => string) {
    this.#text = text;
    this.#position = position;
    this.#delimiter = delimiter;
    this.#encodeElement = encodeElement;
  }

  get isAtEnd(): boolean {
    return this.#position === this.#text.length;
  }

  array(dimension: number): string {
    if (this.#text[this.#position] !== "{" || dimension > maxDimensions) throw notAnArray();
    this.#position += 1;
    if (this.#text[this.#position] === "}") {
      this.#position += 1;
      return "[]";
    }
    const items: string[] = [];
    for (;;) {
      items.push(this.#item(dimension));
      const separator = this.#text[this.#position];
      this.#position += 1;
      if (separator === "}") return `[${items.join(",")}]`;
      if (separator !== this.#delimiter) throw notAnArray();
    }
  }

  #item(dimension: number): string {
    const first = this.#text[this.#position];
    if (first === "{") return this.array(dimension + 1);
    if (first === '"') return this.#encodeElement(this.#quoted());
    const start = this.#position;
    while (this.#position < this.#text.length) {
      const character = this.#text[this.#position];
      if (character === this.#delimiter || character === "}") break;
      this.#position += 1;
    }
    const bare = this.#text.slice(start, this.#position);
    if (bare === "") throw notAnArray();
    return bare === "NULL" ? "null" : this.#encodeElement(bare);
  }

  #quoted(): string {
    let value = "";
    this.#position += 1;
    for (;;) {
      const character = this.#text[this.#position];
      if (character === undefined) throw notAnArray();
      this.#position += 1;
      if (character === '"') return value;
      if (character === "\\") {
        value += this.#text[this.#position] ?? "";
        this.#position += 1;
      } else value += character;
    }
  }
}

function notAnArray(): TypeError {
  return new TypeError("PostgreSQL has sent an array that cannot be read");
}
