/** The embedded PostgreSQL's supervisor: first start, crashes of either side, root and ordinary users. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { afterEach, describe, expect, test, vi } from "vitest";
import { type EmbeddedPostgres, openEmbeddedPostgres } from "../../src/embedded/embedded-postgres.ts";
import { linkSharedLibraries, makeReachable } from "../../src/embedded/native-package.ts";
import { isAlive, isRunningOn, readPostmasterPid } from "../../src/embedded/postmaster-pid.ts";
import {
  canReach,
  chooseUnprivilegedUser,
  type UnprivilegedUser,
} from "../../src/embedded/unprivileged-user.ts";
import { createLog } from "../../src/observe/log.ts";

const isRoot = process.getuid?.() === 0;
const silentLog = createLog({ level: "silent", format: "json" });
const repository = fileURLToPath(new URL("../..", import.meta.url));
const holderScript = fileURLToPath(new URL("../support/embedded-process.mjs", import.meta.url));

const cleanUps: (() => Promise<unknown> | unknown)[] = [];

afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) {
    await cleanUp();
  }
});

function makeDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), "nodedb-embedded-"));
  cleanUps.push(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

async function open(dataDir: string, settings: Record<string, string> = {}): Promise<EmbeddedPostgres> {
  const postgres = await openEmbeddedPostgres({
    dataDir,
    superuserName: "nodedb",
    log: silentLog,
    maxConnections: 20,
    settings: { shared_buffers: "16MB", ...settings },
    initdbArgs: ["--no-sync"],
  });
  cleanUps.push(() => postgres.close());
  return postgres;
}

async function query(
  postgres: { socketDir: string; port: number },
  ...statements: string[]
): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({
    host: postgres.socketDir,
    port: postgres.port,
    user: "nodedb",
    database: "postgres",
  });
  await client.connect();
  try {
    let rows: Record<string, unknown>[] = [];
    for (const statement of statements) {
      rows = (await client.query(statement)).rows;
    }
    return rows;
  } finally {
    await client.end();
  }
}

async function findOtherUser(): Promise<UnprivilegedUser> {
  const user = await chooseUnprivilegedUser("/nonexistent");
  if (user === undefined) {
    throw new Error("only root can act as another user");
  }
  return user;
}

interface Holder {
  readonly process: ChildProcess;
  readonly answer: {
    readonly socketDir: string;
    readonly port: number;
    readonly processId: number;
    readonly error?: string;
  };
}

/** Opens the embedded PostgreSQL in a process of its own, which a test can kill. */
async function openInProcess(dataDir: string, user: { uid?: number; gid?: number } = {}): Promise<Holder> {
  const child = spawn(process.execPath, [holderScript, dataDir], {
    stdio: ["ignore", "pipe", "inherit"],
    ...user,
  });
  cleanUps.push(async () => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGTERM");
      await once(child, "exit");
    }
  });
  const [line] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
  return { process: child, answer: JSON.parse(line) };
}

describe("first and later starts", () => {
  test("the first start makes a UTF-8 cluster with checksums, reachable through a private socket only", async () => {
    const dataDir = join(makeDirectory(), "new", "data");
    const postgres = await open(dataDir);
    const [row] = await query(
      postgres,
      `SELECT current_setting('listen_addresses') AS addresses, current_setting('data_checksums') AS checksums,
              current_setting('server_encoding') AS encoding, current_setting('max_connections') AS max_connections,
              datlocprovider::text AS provider, datlocale AS locale, 'ä' ~ '^\\w$' AS knows_letters, rolsuper
         FROM pg_database, pg_roles WHERE datname = current_database() AND rolname = current_user`,
    );
    expect(row).toEqual({
      addresses: "",
      checksums: "on",
      encoding: "UTF8",
      max_connections: "20",
      provider: "b",
      locale: "C.UTF-8",
      knows_letters: true,
      rolsuper: true,
    });
    expect(postgres.isNew).toBe(true);
    expect(statSync(postgres.socketDir).mode & 0o777).toBe(0o700);
    expect(statSync(join(dataDir, "postgres.log")).mode & 0o077).toBe(0);
  });

  test("a second start finds what was committed", async () => {
    const dataDir = makeDirectory();
    const first = await open(dataDir);
    await query(first, "CREATE TABLE kept AS SELECT 42 AS n");
    await first.close();
    expect(await first.exited).toEqual({ code: 0, signal: null });
    const second = await open(dataDir);
    expect(second.isNew).toBe(false);
    expect(await query(second, "SELECT n FROM kept")).toEqual([{ n: 42 }]);
  });

  test("a cluster that was left half-made is made again", async () => {
    const dataDir = makeDirectory();
    const abandoned = join(dataDir, "postgres.partial-4194304");
    mkdirSync(abandoned);
    writeFileSync(join(abandoned, "PG_VERSION"), "18\n");
    const postgres = await open(dataDir);
    expect(await query(postgres, "SELECT 1 AS one")).toEqual([{ one: 1 }]);
    expect(readdirSync(dataDir).sort()).toEqual(["postgres", "postgres.log"]);
  });

  test("a directory that is no cluster is left alone and named", async () => {
    const dataDir = makeDirectory();
    mkdirSync(join(dataDir, "postgres"));
    writeFileSync(join(dataDir, "postgres", "precious"), "");
    await expect(open(dataDir)).rejects.toThrow(`${dataDir}/postgres is in the way`);
    expect(readdirSync(dataDir)).toEqual(["postgres"]);
    expect(existsSync(join(dataDir, "postgres", "precious"))).toBe(true);
  });

  test("a cluster of another major version is refused before it is touched", async () => {
    const dataDir = makeDirectory();
    mkdirSync(join(dataDir, "postgres"));
    writeFileSync(join(dataDir, "postgres", "PG_VERSION"), "15\n");
    await expect(open(dataDir)).rejects.toThrow("was made by PostgreSQL 15");
    expect(readdirSync(join(dataDir, "postgres"))).toEqual(["PG_VERSION"]);
  });

  test("a setting that PostgreSQL refuses is named in the error", async () => {
    await expect(open(makeDirectory(), { shared_buffers: "many" })).rejects.toThrow(/shared_buffers/);
  });

  test("a path too long for a socket address is reached by a link, which close removes", async () => {
    const dataDir = join(makeDirectory(), "x".repeat(100));
    const postgres = await open(dataDir);
    expect(postgres.socketDir.length).toBeLessThan(90);
    expect(await query(postgres, "SELECT 1 AS one")).toEqual([{ one: 1 }]);
    await postgres.close();
    expect(lstatSync(postgres.socketDir, { throwIfNoEntry: false })).toBeUndefined();
    expect(existsSync(join(dataDir, "postgres", "PG_VERSION"))).toBe(true);
  });
});

describe("what may not leak", () => {
  test("no ALTER SYSTEM opens a TCP port or another set of access rules", async () => {
    const dataDir = makeDirectory();
    const first = await open(dataDir);
    await query(first, "ALTER SYSTEM SET listen_addresses = '*'", "ALTER SYSTEM SET hba_file = '/dev/null'");
    await first.close();
    const second = await open(dataDir);
    const [row] = await query(
      second,
      "SELECT current_setting('listen_addresses') AS addresses, current_setting('hba_file') ~ '/pg_hba.conf$' AS ours",
    );
    expect(row).toEqual({ addresses: "", ours: true });
  });

  test("a failing statement's text does not reach PostgreSQL's log", async () => {
    const dataDir = makeDirectory();
    const postgres = await open(dataDir);
    await expect(
      query(postgres, "ALTER ROLE nobody_of_this_name PASSWORD 'hunter2hunter2'"),
    ).rejects.toThrow();
    const text = readFileSync(join(dataDir, "postgres.log"), "utf8");
    expect(text).toContain("nobody_of_this_name");
    expect(text).not.toContain("hunter2");
  });

  test.skipIf(process.platform !== "linux")(
    "PostgreSQL does not inherit the front-end's environment",
    async () => {
      vi.stubEnv("NODEDB_SUPERUSER_PASSWORD", "hunter2hunter2");
      cleanUps.push(() => vi.unstubAllEnvs());
      const postgres = await open(makeDirectory());
      expect(readFileSync(`/proc/${postgres.processId}/environ`, "utf8")).not.toContain("hunter2");
    },
  );
});

describe("crashes", () => {
  test("kill -9 of the front-end leaves no PostgreSQL behind and loses nothing", async () => {
    const dataDir = makeDirectory();
    const holder = await openInProcess(dataDir);
    const { processId } = holder.answer;
    await query(holder.answer, "CREATE TABLE kept AS SELECT 42 AS n");
    const idle = new pg.Client({
      host: holder.answer.socketDir,
      port: holder.answer.port,
      user: "nodedb",
      database: "postgres",
    });
    await idle.connect();
    const isCut = new Promise((resolve) => idle.on("error", resolve));
    holder.process.kill("SIGKILL");
    await isCut;
    await vi.waitFor(() => expect(isAlive(processId)).toBe(false), { timeout: 10_000, interval: 10 });
    expect(readPostmasterPid(join(dataDir, "postgres"))).toBeUndefined();
    const next = await open(dataDir);
    expect(await query(next, "SELECT n FROM kept")).toEqual([{ n: 42 }]);
  });

  test("a start right after kill -9 waits for the old PostgreSQL to end", async () => {
    const dataDir = makeDirectory();
    const holder = await openInProcess(dataDir);
    await query(holder.answer, "CREATE TABLE kept AS SELECT 42 AS n");
    holder.process.kill("SIGKILL");
    const next = await open(dataDir);
    expect(next.processId).not.toBe(holder.answer.processId);
    expect(await query(next, "SELECT n FROM kept")).toEqual([{ n: 42 }]);
  });

  test("a second front-end on the same data is refused, and the first goes on", async () => {
    const dataDir = makeDirectory();
    const first = await open(dataDir);
    await expect(open(dataDir)).rejects.toThrow(
      `in use by another PostgreSQL (process ${first.processId}): stop the NodeDB that runs on it`,
    );
    expect(await query(first, "SELECT 1 AS one")).toEqual([{ one: 1 }]);
  });

  test("the old process id belonging to somebody else now does not stop a start", async () => {
    const dataDir = makeDirectory();
    const first = await open(dataDir);
    const { uid, gid } = statSync(first.socketDir);
    await first.close();
    // The same user, so that PostgreSQL's own check would take it for a postmaster.
    const stranger = spawn("sleep", ["600"], { ...(isRoot ? { uid, gid } : {}), stdio: "ignore" });
    cleanUps.push(() => stranger.kill("SIGKILL"));
    await once(stranger, "spawn");
    writeFileSync(
      join(dataDir, "postgres", "postmaster.pid"),
      `${stranger.pid}\n${dataDir}/postgres\n1700000000\n5432\n.\n\n        1         1\nready   \n`,
    );
    const second = await open(dataDir);
    expect(await query(second, "SELECT 1 AS one")).toEqual([{ one: 1 }]);
  });

  test("a postmaster that dies is started again, with what was committed", async () => {
    const postgres = await open(makeDirectory());
    await query(postgres, "CREATE TABLE kept AS SELECT 42 AS n");
    const before = postgres.processId;
    process.kill(before, "SIGKILL");
    await vi.waitFor(() => expect(postgres.processId).not.toBe(before), { timeout: 20_000, interval: 10 });
    expect(await query(postgres, "SELECT n FROM kept")).toEqual([{ n: 42 }]);
  });

  test.skipIf(process.platform !== "linux")(
    "a guard that dies takes its PostgreSQL with it, and both are started again",
    async () => {
      const postgres = await open(makeDirectory());
      const before = postgres.processId;
      const guard = Number(readFileSync(`/proc/${before}/stat`, "utf8").split(" ")[3]);
      process.kill(guard, "SIGKILL");
      await vi.waitFor(() => expect(postgres.processId).not.toBe(before), { timeout: 20_000, interval: 10 });
      // Not isAlive: its parent is gone, and where nothing reaps orphans it stays as a zombie.
      expect(isRunningOn(postgres.socketDir, before)).toBe(false);
      expect(await query(postgres, "SELECT 1 AS one")).toEqual([{ one: 1 }]);
    },
  );

  test("close ends sessions that are in a transaction, and resolves once", async () => {
    const postgres = await open(makeDirectory());
    const client = new pg.Client({
      host: postgres.socketDir,
      port: postgres.port,
      user: "nodedb",
      database: "postgres",
    });
    await client.connect();
    await client.query("BEGIN");
    const isCut = new Promise<Error>((resolve) => client.on("error", resolve));
    const { processId } = postgres;
    await Promise.all([postgres.close(), postgres.close()]);
    expect(await isCut).toMatchObject({ code: "57P01" });
    expect(isAlive(processId)).toBe(false);
  });
});

describe("root and ordinary users", () => {
  test.skipIf(!isRoot || process.platform !== "linux")(
    "root's PostgreSQL runs as an unprivileged user, also below a directory that only root may enter",
    async () => {
      const parent = makeDirectory();
      chmodSync(parent, 0o700);
      const postgres = await open(join(parent, "data"));
      const { uid } = statSync(postgres.socketDir);
      expect(uid).not.toBe(0);
      expect(statSync(`/proc/${postgres.processId}`).uid).toBe(uid);
      expect(readlinkSync(`/proc/${postgres.processId}/cwd`)).toBe(postgres.socketDir);
      expect(statSync(join(parent, "data")).uid).toBe(0);
    },
  );

  test.skipIf(!isRoot)("an ordinary user's PostgreSQL runs as that user", async (context) => {
    const user = await findOtherUser();
    context.skip(!(await canReach(user, repository)), "the checkout cannot be reached by another user");
    const parent = makeDirectory();
    chmodSync(parent, 0o777);
    const holder = await openInProcess(join(parent, "data"), user);
    expect(holder.answer.error).toBeUndefined();
    expect(statSync(join(parent, "data")).uid).toBe(user.uid);
    expect(statSync(join(parent, "data", "postgres")).uid).toBe(user.uid);
  });

  test.skipIf(!isRoot)("a login by another system user than the front-end's is refused", async (context) => {
    const user = await findOtherUser();
    context.skip(!(await canReach(user, repository)), "the checkout cannot be reached by another user");
    const postgres = await open(makeDirectory());
    const text = `
      const pg = (await import("pg")).default;
      const client = new pg.Client({ host: "/proc/${postgres.processId}/cwd", user: "nodedb", database: "postgres" });
      await client.connect().then(() => console.log("in"), (error) => console.log(error.message));
      await client.end();`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", text], {
      stdio: ["ignore", "pipe", "inherit"],
      ...user,
    });
    const [line] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
    expect(line).toContain('Peer authentication failed for user "nodedb"');
  });

  test.skipIf(!isRoot)("programs that the user cannot reach are copied to where it can, once", async () => {
    const user = await findOtherUser();
    const hidden = makeDirectory();
    const cacheDir = join(makeDirectory(), "cache");
    chmodSync(join(cacheDir, ".."), 0o755);
    mkdirSync(join(hidden, "native", "bin"), { recursive: true });
    writeFileSync(join(hidden, "native", "bin", "postgres"), "#!/bin/sh\n", { mode: 0o755 });
    symlinkSync("postgres", join(hidden, "native", "bin", "link"));
    const programs = { version: "18.0.0", binDir: join(hidden, "native", "bin") };
    const copy = await makeReachable(programs, user, cacheDir);
    expect(copy.binDir.startsWith(cacheDir)).toBe(true);
    expect(await canReach(user, join(copy.binDir, "postgres"))).toBe(true);
    expect(readlinkSync(join(copy.binDir, "link"))).toBe("postgres");
    const { mtimeMs } = statSync(copy.binDir);
    expect(await makeReachable(programs, user, cacheDir)).toEqual(copy);
    expect(statSync(copy.binDir).mtimeMs).toBe(mtimeMs);
    expect(readdirSync(cacheDir)).toHaveLength(1);
  });
});

describe("shared library links", () => {
  test("missing and dangling links are made, existing ones kept", () => {
    const packageDir = makeDirectory();
    const lib = join(packageDir, "native", "lib");
    mkdirSync(lib, { recursive: true });
    writeFileSync(join(lib, "libx.so.1.2"), "library");
    symlinkSync("gone", join(lib, "libx.so.1"));
    writeFileSync(
      join(packageDir, "native", "pg-symlinks.json"),
      JSON.stringify(
        ["libx.so", "libx.so.1"].map((name) => ({
          source: "native/lib/libx.so.1.2",
          target: `native/lib/${name}`,
        })),
      ),
    );
    linkSharedLibraries(packageDir);
    linkSharedLibraries(packageDir);
    expect(readlinkSync(join(lib, "libx.so"))).toBe("libx.so.1.2");
    expect(readFileSync(join(lib, "libx.so.1"), "utf8")).toBe("library");
  });
});
