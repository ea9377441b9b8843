/** One logged-in connection to the upstream, and what the front-end knows about it. */

import { encodeParameterStatus } from "../wire/backend-message.ts";
import { decodeParameterStatus } from "../wire/backend-message-decoding.ts";
import type { Transport } from "../wire/transport.ts";

/** How a connection was told its claims, to be told them again after a reset. */
export interface ToldClaims {
  /** Encoded FunctionCall messages. */
  readonly calls: readonly Buffer[];
  /** From when on they should be sealed anew, in milliseconds since 1970. */
  readonly dueAtMs: number;
  /** When the credential ends that they were told for; undefined is never. */
  readonly expiresAtMs: number | undefined;
}

export interface UpstreamConnection {
  readonly transport: Transport;
  /** pg_backend_pid() of the server process. */
  readonly processId: number;
  /** What the upstream wants in a CancelRequest. */
  readonly secretKey: Buffer;
  /** inet_client_port(); null on a unix socket, undefined until it was asked for. */
  clientPort: number | null | undefined;
  /** From when on the claims that it carries should be sealed anew, in milliseconds since 1970; 0 before the first. */
  claimsDueAtMs: number;
  /** Until when what was sealed for it has been taken back, in milliseconds since 1970; 0: nothing has. */
  claimsWithdrawnMs: number;
  /** Before the last session on it began; absent before the first, and when they have been taken back. */
  toldClaims?: ToldClaims | undefined;
  /** The parameters as last reported by ParameterStatus; kept true by whoever reads the connection. */
  readonly parameters: Map<string, string>;
  /** All of them as ParameterStatus messages; absent when one has changed since they were put together. */
  parameterStatuses?: Buffer | undefined;
  readonly openedAtMs: number;
  /** Cancel requests on their way; the connection must not change hands before they have ended. */
  readonly cancels: Set<Promise<void>>;
  /** False when something is not known about it any more; it is closed instead of reused. */
  isReusable: boolean;
}

/** Keeps `parameters` true: applies the body of one ParameterStatus (PostgreSQL manual 54.2.7). */
export function noteParameterStatus(connection: UpstreamConnection, body: Buffer): void {
  const { name, value } = decodeParameterStatus(body);
  connection.parameters.set(name, value);
  connection.parameterStatuses = undefined;
}

/** The parameters for a client whose session begins: one ParameterStatus for each. */
export function encodeParameters(connection: UpstreamConnection): Buffer {
  connection.parameterStatuses ??= Buffer.concat(
    [...connection.parameters].map(([name, value]) => encodeParameterStatus(name, value)),
  );
  return connection.parameterStatuses;
}
