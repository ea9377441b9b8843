/** Passes a CancelRequest on to the upstream (PostgreSQL manual 54.2.9). */

import { encodeCancelRequest } from "../wire/frontend-message-encoding.ts";
import { openUpstreamSocket, type UpstreamEndpoint } from "./endpoint.ts";
import type { UpstreamConnection } from "./upstream-connection.ts";

/** How long the upstream may take to act on a cancel before the connection counts as unusable, in ms. */
const cancelTimeoutMs = 5_000;

/**
 * Cancels whatever the connection is running, and resolves when the upstream has sent the signal: it
 * closes the cancel connection only then. While that is pending the connection is marked, so that the
 * pool cannot give it to anybody whom a late signal would hit.
 *
 * Never rejects: a cancel that fails is a cancel that had no effect, as in PostgreSQL.
 */
export function cancelUpstream(endpoint: UpstreamEndpoint, connection: UpstreamConnection): Promise<void> {
  const cancel = sendCancel(endpoint, connection).finally(() => {
    connection.cancels.delete(cancel);
  });
  connection.cancels.add(cancel);
  return cancel;
}

async function sendCancel(endpoint: UpstreamEndpoint, connection: UpstreamConnection): Promise<void> {
  const { processId, secretKey } = connection;
  // Else the signal may still come, whenever it likes.
  if (!(await requestCancel(endpoint, processId, secretKey))) connection.isReusable = false;
}

/**
 * Sends one CancelRequest. Never rejects.
 *
 * @returns whether the upstream is done with it, or could not be reached at all
 */
export async function requestCancel(
  endpoint: UpstreamEndpoint,
  processId: number,
  secretKey: Buffer,
): Promise<boolean> {
  const socket = await openUpstreamSocket(endpoint, cancelTimeoutMs).catch(() => undefined);
  if (socket === undefined) return true;
  return new Promise((resolve) => {
    let isInTime = true;
    const timer = setTimeout(() => {
      isInTime = false;
      socket.destroy();
    }, cancelTimeoutMs);
    socket.once("close", () => {
      clearTimeout(timer);
      resolve(isInTime);
    });
    // A reset is the same to us as a close: the upstream is done with the request.
    socket.once("error", () => socket.destroy());
    socket.resume();
    socket.write(encodeCancelRequest(processId, secretKey));
  });
}
