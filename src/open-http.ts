/** The HTTP interface, put together. */

import type { Pool } from "pg";
import type { BearerAuthenticator } from "./auth/bearer.ts";
import { createCertificateLogin } from "./auth/certificate-login.ts";
import { requireDatabase } from "./auth/effective-databases.ts";
import type { Identity } from "./auth/identity.ts";
import { mayStay } from "./auth/live-session.ts";
import type { LoginGuard } from "./auth/login-guard.ts";
import type { Catalog } from "./catalog/catalog.ts";
import type { Config } from "./config/config.ts";
import type { DatabaseRelease } from "./exec/database-release.ts";
import type { Executor } from "./exec/execute.ts";
import type { SessionGate } from "./exec/sessions.ts";
import { createApp } from "./http/app.ts";
import { HttpListener } from "./http/listener.ts";
import type { QueryServices } from "./http/query-routes.ts";
import { createRateLimit } from "./http/rate-limit.ts";
import type { Log } from "./observe/log.ts";
import type { Metrics } from "./observe/metrics.ts";
import type { TlsFiles } from "./open-tls.ts";
import { watchAvailability } from "./upstream/availability.ts";
import type { UpstreamPool } from "./upstream/pool.ts";
import { readVersion } from "./version.ts";

export interface HttpParts {
  readonly bearer: BearerAuthenticator;
  readonly catalog: Catalog;
  readonly loginGuard: LoginGuard;
  readonly recordLogin: (identity: Identity) => void;
  readonly tls: TlsFiles;
  readonly gate: SessionGate;
  readonly pool: UpstreamPool;
  readonly databaseRelease: DatabaseRelease;
  readonly executor: Executor;
  readonly cancelUpstream: QueryServices["cancelUpstream"];
  readonly endUpstream: QueryServices["endUpstream"];
  readonly prepareDatabase: QueryServices["prepareDatabase"];
  readonly defaultDatabase: string;
  readonly adminPool: Pool;
  readonly metrics: Metrics;
  readonly log: Log;
}

export interface HttpInterface {
  readonly port: number;
  /** Begins to serve; until then every request is told to come again. */
  open(): void;
  /** Takes the limits of another configuration, but for those of a request's body and of requests in a minute. */
  reloadLimits(config: Config): void;
  /** Accepts nobody any more; requests that run go on. */
  stopAccepting(): void;
  /** Resolves when the last answer is sent, or the time is over. */
  close(timeoutMs: number): Promise<void>;
}

/** Takes the port. @returns undefined when HTTP is switched off @throws the error of listen(2) */
export async function openHttp(config: Config, parts: HttpParts): Promise<HttpInterface | undefined> {
  const { http, server } = config;
  if (!http.enabled) return undefined;
  const { catalog, loginGuard, tls, log } = parts;
  let isOpen = false;
  let limits = config;
  const listener = new HttpListener(
    {
      host: server.host,
      port: server.ports.http,
      get maxConnections() {
        return limits.server.maxConnections;
      },
      get headersTimeoutMs() {
        return limits.server.authenticationTimeoutMs;
      },
      onCertificateRefused: (address) => loginGuard.recordCertificateFailure(address, "certificate_refused"),
      log,
    },
    tls.current,
  );
  tls.onChange((next) => listener.setTls(next));
  const app = createApp({
    credentials: {
      bearer: parts.bearer,
      certificateOf: (request) => listener.certificateOf(request.socket),
      certificateLogin: createCertificateLogin({
        cache: catalog.cache,
        guard: loginGuard,
        recordLogin: parts.recordLogin,
        policy: () => tls.current?.clients?.policy,
      }),
    },
    query: {
      ...parts,
      requireDatabase: (identity, database, address) => {
        try {
          requireDatabase(identity.databases, database);
        } catch (error) {
          loginGuard.recordDatabaseDenied(address, identity, database, undefined);
          throw error;
        }
      },
      isCurrent: (identity, database) => {
        const { certificateId } = identity;
        if (certificateId !== undefined && tls.isRevoked(certificateId)) return false;
        return mayStay(catalog.cache, { identity, database }, new Date());
      },
      get maxRows() {
        return limits.http.maxRows;
      },
      get maxResponseBytes() {
        return limits.http.maxResponseBytes;
      },
      get statementTimeoutMs() {
        return limits.http.statementTimeoutMs;
      },
      onDone: (tookMs, outcome) => parts.metrics.observeQuery(tookMs, outcome),
    },
    operation: {
      metrics: parts.metrics,
      areMetricsPublic: config.metrics.public,
      isUpstreamReachable: watchAvailability(() => parts.adminPool.query("SELECT")),
    },
    rateLimit: createRateLimit(http.requestsPerMin),
    corsOrigins: http.corsOrigins,
    version: readVersion(),
    maxBodyBytes: http.maxBodyBytes,
    get isTlsRequired() {
      return tls.isRequired;
    },
    makeServer: (handler) => listener.makeServer(handler),
    isOpen: () => isOpen,
    log,
  });
  await app.ready();
  return {
    port: await listener.listen(),
    open: () => {
      isOpen = true;
    },
    reloadLimits: (next) => {
      limits = next;
      listener.limitsChanged();
    },
    stopAccepting: () => {
      isOpen = false;
      listener.stopAccepting();
    },
    close: async (timeoutMs) => {
      await listener.close(timeoutMs);
      await app.close();
    },
  };
}
