/** One run of pgbench's select-only script against a target, with the CPU time that its proxy used. */

import type { QueryMode } from "./arguments.ts";
import { findProgram, runProgram } from "./child-process.ts";
import { cpuTimeNs, processTree } from "./process-cost.ts";
import type { Target } from "./targets.ts";

export interface PgbenchLoad {
  readonly clients: number;
  readonly mode: QueryMode;
  /** A new connection for every transaction (pgbench -C). */
  readonly reconnect: boolean;
  readonly seconds: number;
}

export interface PgbenchResult {
  /** One transaction is one SELECT. */
  readonly transactions: number;
  readonly transactionsPerSecond: number;
  readonly latencyMs: number;
  /** CPU time of the proxy per transaction, logins included; undefined for PostgreSQL itself. */
  readonly proxyCpuUs: number | undefined;
}

/** @throws Error when pgbench fails, loses a client or reports no transaction */
export async function runPgbench(target: Target, load: PgbenchLoad): Promise<PgbenchResult> {
  const { host, port, user, password, database, sslMode } = target.endpoint;
  const pids = target.proxyPid === undefined ? [] : processTree(target.proxyPid);
  // A pgbench thread waits for each login, so clients that log in all the time need a thread each.
  const threads = load.reconnect ? load.clients : 1;
  const before = cpuTimeNs(pids);
  const report = await runProgram(
    findProgram("pgbench"),
    [
      ...["-h", host, "-p", String(port), "-U", user],
      ...[
        "-S",
        "-n",
        "-M",
        load.mode,
        "-c",
        String(load.clients),
        "-j",
        String(threads),
        "-T",
        String(load.seconds),
      ],
      ...(load.reconnect ? ["-C"] : []),
      database,
    ],
    { env: { PGPASSWORD: password, PGSSLMODE: sslMode, PGGSSENCMODE: "disable" } },
  );
  const cpuNs = cpuTimeNs(pids) - before;
  const transactions = readNumber(report, /^number of transactions actually processed: (\d+)/m);
  const failed = readNumber(report, /^number of failed transactions: (\d+)/m);
  if (transactions === 0 || failed > 0) {
    throw new Error(`pgbench against ${target.name}: ${transactions} transactions, ${failed} failed`);
  }
  return {
    transactions,
    transactionsPerSecond: readNumber(report, /^tps = ([\d.]+)/m),
    latencyMs: readNumber(report, /^latency average = ([\d.]+) ms/m),
    proxyCpuUs: target.proxyPid === undefined ? undefined : cpuNs / transactions / 1000,
  };
}

function readNumber(report: string, pattern: RegExp): number {
  const text = pattern.exec(report)?.[1];
  if (text === undefined) throw new Error(`pgbench's report has no ${pattern.source}:\n${report}`);
  return Number(text);
}
