/** Statements that are one half of a conversation: what they begin goes on after their answer, in a session that lasts. */

import { type LexerOptions, TokenScanner } from "./lexer.ts";

/** `transaction`: BEGIN and all that follows it; `copy`: COPY; `notifications`: LISTEN and UNLISTEN. */
export type ConversationKind = "transaction" | "copy" | "notifications";

const transactionWords = ["begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release"];

/**
 * @param start of one statement, at its first token
 * @returns undefined for a statement that is whole in itself; COMMIT PREPARED and ROLLBACK PREPARED are
 */
export function conversationKind(
  text: Buffer,
  start: number,
  end: number,
  options: LexerOptions,
): ConversationKind | undefined {
  const token = new TokenScanner(text, start, end, options);
  if (token.next() !== "word") return undefined;
  if (token.isWord("copy")) return "copy";
  if (token.isWord("listen") || token.isWord("unlisten")) return "notifications";
  if (token.isWord("prepare")) {
    token.next();
    return token.isWord("transaction") ? "transaction" : undefined;
  }
  if (!transactionWords.some((word) => token.isWord(word))) return undefined;
  token.next();
  return token.isWord("prepared") ? undefined : "transaction";
}
