/** Client side of one SCRAM-SHA-256 exchange, with which the front-end logs in upstream (RFC 5802 section 5, RFC 7677). */

import { timingSafeEqual } from "node:crypto";
import { AttributeReader, isPrintable, MalformedMessage } from "./attributes.ts";
import { decodeBase64 } from "./base64.ts";
import { deriveKeysSync, hmac, type ScramKeys, storedKeyOf, xor } from "./keys.ts";

/** More than anybody configures; a server that asks for 2^31 would otherwise hold this thread for minutes. */
const maxPasswordIterations = 1_000_000;

/** What the client logs in with. */
export type ClientSecret =
  | { readonly kind: "password"; readonly password: string }
  | {
      readonly kind: "keys";
      readonly clientKey: Buffer;
      readonly serverKey: Buffer;
      /** What the server must name; see `receiveServerFirst`. */
      readonly salt: Buffer;
      readonly iterations: number;
    };

/** tls-server-end-point with its data selects SCRAM-SHA-256-PLUS; `unsupported` is the flag n, `not_offered` y. */
export type ClientChannelBinding =
  | { readonly kind: "unsupported" | "not_offered" }
  | { readonly kind: "tls-server-end-point"; readonly data: Buffer };

export interface ClientExchangeOptions {
  readonly secret: ClientSecret;
  /** Random and printable, for example 18 bytes in base64. */
  readonly clientNonce: string;
  /** Empty by default, as libpq sends it: PostgreSQL takes the startup packet's user. */
  readonly username?: string;
  readonly channelBinding?: ClientChannelBinding;
}

/** Waits for the server-first-message. */
export interface AwaitingServerFirst {
  readonly secret: ClientSecret;
  readonly clientNonce: string;
  readonly clientFirstBare: string;
  /** base64 of the cbind-input. */
  readonly binding: string;
}

/** Waits for the server-final-message: without a good one the server has not proven anything. */
export interface AwaitingServerFinal {
  readonly serverSignature: Buffer;
}

interface MalformedServerMessage {
  readonly kind: "malformed";
  readonly detail: string;
}

export type ServerFirstOutcome =
  | { readonly kind: "continue"; readonly clientFinal: string; readonly exchange: AwaitingServerFinal }
  /** The server holds another verifier than the pinned one; nothing has been sent that depends on the keys. */
  | { readonly kind: "unexpected_verifier" }
  | MalformedServerMessage;

export type ServerFinalOutcome =
  /** The server has proven that it holds the verifier. */
  | { readonly kind: "verified" }
  | { readonly kind: "refused"; readonly serverError: string }
  | { readonly kind: "wrong_server_signature" }
  | MalformedServerMessage;

/** The client-first-message for SASLInitialResponse, and the exchange that waits for the answer. */
export function beginClientExchange(options: ClientExchangeOptions): {
  readonly mechanism: "SCRAM-SHA-256" | "SCRAM-SHA-256-PLUS";
  readonly clientFirst: string;
  readonly exchange: AwaitingServerFirst;
} {
  const { secret, clientNonce, username = "", channelBinding = { kind: "unsupported" } } = options;
  const saslName = username.replaceAll("=", "=3D").replaceAll(",", "=2C");
  const clientFirstBare = `n=${saslName},r=${clientNonce}`;
  const isBound = channelBinding.kind === "tls-server-end-point";
  const flag = isBound ? "p=tls-server-end-point" : channelBinding.kind === "not_offered" ? "y" : "n";
  const header = `${flag},,`;
  const cbindInput = Buffer.concat([
    Buffer.from(header, "latin1"),
    isBound ? channelBinding.data : Buffer.alloc(0),
  ]);
  return {
    mechanism: isBound ? "SCRAM-SHA-256-PLUS" : "SCRAM-SHA-256",
    clientFirst: header + clientFirstBare,
    exchange: { secret, clientNonce, clientFirstBare, binding: cbindInput.toString("base64") },
  };
}

/**
 * Answers the server-first-message with the proof.
 *
 * With known keys, a salt or iteration count other than the pinned one means that the role's verifier
 * was replaced: then no proof is made, because one would let whoever chose the verifier test guesses.
 */
export function receiveServerFirst(exchange: AwaitingServerFirst, message: Buffer): ServerFirstOutcome {
  return orMalformed(() => {
    const challenge = readServerFirst(exchange, message);
    const keys = keysFor(exchange.secret, challenge.salt, challenge.iterations);
    if (keys === undefined) return { kind: "unexpected_verifier" };
    const withoutProof = `c=${exchange.binding},r=${challenge.nonce}`;
    const authMessage = `${exchange.clientFirstBare},${challenge.text},${withoutProof}`;
    const proof = xor(keys.clientKey, hmac(storedKeyOf(keys.clientKey), authMessage));
    return {
      kind: "continue",
      clientFinal: `${withoutProof},p=${proof.toString("base64")}`,
      exchange: { serverSignature: hmac(keys.serverKey, authMessage) },
    };
  });
}

/**
 * Checks the server-final-message. Only `verified` may be followed by anything: an AuthenticationOk
 * without it comes from a server that does not know the verifier.
 */
export function receiveServerFinal(exchange: AwaitingServerFinal, message: Buffer): ServerFinalOutcome {
  return orMalformed(() => {
    const reader = new AttributeReader(message);
    if (reader.peek() === "e") return { kind: "refused", serverError: reader.value("e") };
    const signature = decodeBase64(reader.value("v"));
    while (!reader.isAtEnd) reader.next();
    if (signature?.length !== exchange.serverSignature.length) {
      throw new MalformedMessage("Malformed signature in server-final-message.");
    }
    return timingSafeEqual(signature, exchange.serverSignature)
      ? { kind: "verified" }
      : { kind: "wrong_server_signature" };
  });
}

interface Challenge {
  /** The message, one UTF-16 unit per byte; all of it that was let through is ASCII. */
  readonly text: string;
  readonly nonce: string;
  readonly salt: Buffer;
  readonly iterations: number;
}

function readServerFirst(exchange: AwaitingServerFirst, message: Buffer): Challenge {
  const reader = new AttributeReader(message);
  if (/[^\x20-\x7e]/.test(reader.text)) {
    throw new MalformedMessage("Non-printable characters in server-first-message.");
  }
  const nonce = reader.value("r");
  if (!isPrintable(nonce) || !nonce.startsWith(exchange.clientNonce)) {
    throw new MalformedMessage("Nonce does not match.");
  }
  if (nonce.length === exchange.clientNonce.length) {
    throw new MalformedMessage("The server added nothing to the nonce.");
  }
  const salt = decodeBase64(reader.value("s"));
  if (salt === undefined || salt.length === 0) {
    throw new MalformedMessage("Malformed salt in server-first-message.");
  }
  const iterationsText = reader.value("i");
  if (!/^[1-9][0-9]{0,9}$/.test(iterationsText)) {
    throw new MalformedMessage("Malformed iteration count in server-first-message.");
  }
  while (!reader.isAtEnd) reader.next();
  return { text: reader.text, nonce, salt, iterations: Number(iterationsText) };
}

/** @returns undefined when the keys are pinned to another verifier. */
function keysFor(secret: ClientSecret, salt: Buffer, iterations: number): ScramKeys | undefined {
  if (secret.kind === "keys") {
    const isPinned = secret.salt.equals(salt) && secret.iterations === iterations;
    return isPinned ? secret : undefined;
  }
  if (iterations > maxPasswordIterations) {
    throw new MalformedMessage("Too many iterations in server-first-message.");
  }
  return deriveKeysSync(secret.password, salt, iterations);
}

function orMalformed<T>(read: () => T): T | MalformedServerMessage {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof MalformedMessage)) throw error;
    return { kind: "malformed", detail: error.detail ?? error.message };
  }
}
