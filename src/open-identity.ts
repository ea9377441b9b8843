/** Who stands behind a credential that is no password: the bearer tokens of this process, put together. */

import { type BearerAuthenticator, createBearerAuthenticator } from "./auth/bearer.ts";
import type { Identity } from "./auth/identity.ts";
import type { LoginGuard } from "./auth/login-guard.ts";
import type { Catalog } from "./catalog/catalog.ts";

export interface IdentityOptions {
  readonly catalog: Catalog;
  readonly loginGuard: LoginGuard;
  readonly recordLogin: (identity: Identity) => void;
}

export interface IdentityServices {
  readonly bearer: BearerAuthenticator;
}

export function openIdentity({ catalog, loginGuard, recordLogin }: IdentityOptions): IdentityServices {
  return {
    bearer: createBearerAuthenticator({ cache: catalog.cache, guard: loginGuard, recordLogin }),
  };
}
