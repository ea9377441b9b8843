/** The file that names the process which uses a data directory, so that a second one stays away and `reload` finds it. */

import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SqlError } from "../errors/sql-error.ts";

const processFile = "nodedb.pid";

/**
 * Claims the data directory for this process.
 *
 * @returns what gives it back
 * @throws SqlError object_not_in_prerequisite_state when a front-end is running on it
 */
export function claimDataDir(dataDir: string): () => void {
  mkdirSync(dataDir, { recursive: true });
  const path = join(dataDir, processFile);
  const claim = () => writeFileSync(path, `${process.pid}\n`, { flag: "wx" });
  try {
    claim();
  } catch (error) {
    if (!(error instanceof Error) || !("code" in error) || error.code !== "EEXIST") throw error;
    const other = runningProcess(dataDir);
    if (other !== undefined) {
      throw new SqlError("object_not_in_prerequisite_state", `${dataDir} is in use by process ${other}`, {
        hint: "Stop that front-end, or give this one a data directory of its own.",
      });
    }
    // Left behind by a process that was killed.
    rmSync(path, { force: true });
    claim();
  }
  return () => rmSync(path, { force: true });
}

/** The front-end that runs on a data directory. @returns undefined when there is none */
export function runningProcess(dataDir: string): number | undefined {
  let processId: number;
  try {
    processId = Number(readFileSync(join(dataDir, processFile), "utf8"));
  } catch {
    return undefined;
  }
  if (!Number.isInteger(processId) || processId <= 0 || processId === process.pid) return undefined;
  return isFrontEnd(processId) ? processId : undefined;
}

// A number may have been given to another process since: where the system tells, it must be Node that runs this program.
function isFrontEnd(processId: number): boolean {
  try {
    process.kill(processId, 0);
  } catch (error) {
    // Somebody else's process is there all the same.
    if (!(error instanceof Error) || !("code" in error) || error.code !== "EPERM") return false;
  }
  try {
    return /\bstart\b|main\.js|nodedb/.test(readFileSync(`/proc/${processId}/cmdline`, "utf8"));
  } catch {
    return true;
  }
}
