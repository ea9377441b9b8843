/** A throw-away PostgreSQL per test file, copied from a template that initdb made once. */

import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  accessSync,
  chmodSync,
  chownSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import pg from "pg";
import { type GuardedProcess, spawnGuarded } from "../../src/embedded/guarded-process.ts";
import { findNativePrograms, makeReachable } from "../../src/embedded/native-package.ts";
import { readPostmasterPid } from "../../src/embedded/postmaster-pid.ts";
import { chooseUnprivilegedUser, type UnprivilegedUser } from "../../src/embedded/unprivileged-user.ts";

const run = promisify(execFile);

const debianBinDir = "/usr/lib/postgresql/15/bin";

/** Whether Debian's PostgreSQL 15 is installed; a test that needs it goes through `requireClient`. */
export const hasDebianPostgres: boolean = isExecutable(join(debianBinDir, "postgres"));

export interface TestPostgresOptions {
  /** `embedded` is 18, from npm; `debian` is 15. */
  readonly version?: "embedded" | "debian";
  /** postgresql.conf settings, without quotes. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Listen on 127.0.0.1 too, where logins need SCRAM; the socket trusts everybody. */
  readonly tcp?: boolean;
  readonly superuserPassword?: string;
}

export interface TestPostgres {
  readonly socketDir: string;
  /** TCP port, and part of the socket's file name. */
  readonly port: number;
  readonly superuser: "postgres";
  readonly superuserPassword: string;
  /** Administrative login to database `postgres`, over TCP when asked for, else through the socket. */
  readonly url: string;
  readonly processId: number;
  /** What the server has logged. */
  readLog(): string;
  /** A fast shutdown and a start on the same port. */
  restart(): Promise<void>;
  /** Starts again what was stopped or killed. */
  start(): Promise<void>;
  stop(mode?: "smart" | "fast" | "immediate"): Promise<void>;
  /** SIGKILL to the postmaster; its backends notice and end. */
  kill(): Promise<void>;
  /** Stops it and removes its files. */
  dispose(): Promise<void>;
}

const readyTimeoutMs = 60_000;
const pollMs = 10;
const maxPortAttempts = 5;
const stopSignals = { smart: "SIGTERM", fast: "SIGINT", immediate: "SIGQUIT" } as const;

/** Nothing here survives a crash, and nothing has to. */
const fastSettings: Readonly<Record<string, string>> = {
  fsync: "off",
  full_page_writes: "off",
  synchronous_commit: "off",
  shared_buffers: "16MB",
  max_wal_size: "256MB",
  max_connections: "100",
  autovacuum: "off",
  log_line_prefix: "%m [%p] %q%u@%d ",
  password_encryption: "scram-sha-256",
};

export async function startPostgres(options: TestPostgresOptions = {}): Promise<TestPostgres> {
  const version = options.version ?? "embedded";
  const user = await chooseUnprivilegedUser("/nonexistent");
  const binDir =
    version === "debian" ? debianBinDir : (await makeReachable(findNativePrograms(), user)).binDir;
  const template = await makeTemplate(version, binDir, user);
  const directory = mkdtempSync(join(tmpdir(), "nodedb-test-"));
  giveTo(user, directory);
  const dataDir = join(directory, "data");
  const logPath = join(directory, "log");
  await run("cp", ["-a", template, dataDir]);
  const superuserPassword = options.superuserPassword ?? randomBytes(16).toString("hex");
  const hasTcp = options.tcp === true;
  writeOwned(
    user,
    join(dataDir, "pg_hba.conf"),
    "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n",
  );
  let port = 5432;
  let current: { guarded: GuardedProcess; processId: number };
  for (let attempt = 1; ; attempt += 1) {
    port = hasTcp ? await findFreePort() : port;
    try {
      await start();
      break;
    } catch (error) {
      // Somebody else may have taken the port in between.
      if (!hasTcp || attempt === maxPortAttempts) {
        rmSync(directory, { recursive: true, force: true });
        throw error;
      }
    }
  }
  const socketUrl = `postgresql://postgres@/postgres?host=${encodeURIComponent(directory)}&port=${port}`;
  await setPassword();

  return {
    socketDir: directory,
    get port() {
      return port;
    },
    superuser: "postgres",
    superuserPassword,
    url: hasTcp
      ? `postgresql://postgres:${encodeURIComponent(superuserPassword)}@127.0.0.1:${port}/postgres`
      : socketUrl,
    get processId() {
      return current.processId;
    },
    readLog: () => readFileSync(logPath, "utf8"),
    async restart() {
      await stop("fast");
      await start();
    },
    start,
    stop: (mode = "fast") => stop(mode),
    kill: () => end("SIGKILL"),
    async dispose() {
      await stop("immediate");
      rmSync(directory, { recursive: true, force: true });
    },
  };

  async function start(): Promise<void> {
    const settings = {
      ...fastSettings,
      listen_addresses: hasTcp ? "127.0.0.1" : "",
      port: String(port),
      unix_socket_directories: directory,
      ...options.settings,
    };
    const args = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
    const before = readPostmasterPid(dataDir)?.run;
    const logFd = openSync(logPath, "a");
    // Guarded, so that a test run that is killed leaves no server behind.
    const guarded = spawnGuarded({
      program: join(binDir, "postgres"),
      args: ["-D", dataDir, ...args],
      cwd: directory,
      user,
      env: { PATH: process.env.PATH, LC_ALL: "C" },
      logFd,
    });
    closeSync(logFd);
    let hasExited = false;
    void guarded.exited.then(() => {
      hasExited = true;
    });
    const deadline = Date.now() + readyTimeoutMs;
    for (;;) {
      const now = readPostmasterPid(dataDir);
      if (now?.status === "ready" && now.run !== before) {
        current = { guarded, processId: now.processId };
        return;
      }
      if (hasExited || Date.now() > deadline) {
        guarded.release();
        throw new Error(`the test PostgreSQL did not start:\n${readFileSync(logPath, "utf8")}`);
      }
      await delay(pollMs);
    }
  }

  function stop(mode: "smart" | "fast" | "immediate"): Promise<void> {
    return end(stopSignals[mode]);
  }

  async function end(signal: NodeJS.Signals): Promise<void> {
    try {
      process.kill(current.processId, signal);
    } catch {
      // It has ended already.
    }
    await current.guarded.exited;
  }

  async function setPassword(): Promise<void> {
    const client = new pg.Client({ connectionString: socketUrl });
    await client.connect();
    await client.query(`ALTER ROLE postgres PASSWORD ${client.escapeLiteral(superuserPassword)}`);
    await client.end();
  }
}

/** Made once per machine, version and user; several workers may try at once, and the first one's rename wins. */
async function makeTemplate(
  version: "embedded" | "debian",
  binDir: string,
  user: UnprivilegedUser | undefined,
): Promise<string> {
  const { stdout } = await run(join(binDir, "postgres"), ["-V"]);
  const key = `${version}-${stdout.trim().replaceAll(/[^\w.]+/g, "-")}-${user?.uid ?? process.getuid?.()}`;
  const template = join(tmpdir(), `nodedb-test-template-${key}`);
  if (existsSync(join(template, "PG_VERSION"))) {
    return template;
  }
  const partial = mkdtempSync(`${template}.partial-`);
  chmodSync(partial, 0o755);
  const data = join(partial, "data");
  mkdirSync(data, { mode: 0o700 });
  giveTo(user, data);
  const locale =
    version === "debian"
      ? ["--locale=C.UTF-8"]
      : ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"];
  try {
    await run(
      join(binDir, "initdb"),
      [
        "-D",
        data,
        "-U",
        "postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--no-sync",
        "--data-checksums",
        ...locale,
      ],
      { cwd: partial, ...user },
    );
    renameSync(data, template);
  } catch (error) {
    if (!existsSync(join(template, "PG_VERSION"))) {
      throw error;
    }
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
  return template;
}

async function findFreePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") {
    throw new Error("no TCP port");
  }
  return address.port;
}

function writeOwned(user: UnprivilegedUser | undefined, path: string, content: string): void {
  writeFileSync(path, content, { mode: 0o600 });
  giveTo(user, path);
}

function giveTo(user: UnprivilegedUser | undefined, path: string): void {
  if (user !== undefined) {
    chownSync(path, user.uid, user.gid);
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
