/** When sessions end by the clock: at their moment, by whatever that is set. */

import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Identity } from "../../src/auth/identity.ts";
import { identityOf } from "../../src/auth/password.ts";
import type { ApiKeyRecord } from "../../src/catalog/api-keys.ts";
import type { PrincipalRecord } from "../../src/catalog/users.ts";
import type { EndingMode, ManagedSession } from "../../src/exec/sessions.ts";
import { openSessionWatch, type SessionWatch } from "../../src/open-session-watch.ts";
import { SessionRegistry } from "../../src/session/session-registry.ts";
import { makeApiKeyRecord, makePrincipal } from "../support/principals.ts";

const start = Date.parse("2026-01-01T00:00:00Z");
const hourMs = 3_600_000;
const inMs = (delay: number) => new Date(start + delay);

/** A session that notes how it is ended, and goes at once or stays to finish its statement. */
class NotedSession implements ManagedSession {
  readonly profile: ManagedSession["profile"];
  readonly connectedAtMs = start;
  readonly activity = 0;
  readonly isIdle = true;
  readonly isInTransaction = false;
  readonly isQueued = false;
  readonly ends: { atMs: number; code: string; mode: EndingMode }[] = [];
  readonly #onEnd: (session: NotedSession) => void;

  constructor(identity: Identity, onEnd: (session: NotedSession) => void) {
    this.profile = { id: "x", identity, database: "a", clientAddress: "192.0.2.7", protocol: "pgwire" };
    this.#onEnd = onEnd;
  }

  renewClaims(): void {}

  end(error: { sqlstate: string }, mode: EndingMode): void {
    this.ends.push({ atMs: Date.now() - start, code: error.sqlstate, mode });
    this.#onEnd(this);
  }

  fail(): void {
    throw new Error("the test ends sessions only");
  }
}

describe("a session that expires", () => {
  let record: PrincipalRecord;
  let key: ApiKeyRecord;
  let changed: () => void;
  /** How often the catalog was asked. */
  let looks: number;
  let registry: SessionRegistry;
  let watch: SessionWatch;

  beforeEach(() => {
    vi.useFakeTimers({ now: start });
    record = makePrincipal();
    key = makeApiKeyRecord();
    registry = new SessionRegistry(
      { maxConnections: 10, maxConnectionsPerUser: 0, idleTimeoutMs: 0, absoluteTimeoutMs: 0 },
      {
        audit: { record: () => undefined },
        onChange: () => undefined,
        onAdmitted: (session) => watch.admitted(session),
        takePlace: async () => undefined,
      },
    );
    watch = openSessionWatch({
      cache: {
        findById: (id) => {
          looks += 1;
          return id === 5 ? record : undefined;
        },
        keysOf: () => [key],
        onChange: (listener) => {
          changed = listener;
          return () => undefined;
        },
      },
      registry,
      isRevoked: () => false,
      onGone: () => undefined,
      sweepMs: hourMs,
    });
  });

  afterEach(() => {
    watch.close();
    vi.useRealTimers();
  });

  function admit(
    options: { method?: Identity["method"]; expiresAt?: Date; stays?: boolean } = {},
  ): NotedSession {
    const { method = "api-key", expiresAt, stays = false } = options;
    const identity = { ...identityOf(record, method, method === "api-key" ? key : undefined) };
    const session = new NotedSession(
      expiresAt === undefined ? identity : { ...identity, expiresAt },
      (ended) => {
        if (!stays) registry.remove(ended);
      },
    );
    // Without limits nobody else is asked, and it is done at once.
    void registry.admit(session);
    return session;
  }

  const ended = (atMs: number) => [{ atMs, code: "57P01", mode: "after_statement" }];

  it("ends with its key, at the millisecond and not at the next look at all sessions", () => {
    key = { ...key, expiresAt: inMs(90_500) };
    const session = admit();
    vi.advanceTimersByTime(90_499);
    expect(session.ends).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(session.ends).toEqual(ended(90_500));
  });

  it("ends with its user, its token and its certificate alike", () => {
    record = { ...record, validUntil: inMs(30_000) };
    const sessions = [
      admit(),
      admit({ method: "jwt", expiresAt: inMs(20_000) }),
      admit({ method: "certificate", expiresAt: inMs(10_000) }),
    ];
    vi.advanceTimersByTime(hourMs - 1);
    expect(sessions.map(({ ends }) => ends)).toEqual([ended(30_000), ended(20_000), ended(10_000)]);
  });

  it("follows an expiry that is moved, to both sides", () => {
    key = { ...key, expiresAt: inMs(60_000) };
    const session = admit();
    key = { ...key, expiresAt: inMs(80_000) };
    changed();
    vi.advanceTimersByTime(79_999);
    expect(session.ends).toEqual([]);
    key = { ...key, expiresAt: inMs(79_999 + 50) };
    changed();
    vi.advanceTimersByTime(50);
    expect(session.ends).toEqual(ended(80_049));
  });

  it("may be further away than a timer can wait", () => {
    // Node fires a timer of more than 2^31 ms at once, and again and again.
    key = { ...key, expiresAt: inMs(40 * 24 * hourMs) };
    admit();
    looks = 0;
    vi.advanceTimersByTime(1_000);
    expect(looks).toBe(0);
  });

  it("and still runs a statement is not asked again and again", () => {
    key = { ...key, expiresAt: inMs(1_000) };
    const session = admit({ stays: true });
    vi.advanceTimersByTime(hourMs - 1);
    expect(session.ends).toEqual(ended(1_000));
    vi.advanceTimersByTime(1);
    expect(session.ends).toHaveLength(2);
  });
});
