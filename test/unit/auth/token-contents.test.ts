/** Whose, whom, for whom and when: claims of a well-signed token that are a little, or very, wrong (RFC 7519 section 4.1). */

import { describe, expect, it } from "vitest";
import {
  claims,
  issuer,
  providerOf,
  refused,
  seconds,
  signed,
  skewMs,
  taken,
  verify,
} from "../../support/crafted-tokens.ts";

describe("the issuer", () => {
  it.each([
    `${issuer}/`,
    `${issuer}x`,
    issuer.slice(0, -1),
    "https://id.example.com",
    "https://id.example.com/",
    `x${issuer}`,
    ` ${issuer}`,
    `${issuer}\n`,
    `${issuer}?`,
    `${issuer}#`,
    "https://ID.example.com/tenant",
    "HTTPS://id.example.com/tenant",
    "https://id.example.com:443/tenant",
    "https://id.example.com/./tenant",
    "https://id.example.com/%74enant",
    "https://id.example.com@evil.example/tenant",
    "https://id.еxample.com/tenant",
    "",
  ])("%j is another one", async (iss) => {
    expect(await verify(signed(claims({ iss })))).toEqual(refused("unknown_provider"));
  });

  it.each([[[issuer]], [{ [issuer]: 1 }], [null], [1], [undefined]])("%j is none", async (iss) => {
    expect(await verify(signed(claims({ iss })))).toEqual(refused("malformed_token"));
  });
});

describe("the audience", () => {
  const two = [providerOf(), providerOf({ name: "second", audience: "other" })];

  it.each<[unknown, string]>([
    ["API", "unknown_provider"],
    ["api ", "unknown_provider"],
    ["", "unknown_provider"],
    ["api other", "unknown_provider"],
    [[], "unknown_provider"],
    [["nothing", ""], "unknown_provider"],
    [undefined, "unknown_provider"],
    [["api", "other"], "ambiguous_provider"],
    [["api", ["other"]], "malformed_token"],
    [["api", null], "malformed_token"],
    [null, "malformed_token"],
    [{ api: true }, "malformed_token"],
    [true, "malformed_token"],
  ])("%j is refused", async (aud, reason) => {
    expect(await verify(signed(claims({ aud })), two)).toEqual(refused(reason));
  });

  it("among two providers of one issuer decides whose rules hold", async () => {
    const [first, second] = two.map((provider, index) => ({ ...provider, tenantId: index + 1 }));
    if (first === undefined || second === undefined) expect.fail();
    for (const [aud, provider] of [
      ["api", first],
      ["other", second],
      [["x", "other"], second],
      [["api", "api"], first],
    ] as const) {
      expect(await verify(signed(claims({ aud })), [first, second])).toMatchObject({ ok: true, provider });
    }
  });

  it("of a provider is not lent its algorithms or keys by another of the same issuer", async () => {
    const narrow = [providerOf({ algorithms: ["RS256"] }), providerOf({ name: "second", audience: "other" })];
    expect(await verify(signed(claims({ aud: "api" })), narrow)).toEqual(refused("algorithm_not_allowed"));
    expect(await verify(signed(claims({ aud: "other" })), narrow)).toMatchObject({ ok: true });
  });
});

describe("the times", () => {
  const edge = skewMs / 1000;
  const raw = (name: string, value: string) =>
    `{"iss":"${issuer}","aud":"api","sub":"erika"${name === "exp" ? "" : `,"exp":${seconds + 300}`},"${name}":${value}}`;

  it.each<[string, string, string]>([
    ["exp", `${seconds - edge}`, "token_expired"],
    ["exp", `${seconds - edge - 0.5}`, "token_expired"],
    ["exp", "0", "token_expired"],
    ["exp", "-1", "token_expired"],
    ["exp", "-1e308", "token_expired"],
    ["exp", `"${seconds + 300}"`, "token_without_expiry"],
    ["exp", "null", "token_without_expiry"],
    ["exp", "true", "token_without_expiry"],
    ["exp", `[${seconds + 300}]`, "token_without_expiry"],
    ["exp", '{"valueOf":1}', "token_without_expiry"],
    ["nbf", `${seconds + edge + 1}`, "token_not_yet_valid"],
    ["nbf", "1e308", "token_not_yet_valid"],
    ["nbf", '"0"', "malformed_token"],
    ["nbf", "null", "malformed_token"],
    ["iat", `${seconds + edge + 1}`, "token_not_yet_valid"],
    ["iat", "1e308", "token_not_yet_valid"],
    ["iat", '"0"', "malformed_token"],
    ["iat", "null", "malformed_token"],
  ])("%s of %s is refused", async (name, value, reason) => {
    expect(await verify(signed(raw(name, value)))).toEqual(refused(reason));
  });

  it("without exp is refused", async () => {
    expect(await verify(signed(claims({ exp: undefined })))).toEqual(refused("token_without_expiry"));
  });

  it.each(["1e15", "1e300", "1e999", `${2 ** 53}`])(
    "exp of %s is a moment that a session can end at",
    async (exp) => {
      const outcome = await verify(signed(raw("exp", exp)));
      expect(outcome).toEqual(taken);
      expect(outcome.ok && outcome.expiresAt.getTime()).toBe(8.64e15);
    },
  );

  it.each<[string, string]>([
    ["exp", `${seconds - edge + 0.5}`],
    ["exp", `${seconds + 0.25}`],
    ["nbf", `${seconds + edge}`],
    ["nbf", "-1"],
    ["iat", `${seconds + edge}`],
    ["iat", "1.5"],
  ])("%s of %s is taken", async (name, value) => {
    expect(await verify(signed(raw(name, value)))).toEqual(taken);
  });
});

describe("the subject", () => {
  it.each<[unknown]>([
    [undefined],
    [null],
    [""],
    [0],
    [true],
    [["erika"]],
    [{ toString: "erika" }],
    ["a\0"],
    ["\0"],
    ["\ud800"],
    ["\udc00\ud800"],
    ["s".repeat(256)],
  ])("%j is nobody", async (sub) => {
    expect(await verify(signed(claims({ sub })))).toEqual(refused("no_subject"));
  });

  it.each([
    "alice",
    "nodedb",
    "superuser",
    "pg_read_all_data",
    "аlice",
    "e\u0301",
    "é",
    "s".repeat(255),
    " ",
    "a\nb",
    "🙂",
  ])("%j is taken as it stands", async (sub) => {
    expect(await verify(signed(claims({ sub })))).toMatchObject({ ok: true, subject: sub });
  });
});
