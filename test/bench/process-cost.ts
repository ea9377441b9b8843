/** CPU time and memory of a proxy: a process and its descendants, as Linux accounts for them in /proc. */

import { readdirSync, readFileSync } from "node:fs";

/** The process and everything that it started, in no particular order. */
export function processTree(rootPid: number): number[] {
  const children = new Map<number, number[]>();
  for (const entry of readdirSync("/proc")) {
    const pid = Number(entry);
    const parent = Number.isInteger(pid) ? parentOf(pid) : undefined;
    if (parent !== undefined) children.set(parent, [...(children.get(parent) ?? []), pid]);
  }
  const tree = [rootPid];
  // The array grows while it is walked.
  for (const pid of tree) tree.push(...(children.get(pid) ?? []));
  return tree;
}

/**
 * CPU time that these processes have used so far, in nanoseconds.
 *
 * Read per thread from schedstat, because /proc/<pid>/stat counts in clock ticks of 10 ms: too coarse for
 * short runs. A thread that has ended is no longer counted; neither proxy ends threads while it serves.
 *
 * @throws Error when one of the processes has ended: the measurement would be wrong
 */
export function cpuTimeNs(pids: readonly number[]): number {
  let total = 0;
  for (const pid of pids) {
    for (const thread of readdirSync(`/proc/${pid}/task`)) {
      const [onCpuNs] = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ");
      total += Number(onCpuNs);
    }
  }
  return total;
}

/** Resident memory of these processes together, in bytes; pages that they share are counted once for each. */
export function residentBytes(pids: readonly number[]): number {
  let total = 0;
  for (const pid of pids) {
    const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
    total += Number(kilobytes ?? 0) * 1024;
  }
  return total;
}

/** @returns undefined when the process has ended */
function parentOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The program's name stands in parentheses and may itself hold spaces and parentheses.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return Number(fields[1]);
  } catch {
    return undefined;
  }
}
