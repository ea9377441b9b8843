#!/usr/bin/env -S node --max-semi-space-size=4
/** Process entry: arguments, signals, what a person sees, and the only process.exit. */

import { parseArgs } from "node:util";
import { checkSetup } from "./check.ts";
import { type Config, formatMistake } from "./config/config.ts";
import { type LoadOutcome, loadConfig } from "./config/load.ts";
import { claimDataDir, runningProcess } from "./config/process-file.ts";
import { explainFailure } from "./explain-failure.ts";
import { createLog, type Log } from "./observe/log.ts";
import { createReload, type ReloadPart } from "./reload.ts";
import { openServer, type RunningServer } from "./server.ts";
import { readVersion } from "./version.ts";

const usage = `Usage: nodedb <command> [--config FILE]

Commands
  start    run the front-end (the default)
  check    validate the configuration and connect to the upstream, changing nothing
  reload   tell the front-end of this data directory to reread its configuration

Options
  --config FILE  configuration file; else NODEDB_CONFIG, else ./nodedb.toml if there is one
  --help         this text
  --version      the version
`;

/** Exit statuses; 78 is EX_CONFIG and 64 EX_USAGE of sysexits(3). */
const exits = { ok: 0, failure: 1, usage: 64, configuration: 78 } as const;

async function main(): Promise<number> {
  const parsed = readArguments();
  if (parsed === undefined) return exits.usage;
  const { command, path } = parsed;
  if (command === "help") {
    process.stdout.write(usage);
    return exits.ok;
  }
  if (command === "version") {
    process.stdout.write(`nodedb ${readVersion()}\n`);
    return exits.ok;
  }
  const loaded = readConfig(path);
  if (loaded === undefined) return exits.configuration;
  const { config } = loaded;
  if (command === "reload") return tellToReload(config);
  const log = createLog(config.log);
  try {
    if (command === "check") {
      for (const line of await checkSetup(config, log)) process.stdout.write(`${line}\n`);
      return exits.ok;
    }
    return await run(loaded, path, log);
  } catch (error) {
    process.stderr.write(`${explainFailure(error).join("\n")}\n`);
    return exits.failure;
  }
}

type Command = "start" | "check" | "reload" | "help" | "version";

function readArguments(): { readonly command: Command; readonly path: string | undefined } | undefined {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        config: { type: "string" },
        help: { type: "boolean", short: "h" },
        version: { type: "boolean", short: "V" },
      },
    });
    if (values.help === true) return { command: "help", path: undefined };
    if (values.version === true) return { command: "version", path: undefined };
    const [command = "start", ...rest] = positionals;
    if (rest.length > 0) throw new TypeError(`unexpected argument "${rest.join(" ")}"`);
    if (command !== "start" && command !== "check" && command !== "reload") {
      throw new TypeError(`unknown command "${command}"`);
    }
    return { command, path: values.config };
  } catch (error) {
    process.stderr.write(`nodedb: ${error instanceof Error ? error.message : String(error)}\n\n${usage}`);
    return undefined;
  }
}

type Loaded = Extract<LoadOutcome, { ok: true }>;

function load(path: string | undefined): LoadOutcome {
  return loadConfig({
    ...(path === undefined ? {} : { path }),
    env: process.env,
    isTerminal: process.stderr.isTTY === true,
  });
}

function readConfig(path: string | undefined): Loaded | undefined {
  const outcome = load(path);
  if (outcome.ok) return outcome;
  for (const mistake of outcome.mistakes) process.stderr.write(`${formatMistake(mistake)}\n`);
  return undefined;
}

async function run({ config, values }: Loaded, path: string | undefined, log: Log): Promise<number> {
  const giveBack = claimDataDir(config.server.dataDir);
  try {
    const server = await openServer(config, log);
    greet(server);
    const reload = createReload({
      started: values,
      load: () => load(path),
      parts: [...server.reloadParts, logLevelOf(log)],
      log,
    });
    const ended = await untilToldToStop(server, reload, log);
    if (ended === "upstream") log.fatal("the embedded PostgreSQL has ended and does not start again");
    else log.info("shutting down");
    await server.close();
    log.info("stopped");
    return ended === "upstream" ? exits.failure : exits.ok;
  } finally {
    giveBack();
  }
}

/** What a new user reads; the password goes to standard output only, and to no log. */
function greet(server: RunningServer): void {
  const { host, ports, superuserName } = server;
  const lines = [
    `nodedb ${readVersion()}`,
    `upstream  ${server.upstream}`,
    `pgwire    ${host}:${ports.pgwire}`,
    ...(ports.http === undefined ? [] : [`http      ${host}:${ports.http}`]),
  ];
  const target = `-h ${reachable(host)} -p ${ports.pgwire} -U ${quoted(superuserName)} -d ${quoted(server.defaultDatabase)}`;
  if (server.generatedPassword !== undefined) {
    lines.push(
      "",
      `Superuser ${superuserName} was created. Its password, shown only this once:`,
      "",
      `  ${server.generatedPassword}`,
      "",
      "Connect with:",
      "",
      `  PGPASSWORD=${quoted(server.generatedPassword)} psql ${target}`,
      "",
    );
  } else {
    if (server.isFirstStart)
      lines.push(`superuser ${superuserName} was created with the password of NODEDB_SUPERUSER_PASSWORD`);
    lines.push("", "Connect with:", "", `  psql ${target}`, "");
  }
  process.stdout.write(`${lines.join("\n")}\n`);
}

/** An address to connect to, for one to listen on. */
function reachable(host: string): string {
  if (host === "0.0.0.0") return "127.0.0.1";
  return host === "::" ? "::1" : host;
}

/** A word as a shell reads it. */
function quoted(word: string): string {
  return /^[\w.@%+=:,/-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function logLevelOf(log: Log): ReloadPart {
  return {
    name: "log level",
    keys: ["log."],
    apply: (next) => {
      log.level = next.log.level;
    },
  };
}

function untilToldToStop(
  server: RunningServer,
  reload: () => Promise<void>,
  log: Log,
): Promise<"signal" | "upstream"> {
  return new Promise((resolve) => {
    let isStopping = false;
    const stop = () => {
      // The second time somebody is in a hurry: transactions are cut off.
      if (isStopping) void server.close().catch((error: unknown) => log.error({ err: error }, "cannot stop"));
      isStopping = true;
      resolve("signal");
    };
    process.on("SIGINT", stop);
    process.on("SIGTERM", stop);
    process.on("SIGHUP", () => void reload());
    void server.upstreamEnded.then(() => resolve("upstream"));
  });
}

function tellToReload(config: Config): number {
  const processId = runningProcess(config.server.dataDir);
  if (processId === undefined) {
    process.stderr.write(`nodedb: no front-end is running on ${config.server.dataDir}\n`);
    return exits.failure;
  }
  process.kill(processId, "SIGHUP");
  return exits.ok;
}

process.exit(await main());
