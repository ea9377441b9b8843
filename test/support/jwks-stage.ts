/** A store of keys with one issuer, on a clock and a directory of its own: new for each test. */

import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach } from "vitest";
import type { JwksOptions } from "../../src/auth/jwks-source.ts";
import { JwksStore } from "../../src/auth/jwks-store.ts";
import type { TokenProvider } from "../../src/auth/token-provider.ts";
import { createLog } from "../../src/observe/log.ts";
import { type Issuer, type IssuerKey, makeKey, startIssuer } from "./issuer.ts";
import { until } from "./until.ts";

export const headerOf = ({ alg, kid }: IssuerKey) => ({ alg, kid });
export const unavailable = { ok: false, reason: "keys_unavailable" };
export const unknown = { ok: false, reason: "unknown_signing_key" };

export class JwksStage {
  /** ES256; what the issuer has at first. */
  readonly one: IssuerKey;
  /** RS256. */
  readonly two: IssuerKey;
  /** Of the copies. */
  readonly directory: string;
  issuer: Issuer;
  /** In milliseconds since 1970; tests move it. */
  nowMs = Date.now();
  readonly #stores: JwksStore[] = [];

  constructor(one: IssuerKey, two: IssuerKey, directory: string, issuer: Issuer) {
    this.one = one;
    this.two = two;
    this.directory = directory;
    this.issuer = issuer;
  }

  open(provider: TokenProvider, changes: Partial<JwksOptions> = {}): JwksStore {
    const store = new JwksStore({
      directory: this.directory,
      refreshMs: 3_600_000,
      minRefetchMs: 30_000,
      maxStaleMs: 86_400_000,
      fetch: { mayAskPrivate: false, timeoutMs: 2_000, maxBytes: 20_000 },
      log: createLog({ level: "silent", format: "json" }),
      clock: () => this.nowMs,
      ...changes,
    });
    this.#stores.push(store);
    store.setProviders([provider]);
    return store;
  }

  providerOf(changes: Partial<TokenProvider> = {}): TokenProvider {
    return {
      name: "main",
      source: "catalog",
      issuer: this.issuer.issuer,
      audience: "api",
      tenantId: 1,
      algorithms: ["ES256", "RS256"],
      keys: { kind: "jwks", url: this.issuer.jwksUrl },
      claimMapping: [],
      defaultRoles: [],
      refreshRequestedAt: undefined,
      ...changes,
    };
  }

  /** Its keys are where the discovery document says. */
  discovered(changes: Partial<TokenProvider> = {}): TokenProvider {
    return this.providerOf({ keys: { kind: "jwks", url: undefined }, ...changes });
  }

  jwksRequests(): number {
    return this.issuer.requests.filter((path) => path === "/jwks").length;
  }

  /** The copy is written after the keys are in use. */
  copied(): Promise<void> {
    return until(async () =>
      (await readdir(this.directory).catch(() => [])).some((name) => name.endsWith(".json")),
    );
  }

  async close(): Promise<void> {
    for (const store of this.#stores) await store.close();
    await this.issuer.close();
    await rm(join(this.directory, ".."), { recursive: true });
  }
}

/** @param onOpen takes each test's own */
export function useJwksStage(onOpen: (stage: JwksStage) => void): void {
  let one: IssuerKey;
  let two: IssuerKey;
  let stage: JwksStage;
  beforeAll(async () => {
    [one, two] = await Promise.all([makeKey("ES256", "one"), makeKey("RS256", "two")]);
  });
  beforeEach(async () => {
    const parent = await mkdtemp(join(tmpdir(), "nodedb-jwks-"));
    stage = new JwksStage(one, two, join(parent, "jwks"), await startIssuer([one]));
    onOpen(stage);
  });
  afterEach(() => stage.close());
}
