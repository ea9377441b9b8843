/** [auth] of the configuration, its names and the files of its issuers looked at. */

import { builtInRoles } from "./built-in-roles.ts";
import type { Config } from "./config.ts";
import type { ConfigFiles } from "./config-files.ts";
import { readJwtProviders } from "./jwt-providers.ts";
import type { KeyReader } from "./key-reader.ts";
import { configKeys } from "./schema.ts";
import { Secret } from "./secret.ts";

const defaultClaims = configKeys.find((entry) => entry.key === "auth.jwks.claims")?.default;

/** Roles that the front-end or PostgreSQL makes itself, or words that name none. */
const reservedNames = new Set<string>(["public", "none", ...builtInRoles]);

/** Schemas that hold something else. */
const schemasOfOthers = new Set(["public", "nodedb", "information_schema"]);

/** Settings of the front-end's proof and of PL/pgSQL. */
const reservedPrefixes: ReadonlySet<string> = new Set(["nodedb", "plpgsql"]);

/**
 * What is wrong is noted in the reader.
 *
 * @param superuserPassword as the environment has it
 */
export function readAuth(
  reader: KeyReader,
  files: ConfigFiles,
  superuserPassword: string | undefined,
): Config["auth"] {
  const password = readSuperuserPassword(reader, superuserPassword);
  const claimsPrefix = readClaimsPrefix(reader);
  return {
    schema: readAuthSchema(reader),
    claimsLifetimeMs: reader.number("auth.claims_lifetime"),
    ...(claimsPrefix === undefined ? {} : { claimsPrefix }),
    superuserName: readSuperuserName(reader),
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
    jwks: readJwks(reader, files),
    apiKeys: { pgwire: reader.boolean("auth.api_keys.pgwire") },
    pgwire: { bearer: reader.boolean("auth.pgwire.bearer") },
  };
}

function readJwks(reader: KeyReader, files: ConfigFiles): Config["auth"]["jwks"] {
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

function readSuperuserName(reader: KeyReader): string {
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

function readClaimsPrefix(reader: KeyReader): string | undefined {
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

function readAuthSchema(reader: KeyReader): string {
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

function readSuperuserPassword(reader: KeyReader, text: string | undefined): Secret | undefined {
  if (text === undefined || text === "") {
    return undefined;
  }
  const minimum = reader.number("auth.min_password_length");
  if ([...text].length < minimum) {
    reader.mistakes.push({
      key: "NODEDB_SUPERUSER_PASSWORD",
      message: `must have at least ${minimum} characters`,
    });
  }
  return new Secret(text);
}
