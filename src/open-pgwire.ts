/** The port of the PostgreSQL protocol, put together. */

import type { DatabaseNames } from "./catalog/database-names.ts";
import type { Config } from "./config/config.ts";
import type { ExecutorDependencies } from "./exec/context.ts";
import { resultColumns } from "./exec/result-columns.ts";
import type { LiveSettings } from "./live-settings.ts";
import type { IdentityServices } from "./open-identity.ts";
import type { TlsFiles } from "./open-tls.ts";
import { CancelRegistry } from "./session/cancel-registry.ts";
import { Listener } from "./session/listener.ts";
import { createRandomBytes } from "./session/random-bytes.ts";
import type { SessionServices } from "./session/services.ts";
import type { SessionRegistry } from "./session/session-registry.ts";
import { deriveSecret } from "./upstream/role-credential.ts";
import type { TransportFactory } from "./wire/transport-factory.ts";

export interface PgwireParts
  extends Pick<
    SessionServices,
    | "pool"
    | "claims"
    | "executor"
    | "prepareDatabase"
    | "cancelUpstream"
    | "endUpstream"
    | "databaseRelease"
    | "loginGuard"
    | "recordLogin"
  > {
  readonly deps: Pick<ExecutorDependencies, "catalog" | "audit" | "log">;
  readonly identities: Pick<IdentityServices, "bearer" | "issuerOf">;
  readonly masterSecret: Buffer;
  readonly settings: LiveSettings;
  readonly tls: TlsFiles;
  readonly transports: TransportFactory;
  readonly registry: SessionRegistry;
  readonly databaseNames: DatabaseNames;
  readonly defaultDatabase: string;
}

/** Takes no port yet: `listen` and `open` of the listener do. It follows the certificates and limits as they change. */
export function openPgwire({ server, auth }: Config, parts: PgwireParts): Listener {
  const { deps, identities, masterSecret, settings, tls, databaseNames, ...shared } = parts;
  const { transports, registry, defaultDatabase, ...services } = shared;
  const listener = new Listener(
    {
      host: server.host,
      port: server.ports.pgwire,
      get maxConnections() {
        return settings.current.server.maxConnections;
      },
      get authenticationTimeoutMs() {
        return settings.current.server.authenticationTimeoutMs;
      },
      get isTlsRequired() {
        return tls.isRequired;
      },
      defaultDatabase,
      transports,
      services: {
        ...services,
        cancels: new CancelRegistry(),
        randomBytes: createRandomBytes(),
        logins: {
          cache: deps.catalog.cache,
          mock: {
            secret: deriveSecret(masterSecret, "mock verifiers"),
            get iterations() {
              return settings.current.auth.scramIterations;
            },
          },
          areKeysPasswords: auth.apiKeys.pgwire,
        },
        columnsOf: resultColumns,
        databaseExists: (name) => databaseNames.exists(name),
        bearer: auth.pgwire.bearer
          ? { authenticator: identities.bearer, issuerOf: identities.issuerOf }
          : undefined,
        audit: deps.audit,
      },
      registry,
      log: deps.log,
    },
    tls.current,
  );
  tls.onChange((next) => {
    listener.tls = next;
  });
  return listener;
}
