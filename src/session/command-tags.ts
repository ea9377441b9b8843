/** CommandComplete messages that tell something about the session (PostgreSQL manual 54.7), found without being decoded. */

export type TagMeaning =
  /** The session's settings may have been reset. */
  | "reset"
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
  ["BEGIN", "begin"],
  ["START TRANSACTION", "begin"],
  ["COMMIT", "end"],
  ["ROLLBACK", "end"],
  ["PREPARE TRANSACTION", "end"],
];

/** Length of the whole message → the tags that have it. */
const tagsByLength: (readonly Tag[] | undefined)[] = [];
for (const [tag, meaning] of meanings) {
  const message = Buffer.from(`C\0\0\0${String.fromCharCode(tag.length + 5)}${tag}\0`, "latin1");
  tagsByLength[message.length] = [...(tagsByLength[message.length] ?? []), { message, meaning }];
}

/** @param start of the message, its type byte included @returns undefined for every other tag */
export function meaningOfTag(buffer: Buffer, start: number, end: number): TagMeaning | undefined {
  const tags = tagsByLength[end - start];
  return tags?.find(({ message }) => message.compare(buffer, start, end) === 0)?.meaning;
}
