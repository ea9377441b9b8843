/** Names in the text of JSON objects, which JSON.parse lets stand twice (RFC 8259 section 4). */

/**
 * Looks for an object that has two members of one name, in whatever spelling: readers differ in which of the two counts.
 *
 * @param text valid JSON
 * @returns the name as it is written the second time; undefined when there is none
 */
export function findDuplicateName(text: string): string | undefined {
  /** Seen in each object that is open; undefined for an array. */
  const names: (Set<string> | undefined)[] = [];
  // After { and after a comma in an object a string is a name.
  let isName = false;
  for (let index = 0; index < text.length; index += 1) {
    switch (text[index]) {
      case '"': {
        const end = stringEnd(text, index);
        if (isName) {
          const written = text.slice(index, end);
          const name = JSON.parse(written) as string;
          const known = names.at(-1);
          if (known?.has(name) === true) return written;
          known?.add(name);
          isName = false;
        }
        index = end - 1;
        break;
      }
      case "{":
        names.push(new Set());
        isName = true;
        break;
      case "[":
        names.push(undefined);
        isName = false;
        break;
      case "}":
      case "]":
        names.pop();
        isName = false;
        break;
      case ",":
        isName = names.at(-1) !== undefined;
        break;
    }
  }
  return undefined;
}

/** @returns the position after the closing quote of the string that opens at `start`; the end of a text that has none */
export function stringEnd(text: string, start: number): number {
  for (let index = start + 1; index < text.length; index += 1) {
    const code = text.charCodeAt(index);
    if (code === 0x22) return index + 1;
    if (code === 0x5c) index += 1;
  }
  return text.length;
}
