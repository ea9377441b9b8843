/** COPY out of a large result: throughput and CPU time with a fast reader, memory with a slow one. */

import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { findProgram } from "./child-process.ts";
import { cpuTimeNs, processTree, residentBytes } from "./process-cost.ts";
import type { Target } from "./targets.ts";

export interface CopyThroughput {
  readonly megabytesPerSecond: number;
  /** CPU seconds of the proxy per gigabyte (10^9 bytes); undefined for PostgreSQL itself. */
  readonly proxyCpuSecondsPerGb: number | undefined;
}

export interface SlowReader {
  /** Largest rise of the proxy's resident memory while the reader lagged behind. */
  readonly residentRiseBytes: number;
  readonly seconds: number;
}

/** Of one line of output, the line feed included. */
const rowBytes = 256;
/** Numbers from here on have the same number of digits for as long as a benchmark may last. */
const firstNumber = 1_000_000_000;
const pauseAtStartMs = 3_000;
/** After the pause the reader takes this much, rests, and so on: still slower than any proxy. */
const bytesBetweenRests = 2_000_000;
const restMs = 10;
const sampleIntervalMs = 50;

/** Copies as fast as psql can read, into nothing. */
export async function measureCopyThroughput(target: Target, megabytes: number): Promise<CopyThroughput> {
  const pids = target.proxyPid === undefined ? [] : processTree(target.proxyPid);
  const sink = openSync("/dev/null", "w");
  const cpuBefore = cpuTimeNs(pids);
  const startedAt = performance.now();
  try {
    await startPsql(target, megabytes, sink).ended;
  } finally {
    closeSync(sink);
  }
  const seconds = (performance.now() - startedAt) / 1000;
  const cpuSeconds = (cpuTimeNs(pids) - cpuBefore) / 1e9;
  const bytes = copiedBytes(megabytes);
  return {
    megabytesPerSecond: bytes / 1e6 / seconds,
    proxyCpuSecondsPerGb: target.proxyPid === undefined ? undefined : cpuSeconds / (bytes / 1e9),
  };
}

/**
 * Copies to a reader that first stops for a while and then reads slowly: what is not read must not pile up.
 *
 * @throws Error when not every byte arrives
 */
export async function measureSlowReader(
  target: Target,
  proxyPid: number,
  megabytes: number,
): Promise<SlowReader> {
  const pids = processTree(proxyPid);
  const before = residentBytes(pids);
  let peak = before;
  const sampler = setInterval(() => {
    peak = Math.max(peak, residentBytes(pids));
  }, sampleIntervalMs);
  const startedAt = performance.now();
  try {
    const psql = startPsql(target, megabytes, "pipe");
    // A pipe that nobody reads stops psql, and psql then stops reading from the proxy.
    let received = 0;
    let sinceRest = 0;
    await delay(pauseAtStartMs);
    for await (const chunk of psql.output) {
      received += chunk.length;
      sinceRest += chunk.length;
      if (sinceRest >= bytesBetweenRests) {
        sinceRest = 0;
        await delay(restMs);
      }
    }
    await psql.ended;
    if (received !== copiedBytes(megabytes)) {
      throw new Error(`COPY through ${target.name} delivered ${received} of ${copiedBytes(megabytes)} bytes`);
    }
  } finally {
    clearInterval(sampler);
  }
  return { residentRiseBytes: peak - before, seconds: (performance.now() - startedAt) / 1000 };
}

function copiedBytes(megabytes: number): number {
  return Math.round((megabytes * 1e6) / rowBytes) * rowBytes;
}

interface Psql {
  /** Empty unless standard output is a pipe. */
  readonly output: AsyncIterable<Buffer>;
  readonly ended: Promise<void>;
}

function startPsql(target: Target, megabytes: number, stdout: number | "pipe"): Psql {
  const { host, port, user, password, database, sslMode } = target.endpoint;
  // Cheap for PostgreSQL, so that the way to the client is what takes the time: the filling is a constant, and
  // generate_series in the select list is streamed (in FROM it would first be written to a temporary file).
  const rows = copiedBytes(megabytes) / rowBytes;
  const series = `SELECT generate_series(${firstNumber}, ${firstNumber + rows - 1}) AS i`;
  const filling = rowBytes - String(firstNumber).length - 1;
  const statement = `COPY (SELECT i::text || repeat('x', ${filling}) FROM (${series}) AS s) TO STDOUT`;
  const child = spawn(
    findProgram("psql"),
    ["-X", "-q", "-h", host, "-p", String(port), "-U", user, "-d", database, "-c", statement],
    {
      env: { ...process.env, PGPASSWORD: password, PGSSLMODE: sslMode, PGGSSENCMODE: "disable" },
      stdio: ["ignore", stdout, "pipe"],
    },
  );
  let complaint = "";
  child.stderr?.on("data", (chunk) => {
    complaint += String(chunk);
  });
  const ended = new Promise<void>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (status) => {
      if (status === 0) resolve();
      else reject(new Error(`psql against ${target.name} ended with ${status}: ${complaint}`));
    });
  });
  // Awaited only once the output has been read; until then a failure is not an unhandled one.
  ended.catch(() => {});
  return { output: child.stdout ?? emptyOutput(), ended };
}

async function* emptyOutput(): AsyncGenerator<Buffer> {}
