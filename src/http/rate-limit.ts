/** How many requests an identity may make within a minute. */

import { RateLimiterMemory, RateLimiterRes } from "rate-limiter-flexible";
import type { Identity } from "../auth/identity.ts";
import { HttpError } from "./http-error.ts";

/** @throws HttpError 429 with Retry-After, in seconds */
export type RateLimit = (identity: Identity) => Promise<void>;

/** @param requestsPerMin 0 is unlimited */
export function createRateLimit(requestsPerMin: number): RateLimit {
  if (requestsPerMin === 0) return async () => undefined;
  const limiter = new RateLimiterMemory({ points: requestsPerMin, duration: 60 });
  return async ({ principal }) => {
    try {
      await limiter.consume(principal.id);
    } catch (error) {
      if (!(error instanceof RateLimiterRes)) throw error;
      const seconds = Math.max(1, Math.ceil(error.msBeforeNext / 1000));
      throw new HttpError(429, "too many requests", {
        hint: "Wait as long as Retry-After says.",
        headers: { "retry-after": String(seconds) },
      });
    }
  };
}
