/** Entry of `npm run bench`: starts the targets, measures them in turns and prints the report. */

import { randomBytes } from "node:crypto";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, release, tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { chooseUnprivilegedUser } from "../../src/embedded/unprivileged-user.ts";
import { makeServerCertificate } from "../support/certificates.ts";
import { type BenchOptions, parseArguments, type Section, UsageError, usage } from "./arguments.ts";
import { findProgram, runProgram } from "./child-process.ts";
import { measureCopyThroughput, measureSlowReader } from "./copy-out.ts";
import { startFrontEnd } from "./front-end.ts";
import { measureHttpRequests, measureHttpStream } from "./http-load.ts";
import { measureIdleMemory } from "./idle-memory.ts";
import { runLogins } from "./logins.ts";
import type { CopySample, Measurements, PgbenchSample } from "./measurements.ts";
import { type PgbenchLoad, runPgbench } from "./pgbench.ts";
import { startPgBouncer } from "./pgbouncer.ts";
import { database, startPostgresServer } from "./postgres-server.ts";
import { startBareRelay } from "./relay.ts";
import { formatReport } from "./report.ts";
import { directTarget, type Target, type TlsFiles } from "./targets.ts";

type Cleanup = () => Promise<void>;

/** Caches, compiled code and pools fill up first: the first runs after a start are never measurements. */
const warmUpSeconds = 1;
/** A login runs more code, more seldom. */
const loginWarmUpSeconds = 5;

async function main(): Promise<number> {
  const options = parseArguments(process.argv.slice(2));
  if (options === undefined) {
    process.stdout.write(usage);
    return 0;
  }
  const cleanups: Cleanup[] = [];
  const cleanUp = async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  };
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => {
      cleanUp().finally(() => process.exit(130));
    });
  }
  try {
    const measurements = await measureAll(options, cleanups);
    process.stdout.write(`${formatReport(measurements)}\n`);
    if (options.jsonFile !== undefined) {
      writeFileSync(options.jsonFile, `${JSON.stringify(measurements, undefined, 2)}\n`);
    }
    return 0;
  } finally {
    await cleanUp();
  }
}

async function measureAll(options: BenchOptions, cleanups: Cleanup[]): Promise<Measurements> {
  const workDir = mkdtempSync(join(tmpdir(), "nodedb-bench-"));
  cleanups.push(async () => rmSync(workDir, { recursive: true, force: true }));
  // PgBouncer, as another user, must get through to its own folder in it.
  chmodSync(workDir, 0o711);
  const runAs = await chooseUnprivilegedUser(workDir);
  const secret = () => randomBytes(18).toString("hex");
  const passwords = { superuser: secret(), client: secret() };
  const directPassword = secret();

  progress("starting PostgreSQL and filling pgbench's tables");
  const server = await startPostgresServer(options, directPassword);
  cleanups.push(() => server.close());

  const startTarget = {
    direct: async () => directTarget(server, directPassword, database),
    pgbouncer: (tls?: TlsFiles) => startPgBouncer(workDir, runAs, options, server, directPassword, tls),
    relay: () => startBareRelay(workDir, server, directPassword),
    nodedb: (tls?: TlsFiles) => startFrontEnd(workDir, options, server, passwords, tls),
  };
  const measurements: Measurements = {
    environment: await describeRun(options),
    idle: [],
    copy: [],
    copyTls: [],
    slowReader: [],
    pgbench: [],
    httpRequests: [],
    httpStream: [],
  };
  for (const section of options.sections) {
    // A fresh process for each section: memory that one has freed would hide what the next one needs.
    const targets: Target[] = [];
    const stopTargets = async () => {
      for (const target of targets.splice(0)) await target.close();
    };
    cleanups.push(stopTargets);
    const tls = section === "tls" ? await makeServerCertificate(workDir) : undefined;
    for (const name of options.targets) {
      if (name === "relay" && section !== "pgbench") continue;
      if (tls === undefined || name !== "direct") targets.push(await startTarget[name](tls));
    }
    for (const target of targets) measurements.environment[target.name] = target.version;
    await measureSection[section](targets, options, measurements);
    await stopTargets();
  }
  return measurements;
}

type MeasureSection = (targets: Target[], options: BenchOptions, into: Measurements) => Promise<void>;

const measureSection: Readonly<Record<Section, MeasureSection>> = {
  idle: async (targets, options, into) => {
    for (const { proxyPid, ...target } of targets) {
      if (proxyPid === undefined) continue;
      progress(`idle sessions, ${target.name}`);
      const result = await measureIdleMemory({ ...target, proxyPid }, proxyPid, options.sessions);
      into.idle.push({ target: target.name, ...result });
    }
  },
  copy: async (targets, options, into) => {
    await measureCopies(targets, options, into.copy);
    for (const target of targets) {
      if (target.proxyPid === undefined) continue;
      progress(`COPY out to a slow reader, ${target.name}`);
      const result = await measureSlowReader(target, target.proxyPid, options.copyMegabytes);
      into.slowReader.push({ target: target.name, ...result });
    }
  },
  pgbench: async (targets, options, into) => {
    const loads = options.modes.flatMap((mode) =>
      options.clients.map((clients) => ({ mode, clients, reconnect: false, seconds: options.seconds })),
    );
    await measurePgbench("pgbench", targets, loads, options, into);
  },
  logins: async (targets, options, into) => {
    const { churnClients: clients } = options;
    for (const target of targets) await runLogins(target, clients, loginWarmUpSeconds);
    for (let round = 1; round <= options.rounds; round += 1) {
      for (const target of targets) {
        progress(`logins, round ${round}, ${clients} clients, ${target.name}`);
        const result = await runLogins(target, clients, options.seconds);
        into.pgbench.push({
          section: "logins",
          mode: "simple",
          clients,
          round,
          target: target.name,
          ...result,
        });
      }
    }
  },
  tls: async (targets, options, into) => {
    const loads = options.clients.map((clients) => ({
      mode: "simple" as const,
      clients,
      reconnect: false,
      seconds: options.seconds,
    }));
    await measurePgbench("tls", targets, loads, options, into);
    await measureCopies(targets, options, into.copyTls);
  },
  churn: async (targets, options, into) => {
    const { churnClients: clients, seconds } = options;
    // pgbench makes too few logins to warm anything up.
    for (const target of targets) await runLogins(target, clients, loginWarmUpSeconds);
    await measurePgbench(
      "churn",
      targets,
      [{ mode: "simple", clients, reconnect: true, seconds }],
      options,
      into,
    );
  },
  http: async (targets, options, into) => {
    for (const { name: target, http, proxyPid } of targets) {
      if (http === undefined || proxyPid === undefined) continue;
      const warmUp = { clients: Math.max(...options.clients), seconds: warmUpSeconds };
      await measureHttpRequests(http, proxyPid, warmUp);
      for (let round = 1; round <= options.rounds; round += 1) {
        for (const clients of options.clients) {
          progress(`http, round ${round}, ${clients} connections, ${target}`);
          const result = await measureHttpRequests(http, proxyPid, { clients, seconds: options.seconds });
          into.httpRequests.push({ target, round, clients, ...result });
        }
        progress(`http stream, round ${round}, ${target}`);
        const stream = await measureHttpStream(http, proxyPid, options.copyMegabytes);
        into.httpStream.push({ target, round, ...stream });
      }
    }
  },
};

async function measureCopies(
  targets: readonly Target[],
  options: BenchOptions,
  into: CopySample[],
): Promise<void> {
  for (const target of targets) await measureCopyThroughput(target, Math.min(options.copyMegabytes, 50));
  for (let round = 1; round <= options.rounds; round += 1) {
    for (const target of targets) {
      progress(`COPY out, round ${round}, ${target.name}`);
      const result = await measureCopyThroughput(target, options.copyMegabytes);
      into.push({ target: target.name, round, ...result });
    }
  }
}

/** Round by round, load by load, the targets right after one another. */
async function measurePgbench(
  section: PgbenchSample["section"],
  targets: readonly Target[],
  loads: readonly PgbenchLoad[],
  options: BenchOptions,
  into: Measurements,
): Promise<void> {
  const mostClients = Math.max(...loads.map((load) => load.clients));
  for (const load of loads.filter(({ clients }) => clients === mostClients)) {
    for (const target of targets) await runPgbench(target, { ...load, seconds: warmUpSeconds });
  }
  for (let round = 1; round <= options.rounds; round += 1) {
    for (const load of loads) {
      for (const target of targets) {
        progress(`${section}, round ${round}, ${load.mode}, ${load.clients} clients, ${target.name}`);
        const result = await runPgbench(target, load);
        const { mode, clients } = load;
        into.pgbench.push({ section, mode, clients, round, target: target.name, ...result });
      }
    }
  }
}

async function describeRun(options: BenchOptions): Promise<Record<string, string>> {
  const [cpu] = cpus();
  return {
    machine: `${cpus().length} × ${cpu?.model ?? "unknown CPU"}, Linux ${release()}`,
    client: (await runProgram(findProgram("pgbench"), ["--version"])).trim(),
    upstream: `${options.upstream === "unix" ? "unix socket" : "TCP"}, ${options.upstreamAuth} (both proxies)`,
    rounds: `${options.rounds}, of ${options.seconds} s each for pgbench; medians`,
  };
}

function progress(text: string): void {
  process.stderr.write(`… ${text}\n`);
}

try {
  process.exitCode = await main();
} catch (error) {
  if (error instanceof UsageError) {
    process.stderr.write(`${error.message}\n\n${usage}`);
    process.exitCode = 2;
  } else {
    process.stderr.write(`benchmark failed: ${inspect(error)}\n`);
    process.exitCode = 1;
  }
}
