/** Who stands behind a credential that is no password: API keys and the tokens of OIDC providers, put together for one process. */

import { join } from "node:path";
import { type BearerAuthenticator, createBearerAuthenticator } from "./auth/bearer.ts";
import { externalRolePrefix, type Identity } from "./auth/identity.ts";
import type { JwksStatus } from "./auth/jwks-source.ts";
import { JwksStore } from "./auth/jwks-store.ts";
import type { LoginGuard } from "./auth/login-guard.ts";
import { providersOf, type TokenProvider } from "./auth/token-provider.ts";
import type { Config } from "./config/config.ts";
import type { ExecutorDependencies } from "./exec/context.ts";
import { createExternalIdentities } from "./exec/external-identity.ts";
import { reapExternalIdentities } from "./exec/external-identity-reaper.ts";

/** How long an external identity is kept that nobody uses. */
const unusedExternalMs = 30 * 86_400_000;
const reapIntervalMs = 3_600_000;

/** For an issuer's keys, its discovery document included. */
const fetchTimeoutMs = 5_000;
/** Of either document. */
const maxDocumentBytes = 512 * 1024;

export interface IdentityOptions {
  readonly deps: ExecutorDependencies;
  readonly config: Config;
  readonly loginGuard: LoginGuard;
  readonly recordLogin: (identity: Identity) => void;
}

export interface IdentityServices {
  readonly bearer: BearerAuthenticator;
  /** The issuer of the provider whose identities a user name of pgwire stands for: `oidc:<provider>`, or such a role's. */
  issuerOf(user: string): string | undefined;
  /** Takes the providers of another configuration, their algorithms and the clock skew. */
  reload(next: Config): void;
  /** Of every issuer that is asked for its keys, for /metrics. */
  jwksStatuses(): readonly JwksStatus[];
  close(): Promise<void>;
}

/** Begins to fetch the keys of all providers; a login waits for those that it needs. */
export function openIdentity(options: IdentityOptions): IdentityServices {
  const { deps, config, loginGuard, recordLogin } = options;
  const { log } = deps;
  const { cache } = deps.catalog;
  let { jwks } = config.auth;
  const store = new JwksStore({
    directory: join(config.server.dataDir, "jwks"),
    refreshMs: jwks.refreshMs,
    minRefetchMs: jwks.minRefetchMs,
    maxStaleMs: jwks.maxStaleMs,
    fetch: {
      mayAskPrivate: jwks.allowPrivate,
      timeoutMs: fetchTimeoutMs,
      maxBytes: maxDocumentBytes,
    },
    log,
  });
  let providers: readonly TokenProvider[] = [];
  const readProviders = () => {
    providers = providersOf(cache.providers(), jwks.providers, jwks.allowedAlgorithms);
    store.setProviders(providers);
  };
  readProviders();
  const stopFollowing = cache.onChange(readProviders);
  let lastReaping: Promise<unknown> = Promise.resolve();
  const reap = () => {
    lastReaping = reapExternalIdentities(deps, unusedExternalMs).catch((error: unknown) =>
      log.warn({ err: error }, "cannot drop unused external identities"),
    );
  };
  const reaper = setInterval(reap, reapIntervalMs).unref();
  const bearer = createBearerAuthenticator({
    cache,
    guard: loginGuard,
    recordLogin,
    tokens: {
      providers: () => providers,
      findKey: (provider, header) => store.find(provider, header),
      get clockSkewMs() {
        return jwks.clockSkewMs;
      },
      claimNames: jwks.claims,
      resolve: createExternalIdentities(deps),
    },
  });
  return {
    bearer,
    issuerOf: (user) =>
      providers.find(({ name }) => {
        const everybody = `${externalRolePrefix}${name}`;
        return user === everybody || user.startsWith(`${everybody}:`);
      })?.issuer,
    jwksStatuses: () => store.statuses(),
    reload: (next) => {
      jwks = next.auth.jwks;
      readProviders();
    },
    close: async () => {
      stopFollowing();
      clearInterval(reaper);
      await lastReaping;
      await store.close();
    },
  };
}
