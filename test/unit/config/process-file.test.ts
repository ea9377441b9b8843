import { existsSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { claimDataDir, runningProcess } from "../../../src/config/process-file.ts";

function newDirectory(): string {
  return mkdtempSync(join(tmpdir(), "nodedb-claim-"));
}

describe("the claim of a data directory", () => {
  test("names this process and is taken back", () => {
    const directory = newDirectory();
    const giveBack = claimDataDir(directory);
    expect(readFileSync(join(directory, "nodedb.pid"), "utf8")).toBe(`${process.pid}\n`);
    giveBack();
    expect(runningProcess(directory)).toBeUndefined();
    expect(() => claimDataDir(directory)()).not.toThrow();
  });

  test("takes over what a process that is gone has left behind", () => {
    const directory = newDirectory();
    // Larger than any process id of Linux or macOS.
    writeFileSync(join(directory, "nodedb.pid"), "99999999\n");
    expect(() => claimDataDir(directory)()).not.toThrow();
  });

  test.skipIf(!existsSync("/proc/1/cmdline"))(
    "takes over from a number that now belongs to another program",
    () => {
      const directory = newDirectory();
      writeFileSync(join(directory, "nodedb.pid"), "1\n");
      expect(runningProcess(directory)).toBeUndefined();
    },
  );
});
