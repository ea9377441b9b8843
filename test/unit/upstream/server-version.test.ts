/** Which PostgreSQL versions are refused, warned of and accepted. */

import { describe, expect, test } from "vitest";
import { judgeServerVersion } from "../../../src/upstream/server-version.ts";

describe("judgeServerVersion", () => {
  test.each([
    [150013, "15.13", "15.14"],
    [150000, "15.0", "15.14"],
    [160009, "16.9", "16.10"],
    [170005, "17.5", "17.6"],
  ])("warns of %i, naming the reason and the release to upgrade to", (number, version, atLeast) => {
    const judgement = judgeServerVersion(number);
    expect(judgement).toMatchObject({ kind: "unsound", version, atLeast });
    expect(judgement.kind === "unsound" && judgement.reason).toContain("CVE-2025-8713");
  });

  test.each([150014, 150099, 160010, 170006, 180000, 190001])("accepts %i", (number) => {
    expect(judgeServerVersion(number)).toEqual({ kind: "sound" });
  });

  test.each([
    [140020, "PostgreSQL 14"],
    [0, "PostgreSQL 0"],
  ])("refuses %i", (number, name) => {
    expect(judgeServerVersion(number)).toEqual({ kind: "unsupported", name });
  });
});
