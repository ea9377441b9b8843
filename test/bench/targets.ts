/** What clients of the benchmark connect to: PostgreSQL itself, or a proxy in front of it. */

import type { TargetName } from "./arguments.ts";
import type { HttpEndpoint } from "./http-load.ts";
import { directUser, type PostgresServer } from "./postgres-server.ts";

/** Where clients connect, always by TCP on loopback with SCRAM, and with which login. */
export interface Endpoint {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string;
  readonly database: string;
  /** As libpq reads PGSSLMODE. */
  readonly sslMode: "disable" | "require";
}

/** Of a proxy that clients are to reach encrypted; PEM files. */
export interface TlsFiles {
  readonly certPath: string;
  readonly keyPath: string;
}

export function sslModeOf(tls: TlsFiles | undefined): Endpoint["sslMode"] {
  return tls === undefined ? "disable" : "require";
}

export interface Target {
  readonly name: TargetName;
  readonly endpoint: Endpoint;
  /** Process whose CPU time and memory, with those of its children, are measured; undefined for PostgreSQL itself. */
  readonly proxyPid: number | undefined;
  readonly version: string;
  /** undefined: it speaks no HTTP. */
  readonly http?: HttpEndpoint;
  close(): Promise<void>;
}

/** PostgreSQL without a proxy: what the others are compared with. */
export function directTarget(server: PostgresServer, password: string, databaseName: string): Target {
  return {
    name: "direct",
    endpoint: {
      host: "127.0.0.1",
      port: server.port,
      user: directUser,
      password,
      database: databaseName,
      sslMode: "disable",
    },
    proxyPid: undefined,
    version: `PostgreSQL ${server.version}`,
    close: async () => {},
  };
}
