/** nodedb.toml and the environment → Config, or every mistake in them at once. */

import { readFileSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { builtInRoles } from "./built-in-roles.ts";
import type { KeyValues } from "./changed-keys.ts";
import type { Config, ConfigMistake, UpstreamTls } from "./config.ts";
import { readJwtProviders } from "./jwt-providers.ts";
import { KeyReader } from "./key-reader.ts";
import { configKeys } from "./schema.ts";
import { Secret } from "./secret.ts";
import { parseTomlFile, type TomlLeaf } from "./toml-file.ts";
import { isThisMachine, parseUpstreamUrl, type UpstreamAddress } from "./upstream-url.ts";

/** What loading needs of the file system. Both throw as node:fs does. */
export interface ConfigFiles {
  read(path: string): string;
  /** Permission bits, as in `stat`. */
  mode(path: string): number;
}

export interface LoadOptions {
  /** From --config; else NODEDB_CONFIG; else nodedb.toml, when there is one. */
  readonly path?: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Whether the log goes to a terminal; decides the default of log.format. */
  readonly isTerminal?: boolean;
  readonly files?: ConfigFiles;
}

export type LoadOutcome =
  | {
      readonly ok: true;
      readonly config: Config;
      readonly file: string | undefined;
      /** To tell which keys differ from another reading. */
      readonly values: KeyValues;
    }
  | { readonly ok: false; readonly mistakes: readonly ConfigMistake[] };

const defaultClaims = configKeys.find((entry) => entry.key === "auth.jwks.claims")?.default;

const defaultFile = "nodedb.toml";

const nodeFiles: ConfigFiles = {
  read: (path) => readFileSync(path, "utf8"),
  mode: (path) => statSync(path).mode,
};

/** Roles that the front-end or PostgreSQL makes itself, or words that name none. */
const reservedNames = new Set<string>(["public", "none", ...builtInRoles]);

/** Schemas that hold something else. */
const schemasOfOthers = new Set(["public", "nodedb", "information_schema"]);

/** Reads the file, lays the environment over it, and checks everything; opens nothing else. */
export function loadConfig(options: LoadOptions): LoadOutcome {
  const { env } = options;
  const files = options.files ?? nodeFiles;
  const found = readConfigFile(options, files);
  if (!found.ok) {
    return { ok: false, mistakes: [found.mistake] };
  }
  const { file } = found;
  const reader = new KeyReader({ file, leaves: found.leaves, env });
  const mistakes = reader.mistakes;

  const tls = readTls(reader, files);
  const upstreamUrl = reader.text("upstream.url");
  const upstream = checkUpstreamUrl(upstreamUrl);
  const password = readSuperuserPassword();
  const claimsPrefix = readClaimsPrefix();
  const defaultDatabase =
    reader.text("upstream.default_database") ?? (upstreamUrl === undefined ? "nodedb" : upstream?.database);
  const tlsDefault: UpstreamTls =
    upstream === undefined || isThisMachine(upstream.host) ? "prefer" : "verify-full";

  const config: Config = {
    server: {
      host: reader.text("server.host") ?? "",
      ports: { pgwire: reader.number("server.ports.pgwire"), http: reader.number("server.ports.http") },
      dataDir: resolve(reader.text("server.data_dir") ?? ""),
      maxConnections: reader.number("server.max_connections"),
      authenticationTimeoutMs: reader.number("server.authentication_timeout"),
      shutdownTimeoutMs: reader.number("server.shutdown_timeout"),
      ...(tls === undefined ? {} : { tls }),
    },
    upstream: {
      ...(upstreamUrl === undefined ? {} : { url: new Secret(upstreamUrl) }),
      tls: reader.choice("upstream.tls") ?? tlsDefault,
      poolMode: "session",
      poolSize: reader.number("upstream.pool_size"),
      maxConnections: reader.number("upstream.max_connections"),
      queueTimeoutMs: reader.number("upstream.queue_timeout"),
      idleTimeoutMs: reader.number("upstream.idle_timeout"),
      maxLifetimeMs: reader.number("upstream.max_lifetime"),
      ...(defaultDatabase === undefined ? {} : { defaultDatabase }),
    },
    auth: {
      schema: readAuthSchema(),
      claimsLifetimeMs: reader.number("auth.claims_lifetime"),
      ...(claimsPrefix === undefined ? {} : { claimsPrefix }),
      superuserName: readSuperuserName(),
      ...(password === undefined ? {} : { superuserPassword: password }),
      minPasswordLength: reader.number("auth.min_password_length"),
      scramIterations: reader.number("auth.scram_iterations"),
      idleTimeoutMs: reader.number("auth.idle_timeout"),
      sessionAbsoluteTimeoutMs: reader.number("auth.session_absolute_timeout"),
      maxConnectionsPerUser: reader.number("auth.max_connections_per_user"),
      maxFailedLogins: reader.number("auth.max_failed_logins"),
      lockoutDurationMs: reader.number("auth.lockout_duration"),
      loginAttemptsPerIpPerMin: reader.number("auth.login_attempts_per_ip_per_min"),
      loginAttemptsPerUserPerMin: reader.number("auth.login_attempts_per_user_per_min"),
      jwks: readJwks(),
      apiKeys: { pgwire: reader.boolean("auth.api_keys.pgwire") },
      pgwire: { bearer: reader.boolean("auth.pgwire.bearer") },
    },
    http: {
      enabled: reader.boolean("http.enabled"),
      maxBodyBytes: reader.number("http.max_body"),
      maxRows: reader.number("http.max_rows"),
      maxResponseBytes: reader.number("http.max_response"),
      statementTimeoutMs: reader.number("http.statement_timeout"),
      requestsPerMin: reader.number("http.requests_per_min"),
      corsOrigins: readCorsOrigins(),
    },
    metrics: { public: reader.boolean("metrics.public") },
    audit: { level: reader.choice("audit.level") ?? "standard" },
    log: {
      level: reader.choice("log.level") ?? "info",
      format: reader.choice("log.format") ?? (options.isTerminal === true ? "text" : "json"),
    },
  };
  // Only to refuse another mode: there is one.
  reader.choice("upstream.pool_mode");
  return mistakes.length === 0
    ? { ok: true, config, file, values: reader.values }
    : { ok: false, mistakes: sortByPlace(mistakes) };

  function checkUpstreamUrl(text: string | undefined): UpstreamAddress | undefined {
    if (text === undefined) {
      return undefined;
    }
    const outcome = parseUpstreamUrl(text);
    if (!outcome.ok) {
      reader.blame("upstream.url", outcome.reason);
      return undefined;
    }
    if (
      file !== undefined &&
      reader.isLiteralInFile("upstream.url", holdsPassword) &&
      isWorldReadable(files, file)
    ) {
      reader.blame(
        "upstream.url",
        `holds a password, and everybody may read this file: run chmod 600 ${file}, or write \${VARIABLE} for the password`,
      );
    }
    return outcome.address;
  }

  function readJwks(): Config["auth"]["jwks"] {
    const allowedAlgorithms = reader.choices("auth.jwks.allowed_algorithms");
    const claims = reader.map("auth.jwks.claims");
    for (const name of ["roles", "tenant_id"].filter((reserved) => Object.hasOwn(claims, reserved))) {
      reader.blame("auth.jwks.claims", `must not hold ${name}, which is the catalog's to say`);
    }
    return {
      providers: readJwtProviders(reader.tables("auth.jwks.providers"), allowedAlgorithms, files, (message) =>
        reader.blame("auth.jwks.providers", message),
      ),
      allowedAlgorithms,
      clockSkewMs: reader.number("auth.jwks.clock_skew"),
      refreshMs: reader.number("auth.jwks.refresh"),
      minRefetchMs: reader.number("auth.jwks.min_refetch"),
      maxStaleMs: reader.number("auth.jwks.max_stale"),
      allowPrivate: reader.boolean("auth.jwks.allow_private"),
      claims: { ...defaultClaims, ...claims },
    };
  }

  function readSuperuserName(): string {
    const name = reader.text("auth.superuser_name") ?? "";
    const isUsable =
      Buffer.byteLength(name) <= 63 &&
      !/["'\\\p{Cc}]/u.test(name) &&
      !/^pg_/.test(name) &&
      !reservedNames.has(name);
    if (!isUsable) {
      reader.blame(
        "auth.superuser_name",
        "must be at most 63 bytes without quotes, not begin with pg_ and not be the name of a built-in role",
      );
    }
    return name;
  }

  function readClaimsPrefix(): string | undefined {
    const prefix = reader.text("auth.claims_prefix");
    if (prefix === undefined) {
      return undefined;
    }
    if (!/^[a-z_][a-z0-9_]*$/i.test(prefix)) {
      reader.blame("auth.claims_prefix", "has to be letters, digits and _, and to begin with no digit");
    } else if (reservedPrefixes.has(prefix.toLowerCase())) {
      reader.blame("auth.claims_prefix", `is the prefix of other settings: "${prefix}"`);
    }
    return prefix;
  }

  function readAuthSchema(): string {
    const name = reader.text("auth.schema") ?? "";
    const isUsable =
      name !== "" &&
      Buffer.byteLength(name) <= 63 &&
      !/["'\\\p{Cc}]/u.test(name) &&
      !/^pg_/.test(name) &&
      !schemasOfOthers.has(name);
    if (!isUsable) {
      reader.blame(
        "auth.schema",
        "must have 1 to 63 bytes without quotes, not begin with pg_ and not be public, nodedb or information_schema",
      );
    }
    return name;
  }

  function readCorsOrigins(): string[] {
    const origins = (reader.text("http.cors_origins") ?? "")
      .split(",")
      .map((origin) => origin.trim())
      .filter((origin) => origin !== "");
    const wrong = origins.find((origin) => origin !== "*" && !isOrigin(origin));
    if (wrong !== undefined) {
      reader.blame("http.cors_origins", "must hold origins such as https://app.example.com, or *");
    }
    return origins;
  }

  function readSuperuserPassword(): Secret | undefined {
    const text = env.NODEDB_SUPERUSER_PASSWORD;
    if (text === undefined || text === "") {
      return undefined;
    }
    const minimum = reader.number("auth.min_password_length");
    if ([...text].length < minimum) {
      mistakes.push({
        key: "NODEDB_SUPERUSER_PASSWORD",
        message: `must have at least ${minimum} characters`,
      });
    }
    return new Secret(text);
  }
}

function readConfigFile(
  options: LoadOptions,
  files: ConfigFiles,
):
  | { readonly ok: true; readonly file: string | undefined; readonly leaves: readonly TomlLeaf[] }
  | { readonly ok: false; readonly mistake: ConfigMistake } {
  const named = options.path ?? (options.env.NODEDB_CONFIG || undefined);
  const file = named ?? defaultFile;
  let text: string;
  try {
    text = files.read(file);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (named === undefined && code === "ENOENT") {
      return { ok: true, file: undefined, leaves: [] };
    }
    return { ok: false, mistake: { file, message: `cannot be read (${code ?? String(error)})` } };
  }
  const parsed = parseTomlFile(text);
  return parsed.ok
    ? { ok: true, file, leaves: parsed.leaves }
    : { ok: false, mistake: { file, line: parsed.line, message: `is no valid TOML: ${parsed.message}` } };
}

function readTls(reader: KeyReader, files: ConfigFiles): Config["server"]["tls"] {
  const certPath = readPath("server.tls.cert");
  const keyPath = readPath("server.tls.key");
  const required = reader.boolean("server.tls.required");
  const clients = readClients();
  if (certPath === undefined && keyPath === undefined) {
    for (const key of ["server.tls.required", "server.tls.client_ca"] as const) {
      const isSet = key === "server.tls.required" ? required : clients !== undefined;
      if (isSet) reader.blame(key, "needs server.tls.cert and server.tls.key");
    }
    return undefined;
  }
  if (certPath === undefined) {
    reader.blame("server.tls.key", "is set without server.tls.cert");
    return undefined;
  }
  if (keyPath === undefined) {
    reader.blame("server.tls.cert", "is set without server.tls.key");
    return undefined;
  }
  if (isWorldReadable(files, keyPath)) {
    reader.blame("server.tls.key", `is a private key that everybody may read: run chmod 600 ${keyPath}`);
  }
  return { certPath, keyPath, required, ...(clients === undefined ? {} : { clients }) };

  function readClients(): NonNullable<Config["server"]["tls"]>["clients"] {
    const caPath = readPath("server.tls.client_ca");
    const crlPath = readPath("server.tls.crl");
    const isClientRequired = reader.boolean("server.tls.client_required");
    if (caPath === undefined) {
      if (crlPath !== undefined) reader.blame("server.tls.crl", "needs server.tls.client_ca");
      if (isClientRequired) reader.blame("server.tls.client_required", "needs server.tls.client_ca");
      return undefined;
    }
    // Else a client would get by without one by not encrypting.
    if (isClientRequired && !required) {
      reader.blame("server.tls.client_required", "needs server.tls.required = true");
    }
    return {
      caPath,
      ...(crlPath === undefined ? {} : { crlPath }),
      identity: reader.choice("server.tls.client_identity") ?? "cn",
      required: isClientRequired,
    };
  }

  function readPath(key: TlsPathKey): string | undefined {
    const text = reader.text(key);
    if (text === undefined) {
      return undefined;
    }
    const path = resolve(text);
    try {
      files.read(path);
    } catch (error) {
      reader.blame(
        key,
        `names a file that cannot be read (${(error as NodeJS.ErrnoException).code}): ${path}`,
      );
    }
    return path;
  }
}

/** An origin as browsers send it (RFC 6454 section 6.2): scheme, host and port only. */
function isOrigin(text: string): boolean {
  return URL.canParse(text) && new URL(text).origin === text;
}

type TlsPathKey = "server.tls.cert" | "server.tls.key" | "server.tls.client_ca" | "server.tls.crl";

/** Settings of the front-end's proof and of PL/pgSQL. */
const reservedPrefixes: ReadonlySet<string> = new Set(["nodedb", "plpgsql"]);

function holdsPassword(url: string): boolean {
  return /^\w+:\/\/[^@/?#]*:[^@/?#]+@/.test(url);
}

function isWorldReadable(files: ConfigFiles, path: string): boolean {
  try {
    return (files.mode(path) & 0o004) !== 0;
  } catch {
    return false;
  }
}

/** In the order of the file, then the environment's. */
function sortByPlace(mistakes: readonly ConfigMistake[]): ConfigMistake[] {
  const order = new Map<string | undefined, number>(configKeys.map(({ key }, index) => [key, index]));
  const place = (mistake: ConfigMistake) =>
    mistake.file === undefined ? 1e9 + (order.get(mistake.key) ?? 1e6) : (mistake.line ?? 1e8);
  return mistakes.toSorted((a, b) => place(a) - place(b));
}
