/** The document that this project was asked for with: every statement and command in it, in its order, does what it says. */

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { makeServerCertificate, type TestCertificate } from "../support/certificates.ts";
import {
  type ClientAuthority,
  type ClientCertificate,
  makeClientAuthority,
} from "../support/client-certificates.ts";
import { isRunnable } from "../support/client-program.ts";
import { httpCertificateDoor } from "../support/doors.ts";
import { type FrontEnd, startFrontEnd } from "../support/front-end.ts";
import { type HttpClient, httpClient } from "../support/http.ts";
import { type Issuer, makeKey, startIssuer } from "../support/issuer.ts";
import { runProgram } from "../support/run-program.ts";
import { requireClient } from "../support/skips.ts";

const text = readFileSync(fileURLToPath(new URL("authentication-document.txt", import.meta.url)), "utf8");

/** How far the quotations have come in the document, and what lies between them. */
let offset = 0;
let rest = "";

/** The words as they stand in the document, after all that was quoted before. */
function quote(words: string): string {
  const found = text.indexOf(words, offset);
  if (found === -1) throw new Error(`not in the document, or not in this order: ${words}`);
  rest += text.slice(offset, found);
  offset = found + words.length;
  return words;
}

const steps = {
  createAlice: quote("CREATE USER alice WITH PASSWORD 'strong_password_here';"),
  createBob: quote("CREATE USER bob WITH PASSWORD 'secret' ROLE readonly;"),
  createBot: quote("CREATE USER service_bot WITH PASSWORD 'key' ROLE readwrite TENANT 42;"),
  showUsers: quote("SHOW USERS;"),
  roles: quote("readonly, readwrite, admin, tenant_admin, superuser"),
  psql: quote("psql -h localhost -p 6432 -U alice"),
  createKey: quote("CREATE API KEY 'my-service' ROLE readwrite;"),
  createScopedKey: quote(
    "CREATE API KEY 'analytics-svc' FOR service_account WITH DATABASES (analytics, logs);",
  ),
  dropKey: quote("DROP API KEY 'my-service';"),
  createProdKey: quote("CREATE API KEY 'prod-reader' FOR alice WITH DATABASES (prod);"),
  refusedDatabase: quote("DATABASE_NOT_AUTHORIZED"),
  curl: quote('curl -H "Authorization: Bearer <api-key>" http://localhost:6480/v1/query'),
  createAccount: quote("CREATE SERVICE ACCOUNT 'batch-processor' FOR DATABASE analytics;"),
  createAccountKey: quote("CREATE API KEY 'batch-key' FOR 'batch-processor' WITH DATABASES (analytics);"),
  alterAccount: quote("ALTER SERVICE ACCOUNT 'batch-processor' SET DATABASES (analytics, logs);"),
  showAccounts: quote("SHOW SERVICE ACCOUNTS;"),
  createProvider: quote(`CREATE OIDC PROVIDER auth0 WITH (
issuer = 'https://your-domain.auth0.com/',
jwks_url = 'https://your-domain.auth0.com/.well-known/jwks.json',
audience = 'nodedb-api'
);`),
  providersInFile: quote(`[auth.jwks]
providers = [
{ issuer = "https://your-domain.auth0.com/", audience = "your-api" },
]`),
  policyById: quote("WHERE user_id = $auth.id"),
  policyByRole: quote("WHERE $auth.role = 'admin'"),
  policyByOrganisation: quote("WHERE org_id = $auth.org_id"),
  policyByScope: quote("WHERE $auth.scopes CONTAINS 'read:orders'"),
  algorithms: quote("ES256, ES384, RS256"),
  tls: quote(`[server.tls]
cert = "/path/to/server.crt"
key = "/path/to/server.key"
client_ca = "/path/to/ca.crt" # enables mTLS
crl = "/path/to/revocation.crl" # optional CRL`),
  order: [
    "mTLS (if client certificate present)",
    "JWT Bearer token (if\nAuthorizationheader present)",
    "API key (if\nAuthorization: Bearermatches a key)",
    "SCRAM-SHA-256 (pgwire password auth)",
  ].map(quote),
};
rest += text.slice(offset);

let frontEnd: FrontEnd;
let admin: pg.Client;
let http: HttpClient;
/** API keys as they were shown, by name. */
const keys = new Map<string, string>();

function connectionOf(user: string, password: string, database = "nodedb"): pg.ClientConfig {
  return { host: frontEnd.host, port: frontEnd.port, user, password, database };
}

async function connect(config: pg.ClientConfig): Promise<pg.Client> {
  const client = new pg.Client(config);
  client.on("error", () => undefined);
  await client.connect();
  return client;
}

/** The one value that the query gives to somebody who logs in for it. */
async function ask(config: pg.ClientConfig, sql: string): Promise<unknown> {
  const client = await connect(config);
  try {
    const { rows } = await client.query({ text: sql, rowMode: "array" });
    return rows[0]?.[0];
  } finally {
    await client.end();
  }
}

function keyOf(name: string): string {
  const key = keys.get(name);
  if (key === undefined) throw new Error(`the key ${name} was not made`);
  return key;
}

async function createKey(name: string, statement: string): Promise<void> {
  const { command, rows } = await admin.query(statement);
  expect(command).toBe("CREATE");
  expect(rows).toEqual([
    { api_key: expect.stringMatching(/^ndb_/), key_id: expect.any(String), name, expires_at: null },
  ]);
  keys.set(name, rows[0].api_key);
}

const whoAmI = { sql: "SELECT current_user AS me", rowMode: "array" } as const;

beforeAll(async () => {
  // The document's passwords are three and six characters long.
  frontEnd = await startFrontEnd({
    configuration: `[auth]\nmin_password_length = 3\n${steps.providersInFile}\n`,
  });
  http = httpClient(`http://127.0.0.1:${frontEnd.httpPort}`);
  admin = await connect(connectionOf(frontEnd.adminUser, frontEnd.adminPassword));
  // What the document takes for granted.
  for (const database of ["analytics", "logs", "prod"]) await admin.query(`CREATE DATABASE ${database}`);
  await admin.query("CREATE TENANT acme ID 42");
  await admin.query("CREATE SERVICE ACCOUNT service_account FOR DATABASE analytics, logs");
});

afterAll(async () => {
  await admin?.end();
  await frontEnd?.close();
});

describe("users", () => {
  test("creates a user with a password", async () => {
    await admin.query(steps.createAlice);
    expect(await ask(connectionOf("alice", "strong_password_here"), "SELECT current_user")).toBe("alice");
  });

  test("creates a user with a role", async () => {
    await admin.query(steps.createBob);
    await admin.query("CREATE TABLE note (body text)");
    expect(await ask(connectionOf("bob", "secret"), "SELECT count(*)::int FROM note")).toBe(0);
    await expect(ask(connectionOf("bob", "secret"), "INSERT INTO note VALUES ('x')")).rejects.toMatchObject({
      code: "42501",
    });
  });

  test("creates a user of a tenant, which only a superuser may", async () => {
    await admin.query("CREATE USER boss PASSWORD 'boss-boss' ROLE admin");
    await expect(ask(connectionOf("boss", "boss-boss"), steps.createBot)).rejects.toMatchObject({
      code: "42501",
    });
    await admin.query(steps.createBot);
  });

  test("shows all users", async () => {
    const { rows } = await admin.query(steps.showUsers);
    const shown = rows.map(({ username, tenant_id, roles }) => [username, tenant_id, roles]);
    expect(shown).toEqual(
      expect.arrayContaining([
        ["alice", "1", "readwrite"],
        ["bob", "1", "readonly"],
        ["service_bot", "42", "readwrite"],
      ]),
    );
  });

  test("has the roles that are listed", async () => {
    const { rows } = await admin.query("SHOW ROLES");
    const builtIn = rows.filter(({ built_in }) => built_in).map(({ name }) => name);
    expect(builtIn.sort()).toEqual(steps.roles.split(", ").sort());
  });

  const hasPsql = requireClient("psql (postgresql-client-15)", isRunnable("psql", "--version"));
  test.skipIf(!hasPsql)("lets alice in by psql", async () => {
    const [program, ...args] = steps.psql.replace("6432", String(frontEnd.port)).split(" ");
    const answer = await runProgram(String(program), [...args, "-XAtc", "SELECT current_user"], {
      PATH: process.env.PATH,
      PGPASSWORD: "strong_password_here",
    });
    expect(answer).toEqual({ status: 0, stdout: "alice\n", stderr: "" });
  });
});

describe("API keys", () => {
  test("creates a key of its own with a role, which works over HTTP and on pgwire", async () => {
    await createKey("my-service", steps.createKey);
    const { status, body } = await http.query(keyOf("my-service"), whoAmI);
    expect([status, body.rows]).toEqual([200, [["my-service"]]]);
    expect(await ask(connectionOf("my-service", keyOf("my-service")), "SELECT current_user")).toBe(
      "my-service",
    );
  });

  test("creates a key that is scoped to databases", async () => {
    await createKey("analytics-svc", steps.createScopedKey);
    for (const database of ["analytics", "logs"]) {
      const { body } = await http.query(keyOf("analytics-svc"), { ...whoAmI, database });
      expect(body).toMatchObject({ status: "ok", rows: [["service_account"]] });
    }
  });

  test("revokes a key", async () => {
    await admin.query(steps.dropKey);
    expect((await http.query(keyOf("my-service"), whoAmI)).status).toBe(401);
    await expect(ask(connectionOf("my-service", keyOf("my-service")), "SELECT 1")).rejects.toMatchObject({
      code: "28P01",
    });
  });

  test("rejects a key on a database that it is not for", async () => {
    await admin.query("GRANT CONNECT ON DATABASE prod TO alice");
    await createKey("prod-reader", steps.createProdKey);
    const key = keyOf("prod-reader");
    expect((await http.query(key, { ...whoAmI, database: "prod" })).body).toMatchObject({
      rows: [["alice"]],
    });
    expect(await ask(connectionOf("alice", key, "prod"), "SELECT current_database()")).toBe("prod");
    const { status, body } = await http.query(key, { ...whoAmI, database: "nodedb" });
    expect([status, body.error.code]).toEqual([403, "42501"]);
    expect(body.error.message).toContain(steps.refusedDatabase);
    await expect(ask(connectionOf("alice", key, "nodedb"), "SELECT 1")).rejects.toMatchObject({
      code: "42501",
      message: expect.stringContaining(steps.refusedDatabase),
    });
  });

  test("lets a key without a list into its owner's databases", async () => {
    await createKey("wide", "CREATE API KEY 'wide' FOR alice");
    for (const database of ["nodedb", "prod"]) {
      expect((await http.query(keyOf("wide"), { ...whoAmI, database })).status).toBe(200);
    }
    expect((await http.query(keyOf("wide"), { ...whoAmI, database: "analytics" })).status).toBe(403);
  });

  const hasCurl = requireClient("curl", isRunnable("curl", "--version"));
  test.skipIf(!hasCurl)("answers curl with whose key it is", async () => {
    const line = steps.curl.replace("6480", String(frontEnd.httpPort)).replace("<api-key>", "$KEY");
    const answer = await runProgram("sh", ["-c", `${line} --silent --show-error`], {
      PATH: process.env.PATH,
      KEY: keyOf("wide"),
    });
    expect(answer.stderr).toBe("");
    expect(JSON.parse(answer.stdout)).toMatchObject({
      status: "ok",
      rows: [{ username: "alice", auth_method: "api-key", database: "nodedb" }],
    });
  });
});

describe("service accounts", () => {
  test("creates an account for a database, with a key", async () => {
    await admin.query(steps.createAccount);
    await createKey("batch-key", steps.createAccountKey);
    const login = (database: string) => connectionOf("batch-processor", keyOf("batch-key"), database);
    expect(await ask(login("analytics"), "SELECT current_user")).toBe("batch-processor");
    await expect(ask(login("logs"), "SELECT 1")).rejects.toMatchObject({ code: "42501" });
  });

  test("adjusts the databases of an account", async () => {
    await admin.query(steps.alterAccount);
    await createKey("batch-wide", "CREATE API KEY 'batch-wide' FOR 'batch-processor'");
    for (const database of ["analytics", "logs"]) {
      expect((await http.query(keyOf("batch-wide"), { ...whoAmI, database })).status).toBe(200);
    }
  });

  test("shows all accounts", async () => {
    const { rows } = await admin.query(steps.showAccounts);
    expect(rows.map(({ name, databases }) => [name, databases])).toEqual([
      ["batch-processor", "analytics, logs"],
      ["service_account", "analytics, logs"],
    ]);
  });

  test("keeps accounts apart from users: there is no password", async () => {
    await expect(admin.query("ALTER USER \"batch-processor\" PASSWORD 'a password'")).rejects.toMatchObject({
      code: "42809",
    });
    await expect(
      ask(connectionOf("batch-processor", "a password", "analytics"), "SELECT 1"),
    ).rejects.toMatchObject({ code: "28P01" });
    const { rows } = await admin.query("SHOW USERS");
    expect(rows.map(({ username }) => username)).not.toContain("batch-processor");
  });
});

describe("identity providers", () => {
  const issuers: Issuer[] = [];
  afterAll(() => Promise.all(issuers.map((issuer) => issuer.close())));

  /** The document's statement for an issuer that can be reached from here. */
  async function registerIssuer(name: string, algorithm: string) {
    const key = await makeKey(algorithm, "key-1");
    const issuer = await startIssuer([key]);
    issuers.push(issuer);
    await admin.query(
      steps.createProvider
        .replace("auth0", name)
        .replace("https://your-domain.auth0.com/.well-known/jwks.json", issuer.jwksUrl)
        .replace("https://your-domain.auth0.com/", issuer.issuer)
        .replace(
          "\n);",
          ", claim_mapping = [{ claim = 'sub', value = '*', effect = { add_roles = ['readonly'] } }]\n);",
        ),
    );
    return (claims: Readonly<Record<string, unknown>>) => issuer.sign(key, { aud: "nodedb-api", ...claims });
  }

  test("registers a provider", async () => {
    const { command } = await admin.query(steps.createProvider);
    expect(command).toBe("CREATE");
    const { rows } = await admin.query("SHOW OIDC PROVIDERS");
    expect(rows).toMatchObject([
      {
        name: "auth0",
        issuer: "https://your-domain.auth0.com/",
        jwks_url: "https://your-domain.auth0.com/.well-known/jwks.json",
        audience: "nodedb-api",
      },
    ]);
  });

  test("maps claims to the variables of the table, for policies", async () => {
    const sign = await registerIssuer("local", "ES256");
    const conditions = {
      id: steps.policyById,
      role: steps.policyByRole,
      organisation: steps.policyByOrganisation,
      scope: steps.policyByScope,
    };
    const tables = Object.entries(conditions);
    for (const [name, condition] of tables) {
      await admin.query(`CREATE TABLE by_${name} (user_id text, org_id text)`);
      await admin.query(`INSERT INTO by_${name} VALUES ('ada', 'acme'), ('eve', 'evil')`);
      await admin.query(`CREATE POLICY own ON by_${name} USING (${condition.slice("WHERE ".length)})`);
      await admin.query(`ALTER TABLE by_${name} ENABLE ROW LEVEL SECURITY`);
    }
    const seen = async (claims: Readonly<Record<string, unknown>>) => {
      const token = await sign(claims);
      const found: Record<string, unknown> = {};
      for (const [name] of tables) {
        const sql = `SELECT coalesce(string_agg(user_id, ' ' ORDER BY user_id), '') FROM by_${name}`;
        const { body } = await http.query(token, { sql, rowMode: "array" });
        found[name] = body.rows?.[0][0] ?? body.error;
      }
      return found;
    };
    expect(await seen({ sub: "ada", role: "admin", org_id: "acme", scope: "profile read:orders" })).toEqual({
      id: "ada",
      role: "ada eve",
      organisation: "ada",
      scope: "ada eve",
    });
    expect(await seen({ sub: "eve", role: "user", org_id: "evil", scope: "read:orders:all" })).toEqual({
      id: "eve",
      role: "",
      organisation: "eve",
      scope: "",
    });
  });

  test.each(steps.algorithms.split(", "))("verifies tokens that are signed with %s", async (algorithm) => {
    const sign = await registerIssuer(`signs_${algorithm.toLowerCase()}`, algorithm);
    const { body } = await http.query(await sign({ sub: "ada" }), { sql: "SELECT $auth.id AS id" });
    expect(body).toMatchObject({ status: "ok", rows: [{ id: "ada" }] });
  });

  test("verifies no other signatures unless told to", async () => {
    const sign = await registerIssuer("signs_es512", "ES512");
    expect((await http.query(await sign({ sub: "ada" }), whoAmI)).status).toBe(401);
  });

  test("takes tokens over HTTP and not on pgwire", async () => {
    const sign = await registerIssuer("web_only", "RS256");
    const token = await sign({ sub: "ada" });
    const { body } = await http.query(token, whoAmI);
    const role = body.rows[0][0];
    await expect(ask(connectionOf(role, token), "SELECT 1")).rejects.toMatchObject({ code: "28P01" });
  });
});

describe("certificates on both sides", () => {
  let server: TestCertificate;
  let authority: ClientAuthority;
  let mutual: FrontEnd;
  let boss: pg.Client;
  let alice: ClientCertificate;

  beforeAll(async () => {
    [server, authority] = await Promise.all([makeServerCertificate(), makeClientAuthority()]);
    const list = join(authority.directory, "revocation.crl");
    writeFileSync(list, await authority.revocationList([]));
    mutual = await startFrontEnd({
      configuration: steps.tls
        .replace("/path/to/server.crt", server.certPath)
        .replace("/path/to/server.key", server.keyPath)
        .replace("/path/to/ca.crt", authority.certPath)
        .replace("/path/to/revocation.crl", list),
    });
  });
  afterAll(async () => {
    await boss?.end();
    await mutual?.close();
  });

  const at = () => {
    const { host, port, httpPort = 0, database } = mutual;
    return { host, port, httpPort, database };
  };

  const ssl = (certificate?: ClientCertificate) => ({
    ca: server.cert,
    servername: "localhost",
    ...(certificate && { cert: certificate.cert, key: certificate.key }),
  });
  const logIn = (user: string, password: string, certificate?: ClientCertificate) =>
    ask(
      {
        host: mutual.host,
        port: mutual.port,
        database: mutual.database,
        user,
        password,
        ssl: ssl(certificate),
      },
      "SELECT $auth.id",
    );
  const whoIs = { sql: "SELECT $auth.id AS id" };

  test("lets in whoever has a certificate, without a password", async () => {
    const { adminUser, adminPassword, host, port, database } = mutual;
    boss = await connect({ host, port, database, user: adminUser, password: adminPassword, ssl: ssl() });
    await boss.query("CREATE USER alice PASSWORD 'alice-alice'");
    alice = await authority.issue({ name: "CN=alice" });
    expect(await logIn("alice", "", alice)).toBe("alice");
    expect(await httpCertificateDoor(at(), alice, server.cert)("SELECT $auth.id")).toEqual([["alice"]]);
    await expect(logIn("alice", "wrong-wrong")).rejects.toMatchObject({ code: "28P01" });
  });

  test("takes what is presented in the order of the document", async () => {
    const signingKey = await makeKey("ES256", "key-1");
    const issuer = await startIssuer([signingKey]);
    try {
      await boss.query(
        `CREATE OIDC PROVIDER order_of_things WITH (issuer = '${issuer.issuer}', jwks_url = '${issuer.jwksUrl}', audience = 'nodedb-api',
           claim_mapping = [{ claim = 'sub', value = '*', effect = { add_roles = ['readonly'] } }])`,
      );
      const token = await issuer.sign(signingKey, { aud: "nodedb-api", sub: "ada" });
      const { rows } = await boss.query("CREATE API KEY 'ci' ROLE readonly");
      const key = String(rows[0].api_key);
      const web = httpClient(`http://127.0.0.1:${mutual.httpPort}`);
      const mallory = await authority.issue({ name: "CN=mallory" });
      const withCertificate = (certificate: ClientCertificate, bearer: string) =>
        httpCertificateDoor(at(), certificate, server.cert, bearer)("SELECT $auth.id");
      const ways: Readonly<Record<string, () => Promise<void>>> = {
        mTLS: async () => {
          for (const bearer of [token, key]) {
            expect(await withCertificate(alice, bearer)).toEqual([["alice"]]);
            expect(await withCertificate(mallory, bearer)).toBe("28000");
          }
          expect(await logIn("alice", "wrong-wrong", alice)).toBe("alice");
          await expect(logIn("alice", "alice-alice", mallory)).rejects.toMatchObject({ code: "28000" });
        },
        "JWT Bearer token": async () => {
          expect((await web.query(token, whoIs)).body.rows).toEqual([{ id: "ada" }]);
          expect((await web.query(`${token}x`, whoIs)).status).toBe(401);
        },
        "API key": async () => {
          expect((await web.query(key, whoIs)).body.rows).toEqual([{ id: "ci" }]);
          expect((await web.query(`${key}x`, whoIs)).status).toBe(401);
        },
        "SCRAM-SHA-256": async () => {
          expect(await logIn("alice", "alice-alice")).toBe("alice");
          expect(await logIn("ci", key)).toBe("ci");
          await expect(logIn("ci", token)).rejects.toMatchObject({ code: "28P01" });
        },
      };
      const named = steps.order.map((line) => line.split(" (")[0]);
      expect(named).toEqual(Object.keys(ways));
      for (const way of Object.values(ways)) await way();
    } finally {
      await issuer.close();
    }
  });
});

test("leaves no statement and no command of the document out", () => {
  expect(rest).toContain("NodeDB supports multiple authentication methods");
  expect(rest).not.toMatch(/\b(CREATE|ALTER|DROP|SHOW)\s+[A-Z]/);
  expect(rest).not.toMatch(/^(psql|curl) -/m);
  expect(rest).not.toMatch(/^\[/m);
  expect(rest).not.toContain("WHERE");
});
