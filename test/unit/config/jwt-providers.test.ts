/** auth.jwks in the file: providers, their key files, and the claims that are mapped. */

import { generateKeyPairSync } from "node:crypto";
import { describe, expect, test } from "vitest";
import { loadConfig } from "../../../src/config/load.ts";

const issuer = "https://id.example.com/";
const publicKeys = {
  "/keys/rsa.pem": pem("rsa", { modulusLength: 2048 }),
  "/keys/short.pem": pem("rsa", { modulusLength: 1024 }),
  "/keys/ec.pem": pem("ec", { namedCurve: "P-256" }),
  "/keys/ed.pem": pem("ed25519", {}),
};
const privateKey = generateKeyPairSync("ec", { namedCurve: "P-256" })
  .privateKey.export({ type: "pkcs8", format: "pem" })
  .toString();

function pem(type: "rsa" | "ec" | "ed25519", options: object): string {
  const pair = generateKeyPairSync(type as "rsa", options as { modulusLength: number });
  return pair.publicKey.export({ type: "spki", format: "pem" }).toString();
}

function load(toml: string, options: { env?: Record<string, string>; secret?: string; mode?: number } = {}) {
  const contents: Record<string, string> = {
    "nodedb.toml": toml,
    ...publicKeys,
    "/keys/private.pem": privateKey,
    "/keys/garbage.pem": "-----BEGIN NOTHING-----",
    "/keys/secret": options.secret ?? "s".repeat(32),
  };
  return loadConfig({
    path: "nodedb.toml",
    env: options.env ?? {},
    files: {
      read: (path) => {
        const text = contents[path];
        if (text === undefined) throw Object.assign(new Error("missing"), { code: "ENOENT" });
        return text;
      },
      mode: () => options.mode ?? 0o600,
    },
  });
}

function providersOf(toml: string, options?: Parameters<typeof load>[1]) {
  const outcome = load(toml, options);
  if (!outcome.ok) throw new Error(JSON.stringify(outcome.mistakes));
  return outcome.config.auth.jwks.providers;
}

function mistakesOf(toml: string, options?: Parameters<typeof load>[1]): string[] {
  const outcome = load(toml, options);
  return outcome.ok ? [] : outcome.mistakes.map(({ key, message }) => `${key}: ${message}`);
}

describe("auth.jwks.providers", () => {
  test("an issuer and an audience are enough", () => {
    const expected = {
      name: "id.example.com",
      issuer,
      audience: "api",
      tenantId: 1,
      roles: ["readonly"],
      algorithms: ["ES256", "ES384", "RS256"],
      keys: { kind: "jwks", url: undefined },
    };
    expect(providersOf(`[auth.jwks]\nproviders = [{ issuer = "${issuer}", audience = "api" }]`)).toEqual([
      expected,
    ]);
    expect(
      providersOf(`[[auth.jwt.providers]]\nissuer = "${issuer}"\naudience = "\${AUD}"`, {
        env: { AUD: "api" },
      }),
    ).toEqual([expected]);
  });

  test("says all of a provider", () => {
    const toml = `[[auth.jwks.providers]]
      name = "a"\nissuer = "${issuer}"\naudience = "api"\njwks_url = "https://keys.example.com/?x=1"
      tenant_id = 42\nroles = ["readwrite", "analyst"]
      [[auth.jwks.providers]]\nname = "b"\nissuer = "${issuer}"\naudience = "other"`;
    expect(providersOf(toml)).toMatchObject([
      {
        name: "a",
        tenantId: 42,
        roles: ["readwrite", "analyst"],
        keys: { kind: "jwks", url: "https://keys.example.com/?x=1" },
      },
      { name: "b" },
    ]);
  });

  test.each([
    ["a".repeat(31), []],
    ["a".repeat(32), ["HS256"]],
    [`${"a".repeat(32)}\n`, ["HS256"]],
    ["a".repeat(48), ["HS256", "HS384"]],
    ["a".repeat(64), ["HS256", "HS384", "HS512"]],
  ])("takes HMAC with the hashes that the secret %j is long enough for", (secret, algorithms) => {
    const toml = `auth.jwks.providers = [{ issuer = "my app", audience = "api", jwt_secret_file = "/keys/secret" }]`;
    if (algorithms.length === 0) {
      expect(mistakesOf(toml, { secret })).toEqual([
        "auth.jwks.providers: provider 1: jwt_secret_file must hold at least 32 bytes",
      ]);
      return;
    }
    const [provider] = providersOf(toml, { secret });
    expect(provider).toMatchObject({ name: "my app", algorithms, keys: { kind: "secret" } });
    const { keys } = provider ?? {};
    expect(keys?.kind === "secret" && keys.key.export().toString()).toBe(secret.trim());
  });

  test.each([
    ["/keys/rsa.pem", ["RS256"]],
    ["/keys/ec.pem", ["ES256"]],
  ])("takes with the public key %s only what it signs with", (file, algorithms) => {
    const [provider] = providersOf(
      `auth.jwks.providers = [{ issuer = "x", audience = "api", public_key_file = "${file}" }]`,
    );
    expect(provider).toMatchObject({ algorithms, keys: { kind: "public_key" } });
  });

  const base = `issuer = "${issuer}", audience = "api"`;
  test.each([
    [`issuer = "${issuer}"`, "audience is missing"],
    [`audience = "api"`, "issuer is missing"],
    [`issuer = "http://id.example.com/", audience = "api"`, "issuer must begin with https://"],
    [`issuer = "https://u:p@id.example.com/", audience = "api"`, "issuer must not hold a password"],
    [`${base}, jwks_url = "ftp://x"`, "jwks_url must begin with https://"],
    [`${base}, jwk_url = "https://x"`, "jwk_url is no known key; did you mean jwks_url?"],
    [`${base}, tenant_id = -1`, "tenant_id must be a whole number"],
    [`${base}, roles = "readonly"`, "roles must be a list of names"],
    [`${base}, roles = ["superuser"]`, "roles must not hold superuser"],
    [`${base}, name = "${"n".repeat(64)}"`, "name must have at most 63 bytes"],
    [
      `${base}, jwks_url = "https://x", jwt_secret_file = "/keys/secret"`,
      "jwks_url and jwt_secret_file exclude one another",
    ],
    [
      `${base}, public_key_file = "/keys/private.pem"`,
      "public_key_file holds a private key, which belongs to the issuer alone",
    ],
    [`${base}, public_key_file = "/keys/garbage.pem"`, "public_key_file holds no public key in PEM"],
    [
      `${base}, public_key_file = "/keys/short.pem"`,
      "public_key_file holds an RSA key of less than 2048 bits",
    ],
    [
      `${base}, public_key_file = "/keys/ed.pem"`,
      "public_key_file holds a key for none of auth.jwks.allowed_algorithms",
    ],
    [
      `${base}, public_key_file = "/keys/none.pem"`,
      "public_key_file names a file that cannot be read (ENOENT): /keys/none.pem",
    ],
  ])("{ %s } is a mistake", (table, message) => {
    expect(mistakesOf(`auth.jwks.providers = [{ ${table} }]`)).toEqual([
      `auth.jwks.providers: provider 1: ${message}`,
    ]);
  });

  test("two of one issuer and audience are a mistake, and so is a secret that everybody may read", () => {
    expect(mistakesOf(`auth.jwks.providers = [{ ${base} }, { ${base}, name = "b" }]`)).toEqual([
      "auth.jwks.providers: provider 2: another one has this issuer and audience",
    ]);
    const toml = `auth.jwks.providers = [{ ${base}, jwt_secret_file = "/keys/secret" }]`;
    expect(mistakesOf(toml, { mode: 0o644 })).toEqual([
      "auth.jwks.providers: provider 1: jwt_secret_file holds a secret that everybody may read: run chmod 600 /keys/secret",
    ]);
  });

  test("a variable that is not set is a mistake", () => {
    expect(mistakesOf(`auth.jwks.providers = [{ issuer = "\${GONE}", audience = "api" }]`)).toEqual([
      "auth.jwks.providers: needs the environment variable GONE, which is not set",
    ]);
  });
});

describe("the other keys of auth.jwks", () => {
  test("claims are added to the default", () => {
    const outcome = load(`[auth.jwks.claims]\nplan = "app_metadata.plan"\nid = "email"`);
    expect(outcome).toMatchObject({
      ok: true,
      config: {
        auth: {
          jwks: {
            claims: {
              id: "email",
              role: "role",
              org_id: "org_id",
              scopes: "scope",
              plan: "app_metadata.plan",
            },
          },
        },
      },
    });
  });

  test.each(["tenant_id", "roles"])("%s is never a token's to say", (name) => {
    expect(mistakesOf(`auth.jwks.claims = { ${name} = "x" }`)).toEqual([
      `auth.jwks.claims: must not hold ${name}, which is the catalog's to say`,
    ]);
  });

  test.each(['claims = { "Plan" = "x" }', 'claims = { plan = "" }', "claims = { plan = 1 }", 'claims = "x"'])(
    "%s is a mistake",
    (text) => {
      expect(mistakesOf(`[auth.jwks]\n${text}`)).toHaveLength(1);
    },
  );

  test.each(['["none"]', '["HS256"]', "[]", '"ES256"', '["es256"]'])(
    "algorithms of %s are a mistake",
    (text) => {
      expect(mistakesOf(`auth.jwks.allowed_algorithms = ${text}`)).toHaveLength(1);
    },
  );

  test("other algorithms of key pairs are taken when they are named", () => {
    const toml = `auth.jwks.allowed_algorithms = ["EdDSA"]\nauth.jwks.providers = [{ issuer = "x", audience = "y", public_key_file = "/keys/ed.pem" }]`;
    expect(providersOf(toml)).toMatchObject([{ algorithms: ["EdDSA"] }]);
  });
});
