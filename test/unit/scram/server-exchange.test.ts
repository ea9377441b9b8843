import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { beginClientExchange, receiveServerFirst } from "../../../src/scram/client-exchange.ts";
import {
  type AwaitingClientFinal,
  offeredMechanisms,
  receiveClientFinal,
  receiveClientFirst,
  type ServerExchangeOptions,
} from "../../../src/scram/server-exchange.ts";
import {
  createMockVerifier,
  createScramVerifierSync,
  parseScramVerifier,
} from "../../../src/scram/verifier.ts";

const sha256 = "SCRAM-SHA-256";
const plus = "SCRAM-SHA-256-PLUS";

/** RFC 7677 section 3. */
const rfc = {
  clientFirst: "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
  serverFirst: "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
  clientFinal:
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
  serverFinal: "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
  serverNonce: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
};
const verifier = createScramVerifierSync("pencil", {
  salt: Buffer.from("W22ZaJ0SNY7soEsUEjb6gQ==", "base64"),
  iterations: 4096,
});
const bindingData = Buffer.alloc(32, 9);
const withoutTls: ServerExchangeOptions = {
  verifier,
  serverNonce: rfc.serverNonce,
  channelBinding: { data: undefined },
};
const withTls: ServerExchangeOptions = { ...withoutTls, channelBinding: { data: bindingData } };

function first(message: string | Buffer, options = withoutTls, mechanism = sha256) {
  return receiveClientFirst(options, mechanism, Buffer.from(message));
}

function started(message: string, options = withoutTls, mechanism = sha256): AwaitingClientFinal {
  const outcome = first(message, options, mechanism);
  if (outcome.kind !== "continue") throw new Error(JSON.stringify(outcome));
  return outcome.exchange;
}

function final(exchange: AwaitingClientFinal, message: string) {
  return receiveClientFinal(exchange, Buffer.from(message));
}

/** Both sides; the client's messages may be changed on their way. */
function login(
  password: string,
  options: ServerExchangeOptions,
  tamper = (clientFinal: string) => clientFinal,
) {
  const data = options.channelBinding.data;
  const client = beginClientExchange({
    secret: { kind: "password", password },
    clientNonce: "abc",
    ...(data === undefined ? {} : { channelBinding: { kind: "tls-server-end-point", data } }),
  });
  const exchange = started(client.clientFirst, options, client.mechanism);
  const answer = receiveServerFirst(client.exchange, Buffer.from(exchange.serverFirst));
  if (answer.kind !== "continue") throw new Error(answer.kind);
  return final(exchange, tamper(answer.clientFinal));
}

describe("the server side of SCRAM", () => {
  test("replays the exchange of RFC 7677 section 3 byte for byte", () => {
    const outcome = first(rfc.clientFirst);
    expect(outcome).toMatchObject({ kind: "continue", serverFirst: rfc.serverFirst });
    const exchange = started(rfc.clientFirst);
    expect(final(exchange, rfc.clientFinal)).toMatchObject({
      kind: "accepted",
      serverFinal: rfc.serverFinal,
    });
  });

  test("gives out the client key, whose hash the verifier's stored key is", () => {
    const outcome = final(started(rfc.clientFirst), rfc.clientFinal);
    if (outcome.kind !== "accepted") throw new Error(outcome.kind);
    expect(createHash("sha256").update(outcome.clientKey).digest()).toEqual(verifier.storedKey);
  });

  test("accepts a password against a verifier that PostgreSQL made", () => {
    const stored = parseScramVerifier(
      "SCRAM-SHA-256$4096:R7fGy09SfowYtrcXViVMNg==$f9/KDqPWqyFaTp9a1wi3DXkbi2gwzGlrtzjSWiNLrDk=:+KqimEEEySF79F0eqH9FF3E0QYGLRs1UH5UzpCeq+A0=",
    );
    if (stored === undefined) throw new Error("no verifier");
    expect(login("\u2168", { ...withoutTls, verifier: stored }).kind).toBe("accepted");
    expect(login("IX", { ...withTls, verifier: stored }).kind).toBe("accepted");
    expect(login("ix", { ...withoutTls, verifier: stored }).kind).toBe("refused");
  });

  test("offers channel binding only where there is something to bind to", () => {
    expect(offeredMechanisms({ data: bindingData })).toEqual([plus, sha256]);
    expect(offeredMechanisms({ data: undefined })).toEqual([sha256]);
  });

  test("ignores the user name and optional extensions, and signs them as they were sent", () => {
    const exchange = started("n,,n=\u00e9,r=abc,x=1,y=");
    expect(exchange.serverFirst.startsWith("r=abc%hv")).toBe(true);
    expect(Buffer.from(exchange.clientFirstBare, "latin1").toString()).toBe("n=\u00e9,r=abc,x=1,y=");
  });

  test("refuses the proof of another password", () => {
    expect(login("pencil", withoutTls).kind).toBe("accepted");
    expect(login("Pencil", withoutTls)).toEqual({ kind: "refused", reason: "wrong_password" });
    expect(login("", withoutTls)).toEqual({ kind: "refused", reason: "wrong_password" });
  });

  test("refuses a client-final-message replayed against another nonce", () => {
    const other = started(rfc.clientFirst, { ...withoutTls, serverNonce: "another" });
    expect(final(other, rfc.clientFinal)).toEqual({
      kind: "malformed",
      condition: "protocol_violation",
      message: "invalid SCRAM response",
      detail: "Nonce does not match.",
    });
    const forged = rfc.clientFinal.replace(rfc.serverNonce, "another");
    expect(final(other, forged)).toEqual({ kind: "refused", reason: "wrong_password" });
  });

  test.each(["p=", "c=", "r="])("refuses a client-final-message with a changed %s", (attribute) => {
    const outcome = login("pencil", withoutTls, (message) =>
      message.replace(new RegExp(`${attribute}(.)`), (_, byte) => attribute + (byte === "A" ? "B" : "A")),
    );
    expect(outcome.kind).not.toBe("accepted");
  });

  test("signs optional extensions in the client-final-message", () => {
    const outcome = login("pencil", withoutTls, (message) => message.replace(",p=", ",x=1,p="));
    expect(outcome).toEqual({ kind: "refused", reason: "wrong_password" });
  });

  test("tells which of several verifiers the proof fits, and signs with that one's key", () => {
    const { iterations, salt } = verifier;
    const other = createScramVerifierSync("crayon", { iterations, salt });
    const among = { ...withoutTls, verifier: other, others: [verifier, verifier] };
    const outcome = login("pencil", among);
    expect(outcome).toMatchObject({ kind: "accepted", verifier });
    expect(outcome).toEqual(login("pencil", { ...withoutTls, verifier }));
    expect(login("crayon", among)).toMatchObject({ kind: "accepted", verifier: other });
    expect(login("chalk", among)).toEqual({ kind: "refused", reason: "wrong_password" });
    const mocked = { ...among, others: [{ ...verifier, kind: "mock" as const }] };
    expect(login("pencil", mocked)).toEqual({ kind: "refused", reason: "wrong_password" });
  });

  test("never accepts a mock verifier, even with the proof for its keys", () => {
    const mock = createMockVerifier(Buffer.alloc(32, 1), "nobody", 4096);
    expect(login("pencil", { ...withoutTls, verifier: mock })).toEqual({
      kind: "refused",
      reason: "wrong_password",
    });
    const guessed = { ...verifier, kind: "mock" as const };
    expect(login("pencil", { ...withoutTls, verifier: guessed })).toEqual({
      kind: "refused",
      reason: "wrong_password",
    });
  });

  test("answers an unknown user in the same shape as a known one", () => {
    const mock = createMockVerifier(Buffer.alloc(32, 1), "nobody", 4096);
    const shape = (text: string) => text.replace(/s=[A-Za-z0-9+/]{22}==/, "s=<16 bytes>");
    const unknown = started(rfc.clientFirst, { ...withoutTls, verifier: mock }).serverFirst;
    expect(unknown).not.toBe(rfc.serverFirst);
    expect(shape(unknown)).toBe(shape(rfc.serverFirst));
  });
});

describe("channel binding", () => {
  test("is accepted with our certificate's data", () => {
    expect(login("pencil", withTls).kind).toBe("accepted");
  });

  test("is refused with another certificate's data, though the password is right", () => {
    const client = beginClientExchange({
      secret: { kind: "password", password: "pencil" },
      clientNonce: "abc",
      channelBinding: { kind: "tls-server-end-point", data: Buffer.alloc(32, 8) },
    });
    const exchange = started(client.clientFirst, withTls, plus);
    const answer = receiveServerFirst(client.exchange, Buffer.from(exchange.serverFirst));
    expect(answer.kind === "continue" && final(exchange, answer.clientFinal)).toEqual({
      kind: "refused",
      reason: "channel_binding_mismatch",
    });
  });

  test("refuses a client that was told it is not offered, though it was: a downgrade", () => {
    expect(first("y,,n=,r=abc", withTls)).toEqual({ kind: "refused", reason: "channel_binding_mismatch" });
    expect(first("y,,n=,r=abc", withoutTls).kind).toBe("continue");
  });

  test("a client may do without it over TLS", () => {
    expect(first("n,,n=,r=abc", withTls).kind).toBe("continue");
  });

  test("the flag must be the same in both messages", () => {
    const forY = Buffer.from("y,,").toString("base64");
    const exchange = started("n,,n=,r=abc");
    expect(final(exchange, `c=${forY},r=${exchange.nonce},p=${"A".repeat(43)}=`)).toMatchObject({
      kind: "malformed",
      message: "unexpected SCRAM channel-binding attribute in client-final-message",
    });
    const withY = started("y,,n=,r=abc");
    expect(final(withY, `c=${forY},r=${withY.nonce},p=${"A".repeat(43)}=`).kind).toBe("refused");
  });

  test.each([
    [sha256, "p=tls-server-end-point,,n=,r=abc"],
    [plus, "n,,n=,r=abc"],
    [plus, "y,,n=,r=abc"],
    [plus, "p=tls-unique,,n=,r=abc"],
    [plus, "p,,n=,r=abc"],
    ["SCRAM-SHA-1", "n,,n=,r=abc"],
    ["", "n,,n=,r=abc"],
  ])("mechanism %j with %j is malformed", (mechanism, message) => {
    expect(first(message, withTls, mechanism).kind).toBe("malformed");
  });

  test("the PLUS mechanism is malformed where it was not offered", () => {
    expect(first("p=tls-server-end-point,,n=,r=abc", withoutTls, plus)).toMatchObject({
      kind: "malformed",
      message: "client selected an invalid SASL authentication mechanism",
    });
  });
});

describe("malformed SCRAM messages", () => {
  test.each([
    ["", "The message is empty."],
    ["n,,n=,r=a\0b", "Message length does not match input length."],
    ["x,,n=,r=abc", `Unexpected channel-binding flag "'x'".`],
    ["\u0001", 'Unexpected channel-binding flag "0x01".'],
    ["n", 'Comma expected, but found character "0x00".'],
    ["nn", `Comma expected, but found character "'n'".`],
    ["n,b=,n=,r=abc", `Unexpected attribute "'b'" in client-first-message.`],
    ["n,,r=abc", `Expected attribute "n" but found "'r'".`],
    ["n,,n", 'Expected character "=" for attribute "n".'],
    ["n,,n=", 'Expected attribute "r" but found "0x00".'],
    ["n,,n=,r=abc,1=", `Attribute expected, but found invalid character "'1'".`],
    ["n,,n=,r=abc,x", 'Expected character "=" for attribute "x".'],
  ])("client-first-message %j: %s", (message, detail) => {
    expect(first(message)).toEqual({
      kind: "malformed",
      condition: "protocol_violation",
      message: "malformed SCRAM message",
      detail,
    });
  });

  test.each([
    ["n,a=bob,n=,r=abc", "client uses authorization identity, but it is not supported"],
    ["n,,m=ext,n=,r=abc", "client requires an unsupported SCRAM extension"],
  ])("client-first-message %j asks for what is not supported", (message, text) => {
    expect(first(message)).toMatchObject({ condition: "feature_not_supported", message: text });
  });

  test.each(["a b", "a\u007f", "\u00e9", "a\tb"])("a nonce of %j is refused", (nonce) => {
    expect(first(`n,,n=,r=${nonce}`)).toMatchObject({
      kind: "malformed",
      message: "non-printable characters in SCRAM nonce",
    });
  });

  const proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
  const nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
  test.each([
    ["", "The message is empty."],
    [`r=${nonce},p=${proof}`, `Expected attribute "c" but found "'r'".`],
    [`c=biws,p=${proof}`, `Expected attribute "r" but found "'p'".`],
    [`c=biws,r=${nonce}`, "Attribute expected, but found end of string."],
    [`c=biws,r=${nonce},`, "Attribute expected, but found end of string."],
    [`c=biws,r=${nonce},p=`, "Malformed proof in client-final-message."],
    [`c=biws,r=${nonce},p=QUJD`, "Malformed proof in client-final-message."],
    [`c=biws,r=${nonce},p=${proof.slice(0, -1)}`, "Malformed proof in client-final-message."],
    [`c=biws,r=${nonce},p= ${proof}`, "Malformed proof in client-final-message."],
    [`c=biws,r=${nonce},p=${proof.replace("+", "-")}`, "Malformed proof in client-final-message."],
    [`c=biws,r=${nonce},p=${proof.replace("Q=", "R=")}`, "Malformed proof in client-final-message."],
    [`c=biws,r=${nonce},p=${proof},x=1`, "Garbage found at the end of client-final-message."],
    [`c=biws,r=${nonce}x,p=${proof}`, "Nonce does not match."],
    [`c=biws,r=,p=${proof}`, "Nonce does not match."],
  ])("client-final-message %j: %s", (message, detail) => {
    expect(final(started(rfc.clientFirst), message)).toMatchObject({
      kind: "malformed",
      condition: "protocol_violation",
      detail,
    });
  });

  test("no truncation of a client-final-message is accepted, and none throws", () => {
    const exchange = started(rfc.clientFirst);
    for (let length = 0; length < rfc.clientFinal.length; length += 1) {
      expect(final(exchange, rfc.clientFinal.slice(0, length)).kind).toBe("malformed");
    }
  });

  test("no bytes at all make either step throw", () => {
    const exchange = started(rfc.clientFirst);
    const message = fc.oneof(
      fc.uint8Array({ maxLength: 80 }).map((bytes) => Buffer.from(bytes)),
      fc
        .array(fc.constantFrom("n", "y", "p=", ",", "c=biws", "r=", "a", "=", "m=", "\u00e9"))
        .map((parts) => Buffer.from(parts.join(""))),
    );
    fc.assert(
      fc.property(message, (bytes) => {
        expect(["continue", "malformed", "refused"]).toContain(
          receiveClientFirst(withTls, sha256, bytes).kind,
        );
        expect(["malformed", "refused"]).toContain(receiveClientFinal(exchange, bytes).kind);
      }),
    );
  });
});
