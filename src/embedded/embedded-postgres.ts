/** Supervisor of the embedded PostgreSQL: first start, readiness, restart after a crash, shutdown. */

import { closeSync, openSync, readFileSync, renameSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Log } from "../observe/log.ts";
import { dataDirectoryArgument, makeCluster, postgresEnvironment, writeClusterSettings } from "./cluster.ts";
import { type Exit, type GuardedProcess, spawnGuarded } from "./guarded-process.ts";
import { findNativePrograms, makeReachable } from "./native-package.ts";
import { isAlive, isRunningOn, readPostmasterPid } from "./postmaster-pid.ts";
import { openSocketDirectory, socketPort } from "./socket-path.ts";
import { chooseUnprivilegedUser } from "./unprivileged-user.ts";

export interface EmbeddedPostgresOptions {
  /** The cluster goes to `postgres` in it, PostgreSQL's own log to `postgres.log`. */
  readonly dataDir: string;
  /** Bootstrap superuser, made at the first start; later starts find it. */
  readonly superuserName: string;
  readonly log: Log;
  readonly maxConnections: number;
  /** More postgresql.conf settings, for tests. */
  readonly settings?: Readonly<Record<string, string>>;
  readonly initdbArgs?: readonly string[];
}

export interface EmbeddedPostgres {
  /** Directory of the private socket: what a client passes as its host. */
  readonly socketDir: string;
  /** Part of the socket's file name; nothing listens on TCP. */
  readonly port: number;
  /** Of the postmaster; another one after a crash and restart. */
  readonly processId: number;
  /** Whether this start made the cluster. */
  readonly isNew: boolean;
  /** When PostgreSQL is down for good: closed, or not to be restarted. A crash alone does not resolve it. */
  readonly exited: Promise<Exit>;
  /** Fast shutdown: sessions are ended, everything committed is on disk. */
  close(): Promise<void>;
}

const readyTimeoutMs = 60_000;
const pollMs = 20;
/** A PostgreSQL that is not yet told to stop after this long belongs to a front-end that lives. */
const orphanNoticeMs = 3_000;
const fastShutdownTimeoutMs = 30_000;
const immediateShutdownTimeoutMs = 5_000;
const maxRestartsInARow = 8;
const firstRestartDelayMs = 100;
/** A run that lasted this long clears the count of failures. */
const healthyRunMs = 60_000;
const maxLogBytes = 10 * 1024 * 1024;
const reportedLogLines = 5;

/**
 * Starts PostgreSQL on `<dataDir>/postgres`, making the cluster if there is none.
 * Resolves when it accepts connections.
 *
 * @throws Error with what to do when it cannot start: no package, data in use, no user to run as
 */
export async function openEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const { log } = options;
  const dataDir = resolve(options.dataDir);
  const clusterDir = join(dataDir, "postgres");
  const user = await chooseUnprivilegedUser(clusterDir);
  const programs = await makeReachable(findNativePrograms(), user);
  const isNew = await makeCluster({
    clusterDir,
    binDir: programs.binDir,
    user,
    superuserName: options.superuserName,
    ...(options.initdbArgs === undefined ? {} : { initdbArgs: options.initdbArgs }),
  });
  await waitForPredecessor(clusterDir, log);
  checkMajorVersion(clusterDir, programs.version);
  writeClusterSettings(clusterDir, user, {
    max_connections: String(options.maxConnections),
    ...defaultSettings,
    ...options.settings,
  });
  const logPath = join(dataDir, "postgres.log");
  rotateLog(logPath);
  const socket = openSocketDirectory(clusterDir);
  const directoryArgument = await dataDirectoryArgument(clusterDir, user);

  let isClosing = false;
  let current: Run;
  try {
    current = await startOnce();
  } catch (error) {
    socket.remove();
    throw error;
  }
  const abort = new AbortController();
  const exited = supervise();
  log.info({ processId: current.processId, version: programs.version }, "embedded PostgreSQL is ready");

  return {
    socketDir: socket.path,
    port: socketPort,
    get processId() {
      return current.processId;
    },
    isNew,
    exited,
    async close() {
      isClosing = true;
      abort.abort();
      current.guarded.release();
      await shutDown(() => current.processId, exited, log);
    },
  };

  async function startOnce(): Promise<Run> {
    const before = readPostmasterPid(clusterDir);
    const logFd = openSync(logPath, "a", 0o600);
    const logOffset = statSync(logPath).size;
    const env = postgresEnvironment();
    if (before !== undefined && isAlive(before.processId)) {
      // The number of a dead postmaster now belongs to something else, as is common in containers
      // where numbers start from 1. PostgreSQL spares the number named here, and still refuses
      // when the old one's shared memory is in use.
      env.PG_GRANDPARENT_PID = String(before.processId);
    }
    let guarded: GuardedProcess;
    try {
      guarded = spawnGuarded({
        program: join(programs.binDir, "postgres"),
        args: ["-D", directoryArgument, ...fixedSettings(directoryArgument)],
        cwd: clusterDir,
        user,
        env,
        logFd,
      });
    } finally {
      closeSync(logFd);
    }
    const startedAt = Date.now();
    try {
      const processId = await waitUntilReady(clusterDir, before?.run, guarded);
      return { guarded, processId, startedAt };
    } catch (cause) {
      guarded.release();
      await guarded.exited;
      throw new Error(`embedded PostgreSQL did not start: ${lastLogLines(logPath, logOffset)}`, { cause });
    }
  }

  async function supervise(): Promise<Exit> {
    let failures = 0;
    for (;;) {
      const exit = await current.guarded.exited;
      if (isClosing) {
        socket.remove();
        return exit;
      }
      if (Date.now() - current.startedAt >= healthyRunMs) {
        failures = 0;
      }
      log.error({ ...exit, processId: current.processId }, "embedded PostgreSQL ended unexpectedly");
      // Only the guard may have died: the server without one must not outlive us.
      await stopUnguarded(clusterDir, current.processId);
      const next = await restart();
      if (next === undefined) {
        socket.remove();
        return exit;
      }
      current = next;
      if (isClosing) {
        current.guarded.release();
      }
    }

    async function restart(): Promise<Run | undefined> {
      while (failures < maxRestartsInARow && !isClosing) {
        await delay(firstRestartDelayMs * 2 ** failures, undefined, { signal: abort.signal }).catch(() => {});
        failures += 1;
        if (isClosing) {
          return undefined;
        }
        try {
          const next = await startOnce();
          log.warn({ processId: next.processId, failures }, "embedded PostgreSQL was restarted");
          return next;
        } catch (error) {
          log.error({ error, failures }, "embedded PostgreSQL could not be restarted");
        }
      }
      return undefined;
    }
  }
}

/** One life of the postmaster. */
interface Run {
  readonly guarded: GuardedProcess;
  readonly processId: number;
  readonly startedAt: number;
}

/** Given on the command line, so that no ALTER SYSTEM opens a way around the front-end. */
function fixedSettings(directory: string): string[] {
  return [
    "listen_addresses=",
    // Relative to the data directory, which is 0700.
    "unix_socket_directories=.",
    `port=${socketPort}`,
    `hba_file=${directory}/pg_hba.conf`,
    `ident_file=${directory}/pg_ident.conf`,
  ].flatMap((setting) => ["-c", setting]);
}

const defaultSettings: Readonly<Record<string, string>> = {
  shared_buffers: "128MB",
  password_encryption: "scram-sha-256",
  logging_collector: "off",
  log_destination: "stderr",
  log_line_prefix: "%m [%p] %q%u@%d ",
  // Statements may hold passwords.
  log_statement: "none",
  log_min_error_statement: "panic",
  log_parameter_max_length_on_error: "0",
  // The context of an error quotes the statements of functions and DO blocks.
  log_error_verbosity: "terse",
};

async function waitUntilReady(
  clusterDir: string,
  runBefore: string | undefined,
  guarded: GuardedProcess,
): Promise<number> {
  let hasExited = false;
  void guarded.exited.then(() => {
    hasExited = true;
  });
  const deadline = Date.now() + readyTimeoutMs;
  while (Date.now() < deadline) {
    const now = readPostmasterPid(clusterDir);
    if (now !== undefined && now.run !== runBefore && now.status === "ready") {
      return now.processId;
    }
    if (hasExited) {
      throw new Error("it ended while starting");
    }
    await delay(pollMs);
  }
  throw new Error(`it was not ready after ${readyTimeoutMs} ms`);
}

/** After a SIGKILL of the front-end its PostgreSQL may still be writing its last checkpoint: wait for that. */
async function waitForPredecessor(clusterDir: string, log: Log): Promise<void> {
  const startedAt = Date.now();
  let isAnnounced = false;
  for (;;) {
    const found = readPostmasterPid(clusterDir);
    if (found === undefined || !isRunningOn(clusterDir, found.processId)) {
      return;
    }
    const limitMs = found.status === "stopping" ? readyTimeoutMs : orphanNoticeMs;
    if (Date.now() - startedAt > limitMs) {
      throw new Error(
        `${clusterDir} is in use by another PostgreSQL (process ${found.processId}): stop the NodeDB that runs on it, or set NODEDB_DATA_DIR to another directory`,
      );
    }
    if (!isAnnounced) {
      isAnnounced = true;
      log.info({ processId: found.processId }, "waiting for the previous embedded PostgreSQL to shut down");
    }
    await delay(pollMs);
  }
}

async function shutDown(processId: () => number, exited: Promise<Exit>, log: Log): Promise<void> {
  if (await isSettledWithin(exited, fastShutdownTimeoutMs)) {
    return;
  }
  log.warn(
    { processId: processId() },
    "embedded PostgreSQL did not shut down in time; shutting down immediately",
  );
  signal(processId(), "SIGQUIT");
  if (!(await isSettledWithin(exited, immediateShutdownTimeoutMs))) {
    signal(processId(), "SIGKILL");
    await exited;
  }
}

async function stopUnguarded(clusterDir: string, processId: number): Promise<void> {
  if (!isRunningOn(clusterDir, processId)) {
    return;
  }
  signal(processId, "SIGINT");
  const deadline = Date.now() + fastShutdownTimeoutMs;
  while (isRunningOn(clusterDir, processId)) {
    if (Date.now() > deadline) {
      signal(processId, "SIGQUIT");
    }
    await delay(pollMs);
  }
}

async function isSettledWithin(promise: Promise<unknown>, ms: number): Promise<boolean> {
  const timer = new AbortController();
  const isSettled = await Promise.race([
    promise.then(() => true),
    delay(ms, false, { signal: timer.signal }).catch(() => false),
  ]);
  timer.abort();
  return isSettled;
}

function signal(processId: number, name: NodeJS.Signals): void {
  try {
    process.kill(processId, name);
  } catch {
    // It has ended.
  }
}

function checkMajorVersion(clusterDir: string, packageVersion: string): void {
  const made = readFileSync(join(clusterDir, "PG_VERSION"), "utf8").trim();
  const major = packageVersion.split(".")[0];
  if (made !== major) {
    throw new Error(
      `${clusterDir} was made by PostgreSQL ${made}, and this NodeDB embeds ${major}: dump it with the NodeDB that made it and restore it here`,
    );
  }
}

function rotateLog(path: string): void {
  const status = statSync(path, { throwIfNoEntry: false });
  if (status !== undefined && status.size > maxLogBytes) {
    renameSync(path, `${path}.1`);
  }
}

/** What PostgreSQL itself said, which is the reason; statements are not logged, so nothing secret is in it. */
function lastLogLines(path: string, offset: number): string {
  const lines = readFileSync(path).subarray(offset).toString("utf8").trim().split("\n");
  return `${lines.slice(-reportedLogLines).join("\n")}\n(more in ${path})`;
}
