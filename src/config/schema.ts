/** Every key of nodedb.toml: type, range, default, environment variable and meaning. */

export type KeyType =
  | { readonly kind: "text" }
  /** A file or directory; relative ones are taken from where the program is started. */
  | { readonly kind: "path" }
  | { readonly kind: "boolean" }
  | { readonly kind: "integer"; readonly min: number; readonly max: number; readonly unit: string }
  | { readonly kind: "duration"; readonly minMs: number }
  | { readonly kind: "size"; readonly minBytes: number; readonly maxBytes: number }
  | { readonly kind: "choice"; readonly choices: readonly string[] }
  /** One or more of them. */
  | { readonly kind: "choices"; readonly choices: readonly string[] }
  /** A table of texts under names that the administrator chooses. */
  | { readonly kind: "map"; readonly of: string }
  /** An array of tables. */
  | { readonly kind: "tables"; readonly of: string };

export interface ConfigKey {
  readonly key: string;
  /** Another spelling that is accepted too. */
  readonly alias?: string;
  readonly type: KeyType;
  /** As it would stand in the file. Absent: off, or worked out as `defaultDoc` says. */
  readonly default?: string | number | boolean | readonly string[] | Readonly<Record<string, string>>;
  readonly defaultDoc?: string;
  /** What nodedb.toml.example shows when there is no default. */
  readonly example?: string | readonly Readonly<Record<string, string | number>>[];
  readonly env?: string;
  readonly doc: string;
  /** Whether a reload applies it; the others need a restart. */
  readonly live: boolean;
}

/** Longest time that a Node timer can wait, in days: more than 2³¹ ms fires at once. */
export const maxDurationDays = 24;

const count = (min: number, max: number, unit: string) => ({ kind: "integer", min, max, unit }) as const;
const duration = (minMs: number) => ({ kind: "duration", minMs }) as const;
const kib = 1024;
const mib = 1024 * kib;
const size = (minBytes: number, maxBytes: number) => ({ kind: "size", minBytes, maxBytes }) as const;

/** Of key pairs. Not `none`, and no HMAC: only a provider that has a secret takes those (RFC 8725 section 2.1). */
const signatureAlgorithms = ["ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "EdDSA"] as const;

export const configKeys = [
  {
    key: "server.host",
    type: { kind: "text" },
    default: "127.0.0.1",
    env: "NODEDB_HOST",
    doc: "Address to listen on; 0.0.0.0 or :: for all.",
    live: false,
  },
  {
    key: "server.data_dir",
    type: { kind: "path" },
    default: "./nodedb-data",
    env: "NODEDB_DATA_DIR",
    doc: "Directory of the embedded PostgreSQL and of the secrets that the front-end keeps.",
    live: false,
  },
  {
    key: "server.max_connections",
    type: count(1, 100_000, "connections"),
    default: 1024,
    env: "NODEDB_MAX_CONNECTIONS",
    doc: "Client connections at the same time; further ones get FATAL 53300.",
    live: true,
  },
  {
    key: "server.authentication_timeout",
    type: duration(1000),
    default: "30s",
    doc: "From the accepted connection to AuthenticationOk; then it is closed.",
    live: true,
  },
  {
    key: "server.shutdown_timeout",
    type: duration(0),
    default: "30s",
    doc: "How long SIGTERM lets open transactions finish before sessions get FATAL 57P01.",
    live: true,
  },
  {
    key: "server.ports.pgwire",
    type: count(0, 65535, "TCP port"),
    default: 6432,
    env: "NODEDB_PORT_PGWIRE",
    doc: "Port for PostgreSQL clients. 0 takes any free port, which is printed and written to ports.json in the data directory.",
    live: false,
  },
  {
    key: "server.ports.http",
    type: count(0, 65535, "TCP port"),
    default: 6480,
    env: "NODEDB_PORT_HTTP",
    doc: "Port for HTTP. 0 takes any free port, as for pgwire. Not opened when http.enabled is false.",
    live: false,
  },
  {
    key: "server.tls.cert",
    alias: "server.tls.cert_path",
    type: { kind: "path" },
    defaultDoc: "none: no TLS",
    example: "/etc/nodedb/server.crt",
    env: "NODEDB_TLS_CERT_PATH",
    doc: "PEM file with the server's certificate and its chain. Needs server.tls.key too.",
    live: true,
  },
  {
    key: "server.tls.key",
    alias: "server.tls.key_path",
    type: { kind: "path" },
    defaultDoc: "none: no TLS",
    example: "/etc/nodedb/server.key",
    env: "NODEDB_TLS_KEY_PATH",
    doc: "PEM file with the private key; refused when everybody may read it. Needs server.tls.cert too.",
    live: true,
  },
  {
    key: "server.tls.required",
    type: { kind: "boolean" },
    default: false,
    doc: "Whether clients without TLS are refused.",
    live: true,
  },
  {
    key: "server.tls.client_ca",
    type: { kind: "path" },
    defaultDoc: "none: clients are not asked for a certificate",
    example: "/etc/nodedb/clients-ca.crt",
    doc: "PEM file with the authorities whose client certificates are accepted instead of a password; reread when it changes.",
    live: true,
  },
  {
    key: "server.tls.client_identity",
    type: { kind: "choice", choices: ["cn", "san_email", "san_dns", "san_uri"] },
    default: "cn",
    doc: "What in a client certificate is the name of the user or service account: the common name, or the subject alternative name of a kind. There must be exactly one.",
    live: true,
  },
  {
    key: "server.tls.client_required",
    type: { kind: "boolean" },
    default: false,
    doc: "Whether clients without a certificate are refused. Needs server.tls.required too.",
    live: true,
  },
  {
    key: "server.tls.crl",
    type: { kind: "path" },
    defaultDoc: "none: no client certificate is revoked",
    example: "/etc/nodedb/clients.crl",
    doc: "PEM file with the revocation lists of the authorities in server.tls.client_ca, one for each; reread when it changes, and live sessions with a certificate in it are closed.",
    live: true,
  },
  {
    key: "upstream.url",
    type: { kind: "text" },
    defaultDoc: "none: embedded PostgreSQL",
    example: `postgres://nodedb_admin:\${UPSTREAM_PASSWORD}@db.example.com:5432/app`,
    env: "NODEDB_UPSTREAM_URL",
    doc: "An existing PostgreSQL to stand in front of, with an administrative login. A password belongs in the environment; a file that holds one is refused when everybody may read it.",
    live: false,
  },
  {
    key: "upstream.tls",
    type: { kind: "choice", choices: ["disable", "prefer", "verify-full"] },
    defaultDoc: '"prefer" when the host of upstream.url is this machine, else "verify-full"',
    example: "verify-full",
    doc: "TLS towards the upstream; verify-full checks the certificate and the host's name.",
    live: false,
  },
  {
    key: "upstream.pool_mode",
    type: { kind: "choice", choices: ["session"] },
    default: "session",
    env: "NODEDB_POOL_MODE",
    doc: "How long a client keeps an upstream connection: until it leaves.",
    live: false,
  },
  {
    key: "upstream.pool_size",
    type: count(1, 10_000, "connections"),
    default: 20,
    doc: "Upstream connections per identity and database.",
    live: true,
  },
  {
    key: "upstream.max_connections",
    type: count(1, 10_000, "connections"),
    default: 90,
    doc: "Upstream connections of all pools together; idle ones of others are closed to make room.",
    live: true,
  },
  {
    key: "upstream.queue_timeout",
    type: duration(0),
    default: "15s",
    doc: "How long a client waits for an upstream connection before it gets 53300; 0 does not wait.",
    live: true,
  },
  {
    key: "upstream.idle_timeout",
    type: duration(0),
    default: "10m",
    doc: "How long an unused upstream connection is kept; 0 keeps it.",
    live: true,
  },
  {
    key: "upstream.max_lifetime",
    type: duration(0),
    default: "1h",
    doc: "Age at which an upstream connection is closed after its use; 0 is no limit.",
    live: true,
  },
  {
    key: "upstream.default_database",
    type: { kind: "text" },
    defaultDoc: '"nodedb" with the embedded PostgreSQL, else the database of upstream.url',
    example: "app",
    doc: "Database of a client that names none and whose user has no default of its own.",
    live: false,
  },
  {
    key: "auth.schema",
    type: { kind: "text" },
    default: "auth",
    doc: "Schema of the functions that $auth.… is rewritten to, in every database; for where somebody else has one of the default name.",
    live: false,
  },
  {
    key: "auth.claims_lifetime",
    type: duration(1000),
    default: "1h",
    doc: "How long what a session says of itself in PostgreSQL is good for transactions that begin; it is renewed at half of that. Clocks of the front-end and of PostgreSQL may differ by the other half.",
    live: false,
  },
  {
    key: "auth.claims_prefix",
    type: { kind: "text" },
    defaultDoc: "none: not set",
    example: "app",
    doc: "Prefix of settings that hold the claims one by one, for policies that read current_setting('app.sub', true). A convenience and no proof: a client can set them.",
    live: false,
  },
  {
    key: "auth.superuser_name",
    type: { kind: "text" },
    default: "nodedb",
    env: "NODEDB_SUPERUSER_NAME",
    doc: "The first user, created at the first start. Its password comes from NODEDB_SUPERUSER_PASSWORD, else it is generated and shown once.",
    live: false,
  },
  {
    key: "auth.min_password_length",
    type: count(1, 1024, "characters"),
    default: 8,
    doc: "Shortest password that CREATE USER and ALTER USER accept.",
    live: true,
  },
  {
    key: "auth.scram_iterations",
    type: count(4096, 1_000_000, "iterations"),
    default: 4096,
    doc: "PBKDF2 iterations of new password verifiers; every login costs the client as many.",
    live: true,
  },
  {
    key: "auth.idle_timeout",
    type: duration(0),
    default: "0",
    doc: "How long a session may be idle before it gets FATAL 57P05; 0 is off.",
    live: true,
  },
  {
    key: "auth.session_absolute_timeout",
    type: duration(0),
    default: "0",
    doc: "How long a session may last in all; 0 is off.",
    live: true,
  },
  {
    key: "auth.max_connections_per_user",
    type: count(0, 100_000, "connections"),
    default: 0,
    doc: "Client connections of one user at the same time, on all front-ends of a PostgreSQL together; 0 is unlimited.",
    live: true,
  },
  {
    key: "auth.max_failed_logins",
    type: count(0, 1_000_000, "logins"),
    default: 5,
    doc: "Failed logins of one name, without a successful one between them, after which it is locked; 0 is never. Kept in the catalog: a restart or another front-end does not forget them.",
    live: true,
  },
  {
    key: "auth.lockout_duration",
    type: duration(1000),
    default: "5m",
    doc: "How long a name stays locked, and after how long failed logins are forgotten. An admin ends it with ALTER USER … LOGIN or PASSWORD.",
    live: true,
  },
  {
    key: "auth.login_attempts_per_ip_per_min",
    type: count(0, 1_000_000, "logins"),
    default: 30,
    doc: "Failed logins from one address (IPv6: one /64) within a minute, after which further ones from it are refused until the minute is over; 0 is unlimited.",
    live: true,
  },
  {
    key: "auth.login_attempts_per_user_per_min",
    type: count(0, 1_000_000, "logins"),
    default: 10,
    doc: "Failed logins of one name within a minute, after which further ones are refused until the minute is over; 0 is unlimited.",
    live: true,
  },
  {
    key: "auth.api_keys.pgwire",
    type: { kind: "boolean" },
    default: true,
    doc: "Whether PostgreSQL clients may give an API key as the password of the user, service account or key whose name they log in with.",
    live: false,
  },
  {
    key: "auth.jwks.providers",
    alias: "auth.jwt.providers",
    type: {
      kind: "tables",
      of: "issuer, audience, and optionally name, jwks_url, tenant_id, roles, jwt_secret_file, public_key_file",
    },
    defaultDoc: "none",
    example: [{ issuer: "https://id.example.com/", audience: "nodedb-api" }],
    doc: 'Issuers of tokens, beside those of CREATE OIDC PROVIDER. Without jwks_url the keys are found by discovery; with public_key_file (PEM) or jwt_secret_file (HS256, HS384, HS512 by the secret\'s length: 32, 48, 64 bytes) there is one. Their users are of tenant_id (default 1) and hold roles (default ["readonly"]).',
    live: true,
  },
  {
    key: "auth.jwks.allowed_algorithms",
    alias: "auth.jwt.allowed_algorithms",
    type: { kind: "choices", choices: signatureAlgorithms },
    default: ["ES256", "ES384", "RS256"],
    doc: "Signatures that tokens may have, where CREATE OIDC PROVIDER does not name others.",
    live: true,
  },
  {
    key: "auth.jwks.clock_skew",
    alias: "auth.jwt.clock_skew",
    type: duration(0),
    default: "60s",
    doc: "How far the clocks of an issuer and of this machine may be apart.",
    live: true,
  },
  {
    key: "auth.jwks.refresh",
    alias: "auth.jwt.refresh",
    type: duration(1000),
    default: "1h",
    doc: "Age at which an issuer's keys are fetched again, in the background.",
    live: false,
  },
  {
    key: "auth.jwks.min_refetch",
    alias: "auth.jwt.min_refetch",
    type: duration(0),
    default: "30s",
    doc: "Least time between two fetches, also for a token whose key is not known; it doubles with each failure, up to sixteen times.",
    live: false,
  },
  {
    key: "auth.jwks.max_stale",
    alias: "auth.jwt.max_stale",
    type: duration(1000),
    default: "24h",
    doc: "How long keys are used while they cannot be fetched again, a restart included; then tokens are refused.",
    live: false,
  },
  {
    key: "auth.jwks.allow_private",
    alias: "auth.jwt.allow_private",
    type: { kind: "boolean" },
    default: false,
    doc: "Whether issuers may be asked at private and link-local addresses. A URL of localhost or of a loopback address always may.",
    live: false,
  },
  {
    key: "auth.jwks.claims",
    alias: "auth.jwt.claims",
    type: { kind: "map", of: "claims, or dotted paths to them" },
    default: { id: "sub", role: "role", org_id: "org_id", scopes: "scope" },
    doc: "What $auth.… reads of a token, each name with its claim. What is given is added to the default. roles and tenant_id are never a token's to say.",
    live: false,
  },
  {
    key: "http.enabled",
    type: { kind: "boolean" },
    default: true,
    env: "NODEDB_HTTP_ENABLED",
    doc: "Whether HTTP is served at all.",
    live: false,
  },
  {
    key: "http.max_body",
    type: size(kib, 64 * mib),
    default: "1MiB",
    doc: "Largest body of a request; a larger one gets 413.",
    live: false,
  },
  {
    key: "http.max_rows",
    type: count(1, 10_000_000, "rows"),
    default: 10_000,
    doc: "Most rows that POST /v1/query returns of one statement; one with more is undone and gets 413. A stream has no such limit.",
    live: true,
  },
  {
    key: "http.max_response",
    type: size(kib, 1024 * mib),
    default: "64MiB",
    doc: "Most bytes that POST /v1/query collects of one request's rows, as PostgreSQL sends them; and the largest single row of a stream. More gets 413.",
    live: true,
  },
  {
    key: "http.statement_timeout",
    type: duration(1),
    default: "30s",
    doc: "How long the statements of one request may run before they are canceled (57014); a request can ask for less.",
    live: true,
  },
  {
    key: "http.requests_per_min",
    type: count(0, 10_000_000, "requests"),
    default: 0,
    doc: "Requests of one identity within a minute, after which further ones get 429; 0 is unlimited.",
    live: false,
  },
  {
    key: "http.cors_origins",
    type: { kind: "text" },
    defaultDoc: "none: no CORS",
    example: "https://app.example.com",
    doc: "Origins whose scripts may call the API from a browser, separated by commas; * for all.",
    live: false,
  },
  {
    key: "metrics.public",
    type: { kind: "boolean" },
    default: false,
    doc: "Whether /metrics is served without a credential; else it takes that of an admin or superuser.",
    live: false,
  },
  {
    key: "auth.pgwire.bearer",
    type: { kind: "boolean" },
    default: false,
    doc: "Whether PostgreSQL clients may log in with a token (OAUTHBEARER, PostgreSQL 18), encrypted or from this machine.",
    live: false,
  },
  {
    key: "audit.level",
    type: { kind: "choice", choices: ["minimal", "standard", "full"] },
    default: "standard",
    doc: "What the audit log records. minimal: AuthFailure, LockoutTriggered, PrivilegeChange, AdminAction; standard: also AuthSuccess, AuthzDenied, KeyUsed; full: also SessionConnect, SessionDisconnect.",
    live: false,
  },
  {
    key: "log.level",
    type: { kind: "choice", choices: ["trace", "debug", "info", "warn", "error", "fatal", "silent"] },
    default: "info",
    env: "NODEDB_LOG_LEVEL",
    doc: "Least severe line that is logged, to standard error.",
    live: true,
  },
  {
    key: "log.format",
    type: { kind: "choice", choices: ["text", "json"] },
    defaultDoc: '"text" on a terminal, else "json"',
    example: "json",
    env: "NODEDB_LOG_FORMAT",
    doc: "Short lines for people, or one JSON object per line.",
    live: false,
  },
] as const satisfies readonly ConfigKey[];

export type KeyName = (typeof configKeys)[number]["key"];

/** Environment variables that stand for no key. */
export const otherEnvironment = {
  NODEDB_CONFIG: "Path of the configuration file, when --config is not given.",
  NODEDB_SUPERUSER_PASSWORD: "Password of the first user; only read at the first start.",
} as const;
