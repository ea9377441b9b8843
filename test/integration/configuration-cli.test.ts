/** The command line, the checks before a start, and what a reload changes in a running front-end. */

import { execFile } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TLSSocket } from "node:tls";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { makeServerCertificate } from "../support/certificates.ts";
import { openClient, openStage, type Stage } from "../support/stage.ts";

const program = join(import.meta.dirname, "../../dist/main.js");
let directory: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "nodedb-test-"));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

interface Finished {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

function nodedb(args: readonly string[], environment: Record<string, string> = {}): Promise<Finished> {
  return new Promise((resolve) => {
    const env = { PATH: process.env.PATH, NODEDB_DATA_DIR: join(directory, "data"), ...environment };
    const child = execFile(
      process.execPath,
      [program, ...args],
      { cwd: directory, env, timeout: 30_000 },
      (_error, stdout, stderr) => resolve({ status: child.exitCode ?? -1, stdout, stderr }),
    );
  });
}

function writeConfiguration(text: string): string {
  const path = join(directory, "given.toml");
  writeFileSync(path, text, { mode: 0o600 });
  return path;
}

describe("arguments", () => {
  test.concurrent("--help and --version answer and do nothing", async () => {
    for (const option of ["--help", "-h"]) {
      const help = await nodedb([option]);
      expect(help).toMatchObject({ status: 0, stderr: "" });
      for (const word of ["start", "check", "reload", "--config", "--version"])
        expect(help.stdout).toContain(word);
    }
    const { version } = JSON.parse(readFileSync(join(import.meta.dirname, "../../package.json"), "utf8"));
    expect(await nodedb(["--version"])).toEqual({ status: 0, stdout: `nodedb ${version}\n`, stderr: "" });
  });

  test.concurrent("an unknown command, option or argument is a usage error", async () => {
    for (const args of [["sart"], ["start", "now"], ["--confg", "x"], ["start", "--config"]]) {
      const refused = await nodedb(args);
      expect(refused, args.join(" ")).toMatchObject({ status: 64, stdout: "" });
      expect(refused.stderr).toMatch(/^nodedb: /);
      expect(refused.stderr).toContain("Usage: nodedb");
    }
  });

  test.concurrent("reload says when nothing runs there", async () => {
    const refused = await nodedb(["reload"]);
    expect(refused).toMatchObject({ status: 1, stdout: "" });
    expect(refused.stderr).toContain(`no front-end is running on ${join(directory, "data")}`);
  });
});

describe("mistakes in the configuration", () => {
  test("are listed all at once with file, line and key, and nothing is started", async () => {
    const path = writeConfiguration(
      '[server]\nhots = "127.0.0.1"\nmax_connections = 0\n[server.tls]\ncert = "/nowhere"\n[upstream]\nqueue_timeout = "soon"\nurl = "mysql://user:hunter2@x"\n',
    );
    for (const command of ["start", "check", "reload"]) {
      const refused = await nodedb([command, "--config", path], { NODEDB_LOG_LEVEL: "loud" });
      expect(refused, command).toMatchObject({ status: 78, stdout: "" });
      const lines = refused.stderr.trimEnd().split("\n");
      for (const [line, key] of [
        [2, "server.hots"],
        [3, "server.max_connections"],
        [7, "upstream.queue_timeout"],
        [8, "upstream.url"],
      ] as const) {
        expect(lines).toContainEqual(
          expect.stringMatching(new RegExp(`given\\.toml:${line}\\b.*${key.replace(".", "\\.")}`)),
        );
      }
      expect(refused.stderr).toContain("server.host");
      expect(refused.stderr).toMatch(/server\.tls\.(cert|key)/);
      expect(refused.stderr).toContain("NODEDB_LOG_LEVEL");
      expect(refused.stderr).not.toContain("hunter2");
      expect(existsSync(join(directory, "data"))).toBe(false);
    }
  });

  test("a key that is of another certificate, or no key, is named with its file", async () => {
    const { certPath } = await makeServerCertificate();
    const other = await makeServerCertificate();
    const noKey = join(directory, "no.key");
    writeFileSync(noKey, "hunter2\n", { mode: 0o600 });
    for (const keyPath of [other.keyPath, noKey]) {
      const refused = await nodedb(["check"], {
        NODEDB_TLS_CERT_PATH: certPath,
        NODEDB_TLS_KEY_PATH: keyPath,
      });
      expect(refused).toMatchObject({ status: 1, stdout: "" });
      expect(refused.stderr).toContain(
        `nodedb: ${certPath} and ${keyPath} are no certificate with its private key: `,
      );
      expect(refused.stderr).not.toContain("hunter2");
    }
  });

  test("a file that is not there, or no TOML, is one", async () => {
    expect(await nodedb(["check", "--config", join(directory, "missing.toml")])).toMatchObject({
      status: 78,
    });
    expect(await nodedb(["check"], { NODEDB_CONFIG: join(directory, "missing.toml") })).toMatchObject({
      status: 78,
    });
    const refused = await nodedb(["check", "--config", writeConfiguration("[server\n")]);
    expect(refused.status).toBe(78);
    expect(refused.stderr).toMatch(/given\.toml:1/);
  });
});

describe("a running front-end", () => {
  let stage: Stage;
  let certPath: string;
  let keyPath: string;
  const configuration = (more: string) =>
    `[server]\nshutdown_timeout = "1s"\n[server.tls]\ncert = "${certPath}"\nkey = "${keyPath}"\n${more}`;

  beforeAll(async () => {
    const first = await makeServerCertificate();
    certPath = join(directory, "live.crt");
    keyPath = join(directory, "live.key");
    copyFileSync(first.certPath, certPath);
    copyFileSync(first.keyPath, keyPath);
    stage = await openStage({ configuration: configuration('[log]\nlevel = "warn"\n') });
  });
  afterAll(() => stage?.close());

  async function reload(more: string, expected: string): Promise<string> {
    writeFileSync(join(stage.frontEnd.dataDir, "test.toml"), configuration(more), { mode: 0o600 });
    const before = stage.frontEnd.output().length;
    const config = join(stage.frontEnd.dataDir, "test.toml");
    const told = await nodedb(["reload", "--config", config], { NODEDB_DATA_DIR: stage.frontEnd.dataDir });
    expect(told).toEqual({ status: 0, stdout: "", stderr: "" });
    return vi.waitFor(
      () => {
        const said = stage.frontEnd.output().slice(before);
        expect(said).toContain(expected);
        return said;
      },
      { timeout: 3_000, interval: 10 },
    );
  }

  async function presentedCertificate(): Promise<string> {
    const client = await openClient(stage.login("alice", { ssl: { rejectUnauthorized: false } }));
    const { stream } = (client as unknown as { connection: { stream: TLSSocket } }).connection;
    const { fingerprint256 } = stream.getPeerCertificate();
    await client.end();
    return fingerprint256;
  }

  test("takes a new log level, and names what was taken and what needs a restart", async () => {
    await expect(openClient(stage.login("alice", { password: "wrong" }))).rejects.toThrow();
    expect(stage.frontEnd.output()).not.toContain("login refused");
    const said = await reload(
      '[log]\nlevel = "info"\n[upstream]\npool_size = 7\n[audit]\nlevel = "full"\n',
      "configuration reloaded",
    );
    const lines = said.split("\n");
    expect(lines.find((line) => line.includes("need a restart"))).toMatch(/"keys":\["audit\.level"\]/);
    expect(lines.find((line) => line.includes("configuration reloaded"))).toMatch(
      /"applied":\["upstream\.pool_size","log\.level"\]/,
    );
    await expect(openClient(stage.login("alice", { password: "wrong" }))).rejects.toThrow();
    await vi.waitFor(() => expect(stage.frontEnd.output()).toContain("login refused"), {
      timeout: 3_000,
      interval: 10,
    });
  });

  test("gives new connections a new certificate, and keeps the old one when the new one is broken", async () => {
    const old = await presentedCertificate();
    const established = await openClient(stage.login("alice", { ssl: { rejectUnauthorized: false } }));
    const next = await makeServerCertificate();
    copyFileSync(next.certPath, certPath);
    copyFileSync(next.keyPath, keyPath);
    expect(await presentedCertificate()).toBe(old);
    await reload('[log]\nlevel = "info"\n', "configuration reloaded");
    const renewed = await presentedCertificate();
    expect(renewed).not.toBe(old);
    expect((await established.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    await established.end();

    writeFileSync(certPath, "-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n");
    await reload('[log]\nlevel = "info"\n', "not reloaded");
    expect(await presentedCertificate()).toBe(renewed);

    // A certificate of another key.
    copyFileSync((await makeServerCertificate()).certPath, certPath);
    await reload('[log]\nlevel = "info"\n', "not reloaded");
    expect(await presentedCertificate()).toBe(renewed);
    copyFileSync(next.certPath, certPath);
  });

  test("keeps its configuration when the new one has mistakes", async () => {
    const path = join(stage.frontEnd.dataDir, "test.toml");
    writeFileSync(path, configuration('[log]\nlevel = "loud"\n'), { mode: 0o600 });
    // The command looks first; somebody else's SIGHUP does not.
    expect(await nodedb(["reload", "--config", path])).toMatchObject({ status: 78 });
    const before = stage.frontEnd.output().length;
    stage.frontEnd.signal("SIGHUP");
    await vi.waitFor(
      () => expect(stage.frontEnd.output().slice(before)).toMatch(/configuration not reloaded: .*log\.level/),
      { timeout: 3_000, interval: 10 },
    );
    const client = await stage.connect("alice");
    await client.end();
    expect(await presentedCertificate()).toBeTruthy();
  });

  test("check connects to the upstream and changes nothing, or says why it cannot", async () => {
    const count =
      "SELECT (SELECT count(*)::int FROM pg_class) AS classes, (SELECT count(*)::int FROM pg_authid) AS roles";
    const before = await stage.past(count);
    const { url } = stage.postgres;
    const fine = await nodedb(["check"], {
      NODEDB_UPSTREAM_URL: url,
      NODEDB_TLS_CERT_PATH: certPath,
      NODEDB_TLS_KEY_PATH: keyPath,
    });
    expect(fine).toMatchObject({ status: 0, stderr: "" });
    expect(fine.stdout).toMatch(
      /^configuration +ok\ncertificate +ok, valid until .*\nupstream +ok, PostgreSQL 18\.\d+ as postgres\n$/,
    );
    expect(await stage.past(count)).toEqual(before);
    expect(existsSync(join(directory, "data"))).toBe(false);

    const wrong = new URL(url);
    wrong.password = "not-the-password";
    const refused = await nodedb(["check"], { NODEDB_UPSTREAM_URL: wrong.href });
    expect(refused).toMatchObject({ status: 1 });
    expect(refused.stderr).toContain(
      'nodedb: the upstream says: password authentication failed for user "postgres"',
    );
    expect(refused.stderr).not.toContain("not-the-password");
  });

  test.each(["127.0.0.1", "localhost"])("start and check say that nobody listens on %s", async (host) => {
    const free = createServer();
    await new Promise<void>((resolve) => free.listen(0, "127.0.0.1", resolve));
    const { port } = free.address() as { port: number };
    await new Promise((resolve) => free.close(resolve));
    for (const command of ["check", "start"]) {
      const refused = await nodedb([command], {
        NODEDB_UPSTREAM_URL: `postgres://x:hunter2@${host}:${port}/y`,
      });
      expect(refused.status).toBe(1);
      expect(refused.stderr).toMatch(
        new RegExp(`^nodedb: cannot connect to the upstream: .*${port}\nHINT: .*NODEDB_UPSTREAM_URL`, "m"),
      );
      expect(refused.stderr).not.toContain("hunter2");
      expect(refused.stderr).not.toContain("    at ");
    }
    rmSync(join(directory, "data"), { recursive: true, force: true });
  });
});
