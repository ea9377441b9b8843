/** Tokens of a certified OpenID provider, by HTTP and on pgwire: how machines and people get them, and what becomes of its keys. */

import { decodeProtectedHeader } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  type AuthorizationServer,
  resource,
  startAuthorizationServer,
} from "../support/authorization-server.ts";
import { logInWithToken } from "../support/bearer-client.ts";
import { type Answer, type HttpClient, httpClient } from "../support/http.ts";
import { type IssuerKey, makeKey } from "../support/issuer.ts";
import { errorOf, rowsOf } from "../support/raw-client.ts";
import { openStage, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

let stage: Stage;
let http: HttpClient;
let server: AuthorizationServer;
let first: IssuerKey;

const groups: Readonly<Record<string, readonly string[]>> = {
  erika: ["engineering", "staff"],
  otto: ["staff"],
  "etl-job": ["engineering"],
};

beforeAll(async () => {
  first = await makeKey("ES256", "first");
  server = await startAuthorizationServer({
    keys: [first],
    claimsOf: (subject) => ({ groups: groups[subject] ?? [], realm_access: { roles: ["superuser"] } }),
  });
  stage = await openStage({
    configuration: `[auth]
login_attempts_per_ip_per_min = 0
[auth.pgwire]
bearer = true
[log]
level = "trace"
[audit]
level = "full"
[auth.jwks]
min_refetch = "1s"
allowed_algorithms = ["ES256", "RS256", "EdDSA"]
`,
  });
  http = httpClient(`http://127.0.0.1:${stage.frontEnd.httpPort}`);
  await stage.asAdmin("CREATE TABLE orders (owner text, item text)");
  await stage.asAdmin("INSERT INTO orders VALUES ('erika', 'ball'), ('otto', 'net'), ('alice', 'cup')");
  await stage.asAdmin("CREATE RLS POLICY own ON orders FOR ALL USING (owner = $auth.id)");
  await stage.asAdmin(
    `CREATE OIDC PROVIDER corp WITH (issuer = '${server.issuer}', audience = '${resource}', claim_mapping = [
       { claim = 'groups', value = 'engineering', effect = { add_roles = ['readwrite'] } },
       { claim = 'groups', value = 'staff', effect = { add_roles = ['readonly'] } } ])`,
  );
});

afterAll(async () => {
  await stage?.close();
  await server?.close();
});

const ask = (token: string, sql: string) => http.query(token, { sql, rowMode: "array" });
const rowsOfAnswer = ({ body }: Answer): unknown => body?.rows ?? body?.error;
const whoAmI = "SELECT session_user, $auth.id, $auth.roles::text, $auth.scopes::text";

/** Refused alike, whatever the reason; the log has it. */
async function expectRefused(token: string, reason: string): Promise<void> {
  const { status, body } = await ask(token, "SELECT 1");
  expect(status).toBe(401);
  expect(body.error).toMatchObject({ code: "28000", message: "authentication failed" });
  const { rows } = await stage.asAdmin("SHOW AUDIT LOG WHERE event = 'AuthFailure' LIMIT 1");
  expect(String(rows[0]?.detail).split(",")[0]).toBe(reason);
}

describe("a token of the provider's", () => {
  test("of a machine (client credentials) is its word for the machine", async () => {
    const { accessToken } = await server.clientCredentials();
    expect(decodeProtectedHeader(accessToken)).toMatchObject({ typ: "at+jwt", alg: "ES256", kid: "first" });
    const { status, body } = await ask(accessToken, whoAmI);
    expect(body.rows).toEqual([
      [expect.stringMatching(/^oidc:corp:[a-z2-7]{26}$/), "etl-job", "{readwrite}", "{read:orders}"],
    ]);
    expect(status).toBe(200);
    // In no group: vouched for, and with the rights that PostgreSQL gives to PUBLIC.
    const other = await server.clientCredentials("report-job");
    expect(rowsOfAnswer(await ask(other.accessToken, "SELECT $auth.id"))).toEqual([["report-job"]]);
    const refused = await ask(other.accessToken, "SELECT item FROM orders");
    expect([refused.status, refused.body.error.code]).toEqual([403, "42501"]);
  });

  test("of a person (code and PKCE) shows her own rows, and lets her write where her group may", async () => {
    const [erika, otto] = [await server.logIn("erika"), await server.logIn("otto")];
    expect(rowsOfAnswer(await ask(erika.accessToken, "SELECT item FROM orders"))).toEqual([["ball"]]);
    expect(rowsOfAnswer(await ask(otto.accessToken, "SELECT item FROM orders"))).toEqual([["net"]]);
    const write = (token: string, owner: string) =>
      ask(token, `INSERT INTO orders VALUES ('${owner}', 'shoe')`);
    expect(await write(erika.accessToken, "erika")).toMatchObject({ status: 200 });
    expect(await write(erika.accessToken, "otto")).toMatchObject({ status: 403 });
    const session = await ask(otto.accessToken, "SHOW SESSION");
    expect(session.body.rows[0].slice(1, 5)).toEqual(["1", "readonly", "jwt", false]);
  });

  test("is taken on pgwire, and the session ends with it", async () => {
    const { accessToken } = await server.logIn("erika");
    const login = await logInWithToken(stage.frontEnd.port, "oidc:corp", accessToken);
    if (!login.ok) expect.fail(JSON.stringify([...login.error]));
    try {
      expect(rowsOf(await login.client.query(whoAmI))[0]).toEqual([
        expect.stringMatching(/^oidc:corp:[a-z2-7]{26}$/),
        "erika",
        "{readwrite,readonly}",
        "{read:orders}",
      ]);
      const [session] = rowsOf(await login.client.query("SHOW SESSION"));
      expect(session?.[3]).toBe("jwt");
      const expiresMs = Date.parse(String(session?.[7]));
      // Five minutes, and the skew.
      expect(Math.abs(expiresMs - Date.now() - 360_000)).toBeLessThan(20_000);
    } finally {
      login.client.close();
    }
  });

  test("is for its own name on pgwire: not for a user's, nor another provider's", async () => {
    const { accessToken } = await server.logIn("erika");
    for (const user of ["alice", "erika", "nodedb", "oidc:other", "oidc:corp:aaaaaaaaaaaaaaaaaaaaaaaaaa"]) {
      const login = await logInWithToken(stage.frontEnd.port, user, accessToken);
      expect(login.ok ? "logged in" : login.error.get("C")).toBe("28000");
    }
  });

  test("is what a client without a good one is told how to get", async () => {
    const login = await logInWithToken(stage.frontEnd.port, "oidc:corp", "no.good.token");
    expect(login.ok ? "logged in" : login.json).toEqual({
      status: "invalid_token",
      scope: "openid",
      "openid-configuration": `${server.issuer}/.well-known/openid-configuration`,
    });
  });

  test("is in no log, whether it is taken or refused, by HTTP or on pgwire", async () => {
    const { accessToken, idToken = "" } = await server.logIn("erika");
    const changed = `${accessToken.slice(0, -4)}AAAA`;
    for (const token of [accessToken, idToken, changed]) {
      await ask(token, "SELECT 1");
      for (const user of ["oidc:corp", "alice"]) {
        const login = await logInWithToken(stage.frontEnd.port, user, token);
        if (login.ok) login.client.close();
      }
    }
    await expectRefused(changed, "bad_signature");
    await until(() => stage.frontEnd.output().includes("bad_signature"));
    const { rows } = await stage.asAdmin("SHOW AUDIT LOG LIMIT 1000");
    const places = [stage.frontEnd.output(), stage.postgres.readLog(), JSON.stringify(rows)];
    for (const part of [accessToken, idToken].flatMap((token) => token.split(".").slice(1))) {
      for (const place of places) expect(place.includes(part.slice(0, 40))).toBe(false);
    }
  });

  test("is refused when it is for somebody else: the identity token, and one for no resource", async () => {
    const { idToken = "" } = await server.logIn("erika");
    await expectRefused(idToken, "unknown_provider");
    const opaque = await server.clientCredentials("etl-job", null);
    expect(opaque.accessToken).not.toContain(".");
    await expectRefused(opaque.accessToken, "malformed_token");
    const elsewhere = await server.clientCredentials("etl-job", "https://elsewhere.example.com/");
    await expectRefused(elsewhere.accessToken, "unknown_provider");
  });

  test("is not read when it is longer than any, and nobody else notices", async () => {
    const { accessToken } = await server.clientCredentials();
    const long = `${accessToken}${"A".repeat(1_000_000)}`;
    // The answer may be lost when the connection is closed while the rest is still on its way.
    const answer = await ask(long, "SELECT 1").catch(() => undefined);
    expect([431, undefined]).toContain(answer?.status);
    const login = await logInWithToken(stage.frontEnd.port, "oidc:corp", long).catch(() => undefined);
    expect(login?.ok ?? false).toBe(false);
    expect((await ask(accessToken, "SELECT 1")).status).toBe(200);
  });

  test("is refused when a letter of it is another", async () => {
    const { accessToken } = await server.clientCredentials();
    const [head = "", body = "", signature = ""] = accessToken.split(".");
    const changed = `${signature.startsWith("A") ? "B" : "A"}${signature.slice(1)}`;
    await expectRefused(`${head}.${body}.${changed}`, "bad_signature");
    expect((await ask(accessToken, "SELECT 1")).status).toBe(200);
  });
});

describe("keys of the provider's", () => {
  const jwksRequests = () => server.requests.filter((path) => path.startsWith("/jwks")).length;
  const statusOf = async (token: string) => (await ask(token, "SELECT 1")).status;
  const settled = (token: string, status: number) => until(async () => (await statusOf(token)) === status);

  test("follow one another: both while they overlap, and then the new one alone", async () => {
    await server.useKeys([first]);
    const old = await server.clientCredentials();
    await settled(old.accessToken, 200);
    const second = await makeKey("ES256", "second");
    await server.useKeys([second, first]);
    const fresh = await server.clientCredentials();
    expect(decodeProtectedHeader(fresh.accessToken).kid).toBe("second");
    const before = jwksRequests();
    // As many as come: the first that is allowed has the keys fetched, for all.
    await until(async () => {
      const statuses = await Promise.all(Array.from({ length: 20 }, () => statusOf(fresh.accessToken)));
      return statuses.every((status) => status === 200);
    });
    expect(jwksRequests() - before).toBe(1);
    expect(await statusOf(old.accessToken)).toBe(200);

    await server.useKeys([second]);
    await stage.asAdmin("ALTER OIDC PROVIDER corp REFRESH JWKS");
    await settled(old.accessToken, 401);
    await expectRefused(old.accessToken, "unknown_signing_key");
    expect(await statusOf(fresh.accessToken)).toBe(200);
  });

  test("that there are not have the provider asked once a second at most, whoever asks", async () => {
    const good = await server.clientCredentials();
    await settled(good.accessToken, 200);
    const madeUp = await makeKey("ES256", "made-up");
    const [, body = ""] = good.accessToken.split(".");
    const head = (kid: string) => Buffer.from(JSON.stringify({ alg: "ES256", kid })).toString("base64url");
    const before = jwksRequests();
    const start = performance.now();
    for (let round = 0; round < 10; round += 1) {
      const tokens = Array.from(
        { length: 20 },
        (_, index) => `${head(`${madeUp.kid}-${round}-${index}`)}.${body}.AAAA`,
      );
      expect(await Promise.all(tokens.map(statusOf))).toEqual(tokens.map(() => 401));
      expect(await statusOf(good.accessToken)).toBe(200);
    }
    const seconds = (performance.now() - start) / 1000;
    expect(jwksRequests() - before).toBeLessThanOrEqual(1 + Math.ceil(seconds));
  });

  test.each(["RS256", "EdDSA"])("may be of another kind: %s", async (alg) => {
    await server.useKeys([await makeKey(alg, `key-${alg}`)]);
    const { accessToken } = await server.logIn("erika");
    expect(decodeProtectedHeader(accessToken).alg).toBe(alg);
    await settled(accessToken, 200);
  });
});

test("a provider that is dropped takes its sessions and requests with it", async () => {
  const { accessToken } = await server.logIn("otto");
  await until(async () => (await ask(accessToken, "SELECT 1")).status === 200);
  const login = await logInWithToken(stage.frontEnd.port, "oidc:corp", accessToken);
  if (!login.ok) expect.fail(JSON.stringify([...login.error]));
  await stage.asAdmin("DROP OIDC PROVIDER corp");
  expect(errorOf(await login.client.readToClose()).get("C")).toBe("57P01");
  await expectRefused(accessToken, "unknown_provider");
});
