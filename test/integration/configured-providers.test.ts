/** Issuers of `[auth.jwks]` that have no key set: a secret or a public key in a file, and what ends with a token. */

import { createHmac, generateKeyPairSync, sign } from "node:crypto";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { logInWithToken } from "../support/bearer-client.ts";
import { encode } from "../support/crafted-tokens.ts";
import { startFrontEnd } from "../support/front-end.ts";
import { type HttpClient, httpClient } from "../support/http.ts";
import { describeMessages, errorOf, rowsOf } from "../support/raw-client.ts";
import { openStage, type Stage } from "../support/stage.ts";

const directory = mkdtempSync(join(tmpdir(), "nodedb-issuers-"));
const secret = "s".repeat(64);
const pairs = {
  ES256: generateKeyPairSync("ec", { namedCurve: "P-256" }),
  ES512: generateKeyPairSync("ec", { namedCurve: "P-521" }),
  RS256: generateKeyPairSync("rsa", { modulusLength: 2048 }),
  EdDSA: generateKeyPairSync("ed25519"),
} as const;
type PairAlgorithm = keyof typeof pairs;
const pemOf = (alg: PairAlgorithm) => pairs[alg].publicKey.export({ type: "spki", format: "pem" }).toString();

let stage: Stage;
let http: HttpClient;

const fileOf = (name: string, content: string, mode = 0o600) => {
  const path = join(directory, name);
  writeFileSync(path, content);
  chmodSync(path, mode);
  return path;
};

beforeAll(async () => {
  const keyProviders = (Object.keys(pairs) as PairAlgorithm[]).map(
    (alg) => `[[auth.jwks.providers]]
name = "${alg}"
issuer = "https://${alg.toLowerCase()}.example.com"
audience = "api"
public_key_file = "${fileOf(`${alg}.pem`, pemOf(alg))}"
`,
  );
  stage = await openStage({
    configuration: `[auth]
login_attempts_per_ip_per_min = 0
[auth.pgwire]
bearer = true
[auth.jwks]
clock_skew = "0"
allowed_algorithms = ["ES256", "ES512", "RS256", "EdDSA"]
${keyProviders.join("")}
[[auth.jwks.providers]]
issuer = "our own service"
name = "service"
audience = "api"
roles = ["readwrite"]
jwt_secret_file = "${fileOf("secret", `${secret}\n`)}"
[[auth.jwks.providers]]
issuer = "short"
audience = "api"
jwt_secret_file = "${fileOf("short", secret.slice(0, 32))}"
`,
  });
  http = httpClient(`http://127.0.0.1:${stage.frontEnd.httpPort}`);
});

afterAll(async () => {
  await stage?.close();
  rmSync(directory, { recursive: true });
});

const claims = (iss: string, seconds = 300) => ({
  iss,
  aud: "api",
  sub: "s",
  exp: Date.now() / 1000 + seconds,
});
const issuerOf = (alg: PairAlgorithm) => `https://${alg.toLowerCase()}.example.com`;

function signed(alg: PairAlgorithm, payload: object): string {
  const input = `${encode({ alg })}.${encode(payload)}`;
  const hash = alg === "EdDSA" ? undefined : alg === "ES512" ? "sha512" : "sha256";
  const signature = sign(hash, Buffer.from(input), { key: pairs[alg].privateKey, dsaEncoding: "ieee-p1363" });
  return `${input}.${signature.toString("base64url")}`;
}

function hmac(alg: string, payload: object, key: string): string {
  const input = `${encode({ alg })}.${encode(payload)}`;
  const signature = createHmac(`sha${alg.slice(2)}`, key).update(input);
  return `${input}.${signature.digest("base64url")}`;
}

const ask = async (token: string) => {
  const { status, body } = await http.query(token, { sql: "SELECT session_user", rowMode: "array" });
  return status === 200 ? String(body.rows[0][0]) : status;
};

describe("a provider", () => {
  test.each(Object.keys(pairs) as PairAlgorithm[])(
    "with a public key for %s takes what that signed",
    async (alg) => {
      expect(await ask(signed(alg, claims(issuerOf(alg))))).toMatch(new RegExp(`^oidc:${alg}:`));
      expect(await ask(signed(alg, { ...claims(issuerOf(alg)), aud: "other" }))).toBe(401);
      const [head, body] = signed(alg, claims(issuerOf(alg))).split(".");
      expect(await ask(`${head}.${body}.${encode(Buffer.alloc(64))}`)).toBe(401);
    },
  );

  test.each(Object.keys(pairs) as PairAlgorithm[])(
    "with a public key for %s takes it for no secret",
    async (alg) => {
      const pem = pemOf(alg);
      for (const key of [pem, pem.trimEnd(), pem.replaceAll("\n", "\r\n")]) {
        for (const name of ["HS256", "HS384", "HS512"]) {
          expect(await ask(hmac(name, claims(issuerOf(alg)), key))).toBe(401);
        }
      }
    },
  );

  test.each(["HS256", "HS384", "HS512"])("with a long secret takes %s", async (alg) => {
    expect(await ask(hmac(alg, claims("our own service"), secret))).toMatch(/^oidc:service:/);
    expect(await ask(hmac(alg, claims("our own service"), `${secret}\n`))).toBe(401);
    expect(await ask(hmac(alg, claims("our own service"), "another"))).toBe(401);
  });

  test("with a secret of 32 bytes takes HS256 alone", async () => {
    const statuses = ["HS256", "HS384", "HS512"].map((alg) =>
      ask(hmac(alg, claims("short"), secret.slice(0, 32))),
    );
    expect(await Promise.all(statuses)).toEqual([expect.stringMatching(/^oidc:short:/), 401, 401]);
  });

  test("with a secret takes no other's key, and no unsigned token", async () => {
    expect(await ask(signed("ES256", claims("our own service")))).toBe(401);
    const unsigned = `${encode({ alg: "none" })}.${encode(claims("our own service"))}`;
    for (const token of [`${unsigned}.`, unsigned, `${unsigned}.AAAA`]) expect(await ask(token)).toBe(401);
  });

  test.each([0o644, 0o604])(
    "with a secret that everybody may read (%o) is not started with",
    async (mode) => {
      const path = fileOf("open", secret, mode);
      const configuration = `[[auth.jwks.providers]]
issuer = "x"
audience = "y"
jwt_secret_file = "${path}"
`;
      const failure = await startFrontEnd({ upstreamUrl: stage.postgres.url, configuration }).catch(String);
      expect(failure).toContain("ended with 78");
      expect(failure).toContain(
        `jwt_secret_file holds a secret that everybody may read: run chmod 600 ${path}`,
      );
      expect(failure).not.toContain(secret);
    },
  );
});

test("with its token a session on pgwire ends, and a request is refused", async () => {
  const token = hmac("HS256", claims("our own service", 5), secret);
  const login = await logInWithToken(stage.frontEnd.port, "oidc:service", token);
  if (!login.ok) expect.fail(JSON.stringify([...login.error]));
  expect(rowsOf(await login.client.query("SELECT session_user"))[0]?.[0]).toMatch(/^oidc:service:/);
  expect(await ask(token)).toMatch(/^oidc:service:/);
  const end = await login.client.readToClose();
  expect(describeMessages(end)).toBe("E");
  expect(errorOf(end).get("C")).toBe("57P01");
  expect(await ask(token)).toBe(401);
});
