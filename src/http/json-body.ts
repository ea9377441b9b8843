/** Reads a request's JSON (RFC 8259) more strictly than JSON.parse: nesting is bounded, and a name stands once in an object. */

import { findDuplicateName, stringEnd } from "../auth/json-names.ts";
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
