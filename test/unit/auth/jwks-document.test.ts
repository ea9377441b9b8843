/** JWK sets and discovery documents: what of them is used, and for what. */

import { generateKeyPairSync } from "node:crypto";
import type { JWK } from "jose";
import { describe, expect, it } from "vitest";
import { discoveryUrl, parseDiscovery, parseJwks, selectKey } from "../../../src/auth/jwks-document.ts";
import { ec, rsa } from "../../support/crafted-tokens.ts";

const setOf = (...keys: readonly object[]) => Buffer.from(JSON.stringify({ keys }));
/** As of a provider that does not say what its keys are for. */
const bare = ({ alg: _, use: __, ...jwk }: JWK): JWK => jwk;

describe("a JWK set", () => {
  it("without alg has its keys told apart by their kind", () => {
    const keys = parseJwks(setOf(bare(ec.publicJwk), bare(rsa.publicJwk)));
    const kidFor = (alg: string, kid?: string) => selectKey(keys, { alg, kid })?.kid;
    expect(["ES256", "RS256", "RS384", "RS512"].map((alg) => kidFor(alg))).toEqual([
      "ec",
      "rsa",
      "rsa",
      "rsa",
    ]);
    expect(["ES384", "ES512", "EdDSA", "HS256", "none", "toString"].map((alg) => kidFor(alg))).toEqual(
      Array.from({ length: 6 }, () => undefined),
    );
    expect(kidFor("ES256", "rsa")).toBeUndefined();
    expect(kidFor("RS256", "ec")).toBeUndefined();
  });

  it("may hold keys of any kind beside those that are used, up to a hundred in all", () => {
    const others = [
      { kty: "oct", k: "AAAA", alg: "HS256" },
      { kty: "EC", crv: "secp256k1", x: "AAAA", y: "AAAA" },
      { kty: "OKP", crv: "X25519", x: "AAAA" },
      { kty: "new" },
      ...Array.from({ length: 95 }, () => ({})),
    ];
    expect(parseJwks(setOf(...others, ec.publicJwk)).map(({ kid }) => kid)).toEqual(["ec"]);
    expect(() => parseJwks(setOf(...others, {}, ec.publicJwk))).toThrow("more than 100 keys");
  });

  it.each([
    [1024, false],
    [2048, true],
  ])("has an RSA key of %i bits, which is used: %j", (modulusLength, isUsed) => {
    const { publicKey } = generateKeyPairSync("rsa", { modulusLength });
    const parsed = () => parseJwks(setOf(publicKey.export({ format: "jwk" })));
    if (isUsed) expect(parsed()).toHaveLength(1);
    else expect(parsed).toThrow("no key for signatures");
  });
});

describe("a discovery document", () => {
  const issuer = "https://id.example.com/tenant";
  const read = (document: object, of = issuer) =>
    parseDiscovery(Buffer.from(JSON.stringify({ issuer: of, ...document })), of);

  it.each([
    ["https://id.example.com", "https://id.example.com/.well-known/openid-configuration"],
    ["https://id.example.com/", "https://id.example.com/.well-known/openid-configuration"],
    [issuer, "https://id.example.com/tenant/.well-known/openid-configuration"],
  ])("of %s is at %s", (of, url) => {
    expect(discoveryUrl(of)).toBe(url);
  });

  it("may name another host for the keys", () => {
    expect(read({ jwks_uri: "https://keys.example.net/jwks" })).toBe("https://keys.example.net/jwks");
  });

  it("of this machine may name this machine", () => {
    const here = "http://127.0.0.1:8080";
    expect(read({ jwks_uri: `${here}/jwks` }, here)).toBe(`${here}/jwks`);
  });

  it.each([
    "http://127.0.0.1:6480/v1/query",
    "http://localhost/jwks",
    "http://[::1]/jwks",
    "http://2130706433/jwks",
    "http://0177.0.0.1/jwks",
    "https://127.0.0.1/jwks",
    "https://localhost/jwks",
    "http://keys.example.net/jwks",
    "ftp://keys.example.net/jwks",
    "file:///etc/passwd",
    "data:application/json,{}",
    "/jwks",
    "",
  ])("of another one may not send us to %s", (url) => {
    expect(() => read({ jwks_uri: url })).toThrow();
  });

  it.each([[undefined], [1], [null], [["https://keys.example.net/jwks"]]])(
    "with %j for the keys is none",
    (url) => {
      expect(() => read({ jwks_uri: url })).toThrow("names no JWK set");
    },
  );

  it.each(["https://id.example.com", `${issuer}/`, "https://evil.example/tenant"])(
    "of %s says nothing of another issuer",
    (of) => {
      expect(() => read({ issuer: of, jwks_uri: "https://keys.example.net/jwks" })).toThrow("another issuer");
    },
  );
});
