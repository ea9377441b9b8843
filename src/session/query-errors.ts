/** Errors of the front-end's own statements, told to the client and to its transaction. */

import type { SqlError } from "../errors/sql-error.ts";
import { encodeSqlError } from "../wire/backend-message.ts";
import { encodeDescribe, encodeSync } from "../wire/frontend-message-encoding.ts";
import { movePosition } from "./forward-text.ts";
import type { Relay } from "./relay.ts";

/** Name of a portal that never exists: describing it puts a transaction into the failed state. */
export const missingPortal = "nodedb: a statement of the front-end failed";

/** As PostgreSQL does, an error inside a transaction block fails the block. */
export async function failTransaction(relay: Relay): Promise<void> {
  if (relay.ledger.status !== "T") return;
  const message = Buffer.concat([encodeDescribe("portal", missingPortal), encodeSync()]);
  await relay.converse(message, true, (type) => (type === "Z" ? "finish" : "drop"));
}

/** An error of a statement that has `offset` characters of the client's text before it. */
export function encodeMovedError(error: SqlError, offset: number): Buffer {
  const encoded = encodeSqlError(error);
  return movePosition(encoded.subarray(5), offset) ?? encoded;
}
