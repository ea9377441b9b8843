/** loadConfig: defaults, precedence, units, and every mistake at once with its place. */

import { resolve } from "node:path";
import { inspect } from "node:util";
import { describe, expect, test } from "vitest";
import { type ConfigMistake, formatMistake } from "../../../src/config/config.ts";
import { loadConfig } from "../../../src/config/load.ts";

interface Given {
  readonly toml?: string;
  readonly env?: Record<string, string>;
  readonly files?: Record<string, { text?: string; mode?: number }>;
  readonly mode?: number;
  readonly isTerminal?: boolean;
}

function load(given: Given) {
  const files: Record<string, { text?: string; mode?: number }> = {
    ...(given.toml === undefined ? {} : { "nodedb.toml": { text: given.toml, mode: given.mode ?? 0o600 } }),
    ...given.files,
  };
  const find = (path: string) => {
    const file = files[path];
    if (file === undefined) {
      throw Object.assign(new Error(`no ${path}`), { code: "ENOENT" });
    }
    return file;
  };
  return loadConfig({
    env: given.env ?? {},
    isTerminal: given.isTerminal ?? false,
    files: { read: (path) => find(path).text ?? "", mode: (path) => find(path).mode ?? 0o600 },
  });
}

function configOf(given: Given) {
  const outcome = load(given);
  if (!outcome.ok) {
    throw new Error(outcome.mistakes.map(formatMistake).join("\n"));
  }
  return outcome.config;
}

function mistakesOf(given: Given): readonly ConfigMistake[] {
  const outcome = load(given);
  expect(outcome.ok).toBe(false);
  return outcome.ok ? [] : outcome.mistakes;
}

function textOf(given: Given): string {
  return mistakesOf(given).map(formatMistake).join("\n");
}

describe("values", () => {
  test("without file and environment everything has its default", () => {
    expect(configOf({})).toEqual({
      server: {
        host: "127.0.0.1",
        ports: { pgwire: 6432, http: 6480 },
        dataDir: resolve("nodedb-data"),
        maxConnections: 1024,
        authenticationTimeoutMs: 30_000,
        shutdownTimeoutMs: 30_000,
      },
      upstream: {
        tls: "prefer",
        poolMode: "session",
        poolSize: 20,
        maxConnections: 90,
        queueTimeoutMs: 15_000,
        idleTimeoutMs: 600_000,
        maxLifetimeMs: 3_600_000,
        defaultDatabase: "nodedb",
      },
      auth: {
        schema: "auth",
        claimsLifetimeMs: 3_600_000,
        superuserName: "nodedb",
        minPasswordLength: 8,
        scramIterations: 4096,
        idleTimeoutMs: 0,
        sessionAbsoluteTimeoutMs: 0,
        maxConnectionsPerUser: 0,
        maxFailedLogins: 5,
        lockoutDurationMs: 300_000,
        loginAttemptsPerIpPerMin: 30,
        loginAttemptsPerUserPerMin: 10,
        jwks: {
          providers: [],
          allowedAlgorithms: ["ES256", "ES384", "RS256"],
          clockSkewMs: 60_000,
          refreshMs: 3_600_000,
          minRefetchMs: 30_000,
          maxStaleMs: 86_400_000,
          allowPrivate: false,
          claims: { id: "sub", role: "role", org_id: "org_id", scopes: "scope" },
        },
        apiKeys: { pgwire: true },
        pgwire: { bearer: false },
      },
      audit: { level: "standard" },
      http: {
        enabled: true,
        maxBodyBytes: 1024 * 1024,
        maxRows: 10_000,
        maxResponseBytes: 64 * 1024 * 1024,
        statementTimeoutMs: 30_000,
        requestsPerMin: 0,
        corsOrigins: [],
      },
      metrics: { public: false },
      log: { level: "info", format: "json" },
    });
  });

  test("the log is text on a terminal", () => {
    expect(configOf({ isTerminal: true }).log.format).toBe("text");
    expect(configOf({ isTerminal: true, env: { NODEDB_LOG_FORMAT: "json" } }).log.format).toBe("json");
  });

  test("the environment wins over the file, unless it is empty", () => {
    const toml = '[server]\nhost = "::1"\nports.pgwire = 1000';
    expect(configOf({ toml }).server).toMatchObject({ host: "::1", ports: { pgwire: 1000 } });
    expect(configOf({ toml, env: { NODEDB_PORT_PGWIRE: "0", NODEDB_HOST: "" } }).server).toMatchObject({
      host: "::1",
      ports: { pgwire: 0 },
    });
  });

  test.each([
    ['"500ms"', 500],
    ['"30s"', 30_000],
    ['"10m"', 600_000],
    ['"1h"', 3_600_000],
    ['"2d"', 172_800_000],
    ['"0"', 0],
    ["0", 0],
  ])("a duration of %s is %i ms", (text, ms) => {
    expect(configOf({ toml: `upstream.queue_timeout = ${text}` }).upstream.queueTimeoutMs).toBe(ms);
  });

  test.each(['"30"', "30", '"30 s"', '"-1s"', '"1.5h"', '"25d"', '"s"', '""', "true"])(
    "a duration of %s is a mistake",
    (text) => {
      expect(textOf({ toml: `upstream.queue_timeout = ${text}` })).toMatch(
        /^nodedb\.toml:1: upstream\.queue_timeout: must be a duration/,
      );
    },
  );

  test.each([
    ["server.ports.pgwire = 65536", "server.ports.pgwire"],
    ["server.ports.pgwire = 1.5", "server.ports.pgwire"],
    ['server.ports.pgwire = "6432"', "server.ports.pgwire"],
    ["server.max_connections = 0", "server.max_connections"],
    ['server.authentication_timeout = "0"', "server.authentication_timeout"],
    ["auth.scram_iterations = 4095", "auth.scram_iterations"],
    ['log.level = "loud"', "log.level"],
    ["server.host = 5", "server.host"],
    ['auth.schema = "pg_auth"', "auth.schema"],
    ['auth.schema = "nodedb"', "auth.schema"],
    ["auth.schema = 'a\"b'", "auth.schema"],
    ['auth.superuser_name = "pg_boss"', "auth.superuser_name"],
    ['auth.superuser_name = "readonly"', "auth.superuser_name"],
    ["auth.superuser_name = 'a\"b'", "auth.superuser_name"],
  ])("%s is a mistake", (toml, key) => {
    expect(mistakesOf({ toml })).toMatchObject([{ file: "nodedb.toml", line: 1, key }]);
  });
});

describe("places", () => {
  test("all mistakes are listed at once, in the order of the file, with line and key", () => {
    const toml = `# a comment
[server]
host = "::1"
prots = { pgwire = 1 }   # misspelt

[server.tls]
required = 1

[upstream]
pool_size = "many"
remark = """
[server]
host = 1
"""
[nonsense]
`;
    expect(textOf({ toml, env: { NODEDB_LOG_LEVEL: "loud" } }).split("\n")).toEqual([
      "nodedb.toml:4: server.prots.pgwire: is no known key; did you mean server.ports.pgwire?",
      "nodedb.toml:7: server.tls.required: must be true or false",
      "nodedb.toml:10: upstream.pool_size: must be a whole number from 1 to 10000 (connections)",
      "nodedb.toml:11: upstream.remark: is no known key",
      "nodedb.toml:15: nonsense: is no known key",
      'NODEDB_LOG_LEVEL: must be "trace", "debug", "info", "warn", "error", "fatal", "silent"',
    ]);
  });

  test("a syntax error names its line, and does not print it", () => {
    const text = textOf({ toml: '[upstream]\nurl = "postgres://u:hunter2@h/d" oops' });
    expect(text).toMatch(/^nodedb\.toml:2: is no valid TOML/);
    expect(text).not.toContain("hunter2");
  });

  test("a value where a table belongs is a mistake", () => {
    expect(textOf({ toml: "server = 5" })).toBe("nodedb.toml:1: server: must be a table");
  });

  test("a named file that does not exist is a mistake, an absent nodedb.toml is none", () => {
    expect(load({}).ok).toBe(true);
    expect(textOf({ env: { NODEDB_CONFIG: "other.toml" } })).toBe("other.toml: cannot be read (ENOENT)");
  });

  test("keys of later versions are not accepted silently", () => {
    expect(textOf({ toml: "server.workers = 2" })).toContain("is no known key");
    expect(textOf({ toml: 'upstream.pool_mode = "transaction"' })).toContain(
      "there is no transaction pooling yet",
    );
    expect(textOf({ env: { NODEDB_POOL_MODE: "transaction" } })).toContain("NODEDB_POOL_MODE");
  });
});

describe("interpolation", () => {
  test("a variable is put in, in numbers too, and $${ stands for itself", () => {
    const toml = `server.host = "\${A}.\${B}"\nserver.ports.pgwire = "\${PORT}"\nupstream.default_database = "$\${A}"`;
    const config = configOf({ toml, env: { A: "db", B: "local", PORT: "7000" } });
    expect(config.server).toMatchObject({ host: "db.local", ports: { pgwire: 7000 } });
    expect(config.upstream.defaultDatabase).toBe("$" + "{A}");
  });

  test("an unset variable is a mistake", () => {
    expect(textOf({ toml: `\nserver.host = "\${NOWHERE}"` })).toBe(
      "nodedb.toml:2: server.host: needs the environment variable NOWHERE, which is not set",
    );
  });
});

describe("secrets", () => {
  const url = "postgres://boss:hunter2@db.example.com:5433/app";

  test("are not printed with the configuration", () => {
    const config = configOf({
      env: { NODEDB_UPSTREAM_URL: url, NODEDB_SUPERUSER_PASSWORD: "hunter2hunter2" },
    });
    expect(config.upstream.url?.reveal()).toBe(url);
    expect(config.auth.superuserPassword?.reveal()).toBe("hunter2hunter2");
    expect(
      `${JSON.stringify(config)} ${inspect(config, { depth: 9, showHidden: true })} ${config.upstream.url}`,
    ).not.toContain("hunter2");
  });

  test("a password in a file that everybody may read is refused, one from a variable is not", () => {
    expect(textOf({ toml: `upstream.url = "${url}"`, mode: 0o644 })).toMatch(
      /holds a password.*chmod 600 nodedb.toml/,
    );
    expect(load({ toml: `upstream.url = "${url}"`, mode: 0o640 }).ok).toBe(true);
    const interpolated = url.replace("hunter2", "$" + "{PW}");
    expect(load({ toml: `upstream.url = "${interpolated}"`, mode: 0o644, env: { PW: "x" } }).ok).toBe(true);
  });

  test("the superuser's password has to be long enough, and is not quoted", () => {
    expect(textOf({ env: { NODEDB_SUPERUSER_PASSWORD: "hunter2" } })).toBe(
      "NODEDB_SUPERUSER_PASSWORD: must have at least 8 characters",
    );
  });
});

describe("TLS files", () => {
  const cert = resolve("server.crt");
  const key = resolve("server.key");
  const both = 'server.tls = { cert_path = "server.crt", key = "server.key" }';

  test("both together are accepted, under either spelling, as absolute paths", () => {
    expect(configOf({ toml: both, files: { [cert]: {}, [key]: {} } }).server.tls).toEqual({
      certPath: cert,
      keyPath: key,
      required: false,
    });
  });

  test("one without the other, and required without both, are mistakes", () => {
    expect(textOf({ env: { NODEDB_TLS_CERT_PATH: "server.crt" }, files: { [cert]: {} } })).toBe(
      "NODEDB_TLS_CERT_PATH: is set without server.tls.key",
    );
    expect(textOf({ toml: 'server.tls.key = "server.key"', files: { [key]: {} } })).toContain(
      "without server.tls.cert",
    );
    expect(textOf({ toml: "server.tls.required = true" })).toContain(
      "needs server.tls.cert and server.tls.key",
    );
  });

  test("a key that everybody may read, or that is missing, is a mistake", () => {
    expect(textOf({ toml: both, files: { [cert]: {}, [key]: { mode: 0o604 } } })).toContain(
      "everybody may read",
    );
    expect(textOf({ toml: both, files: { [cert]: {} } })).toContain("cannot be read (ENOENT)");
  });

  test("client certificates need an authority, and to be required they need TLS for everybody", () => {
    const authority = resolve("ca.crt");
    const list = resolve("clients.crl");
    const files = { [cert]: {}, [key]: {}, [authority]: {}, [list]: {} };
    const inFile = (more: string) => `[server.tls]\ncert = "server.crt"\nkey = "server.key"\n${more}`;
    const full =
      'client_ca = "ca.crt"\ncrl = "clients.crl"\nclient_identity = "san_uri"\nclient_required = true\n';
    expect(configOf({ toml: inFile(`${full}required = true`), files }).server.tls).toMatchObject({
      required: true,
      clients: { caPath: authority, crlPath: list, identity: "san_uri", required: true },
    });
    expect(configOf({ toml: inFile('client_ca = "ca.crt"'), files }).server.tls?.clients).toEqual({
      caPath: authority,
      identity: "cn",
      required: false,
    });
    expect(textOf({ toml: inFile(full), files })).toContain(
      "server.tls.client_required: needs server.tls.required = true",
    );
    expect(textOf({ toml: inFile('crl = "clients.crl"'), files })).toContain("needs server.tls.client_ca");
    expect(textOf({ toml: inFile("client_required = true"), files })).toContain("needs server.tls.client_ca");
    expect(textOf({ toml: 'server.tls.client_ca = "ca.crt"', files })).toContain(
      "server.tls.client_ca: needs server.tls.cert and server.tls.key",
    );
    expect(textOf({ toml: inFile('client_ca = "absent.crt"'), files })).toContain("cannot be read");
    expect(textOf({ toml: inFile('client_ca = "ca.crt"\nclient_identity = "dn"'), files })).toContain(
      "san_email",
    );
  });

  test("both spellings at once are a mistake", () => {
    const toml = 'server.tls = { cert = "server.crt", cert_path = "server.crt", key = "server.key" }';
    expect(textOf({ toml, files: { [cert]: {}, [key]: {} } })).toContain("is the same as server.tls.cert");
  });
});

describe("upstream.url", () => {
  const load1 = (url: string) => configOf({ env: { NODEDB_UPSTREAM_URL: url } }).upstream;

  test("its host decides the default of upstream.tls, its path the default database", () => {
    expect(load1("postgres://u@localhost/app")).toMatchObject({ tls: "prefer", defaultDatabase: "app" });
    expect(load1("postgresql://u@127.0.0.2:1/a%20b")).toMatchObject({
      tls: "prefer",
      defaultDatabase: "a b",
    });
    expect(load1("postgresql://u@[::1]/app")).toMatchObject({ tls: "prefer" });
    expect(load1("postgresql://u@/app?host=/run/pg&port=5433")).toMatchObject({
      tls: "prefer",
      defaultDatabase: "app",
    });
    expect(load1("postgres://u@127.0.0.1.example.com")).toMatchObject({ tls: "verify-full" });
    expect(load1("postgres://u@db")).not.toHaveProperty("defaultDatabase");
  });

  test.each([
    "mysql://u:hunter2@h/d",
    "postgres://hunter2%zz@h/d",
    "postgres://u:hunter2@h:99999/d",
    "postgres://u:hunter2@/d",
    "postgres://:hunter2@h/d",
    "postgres://u:hunter2@a,b/d",
    "postgres://u:hunter2@h/d?sslmode=disable",
    "postgres://u@h/d?password=hunter2",
    "postgres://u:hunter2#@h/d",
  ])("%s is a mistake that does not quote it", (url) => {
    const text = textOf({ env: { NODEDB_UPSTREAM_URL: url } });
    expect(text).toMatch(/^NODEDB_UPSTREAM_URL: /);
    expect(text).not.toContain("hunter2");
  });
});
