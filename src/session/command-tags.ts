/** CommandComplete messages that tell something about the session (PostgreSQL manual 54.7), found without being decoded. */

export type TagMeaning =
  /** The session's settings may have been reset. */
  | "reset"
  /** A prepared statement or a portal was given a name, and not by the extended protocol. */
  | "name"
  /** A transaction block is open. */
  | "begin"
  /** A transaction block has ended. ROLLBACK TO SAVEPOINT and AND CHAIN have such a tag too. */
  | "end";

interface Tag {
  readonly message: Buffer;
  readonly meaning: TagMeaning;
}

const meanings: readonly (readonly [tag: string, meaning: TagMeaning])[] = [
  ["RESET", "reset"],
  ["DISCARD ALL", "reset"],
  ["PREPARE", "name"],
  ["DECLARE CURSOR", "name"],
  ["BEGIN", "begin"],
  ["START TRANSACTION", "begin"],
  ["COMMIT", "end"],
  ["ROLLBACK", "end"],
  ["PREPARE TRANSACTION", "end"],
];

const headerBytes = 5;

/** Length of the whole message → the tags that have it. */
const tagsByLength: (readonly Tag[] | undefined)[] = [];
for (const [tag, meaning] of meanings) {
  const message = Buffer.from(`C\0\0\0${String.fromCharCode(tag.length + 5)}${tag}\0`, "latin1");
  tagsByLength[message.length] = [...(tagsByLength[message.length] ?? []), { message, meaning }];
}

/** @param start of the message, its type byte included @returns undefined for every other tag */
export function meaningOfTag(buffer: Buffer, start: number, end: number): TagMeaning | undefined {
  const tags = tagsByLength[end - start];
  if (tags === undefined) return undefined;
  for (const { message, meaning } of tags) if (isAt(message, buffer, start)) return meaning;
  return undefined;
}

// Every CommandComplete comes here: the first byte of a tag tells most of them apart, and Buffer.compare is a call out of
// JavaScript.
function isAt(message: Buffer, buffer: Buffer, start: number): boolean {
  for (let index = headerBytes; index < message.length; index += 1) {
    if (message[index] !== buffer[start + index]) return false;
  }
  return true;
}
