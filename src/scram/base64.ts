/** Strict base64 (RFC 4648 section 4): Node's own decoder skips whatever it does not know. */

const shape = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** @returns undefined unless the text is the one canonical encoding of some bytes. */
export function decodeBase64(text: string): Buffer | undefined {
  if (!shape.test(text)) return undefined;
  const bytes = Buffer.from(text, "base64");
  return bytes.toString("base64") === text ? bytes : undefined;
}
