/** `auth.jwks.providers`: each table checked, its key file read. */

import { createPublicKey, createSecretKey, type KeyObject } from "node:crypto";
import { resolve } from "node:path";
import type { ConfiguredProvider } from "./config.ts";
import { type ConfigFiles, isWorldReadable } from "./config-files.ts";
import { findNearest } from "./nearest.ts";
import { providerUrlMistake } from "./provider-url.ts";

const fields = [
  "name",
  "issuer",
  "audience",
  "jwks_url",
  "tenant_id",
  "roles",
  "jwt_secret_file",
  "public_key_file",
] as const;
type Field = (typeof fields)[number];

/** Least length of a secret, in bytes: that of the hash (RFC 7518 section 3.2). */
const secretBytes: Readonly<Record<string, number>> = { HS256: 32, HS384: 48, HS512: 64 };

/** What a key of each type signs with; for a curve there is one algorithm (RFC 7518 section 3.4). */
const algorithmsOfKey: Readonly<Record<string, readonly string[]>> = {
  rsa: ["RS256", "RS384", "RS512"],
  prime256v1: ["ES256"],
  secp384r1: ["ES384"],
  secp521r1: ["ES512"],
  ed25519: ["EdDSA"],
};
const minRsaBits = 2048;

/** PostgreSQL's names of anything have as many; the provider's is part of its users'. */
const maxNameBytes = 63;
const defaultTenantId = 1;

/**
 * @param allowedAlgorithms of key pairs
 * @param blame called for each mistake, with the text that follows the key; never quotes a secret
 */
export function readJwtProviders(
  tables: readonly Readonly<Record<string, unknown>>[],
  allowedAlgorithms: readonly string[],
  files: ConfigFiles,
  blame: (message: string) => void,
): readonly ConfiguredProvider[] {
  const providers: ConfiguredProvider[] = [];
  for (const [index, table] of tables.entries()) {
    const place = `provider ${index + 1}`;
    const provider = new ProviderReader(table, files, (message) => blame(`${place}: ${message}`)).read(
      allowedAlgorithms,
    );
    if (provider === undefined) continue;
    const { issuer, audience, name } = provider;
    if (providers.some((other) => other.issuer === issuer && other.audience === audience)) {
      blame(`${place}: another one has this issuer and audience`);
    }
    if (providers.some((other) => other.name === name)) blame(`${place}: another one has this name`);
    providers.push(provider);
  }
  return providers;
}

class ProviderReader {
  readonly #table: Readonly<Record<string, unknown>>;
  readonly #files: ConfigFiles;
  readonly #report: (message: string) => void;
  #isSound = true;

  constructor(
    table: Readonly<Record<string, unknown>>,
    files: ConfigFiles,
    report: (message: string) => void,
  ) {
    this.#table = table;
    this.#files = files;
    this.#report = report;
  }

  read(allowedAlgorithms: readonly string[]): ConfiguredProvider | undefined {
    for (const field of Object.keys(this.#table)) {
      if ((fields as readonly string[]).includes(field)) continue;
      const nearest = findNearest(field, fields);
      this.#blame(`${field} is no known key${nearest === undefined ? "" : `; did you mean ${nearest}?`}`);
    }
    const issuer = this.#required("issuer");
    const audience = this.#required("audience");
    const checked = this.#keys(allowedAlgorithms);
    if (checked?.keys.kind === "jwks") this.#checkUrl("issuer", issuer);
    const tenantId = this.#tenantId();
    const roles = this.#roles();
    const name = this.#text("name") ?? nameOf(issuer);
    if (Buffer.byteLength(name) > maxNameBytes) this.#blame(`name must have at most ${maxNameBytes} bytes`);
    if (!this.#isSound || checked === undefined) return undefined;
    return { name, issuer, audience, tenantId, roles, ...checked };
  }

  #keys(allowed: readonly string[]): Pick<ConfiguredProvider, "keys" | "algorithms"> | undefined {
    const given = (["jwks_url", "jwt_secret_file", "public_key_file"] as const).filter(
      (field) => this.#table[field] !== undefined,
    );
    if (given.length > 1) {
      this.#blame(`${given.join(" and ")} exclude one another`);
      return undefined;
    }
    const secretFile = this.#text("jwt_secret_file");
    if (secretFile !== undefined) return this.#secret(secretFile);
    const keyFile = this.#text("public_key_file");
    if (keyFile !== undefined) return this.#publicKey(keyFile, allowed);
    const url = this.#text("jwks_url");
    if (url !== undefined) this.#checkUrl("jwks_url", url);
    return { keys: { kind: "jwks", url }, algorithms: allowed };
  }

  #secret(file: string): Pick<ConfiguredProvider, "keys" | "algorithms"> | undefined {
    const text = this.#readFile("jwt_secret_file", file);
    if (text === undefined) return undefined;
    // An editor's last line feed is none of the secret.
    const bytes = Buffer.from(text.replace(/\r?\n$/, ""));
    const algorithms = Object.keys(secretBytes).filter((name) => bytes.length >= (secretBytes[name] ?? 0));
    if (algorithms.length === 0) this.#blame("jwt_secret_file must hold at least 32 bytes");
    if (isWorldReadable(this.#files, resolve(file))) {
      this.#blame(`jwt_secret_file holds a secret that everybody may read: run chmod 600 ${resolve(file)}`);
    }
    return { keys: { kind: "secret", key: createSecretKey(bytes) }, algorithms };
  }

  #publicKey(
    file: string,
    allowed: readonly string[],
  ): Pick<ConfiguredProvider, "keys" | "algorithms"> | undefined {
    const text = this.#readFile("public_key_file", file);
    if (text === undefined) return undefined;
    if (/PRIVATE KEY/.test(text)) {
      this.#blame("public_key_file holds a private key, which belongs to the issuer alone");
      return undefined;
    }
    let key: KeyObject;
    try {
      key = createPublicKey(text);
    } catch {
      this.#blame("public_key_file holds no public key in PEM");
      return undefined;
    }
    const { namedCurve, modulusLength } = key.asymmetricKeyDetails ?? {};
    if (modulusLength !== undefined && modulusLength < minRsaBits) {
      this.#blame(`public_key_file holds an RSA key of less than ${minRsaBits} bits`);
    }
    const ofKey = algorithmsOfKey[namedCurve ?? key.asymmetricKeyType ?? ""] ?? [];
    const algorithms = ofKey.filter((name) => allowed.includes(name));
    if (algorithms.length === 0) {
      this.#blame("public_key_file holds a key for none of auth.jwks.allowed_algorithms");
    }
    return { keys: { kind: "public_key", key }, algorithms };
  }

  #readFile(field: Field, path: string): string | undefined {
    try {
      return this.#files.read(resolve(path));
    } catch (error) {
      const code = error instanceof Error && "code" in error ? String(error.code) : String(error);
      this.#blame(`${field} names a file that cannot be read (${code}): ${resolve(path)}`);
      return undefined;
    }
  }

  #tenantId(): number {
    const value = this.#table.tenant_id ?? defaultTenantId;
    if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
    this.#blame("tenant_id must be a whole number");
    return defaultTenantId;
  }

  /** Custom ones are looked for at each login: they are in the catalog. */
  #roles(): readonly string[] {
    const value = this.#table.roles ?? ["readonly"];
    if (Array.isArray(value) && value.every((role) => typeof role === "string" && role !== "")) {
      if (value.includes("superuser")) this.#blame("roles must not hold superuser");
      return [...new Set<string>(value)];
    }
    this.#blame("roles must be a list of names");
    return [];
  }

  #required(field: Field): string {
    const text = this.#text(field);
    if (text === undefined && this.#table[field] === undefined) this.#blame(`${field} is missing`);
    return text ?? "";
  }

  #text(field: Field): string | undefined {
    const value = this.#table[field];
    if (value === undefined) return undefined;
    if (typeof value === "string" && value !== "" && !value.includes("\0")) return value;
    this.#blame(`${field} must be text`);
    return undefined;
  }

  #checkUrl(field: "issuer" | "jwks_url", value: string): void {
    if (value === "") return;
    const mistake = providerUrlMistake(field, value);
    if (mistake !== undefined) this.#blame(`${field} ${mistake}`);
  }

  #blame(message: string): void {
    this.#isSound = false;
    this.#report(message);
  }
}

/** What a provider is called that has no name: its host, or all of what is no URL. */
function nameOf(issuer: string): string {
  const host = URL.canParse(issuer) ? new URL(issuer).host : issuer;
  return Buffer.from(host)
    .subarray(0, maxNameBytes)
    .toString("utf8")
    .replace(/\uFFFD$/, "");
}
