import { describe, expect, test } from "vitest";
import {
  type AwaitingServerFinal,
  beginClientExchange,
  type ClientSecret,
  receiveServerFinal,
  receiveServerFirst,
} from "../../../src/scram/client-exchange.ts";
import { deriveKeysSync } from "../../../src/scram/keys.ts";

const clientNonce = "rOprNGfwEbeRWgbNEkqO";
const salt = Buffer.from("W22ZaJ0SNY7soEsUEjb6gQ==", "base64");
const serverFirst = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const serverFinal = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
const password: ClientSecret = { kind: "password", password: "pencil" };
const keys: ClientSecret = { kind: "keys", ...deriveKeysSync("pencil", salt, 4096), salt, iterations: 4096 };

function answer(message: string, secret: ClientSecret = password) {
  const { exchange } = beginClientExchange({ secret, clientNonce, username: "user" });
  return receiveServerFirst(exchange, Buffer.from(message));
}

function awaitingFinal(): AwaitingServerFinal {
  const outcome = answer(serverFirst, keys);
  if (outcome.kind !== "continue") throw new Error(outcome.kind);
  return outcome.exchange;
}

function finish(message: string) {
  return receiveServerFinal(awaitingFinal(), Buffer.from(message));
}

describe("the client side of SCRAM", () => {
  test.each([
    ["a password", password],
    ["known keys", keys],
  ])("replays the exchange of RFC 7677 section 3 byte for byte from %s", (_, secret) => {
    const client = beginClientExchange({ secret, clientNonce, username: "user" });
    expect(client.clientFirst).toBe("n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    expect(client.mechanism).toBe("SCRAM-SHA-256");
    const second = receiveServerFirst(client.exchange, Buffer.from(serverFirst));
    if (second.kind !== "continue") throw new Error(second.kind);
    expect(second.clientFinal).toBe(
      "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    );
    expect(receiveServerFinal(second.exchange, Buffer.from(serverFinal))).toEqual({ kind: "verified" });
  });

  test("sends no user name by default and escapes one (RFC 5802 section 5.1)", () => {
    expect(beginClientExchange({ secret: password, clientNonce }).clientFirst).toBe(`n,,n=,r=${clientNonce}`);
    expect(beginClientExchange({ secret: password, clientNonce, username: "a,b=c" }).clientFirst).toBe(
      `n,,n=a=2Cb=3Dc,r=${clientNonce}`,
    );
  });

  test("says which channel binding it uses", () => {
    const begin = (channelBinding: Parameters<typeof beginClientExchange>[0]["channelBinding"] & object) =>
      beginClientExchange({ secret: password, clientNonce: "x", channelBinding });
    expect(begin({ kind: "not_offered" }).clientFirst).toBe("y,,n=,r=x");
    const bound = begin({ kind: "tls-server-end-point", data: Buffer.from("hash") });
    expect([bound.mechanism, bound.clientFirst]).toEqual([
      "SCRAM-SHA-256-PLUS",
      "p=tls-server-end-point,,n=,r=x",
    ]);
    const outcome = receiveServerFirst(bound.exchange, Buffer.from("r=xy,s=QUJD,i=1"));
    const binding = Buffer.from("p=tls-server-end-point,,hash").toString("base64");
    expect(outcome.kind === "continue" && outcome.clientFinal.startsWith(`c=${binding},r=xy,p=`)).toBe(true);
  });
});

describe("pinned keys", () => {
  test.each([
    ["another salt", serverFirst.replace("W22Z", "W22a")],
    ["a longer salt", serverFirst.replace("gQ==", "gQAA")],
    ["fewer iterations", serverFirst.replace("i=4096", "i=4095")],
    ["more iterations", serverFirst.replace("i=4096", "i=40960")],
  ])("make no proof for a server that names %s", (_, message) => {
    expect(answer(message, keys)).toEqual({ kind: "unexpected_verifier" });
    expect(answer(message, password).kind).toBe("continue");
  });
});

describe("a server-first-message", () => {
  test.each([
    ["", "The message is empty."],
    ["e=other-error", `Expected attribute "r" but found "'e'".`],
    ["m=x,r=rOprNGfwEbeRWgbNEkqOx,s=QUJD,i=1", `Expected attribute "r" but found "'m'".`],
    ["r=other,s=QUJD,i=1", "Nonce does not match."],
    [`r=x${clientNonce},s=QUJD,i=1`, "Nonce does not match."],
    [`r=${clientNonce} x,s=QUJD,i=1`, "Nonce does not match."],
    [`r=${clientNonce},s=QUJD,i=1`, "The server added nothing to the nonce."],
    [`r=${clientNonce}x,s=,i=1`, "Malformed salt in server-first-message."],
    [`r=${clientNonce}x,s=QUJ,i=1`, "Malformed salt in server-first-message."],
    [`r=${clientNonce}x,s=QUJD,i=0`, "Malformed iteration count in server-first-message."],
    [`r=${clientNonce}x,s=QUJD,i=-1`, "Malformed iteration count in server-first-message."],
    [`r=${clientNonce}x,s=QUJD,i=1x`, "Malformed iteration count in server-first-message."],
    [`r=${clientNonce}x,s=QUJD,i=2000000000`, "Too many iterations in server-first-message."],
    [`r=${clientNonce}x,s=QUJD`, 'Expected attribute "i" but found "0x00".'],
    [`r=${clientNonce}\u00e9,s=QUJD,i=1`, "Non-printable characters in server-first-message."],
  ])("%j is malformed: %s", (message, detail) => {
    expect(answer(message)).toEqual({ kind: "malformed", detail });
  });
});

describe("a server-final-message", () => {
  test("of another server is not verified, whatever follows", () => {
    expect(finish(serverFinal.replace("6rri", "7rri"))).toEqual({ kind: "wrong_server_signature" });
    expect(finish(`v=${Buffer.alloc(32).toString("base64")}`)).toEqual({ kind: "wrong_server_signature" });
  });

  test("may carry extensions", () => {
    expect(finish(`${serverFinal},x=1`)).toEqual({ kind: "verified" });
  });

  test("may be an error", () => {
    expect(finish("e=invalid-proof")).toEqual({ kind: "refused", serverError: "invalid-proof" });
  });

  test.each([
    "",
    "v=",
    "v",
    "x=1",
    `v=${"A".repeat(40)}`,
    serverFinal.slice(0, -1),
    `x=1,${serverFinal}`,
    `${serverFinal},1`,
  ])("%j is malformed", (message) => {
    expect(finish(message).kind).toBe("malformed");
  });
});
