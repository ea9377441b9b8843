/** Returns a connection to the state in which sessions get one (PostgreSQL manual, DISCARD). */

import { Conversation } from "./conversation.ts";
import { noteParameterStatus, type UpstreamConnection } from "./upstream-connection.ts";

/** A reset that takes longer than this is stuck behind something; closing is cheaper, in ms. */
const resetTimeoutMs = 5_000;

const idle = 0x49; // I
const discarded = Buffer.from("DISCARD ALL\0", "latin1");
const discardAll = Buffer.from("Q\0\0\0\x10DISCARD ALL\0", "latin1");

/**
 * Runs DISCARD ALL: settings, prepared statements, portals, temporary tables, advisory locks, LISTEN.
 * The connection must wait for a command outside a transaction.
 *
 * @param calls FunctionCall messages that give it back what the next session finds; sent behind it in one write, and each a
 *   transaction of its own
 * @returns false when the connection cannot be used again
 */
export function resetConnection(
  connection: UpstreamConnection,
  calls: readonly Buffer[] = [],
): Promise<boolean> {
  const { transport } = connection;
  if (transport.isClosed) return Promise.resolve(false);
  return new Promise((resolve) => {
    let isDiscarded = false;
    let results = 0;
    let ready = 0;
    const settle = (isUsable: boolean) => {
      clearTimeout(timer);
      transport.stop();
      resolve(isUsable);
    };
    const timer = setTimeout(() => settle(false), resetTimeoutMs);
    const conversation: Conversation = new Conversation(transport, {
      onMessage: (type, body) => {
        if (type === "S") noteParameterStatus(connection, body);
        else if (type === "C" && !isDiscarded && body.equals(discarded)) isDiscarded = true;
        else if (type === "V" && ready === results + 1) results += 1;
        else if (type === "Z" && isDiscarded && ready === results && body[0] === idle) {
          ready += 1;
          if (ready > calls.length) queueMicrotask(() => settle(conversation.isAtBoundary));
        } else if (type !== "N" && type !== "A") {
          // An answer to somebody else's statement: the connection is not where it was taken to be.
          settle(false);
        }
      },
      onEnd: () => settle(false),
    });
    transport.write(calls.length === 0 ? discardAll : Buffer.concat([discardAll, ...calls]));
  });
}
