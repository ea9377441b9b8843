/** JSON of a token: one object in valid UTF-8, in which no name stands twice (RFC 7519 section 4, RFC 8259 section 4). */

import { findDuplicateName } from "./json-names.ts";

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
  return findDuplicateName(text) === undefined ? (value as Record<string, unknown>) : undefined;
}
