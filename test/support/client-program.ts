/** Runs a foreign client's program and turns each line that it reports into a test of its own. */

import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Endpoint, libpqEnvironment, openEndpoint, type Upstream } from "./endpoint.ts";
import { hasDebianPostgres } from "./postgres.ts";
import { type Finished, runProgram } from "./run-program.ts";
import { requireClient } from "./skips.ts";

const programDirectory = fileURLToPath(new URL("../clients/programs/", import.meta.url));

/** What every client must be able to do; a program reports each under this name. */
export const commonChecks = [
  "logs in with a password and acts as its own role",
  "sees the server's parameters and its own application_name",
  "is refused with 28P01 for a wrong password",
  "is refused with the same words for an unknown user",
  "keeps what it commits and loses what it rolls back",
  "returns to a savepoint",
  "is refused with 25P02 after an error until it rolls back",
  "gets every field of a constraint violation",
  "gets the position of a syntax error",
  "gets detail and hint of a raised error",
  "goes on after a failed copy",
  "reads 100,000 rows through a cursor",
  "sends and receives a value of 20 MB",
  "cancels a running statement and goes on",
  "receives notices",
  "receives notifications from another session",
] as const;

interface Report {
  readonly check: string;
  readonly ok: boolean;
  readonly message?: string;
}

export interface ClientProgram {
  /** The client as a reader knows it, with its Debian package. */
  readonly client: string;
  readonly isPresent: boolean;
  /** Programs to run one after the other, in the directory of the client programs; only the last one reports. */
  readonly commands: readonly (readonly [program: string, ...args: string[]])[];
  /** The names that it must report besides `commonChecks`, each once. */
  readonly checks: readonly string[];
}

/**
 * Declares one test for each check and each upstream. The names stand in the test file and not only in
 * the program, so that a check that is never reported (the program died, or somebody removed it) fails.
 */
export function describeClientProgram(program: ClientProgram): void {
  describe(`${program.client}, PostgreSQL 18 at the far end`, () => {
    const isThere = requireClient(program.client, program.isPresent);
    declareChecks(program, "embedded", isThere);
  });
  describe(`${program.client}, PostgreSQL 15 at the far end`, () => {
    const isThere =
      requireClient(program.client, program.isPresent) &&
      requireClient("PostgreSQL 15 (postgresql-15)", hasDebianPostgres);
    declareChecks(program, "debian", isThere);
  });
}

function declareChecks(program: ClientProgram, upstream: Upstream, isThere: boolean): void {
  const reports = new Map<string, Report>();
  let endpoint: Endpoint | undefined;
  let finished: Finished = { stdout: "", stderr: "the program was not started", status: null };

  beforeAll(async () => {
    if (!isThere) {
      return;
    }
    endpoint = await openEndpoint(upstream);
    for (const [name, ...args] of program.commands) {
      finished = await runProgram(name, args, libpqEnvironment(endpoint), { cwd: programDirectory });
    }
    for (const report of finished.stdout.split("\n").flatMap(parseReport)) {
      reports.set(report.check, report);
    }
  });

  afterAll(() => endpoint?.close());

  const names = [...commonChecks, ...program.checks];
  for (const name of names) {
    test.skipIf(!isThere)(name, () => {
      const report = reports.get(name);
      if (report === undefined) {
        expect.fail(`not reported; status ${finished.status}\n${finished.stderr.slice(-2000)}`);
      }
      expect(report.ok, report.message).toBe(true);
    });
  }

  test.skipIf(!isThere)("ends well and reports nothing that is not listed", () => {
    expect(finished.status, finished.stderr.slice(-2000)).toBe(0);
    expect([...reports.keys()].filter((name) => !names.includes(name))).toEqual([]);
  });
}

/** Whether a program can be found and ends with status 0 when it is called with these arguments. */
export function isRunnable(program: string, ...args: string[]): boolean {
  return spawnSync(program, args, { stdio: "ignore", timeout: 30_000 }).status === 0;
}

/** The first Python that has the module; Debian's packages belong to /usr/bin/python3 alone. */
export function findPythonWith(module: string): string | undefined {
  return ["/usr/bin/python3", "python3"].find((python) => isRunnable(python, "-c", `import ${module}`));
}

/** Path of a file that Debian's packages install, when it is there. */
export function isInstalled(path: string): boolean {
  return existsSync(path);
}

function parseReport(line: string): Report[] {
  if (!line.startsWith("{")) {
    return [];
  }
  const value: unknown = JSON.parse(line);
  return isReport(value) ? [value] : [];
}

function isReport(value: unknown): value is Report {
  return (
    typeof value === "object" &&
    value !== null &&
    "check" in value &&
    typeof value.check === "string" &&
    "ok" in value &&
    typeof value.ok === "boolean"
  );
}
