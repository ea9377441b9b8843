/** The documents of a provider: its JWK set (RFC 7517), and the discovery document that says where that is. */

import { createPublicKey, type KeyObject } from "node:crypto";
import { isLoopbackHost } from "../config/provider-url.ts";
import { parseStrictObject } from "./strict-json.ts";

/** A public key that signatures can be checked with. */
export interface SigningKey {
  readonly kid: string | undefined;
  /** The only algorithm that it is for, when it says so. */
  readonly alg: string | undefined;
  readonly shape: KeyShape;
  readonly key: KeyObject;
}

/** Key type and curve. */
export type KeyShape = "RSA" | "P-256" | "P-384" | "P-521" | "Ed25519";

/** What a key of each algorithm is (RFC 7518 section 3.1, RFC 8037 section 3.1). */
const shapes: Readonly<Record<string, KeyShape>> = {
  RS256: "RSA",
  RS384: "RSA",
  RS512: "RSA",
  ES256: "P-256",
  ES384: "P-384",
  ES512: "P-521",
  EdDSA: "Ed25519",
};

/** Keys of one set; a provider has a handful. */
const maxKeys = 100;
/** In bits. The lower one is RFC 7518's; a longer one only takes time. */
const rsaBits = { min: 2048, max: 8192 };

/**
 * @returns the keys of a set that are for signatures; those of other kinds are passed over, as RFC 7517 section 5 wants it
 * @throws Error when it is no JWK set, or none of its keys is of use
 */
export function parseJwks(body: Uint8Array): readonly SigningKey[] {
  const document = parseStrictObject(body);
  const keys = document?.keys;
  if (!Array.isArray(keys)) throw new Error("the answer is no JWK set");
  if (keys.length > maxKeys) throw new Error(`the JWK set has more than ${maxKeys} keys`);
  const usable = keys.map(toSigningKey).filter((key) => key !== undefined);
  if (usable.length === 0) throw new Error("the JWK set has no key for signatures");
  return usable;
}

function toSigningKey(jwk: unknown): SigningKey | undefined {
  if (typeof jwk !== "object" || jwk === null) return undefined;
  const member = (name: string): unknown => (Object.hasOwn(jwk, name) ? Reflect.get(jwk, name) : undefined);
  const [kid, alg, use, operations] = ["kid", "alg", "use", "key_ops"].map(member);
  if (kid !== undefined && typeof kid !== "string") return undefined;
  if (alg !== undefined && typeof alg !== "string") return undefined;
  if (use !== undefined && use !== "sig") return undefined;
  if (operations !== undefined && !(Array.isArray(operations) && operations.includes("verify")))
    return undefined;
  const shape = shapeOf(member("kty"), member("crv"));
  if (shape === undefined) return undefined;
  try {
    // Only the public members: of a set that holds private keys by mistake nothing more is taken.
    const members = ["kty", "crv", "n", "e", "x", "y"].map((name) => [name, member(name)] as const);
    const publicJwk = Object.fromEntries(members.filter(([, value]) => typeof value === "string"));
    const key = createPublicKey({ key: publicJwk, format: "jwk" });
    const bits = key.asymmetricKeyDetails?.modulusLength;
    if (bits !== undefined && (bits < rsaBits.min || bits > rsaBits.max)) return undefined;
    return { kid, alg, shape, key };
  } catch {
    // Not a point of its curve, or no key at all.
    return undefined;
  }
}

function shapeOf(type: unknown, curve: unknown): KeyShape | undefined {
  if (type === "RSA") return "RSA";
  const known = type === "EC" ? ["P-256", "P-384", "P-521"] : type === "OKP" ? ["Ed25519"] : [];
  return typeof curve === "string" && known.includes(curve) ? (curve as KeyShape) : undefined;
}

/**
 * The key that a token's header names. Without a `kid` there must be one that it can be, and not more: trying one after the other
 * would let a weak one stand for all.
 *
 * @returns undefined when there is none
 */
export function selectKey(
  keys: readonly SigningKey[],
  { alg, kid }: { readonly alg: string; readonly kid: string | undefined },
): SigningKey | undefined {
  const fitting = keys.filter(
    (key) =>
      key.shape === shapes[alg] &&
      (key.alg === undefined || key.alg === alg) &&
      (kid === undefined || key.kid === kid),
  );
  return fitting.length === 1 ? fitting[0] : undefined;
}

/** Where an issuer's discovery document is (OpenID Connect Discovery 1.0 section 4). */
export function discoveryUrl(issuer: string): string {
  return `${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`;
}

/**
 * @returns the URL of the JWK set
 * @throws Error when the document is somebody else's, or names no URL that may be asked
 */
export function parseDiscovery(body: Uint8Array, issuer: string): string {
  const document = parseStrictObject(body);
  if (document === undefined) throw new Error("the answer is no discovery document");
  // Else whoever answers there could vouch for another issuer (Discovery 1.0 section 4.3).
  if (document.issuer !== issuer) throw new Error("the discovery document is of another issuer");
  const url = document.jwks_uri;
  if (typeof url !== "string" || !URL.canParse(url))
    throw new Error("the discovery document names no JWK set");
  const { protocol, hostname } = new URL(url);
  const isAllowed =
    protocol === "https:"
      ? !isLoopbackHost(hostname) || isLoopbackHost(new URL(issuer).hostname)
      : protocol === "http:" && isLoopbackHost(hostname) && isLoopbackHost(new URL(issuer).hostname);
  if (!isAllowed) throw new Error("the discovery document names a URL that is not asked");
  return url;
}
