/** The settings that a reload changes: what is given out here says at each look what is configured now. */

import type { LoginLimits } from "./auth/login-guard.ts";
import type { LockoutLimits } from "./catalog/lockout.ts";
import type { Config } from "./config/config.ts";
import type { SessionLimits } from "./session/session-registry.ts";
import type { PoolSettings } from "./upstream/pool.ts";

export class LiveSettings {
  #config: Config;

  constructor(config: Config) {
    this.#config = config;
  }

  /** Of a key that needs a restart this may say what does not hold: take it from the configuration of the start. */
  get current(): Config {
    return this.#config;
  }

  replace(next: Config): void {
    this.#config = next;
  }

  sessions(tenantLimit: (tenantId: number) => number | undefined): SessionLimits {
    const now = () => this.#config;
    return {
      get maxConnections() {
        return now().server.maxConnections;
      },
      get maxConnectionsPerUser() {
        return now().auth.maxConnectionsPerUser;
      },
      get idleTimeoutMs() {
        return now().auth.idleTimeoutMs;
      },
      get absoluteTimeoutMs() {
        return now().auth.sessionAbsoluteTimeoutMs;
      },
      tenantLimit,
    };
  }

  pool(): PoolSettings {
    const now = () => this.#config.upstream;
    return {
      get poolSize() {
        return now().poolSize;
      },
      get maxConnections() {
        return now().maxConnections;
      },
      get queueTimeoutMs() {
        return now().queueTimeoutMs;
      },
      get idleTimeoutMs() {
        return now().idleTimeoutMs;
      },
      get maxLifetimeMs() {
        return now().maxLifetimeMs;
      },
    };
  }

  lockout(): LockoutLimits {
    const now = () => this.#config.auth;
    return {
      get maxFailures() {
        return now().maxFailedLogins;
      },
      get durationMs() {
        return now().lockoutDurationMs;
      },
    };
  }

  logins(): LoginLimits {
    const now = () => this.#config.auth;
    return {
      get attemptsPerAddressPerMinute() {
        return now().loginAttemptsPerIpPerMin;
      },
      get attemptsPerUserPerMinute() {
        return now().loginAttemptsPerUserPerMin;
      },
    };
  }
}
