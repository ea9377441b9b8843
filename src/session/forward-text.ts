/** Sends a part of a client's Query upstream as a Query of its own, with its answers where the client expects them. */

import { encodeErrorResponse } from "../wire/backend-message.ts";
import { decodeErrorFields } from "../wire/backend-message-decoding.ts";
import type { Relay } from "./relay.ts";
import type { ReplyDecision } from "./relay-contracts.ts";

/** Bytes of a text. */
export interface TextPart {
  readonly start: number;
  end: number;
  /** Characters before it: what error positions are counted from. */
  readonly offset: number;
}

/**
 * Forwards the part; its ReadyForQuery is kept.
 *
 * @param onReply decides on replies other than errors and ReadyForQuery; forwards them when absent
 * @returns false when the upstream reported an error, which the client has got
 */
export async function forwardText(
  relay: Relay,
  text: Buffer,
  part: TextPart,
  onReply: (type: string, body: Buffer) => ReplyDecision = () => "forward",
): Promise<boolean> {
  let hasFailed = false;
  await relay.converse(encodeQueryBytes(text.subarray(part.start, part.end)), true, (type, body) => {
    if (type === "Z") return "finish";
    if (type !== "E") return onReply(type, body);
    hasFailed = true;
    return movePosition(body, part.offset) ?? "forward";
  });
  return !hasFailed && !relay.isStopped;
}

/** The error with its position counted from the beginning of the client's text; undefined when it names none. */
export function movePosition(body: Buffer, offset: number): Buffer | undefined {
  // An error too large to be looked at comes without its body.
  if (body.length === 0) return undefined;
  const fields = decodeErrorFields(body);
  const position = fields.get("P");
  if (position === undefined || offset === 0) return undefined;
  fields.set("P", String(Number(position) + offset));
  return encodeErrorResponse(fields);
}

function encodeQueryBytes(text: Buffer): Buffer {
  const message = Buffer.allocUnsafe(text.length + 6);
  message[0] = 0x51;
  message.writeInt32BE(text.length + 5, 1);
  text.copy(message, 5);
  message[message.length - 1] = 0;
  return message;
}
