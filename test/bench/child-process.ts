/** Programs that the benchmark starts: found, watched until they are ready, and ended by their process id. */

import { execFile, spawn } from "node:child_process";
import { closeSync, existsSync, openSync, readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import type { UnprivilegedUser } from "../../src/embedded/unprivileged-user.ts";

const run = promisify(execFile);

const stopTimeoutMs = 15_000;

export interface Child {
  readonly pid: number;
  hasExited(): boolean;
  /** The last lines that it wrote, for an error message. */
  logTail(): string;
  /** Ends it with the signal, and with SIGKILL when that is ignored. */
  stop(signal: NodeJS.Signals): Promise<void>;
}

export interface ChildOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** PgBouncer refuses to run as root. */
  readonly runAs?: UnprivilegedUser | undefined;
  /** Receives standard output and standard error. */
  readonly logFile: string;
}

/** Starts a program that keeps running; its readiness is for the caller to find out. */
export function startChild(command: string, args: readonly string[], options: ChildOptions): Child {
  const log = openSync(options.logFile, "a");
  const child = spawn(command, args, {
    env: { ...process.env, ...options.env },
    stdio: ["ignore", log, log],
    ...options.runAs,
  });
  closeSync(log);
  const pid = child.pid;
  if (pid === undefined) throw new Error(`${command} could not be started`);
  // The benchmark may end without reaching its own clean-up.
  const killOnExit = () => child.kill("SIGKILL");
  process.once("exit", killOnExit);
  const exit = new Promise<void>((resolve) => {
    child.once("exit", () => {
      process.off("exit", killOnExit);
      resolve();
    });
  });
  const hasExited = () => child.exitCode !== null || child.signalCode !== null;
  return {
    pid,
    hasExited,
    logTail: () => readFileSync(options.logFile, "utf8").trim().split("\n").slice(-15).join("\n"),
    stop: async (signal) => {
      if (hasExited()) return;
      child.kill(signal);
      const kill = setTimeout(() => child.kill("SIGKILL"), stopTimeoutMs);
      await exit;
      clearTimeout(kill);
    },
  };
}

/**
 * Waits until `isReady` is true.
 *
 * @throws Error with the end of the program's log when it exits first, or after `timeoutMs`
 */
export async function waitUntilReady(
  name: string,
  child: Child,
  isReady: () => Promise<boolean>,
  timeoutMs = 60_000,
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!(await isReady())) {
    const failure = child.hasExited() ? "exited" : Date.now() > deadline ? "is not ready in time" : undefined;
    if (failure !== undefined) throw new Error(`${name} ${failure}; its log ends with:\n${child.logTail()}`);
    await delay(50);
  }
}

/** Runs a program to its end and returns its standard output. */
export async function runProgram(
  command: string,
  args: readonly string[],
  options: { readonly env?: Readonly<Record<string, string>> } = {},
): Promise<string> {
  const { stdout } = await run(command, args, {
    env: { ...process.env, ...options.env },
    maxBuffer: 1 << 24,
  });
  return stdout;
}

/**
 * Finds a program: newest Debian PostgreSQL first, because /usr/bin/pgbench and psql are Perl wrappers there.
 *
 * @throws Error when it is not installed
 */
export function findProgram(name: string): string {
  const debian = "/usr/lib/postgresql";
  const versions = existsSync(debian) ? readdirSync(debian).sort((a, b) => Number(b) - Number(a)) : [];
  const folders = [
    ...versions.map((version) => join(debian, version, "bin")),
    ...(process.env.PATH ?? "").split(":"),
    "/usr/sbin",
  ];
  const found = folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
  if (found === undefined) throw new Error(`${name} is not installed`);
  return found;
}

/** A TCP port on loopback that was free a moment ago, for programs that cannot choose one themselves. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      const port = typeof address === "object" && address !== null ? address.port : 0;
      server.close(() => resolve(port));
    });
  });
}
