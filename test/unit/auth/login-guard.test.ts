/** What anybody may make the front-end remember, by logging in under names that nobody has. */

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, it } from "vitest";
import { LoginGuard } from "../../../src/auth/login-guard.ts";
import type { AuditEntry } from "../../../src/observe/audit.ts";

function openGuard(attemptsPerUserPerMinute: number): { guard: LoginGuard; entries: () => AuditEntry[] } {
  const entries: AuditEntry[] = [];
  const guard = new LoginGuard({
    lockout: { isLocked: () => false, recordFailure: () => undefined, recordSuccess: () => undefined },
    audit: { record: (entry) => void (attemptsPerUserPerMinute < 100 && entries.push(entry)) },
    limits: { attemptsPerAddressPerMinute: 0, attemptsPerUserPerMinute },
    clock: () => 0,
  });
  return { guard, entries: () => entries };
}

/** As a client's packet gives it: a string of its own. */
function inventedName(index: number, bytes: number): string {
  return Buffer.alloc(bytes, `${index}-`).toString();
}

/** Bytes in use when all garbage has been collected. */
function heapInUse(): number {
  setFlagsFromString("--expose-gc");
  runInNewContext("gc")();
  return process.memoryUsage().heapUsed;
}

describe("failed logins under invented names", () => {
  it("take no more memory however many and however long they are", () => {
    const { guard } = openGuard(1_000);
    const before = heapInUse();
    for (let index = 0; index < 40_000; index += 1) {
      guard.recordFailure(inventedName(index, 60), "192.0.2.7", "unknown_user");
    }
    for (let index = 0; index < 40_000; index += 1) {
      guard.recordFailure(inventedName(index, 9_000), "192.0.2.7", "unknown_user");
    }
    // 20,000 windows with names of 60 bytes; with names of 9,000 bytes each it would be 180 MB.
    expect(heapInUse() - before).toBeLessThan(12_000_000);
    // Still in use, so that its memory counts.
    expect(guard.refusalFor("somebody", "192.0.2.7")).toBeUndefined();
  });

  it("are counted as one name where they are longer than any name can be", () => {
    const { guard, entries } = openGuard(3);
    for (let index = 0; index < 3; index += 1) {
      guard.recordFailure(inventedName(index, 64), "192.0.2.7", "unknown_user");
    }
    expect(guard.refusalFor(inventedName(4, 5_000), "192.0.2.7")).toBe("too_many_failures");
    expect(guard.refusalFor(inventedName(4, 63), "192.0.2.7")).toBeUndefined();
    expect(guard.refusalFor("", "192.0.2.7")).toBe("too_many_failures");
    expect(entries().filter(({ detail }) => detail?.startsWith("too_many_failures"))).toHaveLength(1);
  });
});
