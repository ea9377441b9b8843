/** Everything that stands behind bearer tokens, over a real catalog: the composition that the front-end itself uses. */

import type { BearerOutcome } from "../../src/auth/bearer-outcome.ts";
import type { Identity } from "../../src/auth/identity.ts";
import { LoginGuard } from "../../src/auth/login-guard.ts";
import { loadConfig } from "../../src/config/load.ts";
import { type IdentityServices, openIdentity } from "../../src/open-identity.ts";
import type { CatalogStack } from "./catalog-stack.ts";

export interface IdentityStack {
  readonly services: IdentityServices;
  /** Presents a token. */
  present(token: string, database?: string): Promise<BearerOutcome>;
  /** Presents one that must be taken. @throws with the reason when it is not */
  identityOf(token: string, database?: string): Promise<Identity>;
}

/** @param toml the rest of the configuration */
export function openIdentityStack(stack: CatalogStack, dataDir: string, toml = ""): IdentityStack {
  const loaded = loadConfig({
    path: "nodedb.toml",
    env: { NODEDB_DATA_DIR: dataDir },
    files: { read: () => toml, mode: () => 0o600 },
  });
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.mistakes));
  const services = openIdentity({
    deps: stack.deps,
    config: loaded.config,
    loginGuard: new LoginGuard({
      lockout: { isLocked: () => false, recordFailure: () => undefined, recordSuccess: () => undefined },
      audit: stack.deps.audit,
      limits: { attemptsPerAddressPerMinute: 0, attemptsPerUserPerMinute: 0 },
    }),
    recordLogin: ({ principal }) => stack.catalog.recordLogin(principal.id),
  });
  const present = (token: string, database?: string) =>
    services.bearer.authenticate(token, { address: "192.0.2.7", database });
  return {
    services,
    present,
    identityOf: async (token, database) => {
      const outcome = await present(token, database);
      if (!outcome.ok) throw new Error(`refused: ${outcome.reason}`);
      return outcome.identity;
    },
  };
}
