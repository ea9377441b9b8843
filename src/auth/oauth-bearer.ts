/** Messages of the SASL mechanism OAUTHBEARER, as PostgreSQL 18 takes and words them (RFC 7628; PostgreSQL manual 54.3.2). */

import type { Condition } from "../errors/conditions.ts";

export const oauthBearer = "OAUTHBEARER";

/** Separates key/value pairs, and is all that a client answers to a refusal. */
const separator = "\x01";

export type BearerMessage =
  | { readonly kind: "token"; readonly token: string }
  /** The client has no token, and wants to be told where to get one. */
  | { readonly kind: "discovery" }
  /** Well-formed, with a credential that cannot be a bearer token. */
  | { readonly kind: "unusable" }
  | MalformedBearerMessage;

/** The client does not speak OAUTHBEARER as it should; FATAL. Quotes nothing of what may be a token. */
export interface MalformedBearerMessage {
  readonly kind: "malformed";
  readonly condition: Condition;
  readonly message: string;
  readonly detail: string | undefined;
}

/** Reads the client's first message: `n,,^Aauth=Bearer <token>^A^A`. */
export function readBearerMessage(message: Buffer): BearerMessage {
  const text = message.toString("latin1");
  if (text === "") return malformed("The message is empty.");
  if (text.includes("\0")) return malformed("Message length does not match input length.");
  const flag = text.charAt(0);
  if (flag === "p") {
    return malformed(
      "The server does not support channel binding for OAuth, but the client message includes channel binding data.",
    );
  }
  // The flag y says that the client could bind the channel: to what a later standard may define.
  if (flag !== "n" && flag !== "y") return malformed("Unexpected channel-binding flag.");
  if (text.charAt(1) !== ",") return malformed("Comma expected.");
  if (text.charAt(2) === "a") {
    return {
      kind: "malformed",
      condition: "feature_not_supported",
      message: "client uses authorization identity, but it is not supported",
      detail: undefined,
    };
  }
  if (text.charAt(2) !== ",") return malformed("Unexpected attribute in client-first-message.");
  if (text.charAt(3) !== separator) return malformed("Key-value separator expected.");
  return readPairs(text.slice(4));
}

/** Whether the client has answered a refusal as it must, so that it can be ended. */
export function isBearerAcknowledgement(message: Buffer): boolean {
  return message.toString("latin1") === separator;
}

/**
 * What a refused client is told before the error, and a client without a token as well (RFC 7628 section 3.2.2).
 *
 * @param issuer whose tokens are wanted; undefined when that is not known
 */
export function bearerErrorResponse(issuer: string | undefined): string {
  return JSON.stringify({
    status: "invalid_token",
    ...(issuer === undefined
      ? {}
      : { "openid-configuration": `${issuer.replace(/\/$/, "")}/.well-known/openid-configuration` }),
    scope: "openid",
  });
}

/** *( key "=" value ^A ) ^A, of which only `auth` is looked at (RFC 7628 section 3.1). */
function readPairs(text: string): BearerMessage {
  const end = text.indexOf(`${separator}${separator}`);
  const isEmpty = text === separator;
  if (end === -1 && !isEmpty) return malformed("Message did not contain a final terminator.");
  if (!isEmpty && end + 2 !== text.length) {
    return malformed("Message contains additional data after the final terminator.");
  }
  let credential: string | undefined;
  for (const pair of isEmpty ? [] : text.slice(0, end).split(separator)) {
    const equals = pair.indexOf("=");
    if (equals === -1) return malformed("Message contains a key without a value.");
    const key = pair.slice(0, equals);
    if (!/^[A-Za-z]+$/.test(key)) return malformed("Message contains an invalid key name.");
    const value = pair.slice(equals + 1);
    if (!/^[\x20-\x7e\t\r\n]*$/.test(value)) return malformed("Message contains an invalid value.");
    if (key !== "auth") continue;
    if (credential !== undefined) return malformed("Message contains multiple auth values.");
    credential = value;
  }
  if (credential === undefined) return malformed("Message does not contain an auth value.");
  if (credential === "") return { kind: "discovery" };
  // RFC 6750 section 2.1; the scheme's name in any case (RFC 7628 section 4).
  const token = /^Bearer +([A-Za-z0-9._~+/-]+=*)$/i.exec(credential)?.[1];
  return token === undefined ? { kind: "unusable" } : { kind: "token", token };
}

function malformed(detail: string): MalformedBearerMessage {
  return {
    kind: "malformed",
    condition: "protocol_violation",
    message: "malformed OAUTHBEARER message",
    detail,
  };
}
