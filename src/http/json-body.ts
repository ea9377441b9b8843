/** Reads a request's JSON (RFC 8259) more strictly than JSON.parse: nesting is bounded, and a name stands once in an object. */

import { HttpError } from "./http-error.ts";

/** How deep arrays and objects may nest: enough for data, and no work for a stack. */
const maxDepth = 64;

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** @throws HttpError 400 */
export function parseJsonBody(body: Buffer): unknown {
  let text: string;
  try {
    text = utf8.decode(body);
  } catch {
    throw new HttpError(400, "the body is not UTF-8");
  }
  if (text.trim() === "") throw new HttpError(400, "the body is empty");
  checkDepth(text);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new HttpError(400, "the body is not JSON");
  }
  const name = findDuplicateName(text);
  if (name !== undefined) throw new HttpError(400, `the name ${name} stands twice in one object`);
  return value;
}

function checkDepth(text: string): void {
  let depth = 0;
  for (let index = 0; index < text.length; index += 1) {
    const code = text.charCodeAt(index);
    if (code === 0x22) index = stringEnd(text, index) - 1;
    else if (code === 0x7b || code === 0x5b) {
      depth += 1;
      if (depth > maxDepth) throw new HttpError(400, `the body nests deeper than ${maxDepth}`);
    } else if (code === 0x7d || code === 0x5d) depth -= 1;
  }
}

/** @param text valid JSON @returns the name as it is written */
function findDuplicateName(text: string): string | undefined {
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

/** Position after the closing quote of the string that opens at `start`. */
function stringEnd(text: string, start: number): number {
  for (let index = start + 1; index < text.length; index += 1) {
    const code = text.charCodeAt(index);
    if (code === 0x22) return index + 1;
    if (code === 0x5c) index += 1;
  }
  return text.length;
}
