/** Tokens made by hand, right or wrong in any letter, and their verification at a fixed moment. */

import { type KeyObject, sign } from "node:crypto";
import type { JWK } from "jose";
import { expect } from "vitest";
import { parseJwks, selectKey } from "../../src/auth/jwks-document.ts";
import { type TokenOutcome, verifyToken } from "../../src/auth/jwt.ts";
import type { TokenProvider } from "../../src/auth/token-provider.ts";
import { type IssuerKey, makeKey } from "./issuer.ts";

export const issuer = "https://id.example.com/tenant";
const now = new Date("2030-01-01T00:00:00Z");
/** The moment of all of it, in seconds since 1970. */
export const seconds = now.getTime() / 1000;
export const skewMs = 60_000;

/** Keys of the provider: `ec` (ES256) and `rsa` (RS256). */
export const [ec, rsa] = await Promise.all([makeKey("ES256", "ec"), makeKey("RS256", "rsa")]);

export function providerOf(changes: Partial<TokenProvider> = {}): TokenProvider {
  return {
    name: "main",
    source: "catalog",
    issuer,
    audience: "api",
    tenantId: 1,
    algorithms: ["ES256", "RS256"],
    keys: { kind: "jwks", url: undefined },
    claimMapping: [],
    defaultRoles: [],
    refreshRequestedAt: undefined,
    ...changes,
  };
}

export function verify(
  token: string,
  providers: readonly TokenProvider[] = [providerOf()],
  published: readonly JWK[] = [ec.publicJwk, rsa.publicJwk],
): Promise<TokenOutcome> {
  const keys = parseJwks(Buffer.from(JSON.stringify({ keys: published })));
  return verifyToken(token, {
    providers,
    findKey: async (_provider, header) => {
      const found = selectKey(keys, header);
      return found === undefined
        ? { ok: false, reason: "unknown_signing_key" }
        : { ok: true, key: found.key };
    },
    clockSkewMs: skewMs,
    now,
  });
}

export function encode(part: string | Buffer | object): string {
  const bytes =
    typeof part === "string" || Buffer.isBuffer(part) ? Buffer.from(part) : Buffer.from(JSON.stringify(part));
  return bytes.toString("base64url");
}

export const claims = (changes: object = {}) => ({
  iss: issuer,
  aud: "api",
  sub: "erika",
  exp: seconds + 300,
  ...changes,
});
export const header = (changes: object = {}) => ({ alg: "ES256", kid: "ec", ...changes });

/** With a good signature, over whatever the parts are. */
export function signed(
  payload: object | string = claims(),
  head: object | string = header(),
  key: IssuerKey = ec,
): string {
  const input = `${encode(head)}.${encode(payload)}`;
  const signature = sign("sha256", Buffer.from(input), {
    key: key.privateKey as unknown as KeyObject,
    dsaEncoding: "ieee-p1363",
  });
  return `${input}.${signature.toString("base64url")}`;
}

export const refused = (reason: string) => expect.objectContaining({ ok: false, reason });
export const taken = expect.objectContaining({ ok: true, subject: "erika" });
export const partsOf = (token: string) => token.split(".") as [string, string, string];
