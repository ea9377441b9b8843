/**
 * Which connections claims were sealed for. A later connection can look like an earlier one to PostgreSQL: process ids come round
 * (after 32,768 processes on many a machine), and by a unix socket there is no port to tell the two apart. To that one, an
 * envelope that a client has kept would bring back the claims from before.
 */

import { createHash } from "node:crypto";
import type { ClaimsBinding } from "./claims-envelope.ts";

interface Sealed {
  /** A hash of the claims; undefined when there were different ones. */
  readonly claims: string | undefined;
  /** When the last envelope has expired, whichever of the clocks is slow; in milliseconds since 1970. */
  readonly untilMs: number;
}

export class SealedConnections {
  readonly #keptMs: number;
  /** The oldest entry first. */
  readonly #sealed = new Map<string, Sealed>();

  /** @param lifetimeMs of envelopes; they are remembered twice as long, because the clocks of two machines may differ */
  constructor(lifetimeMs: number) {
    this.#keptMs = 2 * lifetimeMs;
  }

  /** Whether a new connection may carry these claims: false while an envelope with others may be good for it. */
  mayOpen(binding: ClaimsBinding, claimsJson: string, nowMs: number): boolean {
    const earlier = this.#sealed.get(keyOf(binding));
    return earlier === undefined || earlier.untilMs <= nowMs || earlier.claims === hashOf(claimsJson);
  }

  /** Notes that an envelope with these claims was sealed for a connection. */
  note(binding: ClaimsBinding, claimsJson: string, nowMs: number): void {
    const key = keyOf(binding);
    const earlier = this.#sealed.get(key);
    const claims = hashOf(claimsJson);
    const isMixed = earlier !== undefined && earlier.untilMs > nowMs && earlier.claims !== claims;
    this.#sealed.delete(key);
    this.#sealed.set(key, { claims: isMixed ? undefined : claims, untilMs: nowMs + this.#keptMs });
    for (const [oldest, { untilMs }] of this.#sealed) {
      if (untilMs > nowMs) break;
      this.#sealed.delete(oldest);
    }
  }

  /** How many are remembered. */
  get size(): number {
    return this.#sealed.size;
  }
}

function keyOf({ database, sessionUser, processId, clientPort }: ClaimsBinding): string {
  return JSON.stringify([database, sessionUser, processId, clientPort]);
}

function hashOf(claimsJson: string): string {
  return createHash("sha256").update(claimsJson).digest("base64");
}
