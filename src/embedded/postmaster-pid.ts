/** The postmaster.pid file: who runs on a data directory, and how far it has come. */

import { readFileSync, readlinkSync, realpathSync } from "node:fs";
import { join } from "node:path";

export interface PostmasterPid {
  readonly processId: number;
  /** Tells apart two runs: process id, start time, shared memory key. */
  readonly run: string;
  /** Absent while the file is being written. */
  readonly status: "starting" | "stopping" | "ready" | "standby" | undefined;
}

/** @returns undefined when there is no such file, or nothing usable in it yet */
export function readPostmasterPid(clusterDir: string): PostmasterPid | undefined {
  let text: string;
  try {
    text = readFileSync(join(clusterDir, "postmaster.pid"), "utf8");
  } catch {
    return undefined;
  }
  // The order of lines is in PostgreSQL's src/include/utils/pidfile.h.
  const lines = text.split("\n").map((line) => line.trim());
  const processId = Number(lines[0]);
  if (!Number.isInteger(processId) || processId <= 0) {
    return undefined;
  }
  const status = lines[7];
  const isKnown =
    status === "starting" || status === "stopping" || status === "ready" || status === "standby";
  return {
    processId,
    run: `${lines[0]} ${lines[2]}`,
    status: isKnown ? status : undefined,
  };
}

/** Whether the process lives, and is a PostgreSQL on this data directory as far as the system can tell. */
export function isRunningOn(clusterDir: string, processId: number): boolean {
  if (!isAlive(processId)) {
    return false;
  }
  try {
    return readlinkSync(`/proc/${processId}/cwd`) === realpathSync(clusterDir);
  } catch {
    // No /proc, or a process of another user. A living one is then taken at its word.
    return process.platform !== "linux";
  }
}

export function isAlive(processId: number): boolean {
  try {
    process.kill(processId, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
