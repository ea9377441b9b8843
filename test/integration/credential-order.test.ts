/**
 * Certificate, token, API key, password: the first that is presented decides, on both front doors. One that fails is a refusal
 * whatever else the client has; the client hears one text, and the audit log why.
 */

import { Agent, request } from "node:https";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { decodeAuthentication } from "../../src/wire/backend-message-decoding.ts";
import { encodeSaslInitialResponse, encodeSaslResponse } from "../../src/wire/frontend-message-encoding.ts";
import { makeServerCertificate, type TestCertificate } from "../support/certificates.ts";
import {
  type ClientAuthority,
  type ClientCertificate,
  makeClientAuthority,
} from "../support/client-certificates.ts";
import { createKey } from "../support/http.ts";
import { type Issuer, makeKey, startIssuer } from "../support/issuer.ts";
import { errorOf, RawClient, rowsOf, startupMessage, startupPacket } from "../support/raw-client.ts";
import { openStage, passwordOf, type Stage } from "../support/stage.ts";

const sslRequest = startupPacket((1234 << 16) | 5679);

let server: TestCertificate;
let authority: ClientAuthority;
let issuer: Issuer;
let stage: Stage;

/** Whom a client shows a certificate of; "nobody" is verified and names no principal. */
const certificates = new Map<string, ClientCertificate>();
/** What a client has besides, by what it is. */
const secrets = new Map<string, string>();

beforeAll(async () => {
  [server, authority] = await Promise.all([makeServerCertificate(), makeClientAuthority()]);
  for (const [owner, name] of [
    ["alice", "CN=alice"],
    ["bob", "CN=bob"],
    ["nobody", "CN=nobody_here"],
  ] as const) {
    certificates.set(owner, await authority.issue({ name }));
  }
  stage = await openStage({
    users: ["alice", "bob"],
    configuration: `[server.tls]
cert = "${server.certPath}"
key = "${server.keyPath}"
client_ca = "${authority.certPath}"
[auth]
login_attempts_per_ip_per_min = 0
login_attempts_per_user_per_min = 0
max_failed_logins = 0
[auth.pgwire]
bearer = true
`,
  });
  const signingKey = await makeKey("ES256", "k1");
  issuer = await startIssuer([signingKey]);
  await stage.asAdmin(
    `CREATE OIDC PROVIDER corp WITH (issuer = '${issuer.issuer}', jwks_url = '${issuer.jwksUrl}', audience = 'api',
       claim_mapping = [{ claim = 'sub', value = '*', effect = { add_roles = ['readonly'] } }])`,
  );
  secrets.set("bob's key", await createKey(stage, "bobs", "FOR bob"));
  secrets.set("a revoked key", await createKey(stage, "gone", "FOR bob"));
  const { rows } = await stage.asAdmin("SHOW API KEYS FOR bob");
  await stage.asAdmin(`REVOKE API KEY '${rows.find(({ name }) => name === "gone")?.key_id}'`);
  secrets.set("an unknown key", `ndb_aaaaaaaaaaaa_${"A".repeat(43)}`);
  secrets.set("a token", await issuer.sign(signingKey));
  secrets.set(
    "an expired token",
    await issuer.sign(signingKey, { exp: Math.floor(Date.now() / 1000) - 3_600 }),
  );
  secrets.set("alice's password", passwordOf("alice"));
  secrets.set("bob's password", passwordOf("bob"));
  secrets.set("a wrong password", "wrong");
});
afterAll(async () => {
  await stage?.close();
  await issuer?.close();
});

const secret = (name: string) => secrets.get(name) ?? "";

/** Who a session is and by what, or the words of the refusal. */
type Outcome = string;

async function auditOf(attempt: () => Promise<Outcome>): Promise<[Outcome, string | undefined]> {
  const failures = async () =>
    (await stage.asAdmin("SHOW AUDIT LOG WHERE event = 'AuthFailure' LIMIT 1")).rows[0];
  const before = await failures();
  const outcome = await attempt();
  const after = await failures();
  return [outcome, after?.seq === before?.seq ? undefined : String(after?.detail)];
}

/** A request with what stands in Authorization, if anything. */
function overHttp(certificate: string, authorization: string | undefined): Promise<Outcome> {
  const { cert, key } = certificates.get(certificate) ?? {};
  const agent = new Agent({ ca: server.cert, ...(cert === undefined ? {} : { cert, key }) });
  const headers = authorization === undefined ? {} : { authorization };
  const { host, httpPort: port } = stage.frontEnd;
  return new Promise((resolve, reject) => {
    request({ host, port, servername: "localhost", path: "/v1/query", agent, headers }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part: string) => {
        text += part;
      });
      response.on("end", () => {
        const { rows, error } = JSON.parse(text);
        resolve(
          rows === undefined
            ? `${response.statusCode} ${error.code} ${error.message}`
            : nameOf(rows[0].username, rows[0].auth_method),
        );
      });
    })
      .on("error", reject)
      .end();
  });
}

function nameOf(user: string, method: string): string {
  return `${user.replace(/^(oidc:corp):.*/, "$1")} by ${method}`;
}

/** A login over the PostgreSQL protocol with a certificate, or without, and then by a mechanism where one is asked for. */
async function overPgwire(
  certificate: string,
  user: string,
  mechanism: "OAUTHBEARER" | "SCRAM",
  presented: string,
): Promise<Outcome> {
  const client = await RawClient.open({ host: stage.frontEnd.host, port: stage.frontEnd.port });
  try {
    await client.send(sslRequest);
    await client.readByte();
    const { cert, key } = certificates.get(certificate) ?? {};
    await client.upgrade(cert === undefined ? {} : { cert, key });
    await client.send(startupMessage({ user, database: "postgres" }));
    if (mechanism === "SCRAM") {
      const messages = await client.authenticate(presented);
      if (messages.at(-1)?.type === "E") return wordsOf(errorOf(messages));
    } else {
      const first = await client.read();
      if (first.type === "E") return wordsOf(errorOf([first]));
      if (decodeAuthentication(first.body).type === "AuthenticationSASL") {
        await client.send(
          encodeSaslInitialResponse("OAUTHBEARER", `n,,\x01auth=Bearer ${presented}\x01\x01`),
        );
        const answer = decodeAuthentication((await client.read()).body);
        if (answer.type !== "AuthenticationOk") {
          await client.send(encodeSaslResponse("\x01"));
          return wordsOf(errorOf(await client.readToClose()));
        }
      }
    }
    await client.readReady();
    const [session] = rowsOf(await client.query("SHOW SESSION"));
    return nameOf(session?.[0] ?? "", session?.[3] ?? "");
  } finally {
    client.close();
  }
}

const wordsOf = (error: ReadonlyMap<string, string>): string =>
  `${error.get("S")} ${error.get("C")} ${error.get("M")}`;

describe("over HTTP", () => {
  const refused = "401 28000 authentication failed";
  const basic = `Basic ${Buffer.from(`alice:${passwordOf("alice")}`).toString("base64")}`;

  test.each<[string, string, Outcome, string | undefined]>([
    ["none", "bob's key", "bob by api-key", undefined],
    ["none", "an unknown key", refused, "unknown_key"],
    ["none", "a revoked key", refused, "key_revoked"],
    ["none", "a token", "oidc:corp by jwt", undefined],
    ["none", "an expired token", refused, 'token_expired, OIDC provider "corp"'],
    ["none", "alice's password", refused, "malformed_token"],
    ["alice", "bob's key", "alice by certificate", undefined],
    ["alice", "an unknown key", "alice by certificate", undefined],
    ["alice", "a token", "alice by certificate", undefined],
    ["alice", "an expired token", "alice by certificate", undefined],
    ["nobody", "bob's key", refused, "unknown_user"],
    ["nobody", "an unknown key", refused, "unknown_user"],
    ["nobody", "a token", refused, "unknown_user"],
    ["nobody", "an expired token", refused, "unknown_user"],
  ])("certificate of %s, bearer %s: %s", async (certificate, presented, outcome, audited) => {
    const attempt = () => overHttp(certificate, `Bearer ${secret(presented)}`);
    expect(await auditOf(attempt)).toEqual([outcome, audited]);
  });

  test.each<[string, "nothing" | "Basic", Outcome, string | undefined]>([
    ["none", "nothing", "401 28000 a credential is required", undefined],
    ["none", "Basic", refused, undefined],
    ["alice", "nothing", "alice by certificate", undefined],
    ["alice", "Basic", "alice by certificate", undefined],
    ["nobody", "nothing", refused, "unknown_user"],
    ["nobody", "Basic", refused, "unknown_user"],
  ])("certificate of %s, %s in Authorization: %s", async (certificate, presented, outcome, audited) => {
    const attempt = () => overHttp(certificate, presented === "Basic" ? basic : undefined);
    expect(await auditOf(attempt)).toEqual([outcome, audited]);
  });
});

describe("over the PostgreSQL protocol", () => {
  const password = (user: string) => `FATAL 28P01 password authentication failed for user "${user}"`;
  const token = (user: string) => `FATAL 28000 OAuth bearer authentication failed for user "${user}"`;
  const certificate = (user: string) => `FATAL 28000 certificate authentication failed for user "${user}"`;

  test.each<[string, string, "OAUTHBEARER" | "SCRAM", string, Outcome, string | undefined]>([
    ["none", "alice", "SCRAM", "alice's password", "alice by scram-sha-256", undefined],
    ["none", "alice", "SCRAM", "bob's password", password("alice"), "wrong_password"],
    ["none", "alice", "SCRAM", "bob's key", password("alice"), "wrong_password"],
    ["none", "bob", "SCRAM", "bob's key", "bob by api-key", undefined],
    ["none", "bob", "SCRAM", "a revoked key", password("bob"), "key_revoked"],
    ["none", "alice", "SCRAM", "a token", password("alice"), "wrong_password"],
    ["none", "nobody_here", "SCRAM", "alice's password", password("nobody_here"), "unknown_user"],
    ["none", "bob", "OAUTHBEARER", "bob's key", "bob by api-key", undefined],
    ["none", "alice", "OAUTHBEARER", "bob's key", token("alice"), "token_of_another"],
    ["none", "alice", "OAUTHBEARER", "an unknown key", token("alice"), "unknown_key"],
    ["none", "bob", "OAUTHBEARER", "a revoked key", token("bob"), "key_revoked"],
    ["none", "alice", "OAUTHBEARER", "a token", token("alice"), 'token_of_another, OIDC provider "corp"'],
    ["none", "alice", "OAUTHBEARER", "alice's password", token("alice"), "malformed_token"],
    ["none", "oidc:corp", "OAUTHBEARER", "a token", "oidc:corp by jwt", undefined],
    [
      "none",
      "oidc:corp",
      "OAUTHBEARER",
      "an expired token",
      token("oidc:corp"),
      'token_expired, OIDC provider "corp"',
    ],
    // Nothing else is asked of somebody with a certificate, so that nothing else can fail.
    ["alice", "alice", "SCRAM", "alice's password", "alice by certificate", undefined],
    ["alice", "alice", "SCRAM", "a wrong password", "alice by certificate", undefined],
    ["alice", "alice", "OAUTHBEARER", "an expired token", "alice by certificate", undefined],
    ["alice", "alice", "OAUTHBEARER", "bob's key", "alice by certificate", undefined],
    ["alice", "bob", "SCRAM", "bob's password", certificate("bob"), "certificate_of_another"],
    ["alice", "bob", "SCRAM", "bob's key", certificate("bob"), "certificate_of_another"],
    ["alice", "bob", "OAUTHBEARER", "bob's key", certificate("bob"), "certificate_of_another"],
    ["alice", "oidc:corp", "OAUTHBEARER", "a token", certificate("oidc:corp"), "certificate_of_another"],
    ["nobody", "alice", "SCRAM", "alice's password", certificate("alice"), "certificate_of_another"],
    ["nobody", "nobody_here", "SCRAM", "a wrong password", certificate("nobody_here"), "unknown_user"],
    ["bob", "alice", "OAUTHBEARER", "bob's key", certificate("alice"), "certificate_of_another"],
  ])(
    "certificate of %s, user %s, %s with %s: %s",
    async (shown, user, mechanism, presented, outcome, audited) => {
      const attempt = () => overPgwire(shown, user, mechanism, secret(presented));
      expect(await auditOf(attempt)).toEqual([outcome, audited]);
    },
  );
});
