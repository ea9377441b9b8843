/** Server side of one SCRAM-SHA-256 or SCRAM-SHA-256-PLUS exchange (RFC 5802 section 5, RFC 7677). */

import { timingSafeEqual } from "node:crypto";
import type { Condition } from "../errors/conditions.ts";
import { AttributeReader, isPrintable, MalformedMessage, sanitize } from "./attributes.ts";
import { decodeBase64 } from "./base64.ts";
import { hmac, keyBytes, storedKeyOf, xor } from "./keys.ts";
import type { ScramVerifier } from "./verifier.ts";

export const scramSha256 = "SCRAM-SHA-256";
export const scramSha256Plus = "SCRAM-SHA-256-PLUS";

/** What this connection can bind to; `undefined` data: no TLS, or a certificate that has no binding. */
export interface ServerChannelBinding {
  /** tls-server-end-point data, given exactly when SCRAM-SHA-256-PLUS was offered. */
  readonly data: Buffer | undefined;
}

export interface ServerExchangeOptions {
  readonly verifier: ScramVerifier;
  /** Further ones that a proof may fit, of the same salt and iteration count. */
  readonly others?: readonly ScramVerifier[];
  /** Random and printable, for example 18 bytes in base64; an argument, so that an exchange can be replayed. */
  readonly serverNonce: string;
  readonly channelBinding: ServerChannelBinding;
}

type ChannelBindingFlag = "n" | "y" | "p";

/** Waits for the client-final-message. Use it once: a proof is good for one nonce only. */
export interface AwaitingClientFinal {
  readonly verifiers: readonly ScramVerifier[];
  readonly channelBinding: ServerChannelBinding;
  readonly flag: ChannelBindingFlag;
  readonly clientFirstBare: string;
  readonly serverFirst: string;
  readonly nonce: string;
}

/** The client does not speak SCRAM as it should; worded as PostgreSQL words it, and FATAL. */
export interface MalformedExchange {
  readonly kind: "malformed";
  readonly condition: Condition;
  readonly message: string;
  readonly detail: string | undefined;
}

export type RefusedReason = "wrong_password" | "channel_binding_mismatch";

/** To the client every refusal is the same `invalid_password`; the reason is for the log. */
export interface RefusedExchange {
  readonly kind: "refused";
  readonly reason: RefusedReason;
}

export type ClientFirstOutcome =
  | { readonly kind: "continue"; readonly serverFirst: string; readonly exchange: AwaitingClientFinal }
  | RefusedExchange
  | MalformedExchange;

export type ClientFinalOutcome =
  | {
      readonly kind: "accepted";
      readonly serverFinal: string;
      readonly clientKey: Buffer;
      /** The one that the proof fits. */
      readonly verifier: ScramVerifier;
    }
  | RefusedExchange
  | MalformedExchange;

/** Mechanisms to offer in AuthenticationSASL, the stronger first as PostgreSQL lists them. */
export function offeredMechanisms(channelBinding: ServerChannelBinding): string[] {
  return channelBinding.data === undefined ? [scramSha256] : [scramSha256Plus, scramSha256];
}

/**
 * Answers the client-first-message. Nothing has been verified yet.
 *
 * The user name in the message is ignored, as PostgreSQL does: the startup packet's decides, and the
 * verifier is already that user's.
 *
 * @param mechanism the one that SASLInitialResponse names
 */
export function receiveClientFirst(
  options: ServerExchangeOptions,
  mechanism: string,
  message: Buffer,
): ClientFirstOutcome {
  return orMalformed(() => readClientFirst(options, mechanism, message));
}

/**
 * Checks the client-final-message: `accepted` says that the client knows the password of one of the verifiers,
 * and, with SCRAM-SHA-256-PLUS, that it sees our certificate.
 *
 * A mock verifier takes the same time and is always refused as a wrong password. Every verifier is tried, whichever fits.
 */
export function receiveClientFinal(exchange: AwaitingClientFinal, message: Buffer): ClientFinalOutcome {
  return orMalformed(() => readClientFinal(exchange, message));
}

function readClientFirst(
  options: ServerExchangeOptions,
  mechanism: string,
  message: Buffer,
): ClientFirstOutcome {
  const isPlus = mechanism === scramSha256Plus && options.channelBinding.data !== undefined;
  if (!isPlus && mechanism !== scramSha256) {
    throw new MalformedMessage(undefined, "client selected an invalid SASL authentication mechanism");
  }
  const reader = new AttributeReader(message);
  const flag = readFlag(reader, isPlus);
  // The client believes that no channel binding was offered, though it was: somebody removed it (RFC 5802 section 6).
  if (flag === "y" && options.channelBinding.data !== undefined) {
    return { kind: "refused", reason: "channel_binding_mismatch" };
  }
  if (reader.peek() === "a") {
    return unsupported("client uses authorization identity, but it is not supported");
  }
  if (reader.peek() !== ",") {
    throw new MalformedMessage(`Unexpected attribute "${sanitize(reader.peek())}" in client-first-message.`);
  }
  reader.skip();
  const clientFirstBare = reader.text.slice(reader.offset);
  if (reader.peek() === "m") return unsupported("client requires an unsupported SCRAM extension");
  reader.value("n");
  const clientNonce = reader.value("r");
  if (!isPrintable(clientNonce)) {
    throw new MalformedMessage(undefined, "non-printable characters in SCRAM nonce");
  }
  while (!reader.isAtEnd) reader.next();

  const { verifier, others = [], serverNonce, channelBinding } = options;
  const nonce = clientNonce + serverNonce;
  const serverFirst = `r=${nonce},s=${verifier.salt.toString("base64")},i=${verifier.iterations}`;
  const verifiers = [verifier, ...others];
  const exchange = { verifiers, channelBinding, flag, clientFirstBare, serverFirst, nonce };
  return { kind: "continue", serverFirst, exchange };
}

/** Reads the gs2-cbind-flag and the comma behind it (RFC 5802 section 7). */
function readFlag(reader: AttributeReader, isPlus: boolean): ChannelBindingFlag {
  const flag = reader.peek();
  if (flag === "n" || flag === "y") {
    if (isPlus) {
      throw new MalformedMessage(
        "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.",
      );
    }
    reader.skip();
    if (reader.peek() !== ",") {
      throw new MalformedMessage(`Comma expected, but found character "${sanitize(reader.peek())}".`);
    }
    reader.skip();
    return flag;
  }
  if (flag !== "p") throw new MalformedMessage(`Unexpected channel-binding flag "${sanitize(flag)}".`);
  if (!isPlus) {
    throw new MalformedMessage(
      "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.",
    );
  }
  const type = reader.value("p");
  if (type !== "tls-server-end-point") {
    const shown = type.slice(0, 30).replace(/[^\x21-\x7e]/g, "?");
    throw new MalformedMessage(undefined, `unsupported SCRAM channel-binding type "${shown}"`);
  }
  return flag;
}

function readClientFinal(exchange: AwaitingClientFinal, message: Buffer): ClientFinalOutcome {
  const reader = new AttributeReader(message);
  const binding = reader.value("c");
  if (!isSameText(binding, expectedBinding(exchange))) {
    if (exchange.flag === "p") return { kind: "refused", reason: "channel_binding_mismatch" };
    throw new MalformedMessage(
      undefined,
      "unexpected SCRAM channel-binding attribute in client-final-message",
    );
  }
  const nonce = reader.value("r");
  const { value: proofText, start: proofStart } = readProof(reader);
  const proof = decodeBase64(proofText);
  if (proof?.length !== keyBytes) {
    throw new MalformedMessage("Malformed proof in client-final-message.");
  }
  if (!reader.isAtEnd) throw new MalformedMessage("Garbage found at the end of client-final-message.");
  if (!isSameText(nonce, exchange.nonce)) {
    throw new MalformedMessage("Nonce does not match.", "invalid SCRAM response");
  }

  const withoutProof = reader.text.slice(0, proofStart - 1);
  const authMessage = Buffer.from(
    `${exchange.clientFirstBare},${exchange.serverFirst},${withoutProof}`,
    "latin1",
  );
  let proven: { readonly verifier: ScramVerifier; readonly clientKey: Buffer } | undefined;
  for (const verifier of exchange.verifiers) {
    const clientKey = xor(proof, hmac(verifier.storedKey, authMessage));
    const isProven = timingSafeEqual(storedKeyOf(clientKey), verifier.storedKey);
    // Only after the comparison, so that a mock exchange takes as long as a real one with a wrong password.
    if (isProven && verifier.kind === "stored") proven ??= { verifier, clientKey };
  }
  if (proven === undefined) return { kind: "refused", reason: "wrong_password" };
  const signature = hmac(proven.verifier.serverKey, authMessage);
  const { verifier, clientKey } = proven;
  return { kind: "accepted", serverFinal: `v=${signature.toString("base64")}`, verifier, clientKey };
}

/** Skips optional extensions up to the proof. */
function readProof(reader: AttributeReader): { readonly value: string; readonly start: number } {
  for (;;) {
    const start = reader.offset;
    const { name, value } = reader.next();
    if (name === "p") return { value, start };
  }
}

/** base64 of the cbind-input: the gs2-header again, and with it what the client is bound to. */
function expectedBinding(exchange: AwaitingClientFinal): string {
  const { flag, channelBinding } = exchange;
  if (flag !== "p") return Buffer.from(`${flag},,`, "latin1").toString("base64");
  const header = Buffer.from("p=tls-server-end-point,,", "latin1");
  return Buffer.concat([header, channelBinding.data ?? Buffer.alloc(0)]).toString("base64");
}

function isSameText(left: string, right: string): boolean {
  const leftBytes = Buffer.from(left, "latin1");
  const rightBytes = Buffer.from(right, "latin1");
  return leftBytes.length === rightBytes.length && timingSafeEqual(leftBytes, rightBytes);
}

function unsupported(message: string): MalformedExchange {
  return { kind: "malformed", condition: "feature_not_supported", message, detail: undefined };
}

function orMalformed<T>(read: () => T): T | MalformedExchange {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof MalformedMessage)) throw error;
    const { message, detail } = error;
    return { kind: "malformed", condition: "protocol_violation", message, detail };
  }
}
