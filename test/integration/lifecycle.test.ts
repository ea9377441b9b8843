/** The program from its first start to its end, however it comes to it. */

import { execFile, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { isAlive, isRunningOn, readPostmasterPid } from "../../src/embedded/postmaster-pid.ts";
import { isRunnable } from "../support/client-program.ts";
import { type FrontEnd, type FrontEndOptions, startFrontEnd } from "../support/front-end.ts";
import { requireClient } from "../support/skips.ts";
import { endOf, openClient, runOnce, stateOf } from "../support/stage.ts";

const run = promisify(execFile);
const isPsqlThere = isRunnable("psql", "--version");

const program = join(import.meta.dirname, "../../dist/main.js");
const started: FrontEnd[] = [];

afterEach(async () => {
  for (const frontEnd of started.splice(0)) await frontEnd.close();
});

async function start(options: FrontEndOptions): Promise<FrontEnd> {
  const frontEnd = await startFrontEnd(options);
  started.push(frontEnd);
  return frontEnd;
}

function postmasterOf(dataDir: string): number {
  const found = readPostmasterPid(join(dataDir, "postgres"));
  if (found === undefined) throw new Error("no PostgreSQL runs there");
  return found.processId;
}

async function expectGone(dataDir: string, processId: number): Promise<void> {
  await vi.waitFor(() => expect(isRunningOn(join(dataDir, "postgres"), processId)).toBe(false), {
    timeout: 10_000,
    interval: 10,
  });
}

function loginOf(frontEnd: FrontEnd, password: string) {
  const { host, port, database, adminUser } = frontEnd;
  return { host, port, database, user: adminUser, password };
}

/** All that is written to logs: the front-end's standard error is among the output. */
function logsOf(frontEnd: FrontEnd): string {
  const inOutput = frontEnd
    .output()
    .split("\n")
    .filter((line) => line.startsWith("{"));
  return [...inOutput, readFileSync(join(frontEnd.dataDir, "postgres.log"), "utf8")].join("\n");
}

/** What is in any file of the data directory that is not PostgreSQL's own. */
function filesOf(dataDir: string): string {
  return readdirSync(dataDir, { withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name !== "test.toml")
    .map((entry) => readFileSync(join(dataDir, entry.name), "latin1"))
    .join("\n");
}

describe("one data directory, start after start", () => {
  const isThere = requireClient("psql (postgresql-client-15)", isPsqlThere);
  let dataDir: string;
  let password: string;
  beforeAll(() => {
    dataDir = mkdtempSync(join(tmpdir(), "nodedb-test-"));
  });
  afterAll(() => rmSync(dataDir, { recursive: true, force: true }));

  // An empty variable is one that was not given.
  const generated = { NODEDB_SUPERUSER_PASSWORD: undefined } as unknown as Record<string, string>;

  test("the first start shows a generated password once, and a psql line that works in a shell", async () => {
    const first = await start({ dataDir, environment: generated });
    await vi.waitFor(() => expect(first.output()).toContain("psql -h"), { timeout: 3_000, interval: 10 });
    const line = /^ {2}(PGPASSWORD=\S+ psql .*)$/m.exec(first.output())?.[1] ?? "";
    password = /PGPASSWORD=(\S+)/.exec(line)?.[1] ?? "";
    expect(password.length).toBeGreaterThanOrEqual(20);
    expect(logsOf(first)).not.toContain(password);
    expect(filesOf(dataDir)).not.toContain(password);
    if (isThere) {
      const script =
        "CREATE TABLE kept AS SELECT 42 AS n; CREATE USER carol PASSWORD 'carolcarol'; SELECT current_user";
      const { stdout } = await run("sh", ["-c", `${line} -XAtqc "${script}"`], {
        env: { PATH: process.env.PATH },
      });
      expect(stdout).toBe("nodedb\n");
    } else {
      await runOnce(loginOf(first, password), "CREATE TABLE kept AS SELECT 42 AS n");
      await runOnce(loginOf(first, password), "CREATE USER carol PASSWORD 'carolcarol'");
    }
    expect(logsOf(first)).not.toContain("carolcarol");
  });

  test("the second start shows no password, and finds users and data", async () => {
    const second = await start({ dataDir, environment: generated });
    await vi.waitFor(() => expect(second.output()).toContain("psql -h"), { timeout: 3_000, interval: 10 });
    expect(second.output()).not.toMatch(/PGPASSWORD|password/i);
    expect((await runOnce(loginOf(second, password), "SELECT n FROM kept")).rows).toEqual([{ n: 42 }]);
    const carol = { ...loginOf(second, "carolcarol"), user: "carol" };
    expect((await runOnce(carol, "SELECT current_user AS me")).rows).toEqual([{ me: "carol" }]);
  });

  test("statements that fail, and logins that are refused, leave no password in a log", async () => {
    const frontEnd = await start({
      dataDir,
      environment: generated,
      configuration: '[log]\nlevel = "trace"\n',
    });
    const client = await openClient(loginOf(frontEnd, password));
    const secret = "hunter2-hunter2";
    for (const sql of [
      `CREATE USER carol PASSWORD '${secret}'`,
      `CREATE USER PASSWORD '${secret}'`,
      `ALTER USER nobody_there PASSWORD '${secret}'`,
      `ALTER USER carol PASSWORD '${secret}' NONSENSE`,
      `SELECT 1/0; ALTER USER carol PASSWORD '${secret}'`,
      `ALTER USER carol PASSWORD '${secret}'; SELECT 1/0`,
      `DO $$ BEGIN EXECUTE 'ALTER ROLE nobody_there PASSWORD ''${secret}'''; END $$`,
      `ALTER ROLE nodedb_admin_login PASSWORD '${secret}'`,
    ]) {
      expect(await stateOf(client.query(sql)), sql).toMatch(/^\w{5}$/);
      await client.query({ text: sql, values: [] }).catch(() => {});
    }
    await client.end();
    expect(await stateOf(openClient(loginOf(frontEnd, secret)))).toBe("28P01");
    expect(logsOf(frontEnd)).toContain("login refused");
    expect(logsOf(frontEnd)).not.toContain(secret);
    await runOnce(loginOf(frontEnd, password), "ALTER USER carol PASSWORD 'carolcarol'");
  });

  test("kill -9 leaves no PostgreSQL behind, and the next start finds what was committed", async () => {
    const killed = await start({ dataDir, environment: generated });
    const processId = postmasterOf(dataDir);
    const client = await openClient(loginOf(killed, password));
    const end = endOf(client);
    await client.query("UPDATE kept SET n = 43");
    await client.query("BEGIN; UPDATE kept SET n = 44");
    killed.signal("SIGKILL");
    await end;
    expect(await killed.exited).toBeNull();
    await expectGone(dataDir, processId);
    const next = await start({ dataDir, environment: generated });
    expect((await runOnce(loginOf(next, password), "SELECT n FROM kept")).rows).toEqual([{ n: 43 }]);
    process.kill(postmasterOf(dataDir), "SIGKILL");
    // The supervisor starts it again; meanwhile clients are told so.
    await vi.waitFor(
      async () => {
        const state = await stateOf(runOnce(loginOf(next, password), "SELECT n FROM kept"));
        if (state !== undefined) expect(state).toMatch(/^(57P0[123]|08006)$/);
        expect(state).toBeUndefined();
      },
      { timeout: 20_000, interval: 50 },
    );
    expect(next.output()).toContain("was restarted");
  });

  test("a port in use is named, and nothing is left running", async () => {
    const holder = createServer();
    await new Promise<void>((resolve) => holder.listen(0, "127.0.0.1", resolve));
    const { port } = holder.address() as { port: number };
    const failed = await end(dataDir, { NODEDB_PORT_PGWIRE: String(port), NODEDB_PORT_HTTP: "0" });
    holder.close();
    expect(failed.status).toBe(1);
    expect(failed.stderr).toMatch(
      new RegExp(`^nodedb: .*127\\.0\\.0\\.1:${port}\nHINT: .*NODEDB_PORT_PGWIRE`, "m"),
    );
    expect(failed.stderr).not.toContain("    at ");
    expect(readPostmasterPid(join(dataDir, "postgres"))).toBeUndefined();
  });

  test("a second front-end on the same data is refused, and the first goes on", async () => {
    const first = await start({ dataDir, environment: generated });
    const second = await end(dataDir, { NODEDB_PORT_PGWIRE: "0", NODEDB_PORT_HTTP: "0" });
    expect(second.status).toBe(1);
    expect(second.stderr).toMatch(/^nodedb: .* is in use by process \d+\nHINT: .*data directory of its own/m);
    expect((await runOnce(loginOf(first, password), "SELECT count(*)::int AS n FROM kept")).rows).toEqual([
      { n: 1 },
    ]);
    expect(readFileSync(join(dataDir, "nodedb.pid"), "utf8")).toBe(`${first.processId}\n`);
  });

  test("a first start that fails for its port has not used up the generated password", async () => {
    const fresh = mkdtempSync(join(tmpdir(), "nodedb-test-"));
    const holder = createServer();
    await new Promise<void>((resolve) => holder.listen(0, "127.0.0.1", resolve));
    const { port } = holder.address() as { port: number };
    expect((await end(fresh, { NODEDB_PORT_PGWIRE: String(port), NODEDB_PORT_HTTP: "0" })).status).toBe(1);
    holder.close();
    const next = await start({ dataDir: fresh, environment: generated });
    await vi.waitFor(() => expect(next.output()).toContain("psql -h"), { timeout: 3_000, interval: 10 });
    expect(next.output()).toContain("PGPASSWORD=");
    await next.close();
    rmSync(fresh, { recursive: true, force: true });
  });

  describe.each(["SIGTERM", "SIGINT"] as const)("%s", (signal) => {
    test("ends idle sessions with 57P01, lets transactions finish, and leaves nothing running", async () => {
      const frontEnd = await start({
        dataDir,
        environment: generated,
        configuration: '[server]\nshutdown_timeout = "20s"\n',
      });
      const processId = postmasterOf(dataDir);
      const login = loginOf(frontEnd, password);
      const [idle, busy] = await Promise.all([openClient(login), openClient(login)]);
      const [idleEnd, busyEnd] = [endOf(idle), endOf(busy)];
      const halfWay = connect({ host: frontEnd.host, port: frontEnd.port });
      halfWay.on("error", () => {});
      const halfWayEnd = new Promise<void>((resolve) => halfWay.once("close", () => resolve()));
      await busy.query("BEGIN; UPDATE kept SET n = n + 1");
      const before = (await idle.query("SELECT n FROM kept")).rows[0]?.n;
      frontEnd.signal(signal);
      expect(await idleEnd).toMatchObject({ code: "57P01", severity: "FATAL" });
      await halfWayEnd;
      expect(await stateOf(openClient(login))).toBe("ECONNREFUSED");
      // The transaction goes on as long as it likes within the time.
      await busy.query("SELECT 1");
      await busy.query("COMMIT");
      expect(await busyEnd).toMatchObject({ code: "57P01" });
      expect(await frontEnd.exited).toBe(0);
      expect(isAlive(processId)).toBe(false);
      expect(existsSync(join(dataDir, "nodedb.pid"))).toBe(false);
      const next = await start({ dataDir, environment: generated });
      expect((await runOnce(loginOf(next, password), "SELECT n FROM kept")).rows).toEqual([
        { n: before + 1 },
      ]);
    });
  });

  test("what still runs when shutdown_timeout is over is cut off with 57P01", async () => {
    const frontEnd = await start({
      dataDir,
      environment: generated,
      configuration: '[server]\nshutdown_timeout = "500ms"\n',
    });
    const processId = postmasterOf(dataDir);
    const login = loginOf(frontEnd, password);
    const [running, inTransaction] = await Promise.all([openClient(login), openClient(login)]);
    const transactionEnd = endOf(inTransaction);
    await inTransaction.query("BEGIN; UPDATE kept SET n = -1");
    const statement = stateOf(running.query("SELECT pg_sleep(600)"));
    const startedAt = Date.now();
    frontEnd.signal("SIGTERM");
    expect(await statement).toBe("57P01");
    expect(await transactionEnd).toMatchObject({ code: "57P01" });
    expect(await frontEnd.exited).toBe(0);
    expect(Date.now() - startedAt).toBeGreaterThanOrEqual(450);
    expect(Date.now() - startedAt).toBeLessThan(5_000);
    expect(isAlive(processId)).toBe(false);
  });

  test("a second signal is in a hurry: transactions are cut off", async () => {
    const frontEnd = await start({ dataDir, environment: generated });
    const client = await openClient(loginOf(frontEnd, password));
    const idle = await openClient(loginOf(frontEnd, password));
    const [clientEnd, idleEnd] = [endOf(client), endOf(idle)];
    await client.query("BEGIN");
    frontEnd.signal("SIGTERM");
    await idleEnd;
    frontEnd.signal("SIGTERM");
    expect(await clientEnd).toMatchObject({ code: "57P01" });
    expect(await frontEnd.exited).toBe(0);
  });

  /** Runs `start` where it is expected to fail. */
  function end(directory: string, environment: Record<string, string>) {
    return new Promise<{ status: number | null; stderr: string }>((resolve) => {
      const child = spawn(process.execPath, [program, "start"], {
        cwd: directory,
        env: { PATH: process.env.PATH, NODEDB_DATA_DIR: directory, ...environment },
        stdio: ["ignore", "ignore", "pipe"],
        timeout: 30_000,
        killSignal: "SIGKILL",
      });
      let stderr = "";
      child.stderr.on("data", (chunk) => {
        stderr += chunk;
      });
      child.on("close", (status) => resolve({ status, stderr }));
    });
  }
});
