/** Messages of OAUTHBEARER (RFC 7628 sections 3 and 4; PostgreSQL 18's auth-oauth.c for what is malformed). */

import { describe, expect, it } from "vitest";
import {
  bearerErrorResponse,
  isBearerAcknowledgement,
  readBearerMessage,
} from "../../../src/auth/oauth-bearer.ts";

const read = (text: string) => readBearerMessage(Buffer.from(text, "latin1"));

describe("the client's first message", () => {
  it.each([
    ["n,,\x01auth=Bearer abc\x01\x01", "abc"],
    ["y,,\x01auth=Bearer abc\x01\x01", "abc"],
    ["n,,\x01auth=bearer  a-._~+/b==\x01\x01", "a-._~+/b=="],
    // The example of RFC 7628 section 4.1.
    [
      "n,,\x01host=server.example.com\x01port=143\x01auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01",
      "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==",
    ],
    ["n,,\x01auth=Bearer abc\x01x=\x01\x01", "abc"],
  ])("%j has a token", (text, token) => {
    expect(read(text)).toEqual({ kind: "token", token });
  });

  it("without a token asks where there are any", () => {
    expect(read("n,,\x01auth=\x01\x01")).toEqual({ kind: "discovery" });
  });

  it.each([
    "Basic YTpi",
    "Bearer",
    "Bearer ",
    "Bearer a b",
    "Bearer a=b",
    "Bearer é".normalize("NFD"),
    "abc",
  ])("with the credential %j has no token", (credential) => {
    const outcome = read(`n,,\x01auth=${credential}\x01\x01`);
    expect(["unusable", "malformed"]).toContain(outcome.kind);
    expect(JSON.stringify(outcome)).not.toContain(credential);
  });

  it.each([
    ["", "The message is empty."],
    ["n,,\x01auth=Bearer abc\x01\x01\0", "Message length does not match input length."],
    ["p=tls-server-end-point,,\x01auth=Bearer abc\x01\x01", /does not support channel binding/],
    ["x,,\x01auth=Bearer abc\x01\x01", "Unexpected channel-binding flag."],
    ["n;,\x01auth=Bearer abc\x01\x01", "Comma expected."],
    ["n,b=x,\x01auth=Bearer abc\x01\x01", "Unexpected attribute in client-first-message."],
    ["n,,auth=Bearer abc\x01\x01", "Key-value separator expected."],
    ["n,,\x01auth=Bearer abc\x01", "Message did not contain a final terminator."],
    ["n,,\x01auth=Bearer abc", "Message did not contain a final terminator."],
    ["n,,\x01", "Message did not contain a final terminator."],
    ["n,,\x01\x01", "Message does not contain an auth value."],
    ["n,,\x01host=x\x01\x01", "Message does not contain an auth value."],
    ["n,,\x01auth=Bearer abc\x01\x01x", "Message contains additional data after the final terminator."],
    ["n,,\x01auth=Bearer abc\x01\x01\x01", "Message contains additional data after the final terminator."],
    ["n,,\x01auth=Bearer abc\x01auth=Bearer abc\x01\x01", "Message contains multiple auth values."],
    ["n,,\x01auth\x01\x01", "Message contains a key without a value."],
    ["n,,\x01=x\x01\x01", "Message contains an invalid key name."],
    ["n,,\x01a1=x\x01\x01", "Message contains an invalid key name."],
    ["n,,\x01auth=Bearer \x02\x01\x01", "Message contains an invalid value."],
  ])("%j is malformed", (text, detail) => {
    expect(read(text)).toEqual({
      kind: "malformed",
      condition: "protocol_violation",
      message: "malformed OAUTHBEARER message",
      detail: typeof detail === "string" ? detail : expect.stringMatching(detail),
    });
  });

  it("may not name somebody to act for", () => {
    expect(read("n,a=alice,\x01auth=Bearer abc\x01\x01")).toMatchObject({
      kind: "malformed",
      condition: "feature_not_supported",
    });
  });
});

describe("the answer to a refusal", () => {
  it("says where tokens come from, as far as that is known", () => {
    expect(JSON.parse(bearerErrorResponse("https://login.example.com/"))).toEqual({
      status: "invalid_token",
      "openid-configuration": "https://login.example.com/.well-known/openid-configuration",
      scope: "openid",
    });
    expect(JSON.parse(bearerErrorResponse(undefined))).toEqual({ status: "invalid_token", scope: "openid" });
  });

  it("is acknowledged by one separator and nothing else", () => {
    expect(isBearerAcknowledgement(Buffer.from("\x01"))).toBe(true);
    for (const other of ["", "\x01\x01", "\0", "n"]) {
      expect(isBearerAcknowledgement(Buffer.from(other))).toBe(false);
    }
  });
});
