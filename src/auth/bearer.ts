/** Bearer tokens (RFC 6750): an API key, or a token of an OIDC provider, to an Identity or a refusal with its reason. */

import type { PrincipalCache } from "../catalog/cache.ts";
import { authenticateApiKey } from "./bearer-api-key.ts";
import { authenticateToken, type TokenOptions } from "./bearer-jwt.ts";
import type { BearerOutcome } from "./bearer-outcome.ts";
import { requireDatabase } from "./effective-databases.ts";
import { externalRolePrefix, type Identity } from "./identity.ts";
import type { LoginGuard } from "./login-guard.ts";

/** Where a token came from. */
export interface BearerSource {
  /** The client's, without its port. */
  readonly address: string;
  /** The database that the client asked for; undefined: the identity's default, and without one the caller's to check. */
  readonly database: string | undefined;
  /** Of a session that begins with this token; absent where each request brings it. */
  readonly sessionId?: string;
  /** Whom the client claims to be, where its protocol has it say so: the token of somebody else is refused. */
  readonly user?: string;
}

/** Checks tokens, counts and audits what it refuses, and notes the use of what it accepts. */
export interface BearerAuthenticator {
  /**
   * The caller answers every refusal alike.
   *
   * @throws SqlError insufficient_privilege with DATABASE_NOT_AUTHORIZED when the token is good and not for this database
   */
  authenticate(token: string, from: BearerSource): Promise<BearerOutcome>;
}

export interface BearerOptions {
  readonly cache: Pick<PrincipalCache, "findById" | "findKeyById">;
  readonly guard: Pick<
    LoginGuard,
    "bearerRefusalFor" | "recordBearerFailure" | "recordBearerSuccess" | "recordDatabaseDenied"
  >;
  /** Told of each use, for last_login_at and the key's last_used_at. */
  readonly recordLogin: (identity: Identity) => void;
  readonly tokens: TokenOptions;
  readonly now?: () => Date;
}

/** A longer token is refused unread, in bytes. */
export const maxTokenBytes = 16_384;

export function createBearerAuthenticator(options: BearerOptions): BearerAuthenticator {
  const { cache, guard, recordLogin } = options;
  const now = options.now ?? (() => new Date());
  const verify = async (token: string): Promise<BearerOutcome> => {
    if (Buffer.byteLength(token) > maxTokenBytes) return { ok: false, reason: "malformed_token" };
    return methodOf(token) === "jwt"
      ? authenticateToken(options.tokens, token, now())
      : authenticateApiKey(cache, token, now());
  };
  return {
    authenticate: async (token, from) => {
      const barrier = guard.bearerRefusalFor(from.address);
      const verified: BearerOutcome =
        barrier === undefined ? await verify(token) : { ok: false, reason: barrier };
      const outcome: BearerOutcome = isOf(from.user, verified)
        ? verified
        : { ...providerOf(verified), ok: false, reason: "token_of_another" };
      if (!outcome.ok) {
        guard.recordBearerFailure(from.address, outcome.reason, {
          method: methodOf(token),
          provider: outcome.provider,
        });
        return outcome;
      }
      const { identity } = outcome;
      guard.recordBearerSuccess(from.address, identity, from.sessionId);
      recordLogin(identity);
      const database = from.database ?? identity.defaultDatabase;
      if (database !== undefined) {
        try {
          requireDatabase(identity.databases, database);
        } catch (error) {
          guard.recordDatabaseDenied(from.address, identity, database, from.sessionId);
          throw error;
        }
      }
      return outcome;
    },
  };
}

function providerOf({ provider }: BearerOutcome): { readonly provider?: string } {
  return provider === undefined ? {} : { provider };
}

/** No key has a dot, and no token is without: neither is ever tried as the other. */
function methodOf(token: string): "api-key" | "jwt" {
  return token.includes(".") ? "jwt" : "api-key";
}

/**
 * Whether a token is of whom the client claims to be: the name of the principal, or `oidc:<provider>` for everybody whom that
 * provider vouches for. A refused one is nobody's, and stays refused.
 */
function isOf(user: string | undefined, outcome: BearerOutcome): boolean {
  if (user === undefined || !outcome.ok) return true;
  const { identity, provider } = outcome;
  return user === identity.role || (provider !== undefined && user === `${externalRolePrefix}${provider}`);
}
