/** Returns a connection to the state of a fresh login (PostgreSQL manual, DISCARD). */

import { Conversation } from "./conversation.ts";
import { noteParameterStatus, type UpstreamConnection } from "./upstream-connection.ts";

/** A reset that takes longer than this is stuck behind something; closing is cheaper, in ms. */
const resetTimeoutMs = 5_000;

const discardAll = Buffer.from("Q\0\0\0\x10DISCARD ALL\0", "latin1");

/**
 * Runs DISCARD ALL: settings, prepared statements, portals, temporary tables, advisory locks, LISTEN.
 * The connection must wait for a command outside a transaction.
 *
 * @returns false when the connection cannot be used again
 */
export function resetConnection(connection: UpstreamConnection): Promise<boolean> {
  const { transport } = connection;
  if (transport.isClosed) return Promise.resolve(false);
  return new Promise((resolve) => {
    let hasFailed = false;
    const settle = (isUsable: boolean) => {
      clearTimeout(timer);
      transport.stop();
      resolve(isUsable);
    };
    const timer = setTimeout(() => settle(false), resetTimeoutMs);
    const conversation: Conversation = new Conversation(transport, {
      onMessage: (type, body) => {
        if (type === "S") noteParameterStatus(connection, body);
        else if (type === "E") hasFailed = true;
        else if (type === "Z")
          queueMicrotask(() => settle(!hasFailed && body[0] === 0x49 && conversation.isAtBoundary));
      },
      onEnd: () => settle(false),
    });
    transport.write(discardAll);
  });
}
