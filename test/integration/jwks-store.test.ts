/** Where keys come from when their issuer is there, slow or gone. */

import { createHash } from "node:crypto";
import { chmod, readdir, readFile, rename, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { exportJWK } from "jose";
import { describe, expect, test } from "vitest";
import type { TokenProvider } from "../../src/auth/token-provider.ts";
import { startIssuer } from "../support/issuer.ts";
import { headerOf, type JwksStage, unavailable, unknown, useJwksStage } from "../support/jwks-stage.ts";
import { until } from "../support/until.ts";

let stage: JwksStage;

useJwksStage((opened) => {
  stage = opened;
});

const copyPath = async () => join(stage.directory, (await readdir(stage.directory))[0] ?? "none");

describe("an issuer that is there", () => {
  test("is asked once, however many tokens wait for its keys", async () => {
    const store = stage.open(stage.providerOf());
    const found = await Promise.all(
      Array.from({ length: 50 }, () => store.find(stage.providerOf(), headerOf(stage.one))),
    );
    expect(found.every(({ ok }) => ok)).toBe(true);
    expect(stage.issuer.requests).toEqual(["/jwks"]);
    expect(store.statuses()).toEqual([{ issuer: stage.issuer.issuer, ageMs: 0, failures: 0 }]);
  });

  test("says by its discovery document where its keys are", async () => {
    const store = stage.open(stage.discovered());
    expect(await store.find(stage.discovered(), headerOf(stage.one))).toMatchObject({ ok: true });
    expect(stage.issuer.requests).toEqual(["/.well-known/openid-configuration", "/jwks"]);
  });

  test("has changed its keys: the first token with the new one has them fetched, once for all", async () => {
    const store = stage.open(stage.providerOf());
    await store.find(stage.providerOf(), headerOf(stage.one));
    stage.issuer.keys = [stage.one.publicJwk, stage.two.publicJwk];
    stage.nowMs += 30_000;
    const found = await Promise.all(
      Array.from({ length: 50 }, () => store.find(stage.providerOf(), headerOf(stage.two))),
    );
    expect(found.every(({ ok }) => ok)).toBe(true);
    expect(stage.jwksRequests()).toBe(2);
  });

  test("is not asked for made-up keys more often than is configured", async () => {
    const store = stage.open(stage.providerOf());
    await store.find(stage.providerOf(), headerOf(stage.one));
    for (let attempt = 0; attempt < 100; attempt += 1) {
      expect(await store.find(stage.providerOf(), { alg: "ES256", kid: `made up ${attempt}` })).toEqual(
        unknown,
      );
    }
    expect(stage.jwksRequests()).toBe(1);
    stage.nowMs += 30_000;
    expect(await store.find(stage.providerOf(), { alg: "ES256", kid: "made up" })).toEqual(unknown);
    expect(await store.find(stage.providerOf(), { alg: "ES256", kid: "made up too" })).toEqual(unknown);
    expect(stage.jwksRequests()).toBe(2);
  });

  test("takes a key back: it is gone with the next set", async () => {
    const store = stage.open(stage.providerOf());
    stage.issuer.keys = [stage.one.publicJwk, stage.two.publicJwk];
    expect(await store.find(stage.providerOf(), headerOf(stage.two))).toMatchObject({ ok: true });
    stage.issuer.keys = [stage.one.publicJwk];
    const wished = stage.providerOf({ refreshRequestedAt: new Date(1) });
    store.setProviders([wished]);
    await until(() => stage.jwksRequests() === 2);
    await until(async () => !(await store.find(wished, headerOf(stage.two))).ok);
    // One wish is one fetch, however often the list is read again.
    store.setProviders([wished]);
    expect(await store.find(wished, headerOf(stage.two))).toEqual(unknown);
    expect(stage.jwksRequests()).toBe(2);
  });

  test("is asked again in the background, without any token that wants it", async () => {
    stage.open(stage.providerOf(), { refreshMs: 20 });
    await until(() => stage.jwksRequests() >= 3);
  });

  test("is asked for no more when its provider is dropped, and its copy is removed", async () => {
    const store = stage.open(stage.providerOf());
    await store.find(stage.providerOf(), headerOf(stage.one));
    await stage.copied();
    store.setProviders([]);
    await until(async () => (await readdir(stage.directory)).length === 0);
    expect(await store.find(stage.providerOf(), headerOf(stage.one))).toEqual(unavailable);
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
    stage.issuer.keys = [{ ...stage.one.publicJwk, ...changes }, stage.two.publicJwk];
    const store = stage.open(stage.providerOf());
    expect(await store.find(stage.providerOf(), headerOf(stage.two))).toMatchObject({ ok: true });
    expect(await store.find(stage.providerOf(), headerOf(stage.one))).toEqual(unknown);
  });

  test("publishes a private key by mistake: only its public half is kept", async () => {
    stage.issuer.keys = [{ ...(await exportJWK(stage.one.privateKey)), kid: "one", alg: "ES256" }];
    const store = stage.open(stage.providerOf());
    const found = await store.find(stage.providerOf(), headerOf(stage.one));
    expect(found.ok && found.key.type).toBe("public");
  });
});

describe("an issuer that is not there", () => {
  test("leaves its tokens refused, and is asked less and less often", async () => {
    await stage.issuer.close();
    const store = stage.open(stage.providerOf());
    const ask = () => store.find(stage.providerOf(), headerOf(stage.one));
    expect(await ask()).toEqual(unavailable);
    const [{ failures } = { failures: 0 }] = store.statuses();
    expect(failures).toBe(1);
    const failuresAfter = async (ms: number) => {
      stage.nowMs += ms;
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
    const port = Number(new URL(stage.issuer.issuer).port);
    await stage.issuer.close();
    const provider = stage.providerOf();
    const store = stage.open(provider);
    expect(await store.find(provider, headerOf(stage.one))).toEqual(unavailable);
    stage.issuer = await startIssuer([stage.one], port);
    stage.nowMs += 30_000;
    expect(await store.find(provider, headerOf(stage.one))).toMatchObject({ ok: true });
    expect(store.statuses()).toMatchObject([{ failures: 0 }]);
  });

  test("is not missed while its keys are young enough, and then its tokens are refused", async () => {
    const provider = stage.providerOf();
    const store = stage.open(provider);
    await store.find(provider, headerOf(stage.one));
    await stage.issuer.close();
    stage.nowMs += 86_400_000;
    expect(await store.find(provider, headerOf(stage.one))).toMatchObject({ ok: true });
    expect(store.statuses()).toMatchObject([{ ageMs: 86_400_000 }]);
    stage.nowMs += 1;
    expect(await store.find(provider, headerOf(stage.one))).toEqual(unavailable);
  });

  test("is not missed after a restart either, as long as the copy is young enough", async () => {
    const provider = stage.providerOf();
    const first = stage.open(provider);
    await first.find(provider, headerOf(stage.one));
    await stage.copied();
    await first.close();
    await stage.issuer.close();
    stage.nowMs += 86_000_000;
    const second = stage.open(provider);
    expect(await second.find(provider, headerOf(stage.one))).toMatchObject({ ok: true });
    stage.nowMs += 400_001;
    expect(await second.find(provider, headerOf(stage.one))).toEqual(unavailable);
    const third = stage.open(provider);
    expect(await third.find(provider, headerOf(stage.one))).toEqual(unavailable);
  });
});

describe("the copy on disk", () => {
  async function withCopy(): Promise<TokenProvider> {
    const provider = stage.providerOf();
    const store = stage.open(provider);
    await store.find(provider, headerOf(stage.one));
    await stage.copied();
    await store.close();
    await stage.issuer.close();
    return provider;
  }
  const refused = async (provider: TokenProvider) =>
    expect(await stage.open(provider).find(provider, headerOf(stage.one))).toEqual(unavailable);

  test("is nobody else's to read, and no other file is left", async () => {
    await withCopy();
    expect(await readdir(stage.directory)).toHaveLength(1);
    expect((await stat(await copyPath())).mode & 0o777).toBe(0o600);
    expect((await stat(stage.directory)).mode & 0o777).toBe(0o700);
  });

  test("is not used when others could have written it", async () => {
    const provider = await withCopy();
    await chmod(await copyPath(), 0o620);
    await refused(provider);
  });

  test("is not used when it is a link", async () => {
    const provider = await withCopy();
    const path = await copyPath();
    await rename(path, join(stage.directory, "..", "elsewhere"));
    await symlink(join(stage.directory, "..", "elsewhere"), path);
    await refused(provider);
  });

  test("is not used for another issuer or another URL, whatever it is called", async () => {
    await withCopy();
    const path = await copyPath();
    const other = stage.providerOf({
      issuer: "http://127.0.0.1:1/",
      keys: { kind: "jwks", url: stage.issuer.jwksUrl },
    });
    const elsewhere = stage.discovered();
    for (const provider of [other, elsewhere]) {
      const store = stage.open(provider);
      await store.find(provider, headerOf(stage.one));
      await store.close();
    }
    // As if it had been written for them.
    for (const provider of [other, elsewhere]) {
      const { url } = provider.keys as { url?: string };
      const id = createHash("sha256")
        .update(JSON.stringify([provider.issuer, url ?? null]))
        .digest("hex");
      await writeFile(join(stage.directory, `${id}.json`), await readFile(path), { mode: 0o600 });
      await refused(provider);
    }
  });

  test.each([
    ["damaged", () => "{"],
    ["empty", () => ""],
    [
      "of the future",
      (text: string) => text.replace(/"fetched_at_ms":\d+/, `"fetched_at_ms":${stage.nowMs + 1}`),
    ],
    ["without keys", (text: string) => text.replace(/"jwks":"[^"]*"/, '"jwks":"e30="')],
  ])("is not used when it is %s", async (_, spoil) => {
    const provider = await withCopy();
    const path = await copyPath();
    await writeFile(path, spoil(await readFile(path, "utf8")));
    await refused(provider);
  });
});
