/** Issuers whose answers are wrong, endless or somebody else's: nothing of them is believed or kept. */

import { readdir, rm } from "node:fs/promises";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { describe, expect, test } from "vitest";
import type { TokenProvider } from "../../src/auth/token-provider.ts";
import { makeServerCertificate } from "../support/certificates.ts";
import { startIssuer } from "../support/issuer.ts";
import { headerOf, type JwksStage, unavailable, useJwksStage } from "../support/jwks-stage.ts";

let stage: JwksStage;

useJwksStage((opened) => {
  stage = opened;
});

describe("an issuer that lies", () => {
  const body = (text: string, status = 200, headers: Record<string, string> = {}) => {
    stage.issuer.answer = (_request, response) => response.writeHead(status, headers).end(text);
  };
  const refusedWith = async (provider: TokenProvider) => {
    const store = stage.open(provider);
    expect(await store.find(provider, headerOf(stage.one))).toEqual(unavailable);
    expect(store.statuses()).toMatchObject([{ failures: 1 }]);
    expect(await readdir(stage.directory).catch(() => [])).toEqual([]);
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
    await refusedWith(stage.providerOf());
  });

  test.each([404, 500, 204])("answers with status %i", async (status) => {
    body(JSON.stringify({ keys: [stage.one.publicJwk] }), status);
    await refusedWith(stage.providerOf());
  });

  test("sends more than it may, and is cut off", async () => {
    let sent = 0;
    stage.issuer.answer = (_request, response) => {
      response.writeHead(200);
      const more = () => {
        while (!response.destroyed && response.write(Buffer.alloc(10_000, 32))) sent += 10_000;
        if (!response.destroyed) response.once("drain", more);
      };
      more();
    };
    await refusedWith(stage.providerOf());
    expect(sent).toBeLessThan(50_000_000);
  });

  test("does not answer, or not to the end, and is not waited for longer than is allowed", async () => {
    const options = { fetch: { mayAskPrivate: false, timeoutMs: 100, maxBytes: 20_000 } };
    for (const answer of ["nothing", "half"]) {
      stage.issuer.answer = (_request, response) => {
        if (answer === "half") response.writeHead(200).write('{"keys":[');
      };
      const store = stage.open(stage.providerOf(), options);
      const start = performance.now();
      expect(await store.find(stage.providerOf(), headerOf(stage.one))).toEqual(unavailable);
      expect(performance.now() - start).toBeLessThan(1_500);
    }
  });

  test("is slow with one document, and gets what is left of the time for the other", async () => {
    stage.issuer.answer = (_request, response) => {
      if (stage.jwksRequests() > 0) return;
      const document = { issuer: stage.issuer.issuer, jwks_uri: stage.issuer.jwksUrl };
      setTimeout(() => response.end(JSON.stringify(document)), 1_500);
    };
    const start = performance.now();
    await refusedWith(stage.discovered());
    expect(stage.jwksRequests()).toBe(1);
    expect(performance.now() - start).toBeLessThan(3_000);
  });

  test("does not end what it began", async () => {
    stage.issuer.answer = (_request, response) => {
      response.writeHead(200, { "content-length": "1000" });
      response.write(JSON.stringify({ keys: [stage.one.publicJwk] }), () => response.destroy());
    };
    await refusedWith(stage.providerOf());
  });

  test("has a certificate of nobody's, or speaks plainly where it should not", async () => {
    const { cert, key } = await makeServerCertificate();
    const secure = createServer({ cert, key }, (_request, response) =>
      response.end(JSON.stringify({ keys: [stage.one.publicJwk] })),
    );
    await new Promise<void>((resolve) => secure.listen(0, "127.0.0.1", resolve));
    const { port } = secure.address() as AddressInfo;
    try {
      for (const url of [`https://localhost:${port}/jwks`, stage.issuer.jwksUrl.replace("http:", "https:")]) {
        await refusedWith(stage.providerOf({ keys: { kind: "jwks", url } }));
      }
    } finally {
      await new Promise((resolve) => secure.close(resolve));
    }
  });

  test("sends its caller elsewhere", async () => {
    const other = await startIssuer([stage.one]);
    try {
      for (const location of [
        other.jwksUrl,
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "//x",
      ]) {
        body("", 302, { location });
        await refusedWith(stage.providerOf());
      }
      expect(other.requests).toEqual([]);
    } finally {
      await other.close();
    }
  });

  test("may send its caller to another path, and not in a circle", async () => {
    stage.issuer.answer = (request, response) => {
      if (request.url === "/jwks") response.writeHead(302, { location: "/moved" }).end();
      else response.end(JSON.stringify({ keys: [stage.one.publicJwk] }));
    };
    const store = stage.open(stage.providerOf());
    expect(await store.find(stage.providerOf(), headerOf(stage.one))).toMatchObject({ ok: true });
    await store.close();
    await rm(stage.directory, { recursive: true });
    body("", 302, { location: "/jwks" });
    await refusedWith(stage.providerOf());
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
    stage.issuer.answer = (request, response) =>
      response.end(
        JSON.stringify(
          request.url === "/jwks"
            ? { keys: [stage.one.publicJwk] }
            : spoil({ issuer: stage.issuer.issuer, jwks_uri: stage.issuer.jwksUrl }),
        ),
      );
    await refusedWith(stage.discovered());
    expect(stage.jwksRequests()).toBe(0);
  });
});
