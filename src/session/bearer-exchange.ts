/** One OAUTHBEARER exchange with a client (RFC 7628 section 3.2). */

import type { BearerOutcome } from "../auth/bearer-outcome.ts";
import { isBearerAcknowledgement, readBearerMessage } from "../auth/oauth-bearer.ts";
import { SqlError } from "../errors/sql-error.ts";
import { encodeAuthenticationSaslContinue } from "../wire/backend-message.ts";
import { decodeSaslResponse } from "../wire/frontend-message.ts";
import type { Transport } from "../wire/transport.ts";
import type { HandshakeReader } from "./handshake-reader.ts";

/** What a connection offers to clients with a token. */
export interface BearerOffer {
  /** No other mechanism is offered beside it. */
  readonly isOnly: boolean;
  /** JSON for a client whose token is refused, or that has none. */
  readonly errorResponse: string;
  /** Counts and audits both outcomes itself. */
  readonly authenticate: (token: string) => Promise<BearerOutcome>;
}

export type BearerExchangeOutcome =
  | BearerOutcome
  /** The client has only asked where tokens come from; it comes again on another connection. */
  | "discovery"
  | "closed";

/**
 * A refused client is told where tokens come from and has to acknowledge that before the exchange has failed.
 *
 * @param clientFirst its first message
 * @throws SqlError FATAL protocol_violation and its like for a client that does not speak the mechanism
 */
export async function runBearerExchange(
  reader: HandshakeReader,
  transport: Transport,
  clientFirst: Buffer,
  offer: BearerOffer,
): Promise<BearerExchangeOutcome> {
  const message = readBearerMessage(clientFirst);
  if (message.kind === "malformed") {
    const { condition, detail } = message;
    throw new SqlError(condition, message.message, { severity: "FATAL", detail });
  }
  const outcome: BearerOutcome | "discovery" =
    message.kind === "discovery"
      ? "discovery"
      : // Also what is no token goes there: it counts against its address like any other.
        await offer.authenticate(message.kind === "token" ? message.token : "");
  if (outcome !== "discovery" && outcome.ok) return outcome;
  transport.write(encodeAuthenticationSaslContinue(offer.errorResponse));
  const answer = await reader.readSaslAnswer();
  if (answer.kind === "closed") return "closed";
  if (!isBearerAcknowledgement(decodeSaslResponse(answer.body))) {
    throw new SqlError("protocol_violation", "malformed OAUTHBEARER message", {
      severity: "FATAL",
      detail: "Client did not send a kvsep response.",
    });
  }
  return outcome;
}
