/** What HTTP and OAUTHBEARER clients send, and what checks it, is to be read nowhere: tokens, keys, HMAC secrets, private keys. */

import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SignJWT } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { logInWithToken } from "../support/bearer-client.ts";
import { makeServerCertificate } from "../support/certificates.ts";
import { type HttpClient, httpClient } from "../support/http.ts";
import { type Issuer, type IssuerKey, makeKey, startIssuer } from "../support/issuer.ts";
import { SecretHunt } from "../support/secret-hunt.ts";
import {
  type Arrangement,
  arrangements,
  describeNoSecret,
  isArrangementThere,
  openSecretStage,
  type SecretStage,
} from "../support/secret-stage.ts";

for (const arrangement of arrangements) {
  describe(arrangement.title, () => describeHunt(arrangement, isArrangementThere(arrangement)));
}

function describeHunt(arrangement: Arrangement, isThere: boolean): void {
  const hunt = new SecretHunt();
  const testIfThere = test.skipIf(!isThere);
  let stage: SecretStage;
  let http: HttpClient;
  let issuer: Issuer;
  let signingKey: IssuerKey;
  let directory: string;
  let hmacSecret: string;

  /** The signature is what makes a token good; without it the rest says who somebody is. */
  function rememberToken(what: string, token: string): string {
    hunt.remember(`token: ${what}`, token.split(".")[2] ?? "");
    return token;
  }

  const signed = async (what: string, claims: Readonly<Record<string, unknown>> = {}, key = signingKey) =>
    rememberToken(what, await issuer.sign(key, claims));

  const signedBySecret = async (what: string, secret: string) =>
    rememberToken(
      what,
      await new SignJWT({ sub: "customer" })
        .setProtectedHeader({ alg: "HS256" })
        .setIssuer("shop")
        .setAudience("api")
        .setExpirationTime("5m")
        .sign(Buffer.from(secret)),
    );

  /** With the last character of its secret part changed: as secret as the one that it is a slip of. */
  function spoiled(what: string, token: string): string {
    const wrong = `${token.slice(0, -3)}${token.endsWith("AAA") ? "BBB" : "AAA"}`;
    hunt.remember(`token: ${what}`, wrong.slice(-40));
    return wrong;
  }

  /** A request, of whose answer everything is kept but the row that shows a key. */
  async function ask(token: string, body: unknown, headers: Readonly<Record<string, string>> = {}) {
    const answer = await http.query(token, body, { headers });
    const { rows, ...rest } = answer.body ?? {};
    const shown = (rows ?? []).map(({ api_key: _, ...row }: Record<string, unknown>) => row);
    stage.told.push(JSON.stringify([answer.status, [...answer.headers], rest, shown]));
    return answer;
  }

  beforeAll(async () => {
    if (!isThere) return;
    directory = mkdtempSync(join(tmpdir(), "nodedb-secrets-"));
    const certificate = await makeServerCertificate(directory);
    for (const line of certificate.key
      .split("\n")
      .filter((line) => line.length > 30 && !line.startsWith("-"))) {
      hunt.remember("private key: of the server", line);
    }
    hmacSecret = hunt.remember("HMAC secret: of the shop", randomBytes(32).toString("hex"));
    const secretFile = join(directory, "hmac.secret");
    writeFileSync(secretFile, hmacSecret, { mode: 0o600 });
    signingKey = await makeKey("ES256", "first");
    issuer = await startIssuer([signingKey]);
    stage = await openSecretStage(
      arrangement,
      hunt,
      `server.tls.cert = "${certificate.certPath}"
server.tls.key = "${certificate.keyPath}"
auth.pgwire.bearer = true
auth.login_attempts_per_ip_per_min = 0
auth.login_attempts_per_user_per_min = 0
auth.max_failed_logins = 0
auth.jwks.providers = [{ issuer = "shop", audience = "api", jwt_secret_file = "${secretFile}" }]
`,
    );
    http = httpClient(`http://127.0.0.1:${stage.frontEnd.httpPort}`);
    await stage.admin.query(
      `CREATE OIDC PROVIDER main WITH (issuer = '${issuer.issuer}', jwks_url = '${issuer.jwksUrl}', audience = 'api',
         claim_mapping = [{ claim = 'sub', value = '*', effect = { add_roles = ['readwrite'] } }])`,
    );
  });

  afterAll(async () => {
    await stage?.close();
    await issuer?.close();
    if (directory !== undefined) rmSync(directory, { recursive: true, force: true });
  });

  testIfThere("keys over HTTP, good ones and wrong ones, wherever a client puts them", async () => {
    const key = await stage.makeKey("of an admin", { text: "CREATE API KEY 'root' ROLE superuser" });
    expect((await ask(key, { sql: "SELECT $1 || $2 AS joined", params: ["a", "b"] })).status).toBe(200);
    const made = await ask(key, { sql: "CREATE API KEY 'made_by_http' ROLE readonly" });
    const second = hunt.rememberApiKey("made over HTTP", made.body.rows[0].api_key);
    const rotated = await ask(key, { sql: "ALTER API KEY 'made_by_http' ROTATE" });
    hunt.rememberApiKey("rotated over HTTP", rotated.body.rows[0].api_key);
    await stage.rememberStored("rotated over HTTP");
    const password = hunt.makePassword("set over HTTP");
    expect((await ask(key, { sql: `CREATE USER hannah PASSWORD '${password}'` })).status).toBe(200);
    const inTransaction = hunt.makePassword("set in a transaction over HTTP");
    const several = {
      queries: [{ sql: `ALTER USER hannah PASSWORD '${inTransaction}'` }, { sql: "SELECT 1/0" }],
    };
    expect((await ask(key, several)).status).toBe(400);
    for (const sql of [
      `CREATE USER hannah PASSWORD '${hunt.makePassword("of a name that is taken")}'`,
      `CREATE USER f PASSWORD '${hunt.makePassword("before a syntax error")}' NONSENSE`,
      `ALTER USER hannah PASSWROD '${hunt.makePassword("a misspelt keyword")}'`,
      `ALTER USER hannah PASSWORD '${hunt.makePassword("an open quote")}`,
    ]) {
      expect((await ask(key, { sql })).status, "a statement that fails").toBeGreaterThanOrEqual(400);
    }
    expect((await ask(second, { sql: "SELECT 1" })).status).toBe(401);
    expect((await ask(spoiled("a wrong key", key), { sql: "SELECT 1" })).status).toBe(401);
    for (const authorization of [`Basic ${key}`, `Bearer ${key} ${key}`, `bearer  "${key}"`, key]) {
      const answer = await http.post("/v1/query", { sql: "SELECT 1" }, { headers: { authorization } });
      stage.told.push(answer.text);
      expect(answer.status).toBe(401);
    }
    for (const path of [`/v1/query?access_token=${key}`, `/v1/${key}`, `/${key}?x=${key}`]) {
      stage.told.push((await http.get(path)).text.replaceAll(key, "what was asked for"));
    }
    const { text } = await http.post("/v1/query", `{ "sql": "SELECT 1", "api_key": "${key}" }`, {
      token: key,
    });
    stage.told.push(text);
    // Where the user's name was asked for; the answer repeats it.
    await stage.login(key, "anything").catch(() => undefined);
    await stage.login("hannah", key).catch(stage.tell);
  });

  testIfThere.each(["HTTP", "pgwire"])("tokens over %s, good ones and refused ones", async (door) => {
    const present = async (token: string, provider = "main"): Promise<boolean> => {
      if (door === "HTTP") return (await ask(token, { sql: "SELECT 1 AS one" })).status === 200;
      const { port, database } = stage.frontEnd;
      const login = await logInWithToken(port, `oidc:${provider}`, token, database);
      if (login.ok) login.client.close();
      else stage.told.push(JSON.stringify([login.json, [...login.error]]));
      return login.ok;
    };
    const what = (of: string) => `${of}, over ${door}`;
    const token = await signed(what("good"));
    expect(await present(token)).toBe(true);
    expect(await present(await signedBySecret(what("by a secret"), hmacSecret), "shop")).toBe(true);
    const now = Math.floor(Date.now() / 1000);
    const other = await makeKey("ES256", "first");
    for (const refused of [
      spoiled(what("with another signature"), token),
      await signed(what("expired"), { iat: now - 7_200, exp: now - 3_600 }),
      await signed(what("of another audience"), { aud: "elsewhere" }),
      await signed(what("of another issuer"), { iss: "https://elsewhere.example.com/" }),
      await signed(what("by another key"), {}, other),
      await signed(what("without a subject"), { sub: undefined }),
      await signedBySecret(
        what("by another secret"),
        hunt.remember("HMAC secret: a wrong one", "w".repeat(64)),
      ),
      `${token}.${token}`,
      `${token.split(".").slice(0, 2).join(".")}.`,
    ]) {
      expect(await present(refused)).toBe(false);
    }
    // A token as a password and as a user's name, from somebody who has mixed them up; the answer repeats the name.
    await stage.login("hannah", token).catch(stage.tell);
    await stage.login(token, "anything").catch(() => undefined);
  });

  describeNoSecret(isThere, () => stage, {
    kinds: [
      "password",
      "StoredKey",
      "ServerKey",
      "API key",
      "hash",
      "master secret",
      "claims key",
      "token",
      "HMAC secret",
      "private key",
    ],
    secrets: 50,
    output: [
      '"level":"debug"',
      "bad_signature",
      "token_expired",
      "wrong_secret",
      "request failed",
      "ndb_[secret]",
      "[token]",
    ],
    postgresLog: ["INSERT INTO nodedb.principal", "SELECT 1/0", "SELECT 1 AS one"],
    auditEvents: ["AuthSuccess", "AuthFailure", "AdminAction", "KeyUsed"],
    told: 30,
  });
}
