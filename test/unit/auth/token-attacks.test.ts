/** Ways to have a token taken for what it is not, letter by letter (RFC 8725 section 2, RFC 7515 section 10). */

import { createPublicKey, type KeyObject, sign } from "node:crypto";
import { CompactEncrypt } from "jose";
import { describe, expect, it } from "vitest";
import {
  claims,
  ec,
  encode,
  header,
  issuer,
  partsOf,
  providerOf,
  refused,
  rsa,
  seconds,
  signed,
  taken,
  verify,
} from "../../support/crafted-tokens.ts";
import { makeKey } from "../../support/issuer.ts";

it("is a good token that all of these begin with", async () => {
  expect(await verify(signed())).toEqual(taken);
  expect(await verify(signed(claims(), { alg: "RS256", kid: "rsa" }, rsa))).toEqual(taken);
});

describe("the signature", () => {
  const bytesOf = (token: string) => Buffer.from(partsOf(token)[2], "base64url");
  const withSignature = (token: string, signature: Buffer | string) => {
    const [head, body] = partsOf(token);
    return `${head}.${body}.${typeof signature === "string" ? signature : signature.toString("base64url")}`;
  };
  /** The order of P-256. */
  const n = Buffer.from("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", "hex");
  const zero = Buffer.alloc(32);
  const one = Buffer.concat([Buffer.alloc(31), Buffer.from([1])]);

  it.each<[string, (signature: Buffer) => Buffer]>([
    ["without its last byte", (signature) => signature.subarray(0, -1)],
    ["without its first byte", (signature) => signature.subarray(1)],
    ["half of it", (signature) => signature.subarray(0, 32)],
    ["twice", (signature) => Buffer.concat([signature, signature])],
    ["with a byte more", (signature) => Buffer.concat([signature, Buffer.alloc(1)])],
    ["with a byte before it", (signature) => Buffer.concat([Buffer.alloc(1), signature])],
    [
      "with its halves exchanged",
      (signature) => Buffer.concat([signature.subarray(32), signature.subarray(0, 32)]),
    ],
    ["r = s = 0", () => Buffer.concat([zero, zero])],
    ["r = 0", (signature) => Buffer.concat([zero, signature.subarray(32)])],
    ["s = 0", (signature) => Buffer.concat([signature.subarray(0, 32), zero])],
    ["r = s = n", () => Buffer.concat([n, n])],
    ["r = s = 1", () => Buffer.concat([one, one])],
    ["r + n, which does not fit", (signature) => Buffer.concat([n, signature.subarray(32)])],
    ["r = s = 2^256 - 1", () => Buffer.alloc(64, 255)],
  ])("of an elliptic curve is refused when it is %s", async (_, spoil) => {
    const token = signed();
    expect(await verify(withSignature(token, spoil(bytesOf(token))))).toEqual(refused("bad_signature"));
  });

  it("in DER is refused, although OpenSSL would read it", async () => {
    const [head, body] = partsOf(signed());
    const der = sign("sha256", Buffer.from(`${head}.${body}`), ec.privateKey as unknown as KeyObject);
    expect(await verify(`${head}.${body}.${der.toString("base64url")}`)).toEqual(refused("bad_signature"));
  });

  it("with n - s for s is as good as the other: a signature names no token", async () => {
    const token = signed();
    const bytes = bytesOf(token);
    const s = BigInt(`0x${bytes.subarray(32).toString("hex")}`);
    const other = (BigInt(`0x${n.toString("hex")}`) - s).toString(16).padStart(64, "0");
    const twin = withSignature(token, Buffer.concat([bytes.subarray(0, 32), Buffer.from(other, "hex")]));
    expect(twin).not.toBe(token);
    expect(await verify(twin)).toEqual(await verify(token));
  });

  it.each<[string, (signature: Buffer) => Buffer]>([
    ["shorter", (signature) => signature.subarray(0, -1)],
    ["longer", (signature) => Buffer.concat([Buffer.alloc(1), signature])],
    ["zero", (signature) => Buffer.alloc(signature.length)],
    ["one", (signature) => Buffer.concat([Buffer.alloc(signature.length - 1), Buffer.from([1])])],
  ])("of RSA is refused when it is %s", async (_, spoil) => {
    const token = signed(claims(), { alg: "RS256", kid: "rsa" }, rsa);
    expect(await verify(withSignature(token, spoil(bytesOf(token))))).toEqual(refused("bad_signature"));
  });

  it("of one algorithm is refused under the name of another", async () => {
    expect(await verify(signed(claims(), header({ kid: "rsa" })))).toEqual(refused("unknown_signing_key"));
    expect(await verify(signed(claims(), { alg: "RS256", kid: "ec" }))).toEqual(
      refused("unknown_signing_key"),
    );
    expect(await verify(signed(claims(), { alg: "RS256", kid: "rsa" }))).toEqual(refused("bad_signature"));
    expect(await verify(signed(claims(), header(), rsa))).toEqual(refused("bad_signature"));
    expect(await verify(signed(claims(), { alg: "PS256", kid: "rsa" }, rsa))).toEqual(
      refused("algorithm_not_allowed"),
    );
  });

  it("by a key of which there are two of one name is refused: neither stands for both", async () => {
    const twin = await makeKey("ES256", "ec");
    const published = [ec.publicJwk, twin.publicJwk, rsa.publicJwk];
    expect(await verify(signed(), [providerOf()], published)).toEqual(refused("unknown_signing_key"));
  });
});

describe("the letters", () => {
  it.each<[string, (parts: [string, string, string]) => string]>([
    ["= after the header", ([a, b, c]) => `${a}=.${b}.${c}`],
    ["= after the claims", ([a, b, c]) => `${a}.${b}==.${c}`],
    ["= after the signature", ([a, b, c]) => `${a}.${b}.${c}==`],
    ["a blank before", ([a, b, c]) => ` ${a}.${b}.${c}`],
    ["a line feed after", ([a, b, c]) => `${a}.${b}.${c}\n`],
    ["a line feed within", ([a, b, c]) => `${a}.${b.slice(0, 4)}\n${b.slice(4)}.${c}`],
    ["a blank at a dot", ([a, b, c]) => `${a}. ${b}.${c}`],
    ["NUL", ([a, b, c]) => `${a}.${b}.${c}\0`],
    ["the other alphabet", ([a, b, c]) => `${a}.${b}.${c.slice(0, -1)}+`],
    ["a slash", ([a, b, c]) => `${a}.${b}.${c.slice(0, -1)}/`],
    ["an escape of a URL", ([a, b, c]) => `${a}.${b}.${c}%3D`],
    ["a part too many", ([a, b, c]) => `${a}.${b}.${c}.`],
    ["a part before", ([a, b, c]) => `.${a}.${b}.${c}`],
    ["no signature", ([a, b]) => `${a}.${b}.`],
    ["no signature and no dot", ([a, b]) => `${a}.${b}`],
    ["no claims, as if they were sent apart", ([a, , c]) => `${a}..${c}`],
    ["its parts in JSON", ([a, b, c]) => JSON.stringify({ protected: a, payload: b, signature: c })],
    [
      "its parts in JSON, of several signatures",
      ([a, b, c]) => JSON.stringify({ payload: b, signatures: [{ protected: a, signature: c }] }),
    ],
  ])("with %s are no token", async (_, spoil) => {
    expect(await verify(spoil(partsOf(signed())))).toEqual(refused("malformed_token"));
  });

  it.each<[string, string]>([
    ["alone", "{}"],
    ["twice", `{"alg":"ES256","kid":"ec"}{"alg":"ES256","kid":"ec"}`],
    ["with a comment", `{"alg":"ES256",/**/"kid":"ec"}`],
    ["with a comma too many", `{"alg":"ES256","kid":"ec",}`],
    ["with a mark of its byte order", `\uFEFF{"alg":"ES256","kid":"ec"}`],
  ])("of the header may not be %s", async (_, head) => {
    expect((await verify(signed(claims(), head))).ok).toBe(false);
  });

  it("of the claims may not be what is not UTF-8, nor a token themselves", async () => {
    const [a, , c] = partsOf(signed());
    for (const body of [
      Buffer.from([0xff]),
      Buffer.from(`{"iss":"${issuer}\xc0\x80"}`, "latin1"),
      signed(),
      '"x"',
      "[]",
    ]) {
      expect(await verify(`${a}.${encode(body)}.${c}`)).toEqual(refused("malformed_token"));
    }
    expect(await verify(signed(signed(), header({ cty: "JWT" })))).toEqual(refused("malformed_token"));
  });
});

describe("a name twice", () => {
  it.each([
    `{"alg":"ES256","kid":"ec","kid":"ec"}`,
    `{"alg":"ES256","\\u0061lg":"none","kid":"ec"}`,
    `{"alg":"ES256","kid":"ec","x":{"a":[{"b":1,"b":2}]}}`,
    `{"__proto__":1,"alg":"ES256","kid":"ec","__proto__":2}`,
  ])("in the header %s is refused", async (head) => {
    expect(await verify(signed(claims(), head))).toEqual(refused("malformed_token"));
  });

  it.each([
    `"sub":"admin","sub":"erika"`,
    `"sub":"erika","s\\u0075b":"admin"`,
    `"sub":"erika","exp":1,"x":"}"`,
    `"sub":"erika","x":{"y":1,"y":1}`,
    `"sub":"erika","aud":"api"`,
  ])("in the claims %s is refused", async (text) => {
    const body = `{"iss":"${issuer}","aud":"api","exp":${seconds + 300},${text}}`;
    expect(await verify(signed(body))).toEqual(refused("malformed_token"));
  });

  it("in two objects, or as a value, is none", async () => {
    const body = `{"iss":"${issuer}","aud":"api","exp":${seconds + 300},"sub":"erika","a":{"sub":1},"b":[{"sub":1},{"sub":2}],"c":"\\"sub\\":","d":["sub","sub"]}`;
    expect(await verify(signed(body))).toEqual(taken);
  });
});

describe("a header that brings more", () => {
  it.each<[object, string]>([
    [{ crit: [] }, "unacceptable_header"],
    [{ crit: ["b64"], b64: false }, "unacceptable_header"],
    [{ crit: ["urn:example:x"], "urn:example:x": 1 }, "unacceptable_header"],
    [{ crit: null }, "unacceptable_header"],
    [{ b64: false }, "unacceptable_header"],
    [{ zip: "DEF" }, "unacceptable_header"],
    [{ enc: "A128GCM" }, "unacceptable_header"],
    [{ typ: "dpop+jwt" }, "unacceptable_header"],
    [{ typ: "secevent+jwt" }, "unacceptable_header"],
    [{ typ: "application/logout+jwt" }, "unacceptable_header"],
    [{ typ: "" }, "unacceptable_header"],
    [{ alg: ["ES256"] }, "unacceptable_header"],
    [{ alg: null }, "unacceptable_header"],
    [{ alg: "ES256 " }, "algorithm_not_allowed"],
    [{ alg: "ES256K" }, "algorithm_not_allowed"],
    [{ alg: "__proto__" }, "algorithm_not_allowed"],
    [{ alg: "constructor" }, "algorithm_not_allowed"],
    [{ alg: "dir" }, "algorithm_not_allowed"],
    [{ kid: "../../../../dev/null" }, "unknown_signing_key"],
    [{ kid: "ec\0" }, "unknown_signing_key"],
    [{ kid: "' OR '1'='1" }, "unknown_signing_key"],
    [{ kid: "https://evil.example/key" }, "unknown_signing_key"],
    [{ kid: "" }, "unknown_signing_key"],
    [{ kid: "__proto__" }, "unknown_signing_key"],
    [{ kid: null }, "unacceptable_header"],
    [{ kid: ["ec"] }, "unacceptable_header"],
    [{ kid: { toString: "ec" } }, "unacceptable_header"],
  ])("%j is refused", async (changes, reason) => {
    expect(await verify(signed(claims(), header(changes)))).toEqual(refused(reason));
  });

  it("and a key is looked at without it: nobody vouches for himself", async () => {
    const stranger = await makeKey("ES256", "ec");
    for (const changes of [
      { jwk: stranger.publicJwk },
      { jku: "https://evil.example/jwks" },
      { x5u: "https://evil.example/cert" },
      { x5c: ["AAAA"], x5t: "AAAA" },
    ]) {
      expect(await verify(signed(claims(), header(changes), stranger))).toEqual(refused("bad_signature"));
      // Of the provider's own signature they take nothing away.
      expect(await verify(signed(claims(), header(changes)))).toEqual(taken);
    }
  });

  it("is one of an encrypted token, which anybody can make with a public key", async () => {
    const recipient = await makeKey("RSA-OAEP-256", "rsa-enc");
    const token = await new CompactEncrypt(Buffer.from(JSON.stringify(claims())))
      .setProtectedHeader({ alg: "RSA-OAEP-256", enc: "A256GCM", kid: "rsa" })
      .encrypt(createPublicKey({ key: recipient.publicJwk as Record<string, string>, format: "jwk" }));
    expect(token.split(".")).toHaveLength(5);
    expect(await verify(token)).toEqual(refused("malformed_token"));
  });
});

it("a token of any depth and length is answered soon", async () => {
  const deep = `${"[".repeat(5_000)}${"]".repeat(5_000)}`;
  const began = performance.now();
  const body = `{"iss":"${issuer}","aud":"api","exp":${seconds + 300},"sub":"erika","x":${deep}}`;
  expect(await verify(signed(body))).toEqual(taken);
  for (const text of [".".repeat(16_000), "a".repeat(16_000), `${"e30".repeat(5_000)}.e30.e30`]) {
    expect((await verify(text)).ok).toBe(false);
  }
  expect(performance.now() - began).toBeLessThan(1_000);
});
