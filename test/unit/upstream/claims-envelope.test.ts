/** Sealing claims: what is in an envelope, and what may not be. */

import { createHmac } from "node:crypto";
import { describe, expect, it } from "vitest";
import { SqlError } from "../../../src/errors/sql-error.ts";
import {
  deriveClaimsKey,
  maxEnvelopeBytes,
  sealClaims,
  toAsciiJson,
} from "../../../src/upstream/claims-envelope.ts";

const key = deriveClaimsKey(Buffer.alloc(32, 1), "app");
const binding = { processId: 17, clientPort: 4711, sessionUser: "alice", database: "app" };
const period = { issuedAtMs: 1_000_000, expiresAtMs: 1_500_500 };

function conditionOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof SqlError) return error.condition;
    throw error;
  }
  return "none";
}

describe("sealClaims", () => {
  it("names the connection, the times and the claims behind a code of all of it", () => {
    const envelope = sealClaims(key, binding, period, { id: "alice", roles: ["a"] });
    const code = envelope.slice(0, 64);
    const signed = envelope.slice(64);
    expect(signed.slice(0, 16)).toBe(key.kid);
    expect(JSON.parse(signed.slice(16))).toEqual({
      typ: "nodedb-session",
      pid: 17,
      port: 4711,
      su: "alice",
      db: "app",
      iat: 1000,
      exp: 1500.5,
      claims: { id: "alice", roles: ["a"] },
    });
    expect(createHmac("sha256", key.secret).update(signed).digest("hex")).toBe(code);
  });

  it("is printable ASCII whatever the claims hold, and keeps them", () => {
    const claims = { id: "ž\u0007\u007f😀\\u0041", "a\nb": null };
    const envelope = sealClaims(key, { ...binding, sessionUser: "josé" }, period, claims);
    expect(envelope).toMatch(/^[\x20-\x7e]+$/);
    expect(JSON.parse(envelope.slice(80))).toMatchObject({ su: "josé", claims });
  });

  it("refuses what jsonb cannot hold, and not what only looks like it", () => {
    for (const value of ["a\0b", "\ud800", "x\udc00x"]) {
      const sealing = () => sealClaims(key, binding, period, { id: value });
      expect(conditionOf(sealing), JSON.stringify(value)).toBe("invalid_authorization_specification");
      expect(conditionOf(() => toAsciiJson({ [value]: 1 }))).toBe("invalid_authorization_specification");
    }
    for (const value of ["\\u0000", "\\ud800", "😀", "\\\\u0000"]) {
      expect(JSON.parse(toAsciiJson(value))).toBe(value);
    }
  });

  it("refuses claims that PostgreSQL would not look at for their length", () => {
    const fitting = sealClaims(key, binding, period, { id: "" }).length;
    const longest = "x".repeat(maxEnvelopeBytes - fitting);
    expect(sealClaims(key, binding, period, { id: longest })).toHaveLength(maxEnvelopeBytes);
    const oneMore = () => sealClaims(key, binding, period, { id: `${longest}x` });
    expect(conditionOf(oneMore)).toBe("program_limit_exceeded");
  });
});

describe("deriveClaimsKey", () => {
  it("is the same for the same secret and database, and another one for any other", () => {
    expect(deriveClaimsKey(Buffer.alloc(32, 1), "app")).toEqual(key);
    for (const other of [
      deriveClaimsKey(Buffer.alloc(32, 2), "app"),
      deriveClaimsKey(Buffer.alloc(32, 1), "ap"),
    ]) {
      expect(other.kid).not.toBe(key.kid);
      expect(other.secret).not.toEqual(key.secret);
    }
  });

  it("has a name that is not a part of the key", () => {
    expect(key.kid).toMatch(/^[0-9a-f]{16}$/);
    expect(key.secret.toString("hex")).not.toContain(key.kid);
  });
});
