/** The JWK sets of all providers: one source per issuer and URL, however many providers share it. */

import { createHash } from "node:crypto";
import { type JwksOptions, JwksSource, type JwksStatus } from "./jwks-source.ts";
import type { KeyOutcome, TokenHeader } from "./jwt.ts";
import type { TokenProvider } from "./token-provider.ts";

interface Entry {
  readonly source: JwksSource;
  /** The latest wish for a refresh that has been followed, in milliseconds since 1970. */
  refreshedForMs: number | undefined;
}

export class JwksStore {
  readonly #options: JwksOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #closing = new Set<Promise<void>>();

  constructor(options: JwksOptions) {
    this.#options = options;
  }

  /** Follows the list of providers: new ones are asked for their keys, those of dropped ones are forgotten. */
  setProviders(providers: readonly TokenProvider[]): void {
    const wanted = new Set<string>();
    for (const provider of providers) {
      const { issuer, keys, refreshRequestedAt } = provider;
      if (keys.kind !== "jwks") continue;
      const id = idOf(issuer, keys.url);
      wanted.add(id);
      const requestedMs = refreshRequestedAt?.getTime();
      const entry = this.#entries.get(id);
      if (entry === undefined) {
        const source = new JwksSource({ id, issuer, url: keys.url }, this.#options);
        this.#entries.set(id, { source, refreshedForMs: requestedMs });
      } else if (requestedMs !== undefined && requestedMs > (entry.refreshedForMs ?? 0)) {
        // Compared with what was seen before, not with a clock: PostgreSQL's may be another.
        entry.refreshedForMs = requestedMs;
        void entry.source.refresh();
      }
    }
    for (const [id, { source }] of this.#entries) {
      if (wanted.has(id)) continue;
      this.#entries.delete(id);
      this.#track(source.close(true));
    }
  }

  /** The key of a provider's that a token's header names. */
  async find({ issuer, keys }: TokenProvider, header: TokenHeader): Promise<KeyOutcome> {
    if (keys.kind !== "jwks") return { ok: true, key: keys.key };
    const entry = this.#entries.get(idOf(issuer, keys.url));
    return entry === undefined ? { ok: false, reason: "keys_unavailable" } : entry.source.find(header);
  }

  statuses(): readonly JwksStatus[] {
    return [...this.#entries.values()].map(({ source }) => source.status);
  }

  async close(): Promise<void> {
    for (const { source } of this.#entries.values()) this.#track(source.close(false));
    this.#entries.clear();
    await Promise.all(this.#closing);
  }

  #track(closing: Promise<void>): void {
    const tracked = closing.finally(() => this.#closing.delete(tracked));
    this.#closing.add(tracked);
  }
}

/** One file and one source per pair, whatever characters are in it. */
function idOf(issuer: string, url: string | undefined): string {
  return createHash("sha256")
    .update(JSON.stringify([issuer, url ?? null]))
    .digest("hex");
}
