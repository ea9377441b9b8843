/** The configuration as the program sees it: parsed, in fixed units, with every default filled in. */

import type { KeyObject } from "node:crypto";
import type { Secret } from "./secret.ts";

export type UpstreamTls = "disable" | "prefer" | "verify-full";

/** An issuer of tokens that the configuration names, and what its signatures are checked with. */
export interface ConfiguredProvider {
  readonly name: string;
  readonly issuer: string;
  readonly audience: string;
  readonly tenantId: number;
  /** Of everybody whom it vouches for. */
  readonly roles: readonly string[];
  readonly algorithms: readonly string[];
  readonly keys: /** undefined: found by discovery. */
    | { readonly kind: "jwks"; readonly url: string | undefined }
    | { readonly kind: "public_key"; readonly key: KeyObject }
    | { readonly kind: "secret"; readonly key: KeyObject };
}

export interface Config {
  readonly server: {
    readonly host: string;
    readonly ports: { readonly pgwire: number; readonly http: number };
    /** Absolute. */
    readonly dataDir: string;
    readonly maxConnections: number;
    readonly authenticationTimeoutMs: number;
    readonly shutdownTimeoutMs: number;
    /** Absent: TLS is not offered. All paths are absolute. */
    readonly tls?: {
      readonly certPath: string;
      readonly keyPath: string;
      readonly required: boolean;
      /** Absent: clients are not asked for a certificate. */
      readonly clients?: {
        readonly caPath: string;
        readonly crlPath?: string;
        readonly identity: "cn" | "san_email" | "san_dns" | "san_uri";
        readonly required: boolean;
      };
    };
  };
  readonly upstream: {
    /** `postgres://…`, checked to be a URL, usually with a password. Absent: the embedded PostgreSQL. */
    readonly url?: Secret;
    readonly tls: UpstreamTls;
    readonly poolMode: "session";
    readonly poolSize: number;
    readonly maxConnections: number;
    /** 0 does not wait. */
    readonly queueTimeoutMs: number;
    /** 0 keeps idle connections. */
    readonly idleTimeoutMs: number;
    /** 0 is no limit. */
    readonly maxLifetimeMs: number;
    /** Absent when upstream.url names no database. */
    readonly defaultDatabase?: string;
  };
  readonly auth: {
    /** Schema of the functions that `$auth.…` stands for. */
    readonly schema: string;
    /** For transactions that begin. */
    readonly claimsLifetimeMs: number;
    /** Of settings with the claims one by one; absent: none are set. */
    readonly claimsPrefix?: string;
    readonly superuserName: string;
    /** For the first start; absent: generate one. */
    readonly superuserPassword?: Secret;
    readonly minPasswordLength: number;
    readonly scramIterations: number;
    /** 0 is off. */
    readonly idleTimeoutMs: number;
    /** 0 is off. */
    readonly sessionAbsoluteTimeoutMs: number;
    /** 0 is unlimited. */
    readonly maxConnectionsPerUser: number;
    /** 0 is never. */
    readonly maxFailedLogins: number;
    readonly lockoutDurationMs: number;
    /** Failures only; 0 is unlimited. */
    readonly loginAttemptsPerIpPerMin: number;
    /** Failures only; 0 is unlimited. */
    readonly loginAttemptsPerUserPerMin: number;
    readonly jwks: {
      readonly providers: readonly ConfiguredProvider[];
      readonly allowedAlgorithms: readonly string[];
      readonly clockSkewMs: number;
      readonly refreshMs: number;
      readonly minRefetchMs: number;
      readonly maxStaleMs: number;
      /** Whether issuers may have private addresses. */
      readonly allowPrivate: boolean;
      /** Name behind `$auth.` → claim, or dotted path to one. */
      readonly claims: Readonly<Record<string, string>>;
    };
    /** Whether a key is taken as a password by the PostgreSQL protocol. */
    readonly apiKeys: { readonly pgwire: boolean };
    readonly pgwire: {
      /** Whether OAUTHBEARER is offered. */
      readonly bearer: boolean;
    };
  };
  readonly http: {
    readonly enabled: boolean;
    readonly maxBodyBytes: number;
    readonly maxRows: number;
    readonly maxResponseBytes: number;
    readonly statementTimeoutMs: number;
    /** 0 is unlimited. */
    readonly requestsPerMin: number;
    /** Empty: no CORS; `*` among them: every origin. */
    readonly corsOrigins: readonly string[];
  };
  readonly metrics: { readonly public: boolean };
  readonly audit: { readonly level: "minimal" | "standard" | "full" };
  readonly log: {
    readonly level: "trace" | "debug" | "info" | "warn" | "error" | "fatal" | "silent";
    readonly format: "text" | "json";
  };
}

/** One thing to correct; the program does not start. */
export interface ConfigMistake {
  /** The configuration file, or undefined when the environment is to blame. */
  readonly file?: string | undefined;
  /** 1-based. */
  readonly line?: number | undefined;
  /** Dotted key, or the environment variable's name. */
  readonly key?: string | undefined;
  /** Never quotes a secret. */
  readonly message: string;
}

/** `nodedb.toml:12: server.host: …`, as compilers write it, so that editors can jump there. */
export function formatMistake(mistake: ConfigMistake): string {
  const place = mistake.line === undefined ? mistake.file : `${mistake.file}:${mistake.line}`;
  return [place, mistake.key, mistake.message].filter((part) => part !== undefined).join(": ");
}
