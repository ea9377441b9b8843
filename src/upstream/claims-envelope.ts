/**
 * The envelope in which an identity's claims reach PostgreSQL: `hex(HMAC-SHA256(K, kid ‖ json)) ‖ kid ‖ json` (RFC 2104), good
 * for one connection and a bounded time. auth.session() opens it there; nobody who may send any SQL can make one.
 */

import { createHash, createHmac } from "node:crypto";
import { SqlError } from "../errors/sql-error.ts";
import { deriveSecret } from "./role-credential.ts";

/** What `$auth` reads; the keys of an object are its claims' names. */
export type SealableClaims = Readonly<Record<string, unknown>>;

/** The key of one database. */
export interface ClaimsKey {
  /** 16 hexadecimal digits that name it; no secret. */
  readonly kid: string;
  readonly secret: Buffer;
  /** The key, padded for the two hashes of an HMAC (RFC 2104 section 2), 64 bytes each: what PostgreSQL keeps. */
  readonly innerPad: Buffer;
  readonly outerPad: Buffer;
}

/** The connection that an envelope is good for, as PostgreSQL sees it. */
export interface ClaimsBinding {
  readonly processId: number;
  /** inet_client_port(); null on a unix socket. */
  readonly clientPort: number | null;
  readonly sessionUser: string;
  readonly database: string;
}

/** The moment of sealing and the one from which no transaction may begin with it, in milliseconds since 1970. */
export interface ClaimsPeriod {
  readonly issuedAtMs: number;
  readonly expiresAtMs: number;
}

/** Longest envelope, in bytes: PostgreSQL refuses a longer one before it hashes it. */
export const maxEnvelopeBytes = 16_384;

/** What an envelope is for: no other use of the key can be taken for one. */
export const envelopeType = "nodedb-session";

const blockBytes = 64;

/**
 * The key of a database. Each has its own, so that what is copied from one (CREATE DATABASE … TEMPLATE, a restored dump) opens
 * nothing in another.
 */
export function deriveClaimsKey(masterSecret: Buffer, database: string): ClaimsKey {
  const secret = deriveSecret(masterSecret, `claims key 1\0${database}`);
  const kid = createHash("sha256").update("kid").update(secret).digest("hex").slice(0, 16);
  const padded = Buffer.concat([secret, Buffer.alloc(blockBytes - secret.length)]);
  return {
    kid,
    secret,
    innerPad: Buffer.from(padded.map((byte) => byte ^ 0x36)),
    outerPad: Buffer.from(padded.map((byte) => byte ^ 0x5c)),
  };
}

/**
 * Seals claims for one connection.
 *
 * @returns printable ASCII, so that it is the same in every encoding
 * @throws SqlError invalid_authorization_specification for a claim that PostgreSQL's jsonb cannot hold,
 *   program_limit_exceeded when they are too large
 */
export function sealClaims(
  key: ClaimsKey,
  binding: ClaimsBinding,
  period: ClaimsPeriod,
  claims: SealableClaims,
): string {
  const json = toAsciiJson({
    typ: envelopeType,
    pid: binding.processId,
    port: binding.clientPort,
    su: binding.sessionUser,
    db: binding.database,
    iat: period.issuedAtMs / 1000,
    exp: period.expiresAtMs / 1000,
    claims,
  });
  const signed = `${key.kid}${json}`;
  const envelope = `${createHmac("sha256", key.secret).update(signed, "latin1").digest("hex")}${signed}`;
  if (envelope.length <= maxEnvelopeBytes) return envelope;
  throw new SqlError("program_limit_exceeded", "the claims of this identity are too large", {
    detail: `They have ${json.length} bytes, and with what belongs to them at most ${maxEnvelopeBytes} are accepted.`,
    hint: "Map fewer claims, or let the provider send shorter ones.",
  });
}

/**
 * JSON of ASCII characters only.
 *
 * @throws SqlError invalid_authorization_specification when a text holds U+0000 or half a surrogate pair: jsonb has neither
 */
export function toAsciiJson(value: unknown): string {
  const json = JSON.stringify(value);
  // JSON.stringify escapes lone surrogates, and nothing else of them.
  if (/(?<!\\)(\\\\)*\\u(0000|d[89a-f])/.test(json)) {
    throw new SqlError("invalid_authorization_specification", "a claim holds characters that are no text");
  }
  return json.replaceAll(
    /[\u007f-\uffff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
