/** The README's start command, as a service manager or a terminal runs and ends it. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { runningProcess } from "../../src/config/process-file.ts";
import { isAlive, isRunningOn, readPostmasterPid } from "../../src/embedded/postmaster-pid.ts";

const project = resolve(import.meta.dirname, "../..");
const directories: string[] = [];
const children: ChildProcess[] = [];
const processIds: number[] = [];

afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  for (const processId of processIds.splice(0)) if (isAlive(processId)) process.kill(processId, "SIGKILL");
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true });
});

interface Scripts {
  readonly build: string;
  readonly start: string;
}

/** A package with the project's start script, and a build that is done already: other tests use what it would replace. */
function makeBuiltPackage(): string {
  const directory = mkdtempSync(join(tmpdir(), "nodedb-test-"));
  directories.push(directory);
  const original = createRequire(import.meta.url)("../../package.json") as { readonly scripts: Scripts };
  const { start } = original.scripts;
  expect(start).toContain("npm run --silent build && ");
  writeFileSync(
    join(directory, "package.json"),
    JSON.stringify({ private: true, type: "module", scripts: { build: "true", start } }),
  );
  symlinkSync(join(project, "dist"), join(directory, "dist"));
  return directory;
}

test.each(["SIGTERM", "SIGINT"] as const)(
  "%s to npm alone ends the front-end and its PostgreSQL in order",
  async (signal) => {
    const directory = makeBuiltPackage();
    const dataDir = join(directory, "data");
    mkdirSync(dataDir, { mode: 0o755 });
    const npm = spawn("npm", ["start"], {
      cwd: directory,
      env: {
        PATH: process.env.PATH,
        HOME: directory,
        NODEDB_DATA_DIR: dataDir,
        NODEDB_PORT_PGWIRE: "0",
        NODEDB_PORT_HTTP: "0",
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    children.push(npm);
    let output = "";
    for (const stream of [npm.stdout, npm.stderr]) {
      stream.on("data", (chunk) => {
        output += chunk;
      });
    }
    const exited = once(npm, "exit");
    await vi.waitFor(() => expect(output).toContain("psql -h"), { timeout: 20_000, interval: 20 });
    const frontEnd = runningProcess(dataDir) ?? 0;
    const postgres = readPostmasterPid(join(dataDir, "postgres"))?.processId ?? 0;
    processIds.push(frontEnd, postgres);
    expect([isAlive(frontEnd), isAlive(postgres)]).toEqual([true, true]);

    npm.kill(signal);
    await vi.waitFor(
      () =>
        expect([isAlive(frontEnd), isRunningOn(join(dataDir, "postgres"), postgres)]).toEqual([false, false]),
      { timeout: 10_000, interval: 20 },
    );
    await exited;
    expect(output).toContain('"stopped"');
    expect(readFileSync(join(dataDir, "postgres.log"), "utf8")).toContain("database system is shut down");
  },
);
