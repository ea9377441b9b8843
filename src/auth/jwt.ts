/** Signed tokens in compact form (RFC 7519, RFC 7515, and RFC 8725 on what has gone wrong with them). */

import type { KeyObject } from "node:crypto";
import { errors, jwtVerify } from "jose";
import type { TokenPayload } from "./claim-mapping.ts";
import type { RefusalReason } from "./identity.ts";
import { parseStrictObject } from "./strict-json.ts";
import { chooseProvider, type TokenProvider } from "./token-provider.ts";

export type KeyOutcome =
  | { readonly ok: true; readonly key: KeyObject }
  | {
      readonly ok: false;
      readonly reason: Extract<RefusalReason, "unknown_signing_key" | "keys_unavailable">;
    };

export interface TokenVerification {
  readonly providers: readonly TokenProvider[];
  /** Finds the key of a provider that a header names. */
  readonly findKey: (provider: TokenProvider, header: TokenHeader) => Promise<KeyOutcome>;
  /** How far the clocks may be apart. */
  readonly clockSkewMs: number;
  readonly now: Date;
}

/** Of a token's header what is looked at; a key or the address of one in it (jwk, jku, x5c, x5u) is not. */
export interface TokenHeader {
  readonly alg: string;
  readonly kid: string | undefined;
}

/** A token whose signature, times and audience have been checked. */
export interface VerifiedToken {
  readonly ok: true;
  readonly provider: TokenProvider;
  readonly subject: string;
  readonly payload: TokenPayload;
  /** With the skew. */
  readonly expiresAt: Date;
}

export type TokenOutcome =
  | VerifiedToken
  | { readonly ok: false; readonly reason: RefusalReason; readonly provider?: string };

/** As PostgreSQL's names of anything, with room. */
const maxSubjectLength = 255;
const maxKidLength = 255;

/** What the `typ` of an access or identity token may be (RFC 9068 section 2.1); others are tokens for something else. */
const acceptedTypes: readonly string[] = ["jwt", "at+jwt"];

/** Checks a token of any of the providers. Which provider's it is decides which keys and algorithms there are at all. */
export async function verifyToken(token: string, options: TokenVerification): Promise<TokenOutcome> {
  const decoded = decodeToken(token);
  if (decoded === undefined) return { ok: false, reason: "malformed_token" };
  const { header, payload } = decoded;
  const checkedHeader = readHeader(header);
  if (checkedHeader === undefined) return { ok: false, reason: "unacceptable_header" };
  const audiences = readAudiences(payload.aud);
  const issuer = payload.iss;
  if (audiences === undefined || typeof issuer !== "string") return { ok: false, reason: "malformed_token" };
  const choice = chooseProvider(options.providers, issuer, audiences);
  if (!choice.ok) return choice;
  const { provider } = choice;
  const refuse = (reason: RefusalReason): TokenOutcome => ({ ok: false, reason, provider: provider.name });
  if (!provider.algorithms.includes(checkedHeader.alg)) return refuse("algorithm_not_allowed");
  const found = await options.findKey(provider, checkedHeader);
  if (!found.ok) return refuse(found.reason);
  const failure = await checkSignatureAndTimes(token, found.key, checkedHeader.alg, provider, options);
  if (failure !== undefined) return refuse(failure);
  const subject = payload.sub;
  if (!isUsableSubject(subject)) return refuse("no_subject");
  const skewMs = options.clockSkewMs;
  const issuedAt = payload.iat;
  if (issuedAt !== undefined) {
    if (typeof issuedAt !== "number") return refuse("malformed_token");
    if (issuedAt * 1000 > options.now.getTime() + skewMs) return refuse("token_not_yet_valid");
  }
  return { ok: true, provider, subject, payload, expiresAt: momentOf(Number(payload.exp), skewMs) };
}

interface DecodedToken {
  readonly header: TokenPayload;
  readonly payload: TokenPayload;
}

function decodeToken(token: string): DecodedToken | undefined {
  const match = /^([\w-]+)\.([\w-]+)\.([\w-]+)$/.exec(token);
  if (match === null) return undefined;
  const header = parseStrictObject(Buffer.from(match[1] ?? "", "base64url"));
  const payload = parseStrictObject(Buffer.from(match[2] ?? "", "base64url"));
  return header === undefined || payload === undefined ? undefined : { header, payload };
}

/** @returns undefined for a header that asks for more than a signature over the payload as it stands */
function readHeader(header: TokenPayload): TokenHeader | undefined {
  const { alg, kid, typ } = header;
  if (typeof alg !== "string") return undefined;
  // What `crit` names has to be understood, and nothing is (RFC 7515 section 4.1.11); `b64` is of RFC 7797, `zip` of JWE.
  if (["crit", "b64", "zip", "enc"].some((name) => Object.hasOwn(header, name))) return undefined;
  if (kid !== undefined && (typeof kid !== "string" || kid.length > maxKidLength)) return undefined;
  if (typ !== undefined) {
    if (typeof typ !== "string") return undefined;
    if (!acceptedTypes.includes(typ.toLowerCase().replace(/^application\//, ""))) return undefined;
  }
  return { alg, kid };
}

/** One or several (RFC 7519 section 4.1.3); a token without any is for a provider without one. */
function readAudiences(aud: unknown): readonly string[] | undefined {
  if (aud === undefined) return [];
  if (typeof aud === "string") return [aud];
  return Array.isArray(aud) && aud.every((entry) => typeof entry === "string") ? aud : undefined;
}

/** @returns undefined when all is well */
async function checkSignatureAndTimes(
  token: string,
  key: KeyObject,
  algorithm: string,
  { issuer, audience }: TokenProvider,
  { clockSkewMs, now }: TokenVerification,
): Promise<RefusalReason | undefined> {
  try {
    await jwtVerify(token, key, {
      algorithms: [algorithm],
      issuer,
      ...(audience === undefined ? {} : { audience }),
      clockTolerance: clockSkewMs / 1000,
      currentDate: now,
      requiredClaims: ["exp"],
    });
    return undefined;
  } catch (error) {
    return reasonOf(error);
  }
}

function reasonOf(error: unknown): RefusalReason {
  if (error instanceof errors.JWTExpired) return "token_expired";
  if (error instanceof errors.JWTClaimValidationFailed) {
    if (error.claim === "exp") return "token_without_expiry";
    return error.claim === "nbf" && error.reason === "check_failed"
      ? "token_not_yet_valid"
      : "malformed_token";
  }
  if (error instanceof errors.JWSSignatureVerificationFailed) return "bad_signature";
  if (error instanceof errors.JOSEAlgNotAllowed) return "algorithm_not_allowed";
  if (error instanceof errors.JOSEError) return "malformed_token";
  // A key that is of no use for the algorithm: that of a provider with one key, or a malformed one in its set.
  if (error instanceof TypeError) return "unknown_signing_key";
  throw error;
}

/** Text that a role's name can be made of without two subjects becoming one: half a surrogate pair has no UTF-8. */
function isUsableSubject(subject: unknown): subject is string {
  return (
    typeof subject === "string" &&
    subject !== "" &&
    subject.length <= maxSubjectLength &&
    !/[\0\p{Surrogate}]/u.test(subject)
  );
}

/** Farthest moment that a Date can hold: a token may say that it never expires in so many words. */
const maxDateMs = 8.64e15;

function momentOf(seconds: number, skewMs: number): Date {
  return new Date(Math.min(seconds * 1000 + skewMs, maxDateMs));
}
