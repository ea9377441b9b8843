/** JSON of a token: one object in valid UTF-8, in which no name stands twice (RFC 7519 section 4, RFC 8259 section 4). */

/** @returns undefined when the bytes are anything else */
export function parseStrictObject(bytes: Uint8Array): Readonly<Record<string, unknown>> | undefined {
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  return hasDuplicateName(text) ? undefined : (value as Record<string, unknown>);
}

/**
 * Whether an object in the text has two members of one name, in whatever spelling: readers differ in which of the two counts.
 *
 * @param text valid JSON
 */
function hasDuplicateName(text: string): boolean {
  /** Names seen in each object that is open; undefined for an array. */
  const open: (Set<string> | undefined)[] = [];
  let isNameNext = false;
  for (let index = 0; index < text.length; index += 1) {
    switch (text[index]) {
      case "{":
        open.push(new Set());
        isNameNext = true;
        break;
      case "[":
        open.push(undefined);
        isNameNext = false;
        break;
      case "}":
      case "]":
        open.pop();
        break;
      case ",":
        isNameNext = open.at(-1) !== undefined;
        break;
      case ":":
        isNameNext = false;
        break;
      case '"': {
        const end = stringEnd(text, index);
        const names = open.at(-1);
        if (isNameNext && names !== undefined) {
          const name: string = JSON.parse(text.slice(index, end));
          if (names.has(name)) return true;
          names.add(name);
        }
        index = end - 1;
        break;
      }
    }
  }
  return false;
}

/** The index after the closing quote. */
function stringEnd(text: string, start: number): number {
  let index = start + 1;
  while (text[index] !== '"') index += text[index] === "\\" ? 2 : 1;
  return index + 1;
}
