/** SASLprep (RFC 4013) as PostgreSQL applies it to passwords (src/common/saslprep.c). */

import {
  type CodePointRanges,
  hasCodePoint,
  leftToRight,
  mappedToNothing,
  nonAsciiSpace,
  prohibited,
  rightToLeft,
  unassigned,
} from "./stringprep-tables.ts";

/**
 * The form of a password that is hashed: prepared where SASLprep allows it, else as it is.
 * PostgreSQL and libpq do the same, so that a password in any encoding and with any character works.
 */
export function preparePassword(password: string): string {
  return saslprep(password) ?? password;
}

/**
 * Prepares a text with SASLprep.
 *
 * As in PostgreSQL, prohibited and bidirectional characters are looked for after the mapping but before
 * the normalization, where RFC 3454 section 2 wants them looked for after it. Doing it the RFC's way
 * would hash some passwords differently from PostgreSQL and from every client built on libpq.
 *
 * @returns undefined when the text is prohibited, mixes directions, or has nothing left in it.
 */
export function saslprep(text: string): string | undefined {
  // Also for control characters, which the RFC prohibits: PostgreSQL leaves all ASCII alone.
  if (isAscii(text)) return text;
  const mapped = mapCharacters(text);
  if (mapped.length === 0) return undefined;
  if (mapped.some((codePoint) => hasCodePoint(prohibited, codePoint))) return undefined;
  if (mapped.some((codePoint) => hasCodePoint(unassigned, codePoint))) return undefined;
  if (!hasOneDirection(mapped)) return undefined;
  return mapped
    .map((codePoint) => String.fromCodePoint(codePoint))
    .join("")
    .normalize("NFKC");
}

function isAscii(text: string): boolean {
  for (let index = 0; index < text.length; index += 1) {
    if (text.charCodeAt(index) > 0x7f) return false;
  }
  return true;
}

/** RFC 4013 section 2.1; U+200B is in both tables, and PostgreSQL takes it for a space. */
function mapCharacters(text: string): number[] {
  const mapped: number[] = [];
  for (const character of text) {
    const codePoint = character.codePointAt(0) ?? 0;
    if (hasCodePoint(nonAsciiSpace, codePoint)) mapped.push(0x20);
    else if (!hasCodePoint(mappedToNothing, codePoint)) mapped.push(codePoint);
  }
  return mapped;
}

/** RFC 3454 section 6, requirements 2 and 3. */
function hasOneDirection(codePoints: readonly number[]): boolean {
  const isIn = (ranges: CodePointRanges) => (codePoint: number | undefined) =>
    codePoint !== undefined && hasCodePoint(ranges, codePoint);
  const isRightToLeft = isIn(rightToLeft);
  if (!codePoints.some(isRightToLeft)) return true;
  return (
    !codePoints.some(isIn(leftToRight)) && isRightToLeft(codePoints[0]) && isRightToLeft(codePoints.at(-1))
  );
}
