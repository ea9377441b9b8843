/** Which tokens are taken for what they say, and every known way to have a wrong one taken (RFC 8725 section 2). */

import { createHmac, createPublicKey, createSecretKey, type KeyObject } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { calculateJwkThumbprint, type JWK } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { JwksStore } from "../../src/auth/jwks-store.ts";
import { verifyToken } from "../../src/auth/jwt.ts";
import type { TokenProvider } from "../../src/auth/token-provider.ts";
import { createLog } from "../../src/observe/log.ts";
import { type Issuer, type IssuerKey, makeKey, startIssuer } from "../support/issuer.ts";

const allAlgorithms = ["ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "EdDSA"];
const now = () => Math.floor(Date.now() / 1000);
const secret = createSecretKey(
  Buffer.from("a secret of the application, long enough for SHA-512 and more of it"),
);

let directory: string;
let issuer: Issuer;
let other: Issuer;
let store: JwksStore;
let keys: Record<string, IssuerKey>;
let stranger: IssuerKey;
let providers: TokenProvider[];

function key(alg: string): IssuerKey {
  const found = keys[alg];
  if (found === undefined) throw new Error(`no key for ${alg}`);
  return found;
}

function providerOf(changes: Partial<TokenProvider> = {}): TokenProvider {
  return {
    name: "main",
    source: "catalog",
    issuer: issuer.issuer,
    audience: "api",
    tenantId: 1,
    algorithms: ["ES256", "ES384", "RS256"],
    keys: { kind: "jwks", url: issuer.jwksUrl },
    claimMapping: [],
    defaultRoles: [],
    refreshRequestedAt: undefined,
    ...changes,
  };
}

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "nodedb-tokens-"));
  const made = await Promise.all(allAlgorithms.map((alg) => makeKey(alg, `key-${alg}`)));
  keys = Object.fromEntries(made.map((made) => [made.alg, made]));
  stranger = await makeKey("RS256", "key-RS256");
  issuer = await startIssuer(made);
  other = await startIssuer([await makeKey("ES256", "other")]);
  providers = [
    providerOf(),
    providerOf({ name: "second", audience: "second-api" }),
    providerOf({ name: "other", issuer: other.issuer, keys: { kind: "jwks", url: other.jwksUrl } }),
    providerOf({
      name: "shared secret",
      issuer: "https://secret.example.com/",
      algorithms: ["HS256", "HS384", "HS512"],
      keys: { kind: "secret", key: secret },
    }),
  ];
  store = new JwksStore({
    directory,
    refreshMs: 3_600_000,
    minRefetchMs: 30_000,
    maxStaleMs: 3_600_000,
    fetch: { mayAskPrivate: false, timeoutMs: 5_000, maxBytes: 100_000 },
    log: createLog({ level: "silent", format: "json" }),
  });
  store.setProviders(providers);
});

afterAll(async () => {
  await store.close();
  await issuer.close();
  await other.close();
  await rm(directory, { recursive: true });
});

function verify(token: string, list: readonly TokenProvider[] = providers, skewMs = 60_000) {
  return verifyToken(token, {
    providers: list,
    findKey: (provider, header) => store.find(provider, header),
    clockSkewMs: skewMs,
    now: new Date(),
  });
}

/** Without any library, which would refuse to make such a token. */
function craft(header: string | object, payload: string | object, sign: (input: string) => Buffer): string {
  const [head, body] = [header, payload].map((part) =>
    Buffer.from(typeof part === "string" ? part : JSON.stringify(part)).toString("base64url"),
  );
  return `${head}.${body}.${sign(`${head}.${body}`).toString("base64url")}`;
}

function claims(changes: object = {}): object {
  return { iss: issuer.issuer, aud: "api", sub: "user-1", iat: now(), exp: now() + 300, ...changes };
}

async function signature(of: IssuerKey, input: string): Promise<Buffer> {
  const [, , encoded = ""] = (await issuer.sign(of)).split(".");
  expect(encoded).not.toBe("");
  const parameters =
    of.alg === "RS256"
      ? "RSASSA-PKCS1-v1_5"
      : { name: "ECDSA", hash: of.alg === "ES256" ? "SHA-256" : "SHA-384" };
  return Buffer.from(await crypto.subtle.sign(parameters, of.privateKey, Buffer.from(input)));
}

/** As `craft`, with a good signature of the issuer's. */
async function craftSigned(
  header: string | object,
  payload: string | object,
  of = key("ES256"),
): Promise<string> {
  const unsigned = craft(header, payload, () => Buffer.alloc(0)).slice(0, -1);
  return `${unsigned}.${(await signature(of, unsigned)).toString("base64url")}`;
}

describe("a token that is taken", () => {
  test.each(["ES256", "ES384", "RS256"])("is signed with %s", async (alg) => {
    const outcome = await verify(await issuer.sign(key(alg), { sub: "somebody", plan: "gold" }));
    expect(outcome).toMatchObject({
      ok: true,
      subject: "somebody",
      provider: { name: "main" },
      payload: { plan: "gold" },
    });
    const expiresMs = outcome.ok ? outcome.expiresAt.getTime() : 0;
    expect(Math.abs(expiresMs - (now() + 360) * 1000)).toBeLessThan(5_000);
  });

  test.each(["ES512", "RS384", "RS512", "EdDSA"])(
    "is signed with %s where that is configured",
    async (alg) => {
      const token = await issuer.sign(key(alg));
      expect(await verify(token)).toEqual({ ok: false, reason: "algorithm_not_allowed", provider: "main" });
      expect(await verify(token, [providerOf({ algorithms: [alg] })])).toMatchObject({ ok: true });
    },
  );

  test.each(["HS256", "HS384", "HS512"])("is signed with %s and the secret of its provider", async (alg) => {
    const payload = claims({ iss: "https://secret.example.com/" });
    const hash = `sha${alg.slice(2)}`;
    const token = craft({ alg }, payload, (input) => createHmac(hash, secret).update(input).digest());
    expect(await verify(token)).toMatchObject({ ok: true, provider: { name: "shared secret" } });
    const forged = craft({ alg }, payload, (input) => createHmac(hash, "another").update(input).digest());
    expect(await verify(forged)).toMatchObject({ ok: false, reason: "bad_signature" });
  });

  test("is signed with the public key that its provider has", async () => {
    const provider = providerOf({
      keys: { kind: "public_key", key: publicKeyOf(key("ES256")) },
      algorithms: ["ES256"],
    });
    expect(await verify(await issuer.sign(key("ES256")), [provider])).toMatchObject({ ok: true });
    expect(await verify(await issuer.sign(await makeKey("ES256", "x")), [provider])).toMatchObject({
      ok: false,
      reason: "bad_signature",
    });
  });

  test("names the audience among several, and the provider is found by it", async () => {
    const many = await issuer.sign(key("ES256"), { aud: ["elsewhere", "second-api"] });
    expect(await verify(many)).toMatchObject({ ok: true, provider: { name: "second" } });
    const any = providerOf({ name: "any", audience: undefined });
    for (const aud of ["whatever", ["a", "b"], undefined]) {
      expect(await verify(await issuer.sign(key("ES256"), { aud }), [any])).toMatchObject({ ok: true });
    }
  });

  test.each([undefined, "JWT", "at+jwt", "application/at+jwt"])("has a typ of %s", async (typ) => {
    expect(await verify(await issuer.sign(key("ES256"), {}, { typ }))).toMatchObject({ ok: true });
  });

  test("has no kid where only one key can be meant, and none is tried where several could", async () => {
    expect(await verify(await issuer.sign(key("ES256"), {}, { kid: undefined }))).toMatchObject({ ok: true });
    const [twin] = [await makeKey("ES256", "twin")];
    const crowded = await startIssuer([key("ES256"), twin]);
    const list = [providerOf({ issuer: crowded.issuer, keys: { kind: "jwks", url: crowded.jwksUrl } })];
    const own = new JwksStore({
      directory,
      refreshMs: 3_600_000,
      minRefetchMs: 0,
      maxStaleMs: 3_600_000,
      fetch: { mayAskPrivate: false, timeoutMs: 5_000, maxBytes: 100_000 },
      log: createLog({ level: "silent", format: "json" }),
    });
    try {
      own.setProviders(list);
      const options = {
        providers: list,
        findKey: own.find.bind(own),
        clockSkewMs: 0,
        now: new Date(Date.now() + 1_000),
      };
      expect(await verifyToken(await crowded.sign(twin), options)).toMatchObject({ ok: true });
      expect(await verifyToken(await crowded.sign(twin, {}, { kid: undefined }), options)).toMatchObject({
        ok: false,
        reason: "unknown_signing_key",
      });
    } finally {
      await own.close();
      await crowded.close();
    }
  });

  test("is within the skew of the clocks, and not beyond", async () => {
    const sign = (changes: object) => issuer.sign(key("ES256"), changes as Record<string, unknown>);
    expect(await verify(await sign({ exp: now() - 30 }))).toMatchObject({ ok: true });
    expect(await verify(await sign({ exp: now() - 30 }), providers, 0)).toMatchObject({
      reason: "token_expired",
    });
    expect(await verify(await sign({ nbf: now() + 30, iat: now() + 30 }))).toMatchObject({ ok: true });
    expect(await verify(await sign({ nbf: now() + 30 }), providers, 0)).toMatchObject({
      reason: "token_not_yet_valid",
    });
  });
});

describe("a token that is refused", () => {
  test.each<[string, string, Record<string, unknown>]>([
    ["of another issuer", "unknown_provider", { iss: "https://elsewhere.example.com/" }],
    ["of an issuer that differs by a slash", "unknown_provider", { iss: "" }],
    ["for another audience", "unknown_provider", { aud: "other-api" }],
    ["for an audience that begins alike", "unknown_provider", { aud: "api2" }],
    ["without an audience", "unknown_provider", { aud: undefined }],
    ["for the audiences of two providers", "ambiguous_provider", { aud: ["api", "second-api"] }],
    ["for an audience that is no text", "malformed_token", { aud: 1 }],
    ["for audiences that are not all text", "malformed_token", { aud: ["api", 1] }],
    ["that has expired", "token_expired", { exp: now() - 3_600 }],
    ["that never expires", "token_without_expiry", { exp: undefined }],
    ["that expires at a text", "token_without_expiry", { exp: "never" }],
    ["of the future", "token_not_yet_valid", { nbf: now() + 3_600 }],
    ["that was issued in the future", "token_not_yet_valid", { iat: now() + 3_600 }],
    ["that was issued at a text", "malformed_token", { iat: "now" }],
    ["of nobody", "no_subject", { sub: undefined }],
    ["of an empty subject", "no_subject", { sub: "" }],
    ["of a subject that is a number", "no_subject", { sub: 7 }],
    ["of a subject with NUL", "no_subject", { sub: "a\0b" }],
    ["of a subject with half a character", "no_subject", { sub: "a\ud800" }],
    ["of an endless subject", "no_subject", { sub: "s".repeat(256) }],
  ])("is one %s", async (_, reason, changes) => {
    const iss = changes.iss === "" ? issuer.issuer.slice(0, -1) : (changes.iss ?? issuer.issuer);
    const token = await craftSigned({ alg: "ES256", kid: "key-ES256" }, claims({ ...changes, iss }));
    expect(await verify(token)).toMatchObject({ ok: false, reason });
  });

  test.each<[string, string, Record<string, unknown>]>([
    ["crit", "unacceptable_header", { crit: ["exp"], exp: 1 }],
    ["b64", "unacceptable_header", { b64: false, crit: ["b64"] }],
    ["b64 without crit", "unacceptable_header", { b64: true }],
    ["zip", "unacceptable_header", { zip: "DEF" }],
    ["a typ of something else", "unacceptable_header", { typ: "logout+jwt" }],
    ["a typ that is no text", "unacceptable_header", { typ: 1 }],
    ["a kid that is no text", "unacceptable_header", { kid: 1 }],
    ["an endless kid", "unacceptable_header", { kid: "k".repeat(256) }],
    ["a kid that is a path", "unknown_signing_key", { kid: "../../../dev/null" }],
    ["a kid that is SQL", "unknown_signing_key", { kid: "' UNION SELECT 'x" }],
    ["a kid of a member that all objects have", "unknown_signing_key", { kid: "__proto__" }],
    ["the kid of a key for another algorithm", "unknown_signing_key", { kid: "key-RS256" }],
    ["no algorithm", "unacceptable_header", { alg: undefined }],
    ["an algorithm in other letters", "algorithm_not_allowed", { alg: "es256" }],
  ])("has in its header %s", async (_, reason, changes) => {
    const token = await craftSigned({ alg: "ES256", kid: "key-ES256", ...changes }, claims());
    expect(await verify(token)).toMatchObject({ ok: false, reason });
  });

  test.each(["none", "None", "NONE", "nOnE", ""])("is not signed, with an algorithm of %j", async (alg) => {
    for (const signed of [Buffer.alloc(0), Buffer.from("x")]) {
      const token = craft({ alg, kid: "key-ES256" }, claims(), () => signed);
      const outcome = await verify(token);
      expect(outcome).toMatchObject({
        ok: false,
        reason: signed.length === 0 ? "malformed_token" : "algorithm_not_allowed",
      });
    }
  });

  test.each(["HS256", "HS384", "HS512"])("is an HMAC with %s and a public key as its secret", async (alg) => {
    const publicKey = publicKeyOf(key("RS256"));
    const secrets = [
      publicKey.export({ type: "spki", format: "pem" }),
      publicKey.export({ type: "spki", format: "der" }),
      publicKey.export({ type: "pkcs1", format: "pem" }),
      JSON.stringify(key("RS256").publicJwk),
      "",
    ];
    const pinned = providerOf({ keys: { kind: "public_key", key: publicKey }, algorithms: ["RS256"] });
    for (const text of secrets) {
      const token = craft({ alg, kid: "key-RS256" }, claims(), (input) =>
        createHmac(`sha${alg.slice(2)}`, text)
          .update(input)
          .digest(),
      );
      expect(await verify(token)).toMatchObject({ ok: false, reason: "algorithm_not_allowed" });
      expect(await verify(token, [pinned])).toMatchObject({ ok: false, reason: "algorithm_not_allowed" });
      // Should somebody configure it by mistake, the kind of the key still says no.
      const mixed = { ...pinned, algorithms: ["RS256", alg] };
      expect(await verify(token, [mixed])).toMatchObject({ ok: false, reason: "unknown_signing_key" });
    }
  });

  test("brings its own key, or the address of one", async () => {
    const jwk: JWK = { ...stranger.publicJwk };
    const thumbprint = await calculateJwkThumbprint(jwk);
    const before = issuer.requests.length + other.requests.length;
    for (const header of [
      { jwk },
      { jwk, kid: thumbprint },
      { jku: other.jwksUrl, kid: "other" },
      { x5u: `${other.issuer}cert` },
      { x5c: [Buffer.from("certificate").toString("base64")] },
    ]) {
      const outcome = await verify(await issuer.sign(stranger, {}, header));
      expect(outcome.ok).toBe(false);
      expect(["bad_signature", "unknown_signing_key"]).toContain(outcome.ok ? "" : outcome.reason);
    }
    expect(issuer.requests.length + other.requests.length).toBe(before);
  });

  test("is signed with another key of the same name", async () => {
    expect(await verify(await issuer.sign(stranger))).toMatchObject({ ok: false, reason: "bad_signature" });
  });

  test("is of an issuer whose key is somebody else's", async () => {
    const token = await craftSigned({ alg: "ES256", kid: "other" }, claims({ iss: other.issuer }));
    expect(await verify(token)).toMatchObject({ ok: false, reason: "bad_signature", provider: "other" });
  });

  test.each([
    ["of zeros (CVE-2022-21449)", Buffer.alloc(64)],
    ["that is short", Buffer.alloc(63, 1)],
    ["in DER", Buffer.from("3006020101020101", "hex")],
    ["of one byte", Buffer.alloc(1)],
  ])("has a signature %s", async (_, bytes) => {
    const token = craft({ alg: "ES256", kid: "key-ES256" }, claims(), () => bytes);
    expect(await verify(token)).toMatchObject({ ok: false, reason: "bad_signature" });
  });

  test.each<[string, string, string]>([
    ["in its header", '{"alg":"ES256","kid":"key-ES256","alg":"none"}', "{}"],
    ["in its claims", "", '{"sub":"admin","sub":"user-1","exp":99999999999}'],
    ["in another spelling", "", '{"sub":"admin","\\u0073ub":"user-1","exp":99999999999}'],
    ["within a claim", "", '{"sub":"a","exp":99999999999,"x":[{"a":1,"b":{"c":1,"c":2}}]}'],
  ])("has a name twice %s", async (_, header, payload) => {
    const body = `{"iss":${JSON.stringify(issuer.issuer)},"aud":"api",${payload.slice(1)}`;
    const head = header === "" ? '{"alg":"ES256","kid":"key-ES256"}' : header;
    const token = await craftSigned(head, payload === "{}" ? claims() : body);
    expect(await verify(token)).toEqual({ ok: false, reason: "malformed_token" });
  });

  test.each([
    "",
    ".",
    "..",
    "a.b.c",
    "e30.e30",
    "e30.e30.e30.e30.e30",
    "e30.W10.e30",
    "bnVsbA.bnVsbA.bnVsbA",
    "77u_e30.e30.e30",
    "e30 .e30.e30",
    "e30=.e30.e30",
  ])("is nothing like one: %j", async (text) => {
    const outcome = await verify(text);
    expect(["malformed_token", "unacceptable_header"]).toContain(outcome.ok ? "" : outcome.reason);
  });

  test("is changed after it was signed", async () => {
    const [head, , signed] = (await issuer.sign(key("RS256"))).split(".");
    const body = Buffer.from(JSON.stringify(claims({ sub: "admin" }))).toString("base64url");
    expect(await verify(`${head}.${body}.${signed}`)).toMatchObject({ ok: false, reason: "bad_signature" });
  });
});

function publicKeyOf({ publicJwk }: IssuerKey): KeyObject {
  return createPublicKey({ key: publicJwk as Record<string, string>, format: "jwk" });
}
