/** Elements of DER, as far as certificates and revocation lists need them (X.690 section 8.1). */

export const derTags = {
  boolean: 0x01,
  integer: 0x02,
  octetString: 0x04,
  objectIdentifier: 0x06,
  utf8String: 0x0c,
  printableString: 0x13,
  ia5String: 0x16,
  sequence: 0x30,
  set: 0x31,
} as const;

export interface DerElement {
  readonly tag: number;
  readonly content: Buffer;
  /** The whole element: tag, length and content. */
  readonly raw: Buffer;
  /** What follows the element. */
  readonly rest: Buffer;
}

/**
 * The element at the start of the bytes.
 *
 * @param tag the one that it must have
 * @returns undefined when it has another tag or does not fit
 */
export function readElement(bytes: Buffer, tag?: number): DerElement | undefined {
  const [first, lengthByte] = bytes;
  if (first === undefined || lengthByte === undefined || (tag !== undefined && first !== tag))
    return undefined;
  const lengthBytes = lengthByte < 0x80 ? 0 : lengthByte & 0x7f;
  // 0x80 alone is an indefinite length, which DER does not have; 4 bytes are more than a certificate has.
  if (lengthByte === 0x80 || lengthBytes > 4 || bytes.length < 2 + lengthBytes) return undefined;
  const start = 2 + lengthBytes;
  const length = lengthBytes === 0 ? lengthByte : bytes.readUIntBE(2, lengthBytes);
  const end = start + length;
  if (bytes.length < end) return undefined;
  return {
    tag: first,
    content: bytes.subarray(start, end),
    raw: bytes.subarray(0, end),
    rest: bytes.subarray(end),
  };
}

/** The elements that the bytes are made of. @returns undefined when they are anything else */
export function readElements(bytes: Buffer): readonly DerElement[] | undefined {
  const elements: DerElement[] = [];
  for (let rest = bytes; rest.length > 0; ) {
    const element = readElement(rest);
    if (element === undefined) return undefined;
    elements.push(element);
    rest = element.rest;
  }
  return elements;
}

/** The elements within a SEQUENCE at the start of the bytes. @returns undefined when there is none, or it is malformed */
export function readSequence(bytes: Buffer): readonly DerElement[] | undefined {
  const sequence = readElement(bytes, derTags.sequence);
  return sequence && readElements(sequence.content);
}
