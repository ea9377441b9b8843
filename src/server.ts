/** The composition root: a Config in, a running front-end out. */

import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Identity } from "./auth/identity.ts";
import { LoginGuard } from "./auth/login-guard.ts";
import { catalogUnavailable } from "./catalog/connection.ts";
import { DatabaseNames } from "./catalog/database-names.ts";
import { openRecorders } from "./catalog/recorders.ts";
import type { SessionRow } from "./catalog/session-table.ts";
import type { Config } from "./config/config.ts";
import { loadMasterSecret } from "./config/master-secret.ts";
import type { EmbeddedPostgres } from "./embedded/embedded-postgres.ts";
import { SqlError } from "./errors/sql-error.ts";
import { type BootstrapResult, bootstrap } from "./exec/bootstrap.ts";
import type { ExecutorDependencies } from "./exec/context.ts";
import { DatabaseRelease } from "./exec/database-release.ts";
import { createDatabasePreparer } from "./exec/databases.ts";
import { createExecutor } from "./exec/execute.ts";
import { RoleDrift } from "./exec/role-drift.ts";
import { RoleReaper } from "./exec/role-reaper.ts";
import { sessionRowOf } from "./exec/session-row.ts";
import { LiveSettings } from "./live-settings.ts";
import type { Log } from "./observe/log.ts";
import { createMetrics } from "./observe/metrics.ts";
import { type Administration, openAdministration } from "./open-catalog.ts";
import { type HttpInterface, openHttp } from "./open-http.ts";
import { openIdentity } from "./open-identity.ts";
import { openPgwire } from "./open-pgwire.ts";
import { openPoolWatch } from "./open-pool-watch.ts";
import { openQuestions } from "./open-questions.ts";
import { openSessionWatch } from "./open-session-watch.ts";
import { openTlsFiles, type TlsFiles } from "./open-tls.ts";
import { openUpstream, type Upstream } from "./open-upstream.ts";
import type { ReloadPart } from "./reload.ts";
import { SessionRegistry } from "./session/session-registry.ts";
import { cancelUpstream } from "./upstream/cancel.ts";
import { ClaimsPublisher } from "./upstream/claims-publisher.ts";
import { endBackend } from "./upstream/end-backend.ts";
import { openUpstreamConnection } from "./upstream/login.ts";
import { UpstreamPool } from "./upstream/pool.ts";
import { deriveRoleCredential, deriveSecret } from "./upstream/role-credential.ts";
import type { UpstreamConnection } from "./upstream/upstream-connection.ts";
import type { UpstreamTarget } from "./upstream/upstream-target.ts";
import { chooseTransports } from "./wire/choose-transport.ts";

/** How often all sessions are looked at for what no timer and no notification tells: revoked certificates, clocks that are set. */
const expirySweepMs = 1_000;
const upstreamLoginTimeoutMs = 10_000;

/** How long HTTP requests of one identity rely on a look at its role: each is a login of its own. */
const requestDriftMs = 1_000;

/** For the last HTTP answers to reach their clients when no request runs any more. */
const lastAnswersMs = 2_000;

/** File in the data directory that names the ports, for those who asked for any free one. */
const portsFile = "ports.json";

export interface RunningServer {
  readonly host: string;
  /** `http` is absent when HTTP is switched off. */
  readonly ports: { readonly pgwire: number; readonly http?: number };
  /** For people: what stands behind. Holds no secret. */
  readonly upstream: string;
  readonly defaultDatabase: string;
  readonly superuserName: string;
  /** Only at the very first start, and only when none was given. */
  readonly generatedPassword: string | undefined;
  readonly isFirstStart: boolean;
  /** Resolves when the embedded PostgreSQL has ended for good without being asked to. */
  readonly upstreamEnded: Promise<void>;
  /** What takes another configuration while it runs, in the order in which they are to be given it. */
  readonly reloadParts: readonly ReloadPart[];
  /** Lets transactions end within the configured time, then closes everything. A second call cuts them off. */
  close(): Promise<void>;
}

/** @throws SqlError or Error with a message for the person who starts it; nothing is left running then */
export async function openServer(config: Config, log: Log): Promise<RunningServer> {
  const masterSecret = loadMasterSecret(config.server.dataDir);
  const tls = openTlsFiles(config.server.tls, log);
  let upstream: Upstream | undefined;
  try {
    upstream = await openUpstream(config, log);
    return await openOn(upstream, masterSecret, tls, config, log);
  } catch (error) {
    tls.close();
    await upstream?.embedded?.close();
    throw error;
  }
}

async function openOn(
  upstream: Upstream,
  masterSecret: Buffer,
  tls: TlsFiles,
  config: Config,
  log: Log,
): Promise<RunningServer> {
  const administration = await openAdministration(upstream, masterSecret, log);
  try {
    return await listenOn(upstream, masterSecret, tls, config, log, administration);
  } catch (error) {
    await administration.close();
    throw error;
  }
}

async function listenOn(
  upstream: Upstream,
  masterSecret: Buffer,
  tls: TlsFiles,
  config: Config,
  log: Log,
  administration: Administration,
): Promise<RunningServer> {
  const { catalog, adminPool, connect } = administration;
  const isEmbedded = upstream.embedded !== undefined;
  const { auth, server } = config;
  const settings = new LiveSettings(config);
  const roleOptions = {
    isEmbedded,
    masterSecret: isEmbedded ? undefined : masterSecret,
    defaultDatabase: upstream.defaultDatabase,
  };
  const databases = createDatabasePreparer({
    connect,
    roleOptions,
    claims: { schema: auth.schema, masterSecret },
    log,
  });
  const recorders = await openRecorders({
    connection: { ...upstream.admin, database: upstream.defaultDatabase },
    changes: catalog.changes,
    auditKey: deriveSecret(masterSecret, "audit chain"),
    auditLevel: config.audit.level,
    lockoutLimits: settings.lockout(),
    sessions: {
      rows: () => sessionRows(registry),
      kill: (sessionId, killedBy) => registry.kill(sessionId, killedBy),
    },
    log,
  });
  const { audit, lockout, sessionTable } = recorders;
  const registry = new SessionRegistry(
    settings.sessions((tenantId) => catalog.cache.tenantLimit(tenantId)),
    {
      audit,
      onChange: () => sessionTable.touch(),
      onAdmitted: (session) => sessionWatch.admitted(session),
      takePlace: (status, limits) =>
        sessionTable.takePlace(sessionRowOf(status), limits).catch((error: unknown) => {
          log.warn({ err: error }, "cannot count the sessions of other front-ends: a login is refused");
          throw catalogUnavailable(error);
        }),
    },
  );
  const transports = await chooseTransports();
  const open = (target: UpstreamTarget) =>
    openUpstreamConnection({
      endpoint: upstream.endpoint,
      transports,
      database: target.database,
      role: target.role,
      ...(isEmbedded
        ? {}
        : { credential: deriveRoleCredential(masterSecret, target.role, target.roleVersion) }),
      parameters: target.parameters,
      timeoutMs: upstreamLoginTimeoutMs,
      nonce: () => randomBytes(18).toString("base64"),
    });
  const claims = new ClaimsPublisher({
    masterSecret,
    lifetimeMs: auth.claimsLifetimeMs,
    prefix: auth.claimsPrefix,
    withdraw: (database, withdrawal) => databases.withdrawClaims(database, withdrawal),
  });
  const pool = new UpstreamPool(
    (target) => drift.open(target, open),
    (connection, target) => claims.publish(connection, target),
    settings.pool(),
    log,
    (waitedMs) => metrics.observeQueue(waitedMs),
  );
  const metrics = createMetrics({
    sessions: () => registry.statuses(),
    pool: () => pool.counts(),
    keySets: () => identities.jwksStatuses(),
  });
  const databaseRelease = new DatabaseRelease(pool, adminPool, log);
  const reaper = new RoleReaper({ catalog, adminConnection: upstream.admin, roleOptions, log });
  const deps: ExecutorDependencies = {
    catalog,
    adminConnection: upstream.admin,
    roleOptions,
    databases,
    reaper,
    sessions: {
      closeSessionsOf: (principalId, error, mayStay) => {
        // Also of those who stay: PostgreSQL looks at CONNECT only when a connection is opened.
        pool.closePrincipal(principalId);
        registry.closeSessionsOf(principalId, error, mayStay);
      },
    },
    sessionTable,
    audit,
    log,
    authFunctions: { schema: auth.schema, claims: new Set(Object.keys(auth.jwks.claims)) },
    get minPasswordLength() {
      return settings.current.auth.minPasswordLength;
    },
    get scramIterations() {
      return settings.current.auth.scramIterations;
    },
    apiKeySaltSecret: deriveSecret(masterSecret, "API key salts"),
    areKeysPasswords: auth.apiKeys.pgwire,
  };
  const questions = openQuestions(upstream, transports, connect);
  const drift = new RoleDrift(deps, questions, pool, (principalId) => {
    pool.closePrincipal(principalId);
    // A role that was made anew has lost its default privileges.
    databases.forget();
  });
  const loginGuard = new LoginGuard({
    lockout,
    audit,
    limits: settings.logins(),
    onOutcome: (method, outcome) => metrics.countAuthentication(method, outcome),
  });
  const recordLogin = ({ principal, keyId }: Identity) => {
    catalog.recordLogin(principal.id);
    if (keyId !== undefined) catalog.recordKeyUse(keyId);
  };
  const identities = openIdentity({ deps, config, loginGuard, recordLogin });
  const databaseNames = new DatabaseNames(recorders.pool, () => databases.forget());
  const sessionWatch = openSessionWatch({
    cache: catalog.cache,
    registry,
    isRevoked: tls.isRevoked,
    onGone: (principalId) => pool.closePrincipal(principalId),
    sweepMs: expirySweepMs,
  });
  const closePoolWatch = openPoolWatch({ cache: catalog.cache, adminPool, pool, log });
  const cancels = new Set<Promise<void>>();
  const executor = createExecutor(deps);
  /** @param maxAgeMs how long ago the identity's role may have been looked at */
  const prepareLogin = (maxAgeMs: number) => async (database: string, identity: Identity) => {
    await databaseNames.exists(database);
    await drift.check(identity, database, maxAgeMs);
    await databases.prepare(database, identity);
  };
  const untilDone = (work: Promise<void>) => {
    const cancel = work.finally(() => cancels.delete(cancel));
    cancels.add(cancel);
    return cancel;
  };
  const cancelConnection = (connection: UpstreamConnection) =>
    untilDone(cancelUpstream(upstream.endpoint, connection));
  const endConnection = (connection: UpstreamConnection) =>
    untilDone(endBackend(connection, { cancel: cancelConnection, admin: recorders.pool, log }));
  const listener = openPgwire(config, {
    deps,
    identities,
    loginGuard,
    recordLogin,
    masterSecret,
    settings,
    tls,
    transports,
    registry,
    pool,
    databaseRelease,
    claims,
    executor,
    databaseNames,
    prepareDatabase: prepareLogin(0),
    cancelUpstream: cancelConnection,
    endUpstream: endConnection,
    defaultDatabase: upstream.defaultDatabase,
  });
  let port: number;
  let http: HttpInterface | undefined;
  let first: BootstrapResult;
  try {
    // The ports first: a start that fails must not have made, and lost, a generated password.
    port = await listener.listen();
    http = await openHttp(config, {
      bearer: identities.bearer,
      catalog,
      loginGuard,
      recordLogin,
      tls,
      gate: registry,
      pool,
      databaseRelease,
      executor,
      cancelUpstream: cancelConnection,
      endUpstream: endConnection,
      prepareDatabase: prepareLogin(requestDriftMs),
      defaultDatabase: upstream.defaultDatabase,
      adminPool,
      metrics,
      log,
    });
    first = await bootstrap(deps, {
      superuserName: auth.superuserName,
      superuserPassword: auth.superuserPassword?.reveal(),
    });
    if (first.unreconciled.length > 0) {
      log.warn(
        { users: first.unreconciled },
        "the upstream login may not bring these users' roles up to date",
      );
    }
    await reaper.start();
  } catch (error) {
    listener.stopAccepting();
    await http?.close(0);
    pool.close();
    sessionWatch.close();
    await closePoolWatch();
    await reaper.close();
    await identities.close();
    questions.close();
    await recorders.close();
    throw error;
  }
  listener.open();
  http?.open();
  const ports = { pgwire: port, ...(http === undefined ? {} : { http: http.port }) };
  writeFileSync(join(server.dataDir, portsFile), `${JSON.stringify(ports)}\n`);
  log.debug({ transports: transports.kind, tlsTransports: transports.tlsKind }, "listening");

  let isClosing = false;
  const shutdown = new SqlError("admin_shutdown", "terminating connection due to administrator command", {
    severity: "FATAL",
  });
  return {
    host: server.host,
    ports,
    upstream: upstream.description,
    defaultDatabase: upstream.defaultDatabase,
    ...first,
    upstreamEnded: endedUnasked(upstream.embedded, () => isClosing),
    reloadParts: [
      // Before the certificates: a server that is made for these takes its limits once.
      {
        name: "limits",
        keys: ["server.", "upstream.", "auth.", "http."],
        apply: (next) => {
          settings.replace(next);
          pool.settingsChanged();
          http?.reloadLimits(next);
        },
      },
      {
        name: "certificate",
        keys: ["server.tls."],
        apply: (next) => tls.reload(next.server.tls),
      },
      { name: "providers of tokens", keys: ["auth.jwks."], apply: (next) => identities.reload(next) },
    ],
    close: async () => {
      if (isClosing) {
        await registry.endAll(shutdown, "after_statement", 0);
        return;
      }
      isClosing = true;
      tls.close();
      listener.stopAccepting();
      http?.stopAccepting();
      await registry.endAll(shutdown, "after_transaction", settings.current.server.shutdownTimeoutMs);
      await http?.close(lastAnswersMs);
      pool.close();
      // What was cut off upstream must be told before this process is gone.
      await Promise.all(cancels);
      sessionWatch.close();
      await closePoolWatch();
      await reaper.close();
      await identities.close();
      questions.close();
      await recorders.close();
      await administration.close();
      await upstream.embedded?.close();
    },
  };
}

/** The sessions of this process as the table of all front-ends has them. */
function* sessionRows(registry: SessionRegistry): Generator<SessionRow> {
  for (const status of registry.statuses()) yield sessionRowOf(status);
}

async function endedUnasked(embedded: EmbeddedPostgres | undefined, isClosing: () => boolean): Promise<void> {
  if (embedded === undefined) return new Promise(() => undefined);
  await embedded.exited;
  if (isClosing()) return new Promise(() => undefined);
}
