/**
 * The JWK set of one provider: fetched, refreshed, kept on disk, and given up when it is too old.
 *
 * Ours and not jose's remote set: that one forgets a set that is older than its cache, has nothing to fall back on when the
 * provider is down, and asks again at once after a failure. The circuit breaker is the spacing of attempts, which doubles with each
 * failure: with one attempt at a time there is nothing for a half-open state to let through, and so nothing for a library to do.
 */

import type { Log } from "../observe/log.ts";
import type { FetchOptions } from "./fetch-document.ts";
import { fetchDocument } from "./fetch-document.ts";
import { discoveryUrl, parseDiscovery, parseJwks, type SigningKey, selectKey } from "./jwks-document.ts";
import { type CopyOf, readJwksCopy, removeJwksCopy, writeJwksCopy } from "./jwks-file.ts";
import type { KeyOutcome, TokenHeader } from "./jwt.ts";

export interface JwksOptions {
  /** Where the copies are. */
  readonly directory: string;
  /** Age at which a set is fetched again, in the background. */
  readonly refreshMs: number;
  /** Least time between two attempts, whoever causes them. */
  readonly minRefetchMs: number;
  /** Age from which a set is not used. */
  readonly maxStaleMs: number;
  /** The time is for discovery document and keys together. */
  readonly fetch: FetchOptions;
  readonly log: Log;
  /** In milliseconds since 1970: the ages of copies outlive the process. */
  readonly clock?: () => number;
}

/** For /metrics. */
export interface JwksStatus {
  readonly issuer: string;
  /** undefined: there is no set. */
  readonly ageMs: number | undefined;
  /** Attempts that have failed since the last good one. */
  readonly failures: number;
}

/** Attempts are spaced up to this many times the least time. */
const maxBackOff = 16;

export class JwksSource {
  readonly #of: CopyOf;
  readonly #options: JwksOptions;
  readonly #clock: () => number;
  #keys: readonly SigningKey[] = [];
  #fetchedAtMs: number | undefined;
  #lastAttemptMs = Number.NEGATIVE_INFINITY;
  #failures = 0;
  #attempt: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;
  readonly #opened: Promise<void>;

  constructor(of: CopyOf, options: JwksOptions) {
    this.#of = of;
    this.#options = options;
    this.#clock = options.clock ?? Date.now;
    this.#opened = this.#open();
  }

  get status(): JwksStatus {
    const ageMs = this.#fetchedAtMs === undefined ? undefined : this.#clock() - this.#fetchedAtMs;
    return { issuer: this.#of.issuer, ageMs, failures: this.#failures };
  }

  /** The key of a token's header; for one that is not known the set is fetched again, as often as that is allowed. */
  async find(header: TokenHeader): Promise<KeyOutcome> {
    await this.#opened;
    const known = this.#select(header);
    if (known !== undefined) return { ok: true, key: known.key };
    await this.#refetch();
    const found = this.#select(header);
    if (found !== undefined) return { ok: true, key: found.key };
    return { ok: false, reason: this.#isUsable ? "unknown_signing_key" : "keys_unavailable" };
  }

  /** Fetches the set again at once, however short ago that was: an administrator's wish. Never rejects. */
  async refresh(): Promise<void> {
    await this.#opened;
    await this.#attempt;
    await this.#try();
  }

  /** @param isGone the provider is: its copy goes too */
  async close(isGone: boolean): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    await this.#opened;
    await this.#attempt;
    clearTimeout(this.#timer);
    if (!isGone) return;
    await removeJwksCopy(this.#options.directory, this.#of).catch((error: unknown) =>
      this.#options.log.warn({ err: error, issuer: this.#of.issuer }, "cannot remove the copy of a JWK set"),
    );
  }

  get #isUsable(): boolean {
    return this.#fetchedAtMs !== undefined && this.#clock() - this.#fetchedAtMs <= this.#options.maxStaleMs;
  }

  get #waitMs(): number {
    const { minRefetchMs } = this.#options;
    return minRefetchMs * Math.min(2 ** Math.max(0, this.#failures - 1), maxBackOff);
  }

  #select(header: TokenHeader): SigningKey | undefined {
    return this.#isUsable ? selectKey(this.#keys, header) : undefined;
  }

  /** The copy first; the provider is asked in any case, and only waited for where there is no copy. */
  async #open(): Promise<void> {
    const { directory, log } = this.#options;
    try {
      const copy = await readJwksCopy(directory, this.#of);
      // One from the future would never grow old.
      if (copy !== undefined && copy.fetchedAtMs <= this.#clock()) {
        this.#keys = parseJwks(copy.body);
        this.#fetchedAtMs = copy.fetchedAtMs;
      }
    } catch (error) {
      log.warn({ err: error, issuer: this.#of.issuer }, "cannot use the copy of a JWK set");
    }
    void this.#try();
  }

  /** One attempt for all who want one, and none when the last one was too short ago. */
  #refetch(): Promise<void> {
    if (this.#attempt !== undefined) return this.#attempt;
    if (this.#clock() - this.#lastAttemptMs < this.#waitMs) return Promise.resolve();
    return this.#try();
  }

  #try(): Promise<void> {
    if (this.#isClosed) return Promise.resolve();
    this.#attempt ??= this.#fetch().finally(() => {
      this.#attempt = undefined;
      this.#refreshLater();
    });
    return this.#attempt;
  }

  async #fetch(): Promise<void> {
    const { directory, fetch, log } = this.#options;
    const { issuer } = this.#of;
    this.#lastAttemptMs = this.#clock();
    let body: Buffer;
    try {
      const startMs = performance.now();
      const url = this.#of.url ?? parseDiscovery(await fetchDocument(discoveryUrl(issuer), fetch), issuer);
      const timeoutMs = Math.max(0, Math.ceil(fetch.timeoutMs - (performance.now() - startMs)));
      body = await fetchDocument(url, { ...fetch, timeoutMs });
      this.#keys = parseJwks(body);
    } catch (error) {
      this.#failures += 1;
      const reason = error instanceof Error ? error.message : String(error);
      log.warn({ issuer, reason, failures: this.#failures }, "cannot fetch the keys of an OIDC provider");
      return;
    }
    this.#failures = 0;
    this.#fetchedAtMs = this.#clock();
    await writeJwksCopy(directory, this.#of, { body, fetchedAtMs: this.#fetchedAtMs }).catch(
      (error: unknown) => log.warn({ err: error, issuer }, "cannot write the copy of a JWK set"),
    );
  }

  #refreshLater(): void {
    clearTimeout(this.#timer);
    if (this.#isClosed) return;
    const waitMs = this.#failures === 0 ? this.#options.refreshMs : this.#waitMs;
    // A little apart, so that front-ends that were started together do not ask together.
    this.#timer = setTimeout(() => void this.#try(), waitMs * (0.9 + Math.random() * 0.1)).unref();
  }
}
