/** From a client that has introduced itself to an Identity or a refusal: its certificate, or a SASL exchange (PostgreSQL manual 54.3). */

import { randomBytes } from "node:crypto";
import type { Identity, RefusalReason } from "../auth/identity.ts";
import { identityOf } from "../auth/password.ts";
import { lookupScramLogin, type ScramLoginOptions, settleScramLogin } from "../auth/scram-login.ts";
import { SqlError } from "../errors/sql-error.ts";
import {
  type MalformedExchange,
  offeredMechanisms,
  receiveClientFinal,
  receiveClientFirst,
  scramSha256Plus,
} from "../scram/server-exchange.ts";
import {
  encodeAuthenticationSasl,
  encodeAuthenticationSaslContinue,
  encodeAuthenticationSaslFinal,
} from "../wire/backend-message.ts";
import { decodeSaslInitialResponse, decodeSaslResponse } from "../wire/frontend-message.ts";
import type { Transport } from "../wire/transport.ts";
import type { HandshakeReader } from "./handshake-reader.ts";

export type AuthenticationOutcome =
  /** `finalMessage` is AuthenticationSASLFinal, still to be sent, together with AuthenticationOk. */
  | { readonly kind: "accepted"; readonly identity: Identity; readonly finalMessage: Buffer }
  | { readonly kind: "refused"; readonly reason: RefusalReason }
  | { readonly kind: "closed" };

/**
 * Runs one exchange. It runs in full whoever asks: what is wrong with the user shows at its last step only.
 *
 * @param channelBinding tls-server-end-point data of the connection's certificate, if any
 * @throws SqlError protocol_violation and its like for a client that does not speak SASL
 */
export async function authenticateBySasl(
  reader: HandshakeReader,
  transport: Transport,
  user: string,
  channelBinding: Buffer | undefined,
  logins: ScramLoginOptions,
): Promise<AuthenticationOutcome> {
  const binding = { data: channelBinding };
  transport.write(encodeAuthenticationSasl(offeredMechanisms(binding)));
  const first = await reader.readSaslAnswer();
  if (first.kind === "closed") return { kind: "closed" };
  const initial = decodeSaslInitialResponse(first.body);
  const login = lookupScramLogin(logins, user, new Date());
  let clientFirst = initial.initialResponse;
  if (clientFirst === null) {
    // A client may leave the first message out and be asked for it (RFC 4422 section 3.3).
    transport.write(encodeAuthenticationSaslContinue(""));
    const late = await reader.readSaslAnswer();
    if (late.kind === "closed") return { kind: "closed" };
    clientFirst = decodeSaslResponse(late.body);
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

function malformedExchange(outcome: MalformedExchange): SqlError {
  return new SqlError(outcome.condition, outcome.message, { severity: "FATAL", detail: outcome.detail });
}
