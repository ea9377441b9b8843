/** Errors of the front-end's own statements, told to the client and to its transaction. */

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

/** An ErrorResponse with its position, if it names one, moved by the characters of the client's text before it. */
export function moveError(errorResponse: Buffer, offset: number): Buffer {
  return movePosition(errorResponse.subarray(5), offset) ?? errorResponse;
}
