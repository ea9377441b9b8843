/** The SASL conversation with a client: from the mechanisms offered to an Identity or a refusal (PostgreSQL manual 54.3). */

import type { Identity, RefusalReason } from "../auth/identity.ts";
import { oauthBearer } from "../auth/oauth-bearer.ts";
import { identityOf } from "../auth/password.ts";
import { lookupScramLogin, type ScramLoginOptions, settleScramLogin } from "../auth/scram-login.ts";
import { SqlError } from "../errors/sql-error.ts";
import {
  type MalformedExchange,
  offeredMechanisms,
  receiveClientFinal,
  receiveClientFirst,
  type ServerChannelBinding,
  scramSha256Plus,
} from "../scram/server-exchange.ts";
import {
  encodeAuthenticationSasl,
  encodeAuthenticationSaslContinue,
  encodeAuthenticationSaslFinal,
} from "../wire/backend-message.ts";
import { decodeSaslInitialResponse, decodeSaslResponse } from "../wire/frontend-message.ts";
import { maxAuthenticationMessageBytes, maxBearerMessageBytes } from "../wire/limits.ts";
import type { Transport } from "../wire/transport.ts";
import { type BearerOffer, runBearerExchange } from "./bearer-exchange.ts";
import type { HandshakeReader } from "./handshake-reader.ts";
import type { RandomBytes } from "./random-bytes.ts";

export type AuthenticationOutcome =
  /** `finalMessage` is AuthenticationSASLFinal, still to be sent, together with AuthenticationOk. */
  | { readonly kind: "accepted"; readonly identity: Identity; readonly finalMessage: Buffer }
  | { readonly kind: "refused"; readonly reason: RefusalReason }
  /** By its token, of which both outcomes have been counted and audited. */
  | { readonly kind: "bearer_accepted"; readonly identity: Identity }
  | { readonly kind: "bearer_refused"; readonly reason: RefusalReason }
  | { readonly kind: "bearer_discovery" }
  | { readonly kind: "closed" };

/**
 * Runs one exchange. It runs in full whoever asks: what is wrong with the user shows at its last step only.
 *
 * @param channelBinding tls-server-end-point data of the connection's certificate, if any
 * @param randomBytes for the nonce
 * @param bearer present where tokens are taken
 * @throws SqlError protocol_violation and its like for a client that does not speak SASL
 */
export async function authenticateBySasl(
  reader: HandshakeReader,
  transport: Transport,
  user: string,
  channelBinding: Buffer | undefined,
  logins: ScramLoginOptions,
  randomBytes: RandomBytes,
  bearer?: BearerOffer,
): Promise<AuthenticationOutcome> {
  const binding = { data: channelBinding };
  transport.write(encodeAuthenticationSasl(mechanismsOf(binding, bearer)));
  const maxBytes = bearer === undefined ? maxAuthenticationMessageBytes : maxBearerMessageBytes;
  const first = await reader.readSaslAnswer(maxBytes);
  if (first.kind === "closed") return { kind: "closed" };
  const initial = decodeSaslInitialResponse(first.body);
  const login = lookupScramLogin(logins, user, new Date());
  let clientFirst = initial.initialResponse;
  if (clientFirst === null) {
    // A client may leave the first message out and be asked for it (RFC 4422 section 3.3).
    transport.write(encodeAuthenticationSaslContinue(""));
    const late = await reader.readSaslAnswer(maxBytes);
    if (late.kind === "closed") return { kind: "closed" };
    clientFirst = decodeSaslResponse(late.body);
  }
  if (bearer !== undefined && initial.mechanism === oauthBearer) {
    const outcome = await runBearerExchange(reader, transport, clientFirst, bearer);
    if (outcome === "closed") return { kind: "closed" };
    if (outcome === "discovery") return { kind: "bearer_discovery" };
    return outcome.ok
      ? { kind: "bearer_accepted", identity: outcome.identity }
      : { kind: "bearer_refused", reason: outcome.reason };
  }
  if (bearer?.isOnly === true) {
    throw new SqlError("protocol_violation", "client selected an invalid SASL authentication mechanism", {
      severity: "FATAL",
    });
  }
  const begun = receiveClientFirst(
    {
      verifier: login.verifier,
      others: login.others,
      serverNonce: randomBytes(18).toString("base64"),
      channelBinding: binding,
    },
    initial.mechanism,
    clientFirst,
  );
  if (begun.kind === "malformed") throw malformedExchange(begun);
  if (begun.kind === "refused") return begun;
  transport.write(encodeAuthenticationSaslContinue(begun.serverFirst));
  const second = await reader.readSaslAnswer();
  if (second.kind === "closed") return { kind: "closed" };
  const outcome = receiveClientFinal(begun.exchange, decodeSaslResponse(second.body));
  if (outcome.kind === "malformed") throw malformedExchange(outcome);
  if (outcome.kind === "refused") return { kind: "refused", reason: login.reason ?? outcome.reason };
  const settled = settleScramLogin(login, outcome.verifier, new Date());
  if (!settled.ok) return { kind: "refused", reason: settled.reason };
  const { record, key } = settled;
  const passwordMethod = initial.mechanism === scramSha256Plus ? "scram-sha-256-plus" : "scram-sha-256";
  return {
    kind: "accepted",
    identity: identityOf(record, key === undefined ? passwordMethod : "api-key", key),
    finalMessage: encodeAuthenticationSaslFinal(outcome.serverFinal),
  };
}

function mechanismsOf(binding: ServerChannelBinding, bearer: BearerOffer | undefined): readonly string[] {
  if (bearer === undefined) return offeredMechanisms(binding);
  return bearer.isOnly ? [oauthBearer] : [...offeredMechanisms(binding), oauthBearer];
}

function malformedExchange(outcome: MalformedExchange): SqlError {
  return new SqlError(outcome.condition, outcome.message, { severity: "FATAL", detail: outcome.detail });
}
