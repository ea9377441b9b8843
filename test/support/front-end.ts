/** Runs the real program, as a user would, for tests. */

import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

export interface FrontEndOptions {
  /** `postgres://…` of the PostgreSQL to stand in front of; absent: the embedded one. */
  readonly upstreamUrl?: string;
  /** More of nodedb.toml. */
  readonly configuration?: string;
  readonly environment?: Readonly<Record<string, string>>;
  /** Data directory of another front-end on the same PostgreSQL, whose master secret this one has to know. */
  readonly besides?: string;
  /** To start again on what an earlier start left behind; it stays when the front-end is closed. */
  readonly dataDir?: string;
  /** Extra arguments for node itself. */
  readonly nodeArguments?: readonly string[];
}

export interface FrontEnd {
  readonly host: string;
  readonly port: number;
  /** 0 when HTTP is switched off. */
  readonly httpPort: number;
  readonly adminUser: string;
  readonly adminPassword: string;
  readonly database: string;
  readonly dataDir: string;
  readonly processId: number;
  /** What it has printed, standard output and log. */
  output(): string;
  signal(signal: NodeJS.Signals): void;
  /** Resolves with the exit status, or null when a signal ended it. */
  readonly exited: Promise<number | null>;
  close(): Promise<void>;
}

interface Ports {
  readonly pgwire: number;
  readonly http?: number;
}

const program = resolve(import.meta.dirname, "../../dist/main.js");
const startTimeoutMs = 60_000;

/** Starts the front-end on a free port and waits until it accepts clients. */
export async function startFrontEnd(options: FrontEndOptions = {}): Promise<FrontEnd> {
  const dataDir = options.dataDir ?? mkdtempSync(join(tmpdir(), "nodedb-test-"));
  if (options.besides !== undefined) {
    copyFileSync(join(options.besides, "master.secret"), join(dataDir, "master.secret"));
  }
  const configuration = join(dataDir, "test.toml");
  const adminPassword = `admin ${randomBytes(12).toString("hex")}`;
  const portsFile = join(dataDir, "ports.json");
  rmSync(portsFile, { force: true });
  writeFileSync(configuration, options.configuration ?? "", { mode: 0o600 });
  const child = spawn(
    process.execPath,
    [...(options.nodeArguments ?? []), program, "start", "--config", configuration],
    {
      env: {
        PATH: process.env.PATH,
        NODEDB_DATA_DIR: dataDir,
        NODEDB_PORT_PGWIRE: "0",
        NODEDB_PORT_HTTP: "0",
        NODEDB_SUPERUSER_PASSWORD: adminPassword,
        ...(options.upstreamUrl === undefined ? {} : { NODEDB_UPSTREAM_URL: options.upstreamUrl }),
        ...options.environment,
      },
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  let output = "";
  child.stdout.on("data", (chunk) => {
    output += chunk;
  });
  child.stderr.on("data", (chunk) => {
    output += chunk;
  });
  const exited = once(child, "exit").then(([status]) => status as number | null);
  const { pgwire: port, http: httpPort = 0 } = await waitForPorts(child, portsFile, () => output);
  return {
    host: "127.0.0.1",
    port,
    httpPort,
    adminUser: "nodedb",
    adminPassword,
    database: options.upstreamUrl === undefined ? "nodedb" : new URL(options.upstreamUrl).pathname.slice(1),
    dataDir,
    processId: child.pid ?? 0,
    output: () => output,
    signal: (signal) => child.kill(signal),
    exited,
    close: async () => {
      if (child.exitCode === null && child.signalCode === null) child.kill("SIGTERM");
      await exited;
      if (options.dataDir === undefined) rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

async function waitForPorts(child: ChildProcess, portsFile: string, output: () => string): Promise<Ports> {
  const deadline = Date.now() + startTimeoutMs;
  while (Date.now() < deadline) {
    if (child.exitCode !== null) throw new Error(`the front-end ended with ${child.exitCode}:\n${output()}`);
    if (existsSync(portsFile)) {
      const text = readFileSync(portsFile, "utf8");
      if (text.endsWith("\n")) return JSON.parse(text) as Ports;
    }
    await new Promise((resume) => setTimeout(resume, 10));
  }
  child.kill("SIGKILL");
  throw new Error(`the front-end did not start:\n${output()}`);
}
