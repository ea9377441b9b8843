/** Where keys come from when their issuer is there, slow, lying or gone. */

import { createHash } from "node:crypto";
import { chmod, mkdtemp, readdir, readFile, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { exportJWK } from "jose";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { JwksOptions } from "../../src/auth/jwks-source.ts";
import { JwksStore } from "../../src/auth/jwks-store.ts";
import type { TokenProvider } from "../../src/auth/token-provider.ts";
import { createLog } from "../../src/observe/log.ts";
import { makeServerCertificate } from "../support/certificates.ts";
import { type Issuer, type IssuerKey, makeKey, startIssuer } from "../support/issuer.ts";
import { until } from "../support/until.ts";

let one: IssuerKey;
let two: IssuerKey;
let directory: string;
let issuer: Issuer;
let stores: JwksStore[];
/** In milliseconds since 1970; tests move it. */
let nowMs: number;

beforeAll(async () => {
  one = await makeKey("ES256", "one");
  two = await makeKey("RS256", "two");
});
beforeEach(async () => {
  directory = join(await mkdtemp(join(tmpdir(), "nodedb-jwks-")), "jwks");
  issuer = await startIssuer([one]);
  stores = [];
  nowMs = Date.now();
});
afterEach(async () => {
  for (const store of stores) await store.close();
  await issuer.close();
  await rm(join(directory, ".."), { recursive: true });
});

function open(provider: TokenProvider | undefined, changes: Partial<JwksOptions> = {}): JwksStore {
  const store = new JwksStore({
    directory,
    refreshMs: 3_600_000,
    minRefetchMs: 30_000,
    maxStaleMs: 86_400_000,
    fetch: { mayAskPrivate: false, timeoutMs: 2_000, maxBytes: 20_000 },
    log: createLog({ level: "silent", format: "json" }),
    clock: () => nowMs,
    ...changes,
  });
  stores.push(store);
  if (provider !== undefined) store.setProviders([provider]);
  return store;
}

function providerOf(changes: Partial<TokenProvider> = {}): TokenProvider {
  return {
    name: "main",
    source: "catalog",
    issuer: issuer.issuer,
    audience: "api",
    tenantId: 1,
    algorithms: ["ES256", "RS256"],
    keys: { kind: "jwks", url: issuer.jwksUrl },
    claimMapping: [],
    defaultRoles: [],
    refreshRequestedAt: undefined,
    ...changes,
  };
}

const discovered = (changes: Partial<TokenProvider> = {}) =>
  providerOf({ keys: { kind: "jwks", url: undefined }, ...changes });
const headerOf = ({ alg, kid }: IssuerKey) => ({ alg, kid });
const unavailable = { ok: false, reason: "keys_unavailable" };
const unknown = { ok: false, reason: "unknown_signing_key" };
const jwksRequests = () => issuer.requests.filter((path) => path === "/jwks").length;
const copyPath = async () => join(directory, (await readdir(directory))[0] ?? "none");
/** The copy is written after the keys are in use. */
const copied = () =>
  until(async () => (await readdir(directory).catch(() => [])).some((name) => name.endsWith(".json")));

describe("an issuer that is there", () => {
  test("is asked once, however many tokens wait for its keys", async () => {
    const store = open(providerOf());
    const found = await Promise.all(
      Array.from({ length: 50 }, () => store.find(providerOf(), headerOf(one))),
    );
    expect(found.every(({ ok }) => ok)).toBe(true);
    expect(issuer.requests).toEqual(["/jwks"]);
    expect(store.statuses()).toEqual([{ issuer: issuer.issuer, ageMs: 0, failures: 0 }]);
  });

  test("says by its discovery document where its keys are", async () => {
    const store = open(discovered());
    expect(await store.find(discovered(), headerOf(one))).toMatchObject({ ok: true });
    expect(issuer.requests).toEqual(["/.well-known/openid-configuration", "/jwks"]);
  });

  test("has changed its keys: the first token with the new one has them fetched, once for all", async () => {
    const store = open(providerOf());
    await store.find(providerOf(), headerOf(one));
    issuer.keys = [one.publicJwk, two.publicJwk];
    nowMs += 30_000;
    const found = await Promise.all(
      Array.from({ length: 50 }, () => store.find(providerOf(), headerOf(two))),
    );
    expect(found.every(({ ok }) => ok)).toBe(true);
    expect(jwksRequests()).toBe(2);
  });

  test("is not asked for made-up keys more often than is configured", async () => {
    const store = open(providerOf());
    await store.find(providerOf(), headerOf(one));
    for (let attempt = 0; attempt < 100; attempt += 1) {
      expect(await store.find(providerOf(), { alg: "ES256", kid: `made up ${attempt}` })).toEqual(unknown);
    }
    expect(jwksRequests()).toBe(1);
    nowMs += 30_000;
    expect(await store.find(providerOf(), { alg: "ES256", kid: "made up" })).toEqual(unknown);
    expect(await store.find(providerOf(), { alg: "ES256", kid: "made up too" })).toEqual(unknown);
    expect(jwksRequests()).toBe(2);
  });

  test("takes a key back: it is gone with the next set", async () => {
    const store = open(providerOf());
    issuer.keys = [one.publicJwk, two.publicJwk];
    expect(await store.find(providerOf(), headerOf(two))).toMatchObject({ ok: true });
    issuer.keys = [one.publicJwk];
    const wished = providerOf({ refreshRequestedAt: new Date(1) });
    store.setProviders([wished]);
    await until(() => jwksRequests() === 2);
    await until(async () => !(await store.find(wished, headerOf(two))).ok);
    // One wish is one fetch, however often the list is read again.
    store.setProviders([wished]);
    expect(await store.find(wished, headerOf(two))).toEqual(unknown);
    expect(jwksRequests()).toBe(2);
  });

  test("is asked again in the background, without any token that wants it", async () => {
    open(providerOf(), { refreshMs: 20 });
    await until(() => jwksRequests() >= 3);
  });

  test("is asked for no more when its provider is dropped, and its copy is removed", async () => {
    const store = open(providerOf());
    await store.find(providerOf(), headerOf(one));
    await copied();
    store.setProviders([]);
    await until(async () => (await readdir(directory)).length === 0);
    expect(await store.find(providerOf(), headerOf(one))).toEqual(unavailable);
    expect(store.statuses()).toEqual([]);
  });

  test.each([
    [
      "of symmetric keys",
      { kty: "oct", k: "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U", kid: "one", alg: "HS256" },
    ],
    ["for encryption", { use: "enc" }],
    ["for signing only", { key_ops: ["sign"] }],
    ["for another algorithm", { alg: "ES384" }],
    ["that are no points of their curve", { x: "AAAA" }],
    ["of another name", { kid: "three" }],
    ["whose name is empty", { kid: "" }],
  ])("has keys %s, which are not used", async (_, changes) => {
    issuer.keys = [{ ...one.publicJwk, ...changes }, two.publicJwk];
    const store = open(providerOf());
    expect(await store.find(providerOf(), headerOf(two))).toMatchObject({ ok: true });
    expect(await store.find(providerOf(), headerOf(one))).toEqual(unknown);
  });

  test("publishes a private key by mistake: only its public half is kept", async () => {
    issuer.keys = [{ ...(await exportJWK(one.privateKey)), kid: "one", alg: "ES256" }];
    const store = open(providerOf());
    const found = await store.find(providerOf(), headerOf(one));
    expect(found.ok && found.key.type).toBe("public");
  });
});

describe("an issuer that is not there", () => {
  test("leaves its tokens refused, and is asked less and less often", async () => {
    await issuer.close();
    const store = open(providerOf());
    const ask = () => store.find(providerOf(), headerOf(one));
    expect(await ask()).toEqual(unavailable);
    const [{ failures } = { failures: 0 }] = store.statuses();
    expect(failures).toBe(1);
    const failuresAfter = async (ms: number) => {
      nowMs += ms;
      await ask();
      return store.statuses()[0]?.failures;
    };
    expect(await failuresAfter(29_000)).toBe(1);
    expect(await failuresAfter(1_000)).toBe(2);
    expect(await failuresAfter(59_000)).toBe(2);
    expect(await failuresAfter(1_000)).toBe(3);
    expect(await failuresAfter(119_000)).toBe(3);
    expect(await failuresAfter(1_000)).toBe(4);
    for (let failure = 5; failure < 10; failure += 1) await failuresAfter(480_000);
    expect(store.statuses()[0]?.failures).toBe(9);
    // The longest wait.
    expect(await failuresAfter(479_000)).toBe(9);
    expect(await failuresAfter(1_000)).toBe(10);
  });

  test("comes back, and is asked again", async () => {
    const port = Number(new URL(issuer.issuer).port);
    await issuer.close();
    const provider = providerOf();
    const store = open(provider);
    expect(await store.find(provider, headerOf(one))).toEqual(unavailable);
    issuer = await startIssuer([one], port);
    nowMs += 30_000;
    expect(await store.find(provider, headerOf(one))).toMatchObject({ ok: true });
    expect(store.statuses()).toMatchObject([{ failures: 0 }]);
  });

  test("is not missed while its keys are young enough, and then its tokens are refused", async () => {
    const provider = providerOf();
    const store = open(provider);
    await store.find(provider, headerOf(one));
    await issuer.close();
    nowMs += 86_400_000;
    expect(await store.find(provider, headerOf(one))).toMatchObject({ ok: true });
    expect(store.statuses()).toMatchObject([{ ageMs: 86_400_000 }]);
    nowMs += 1;
    expect(await store.find(provider, headerOf(one))).toEqual(unavailable);
  });

  test("is not missed after a restart either, as long as the copy is young enough", async () => {
    const provider = providerOf();
    const first = open(provider);
    await first.find(provider, headerOf(one));
    await copied();
    await first.close();
    await issuer.close();
    nowMs += 86_000_000;
    const second = open(provider);
    expect(await second.find(provider, headerOf(one))).toMatchObject({ ok: true });
    nowMs += 400_001;
    expect(await second.find(provider, headerOf(one))).toEqual(unavailable);
    const third = open(provider);
    expect(await third.find(provider, headerOf(one))).toEqual(unavailable);
  });
});

describe("the copy on disk", () => {
  async function withCopy(): Promise<TokenProvider> {
    const provider = providerOf();
    const store = open(provider);
    await store.find(provider, headerOf(one));
    await copied();
    await store.close();
    await issuer.close();
    return provider;
  }
  const refused = async (provider: TokenProvider) =>
    expect(await open(provider).find(provider, headerOf(one))).toEqual(unavailable);

  test("is nobody else's to read, and no other file is left", async () => {
    await withCopy();
    expect(await readdir(directory)).toHaveLength(1);
    expect((await stat(await copyPath())).mode & 0o777).toBe(0o600);
    expect((await stat(directory)).mode & 0o777).toBe(0o700);
  });

  test("is not used when others could have written it", async () => {
    const provider = await withCopy();
    await chmod(await copyPath(), 0o620);
    await refused(provider);
  });

  test("is not used when it is a link", async () => {
    const provider = await withCopy();
    const path = await copyPath();
    await rename(path, join(directory, "..", "elsewhere"));
    await symlink(join(directory, "..", "elsewhere"), path);
    await refused(provider);
  });

  test("is not used for another issuer or another URL, whatever it is called", async () => {
    await withCopy();
    const path = await copyPath();
    const other = providerOf({ issuer: "http://127.0.0.1:1/", keys: { kind: "jwks", url: issuer.jwksUrl } });
    const elsewhere = discovered();
    for (const provider of [other, elsewhere]) {
      const store = open(provider);
      await store.find(provider, headerOf(one));
      await store.close();
    }
    // As if it had been written for them.
    for (const provider of [other, elsewhere]) {
      const { url } = provider.keys as { url?: string };
      const id = createHash("sha256")
        .update(JSON.stringify([provider.issuer, url ?? null]))
        .digest("hex");
      await writeFile(join(directory, `${id}.json`), await readFile(path), { mode: 0o600 });
      await refused(provider);
    }
  });

  test.each([
    ["damaged", () => "{"],
    ["empty", () => ""],
    ["of the future", (text: string) => text.replace(/"fetched_at_ms":\d+/, `"fetched_at_ms":${nowMs + 1}`)],
    ["without keys", (text: string) => text.replace(/"jwks":"[^"]*"/, '"jwks":"e30="')],
  ])("is not used when it is %s", async (_, spoil) => {
    const provider = await withCopy();
    const path = await copyPath();
    await writeFile(path, spoil(await readFile(path, "utf8")));
    await refused(provider);
  });
});

describe("an issuer that lies", () => {
  const body = (text: string, status = 200, headers: Record<string, string> = {}) => {
    issuer.answer = (_request, response) => response.writeHead(status, headers).end(text);
  };
  const refusedWith = async (provider: TokenProvider) => {
    const store = open(provider);
    expect(await store.find(provider, headerOf(one))).toEqual(unavailable);
    expect(store.statuses()).toMatchObject([{ failures: 1 }]);
    expect(await readdir(directory).catch(() => [])).toEqual([]);
  };

  test.each([
    ["nothing", ""],
    ["a page", "<html><body>Sign in</body></html>"],
    ["a list", "[]"],
    ["an object of something else", '{"keys":{}}'],
    ["no keys", '{"keys":[]}'],
    ["keys that are none", '{"keys":[1,null,"x",{}]}'],
    ["its keys twice", '{"keys":[],"keys":[]}'],
    ["more keys than anybody has", JSON.stringify({ keys: Array.from({ length: 101 }, () => ({})) })],
    ["no text", Buffer.from([0xff, 0xfe]).toString("latin1")],
  ])("gives %s for its keys", async (_, text) => {
    body(text);
    await refusedWith(providerOf());
  });

  test.each([404, 500, 204])("answers with status %i", async (status) => {
    body(JSON.stringify({ keys: [one.publicJwk] }), status);
    await refusedWith(providerOf());
  });

  test("sends more than it may, and is cut off", async () => {
    let sent = 0;
    issuer.answer = (_request, response) => {
      response.writeHead(200);
      const more = () => {
        while (!response.destroyed && response.write(Buffer.alloc(10_000, 32))) sent += 10_000;
        if (!response.destroyed) response.once("drain", more);
      };
      more();
    };
    await refusedWith(providerOf());
    expect(sent).toBeLessThan(50_000_000);
  });

  test("does not answer, or not to the end, and is not waited for longer than is allowed", async () => {
    const options = { fetch: { mayAskPrivate: false, timeoutMs: 100, maxBytes: 20_000 } };
    for (const answer of ["nothing", "half"]) {
      issuer.answer = (_request, response) => {
        if (answer === "half") response.writeHead(200).write('{"keys":[');
      };
      const store = open(providerOf(), options);
      const start = performance.now();
      expect(await store.find(providerOf(), headerOf(one))).toEqual(unavailable);
      expect(performance.now() - start).toBeLessThan(1_500);
    }
  });

  test("does not end what it began", async () => {
    issuer.answer = (_request, response) => {
      response.writeHead(200, { "content-length": "1000" });
      response.write(JSON.stringify({ keys: [one.publicJwk] }), () => response.destroy());
    };
    await refusedWith(providerOf());
  });

  test("has a certificate of nobody's, or speaks plainly where it should not", async () => {
    const { cert, key } = await makeServerCertificate();
    const secure = createServer({ cert, key }, (_request, response) =>
      response.end(JSON.stringify({ keys: [one.publicJwk] })),
    );
    await new Promise<void>((resolve) => secure.listen(0, "127.0.0.1", resolve));
    const { port } = secure.address() as AddressInfo;
    try {
      for (const url of [`https://localhost:${port}/jwks`, issuer.jwksUrl.replace("http:", "https:")]) {
        await refusedWith(providerOf({ keys: { kind: "jwks", url } }));
      }
    } finally {
      await new Promise((resolve) => secure.close(resolve));
    }
  });

  test("sends its caller elsewhere", async () => {
    const other = await startIssuer([one]);
    try {
      for (const location of [
        other.jwksUrl,
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "//x",
      ]) {
        body("", 302, { location });
        await refusedWith(providerOf());
      }
      expect(other.requests).toEqual([]);
    } finally {
      await other.close();
    }
  });

  test("may send its caller to another path, and not in a circle", async () => {
    issuer.answer = (request, response) => {
      if (request.url === "/jwks") response.writeHead(302, { location: "/moved" }).end();
      else response.end(JSON.stringify({ keys: [one.publicJwk] }));
    };
    const store = open(providerOf());
    expect(await store.find(providerOf(), headerOf(one))).toMatchObject({ ok: true });
    await store.close();
    await rm(directory, { recursive: true });
    body("", 302, { location: "/jwks" });
    await refusedWith(providerOf());
  });

  test.each<[string, (document: Record<string, unknown>) => unknown]>([
    ["is of another issuer", (document) => ({ ...document, issuer: "https://id.example.com/" })],
    ["differs by a slash", (document) => ({ ...document, issuer: String(document.issuer).slice(0, -1) })],
    ["names no issuer", ({ issuer: _, ...document }) => document],
    ["names no keys", ({ jwks_uri: _, ...document }) => document],
    ["names a file", (document) => ({ ...document, jwks_uri: "file:///etc/passwd" })],
    ["names a plain address", (document) => ({ ...document, jwks_uri: "http://192.0.2.1/jwks" })],
    ["names a private address", (document) => ({ ...document, jwks_uri: "https://10.0.0.1/jwks" })],
    ["names the cloud's own", (document) => ({ ...document, jwks_uri: "https://169.254.169.254/jwks" })],
    ["is a list", () => []],
  ])("has a discovery document that %s", async (_, spoil) => {
    issuer.answer = (request, response) =>
      response.end(
        JSON.stringify(
          request.url === "/jwks"
            ? { keys: [one.publicJwk] }
            : spoil({ issuer: issuer.issuer, jwks_uri: issuer.jwksUrl }),
        ),
      );
    await refusedWith(discovered());
    expect(jwksRequests()).toBe(0);
  });
});
