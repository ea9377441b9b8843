import { describe, expect, test } from "vitest";
import { changedKeys } from "../../../src/config/changed-keys.ts";
import { loadConfig } from "../../../src/config/load.ts";
import type { Log } from "../../../src/observe/log.ts";
import { createReload, type ReloadPart } from "../../../src/reload.ts";

function load(text: string, env: Record<string, string> = {}) {
  return loadConfig({ path: "nodedb.toml", env, files: { read: () => text, mode: () => 0o600 } });
}

function valuesOf(text: string, env?: Record<string, string>) {
  const outcome = load(text, env);
  if (!outcome.ok) throw new Error(JSON.stringify(outcome.mistakes));
  return outcome.values;
}

describe("changedKeys", () => {
  test.each([
    ["", ""],
    ["[server]\nmax_connections = 1024\n", ""],
    ['[upstream]\nqueue_timeout = "60s"\n', '[upstream]\nqueue_timeout = "1m"\n'],
  ])("finds no difference between %j and %j", (before, after) => {
    expect(changedKeys(valuesOf(before), valuesOf(after))).toEqual({ live: [], restart: [] });
  });

  test("tells what a reload takes from what needs a restart, an upstream.url of another password included", () => {
    const url = (password: string) => `[upstream]\nurl = "postgres://admin:${password}@db.example.com/app"\n`;
    expect(
      changedKeys(
        valuesOf(`${url("one")}pool_size = 3\n[auth]\nschema = "a"\n`),
        valuesOf(`${url("two")}pool_size = 4\n[auth]\nmax_failed_logins = 9\n`),
      ),
    ).toEqual({
      live: ["upstream.pool_size", "auth.max_failed_logins"],
      restart: ["upstream.url", "auth.schema"],
    });
  });

  test("compares what holds: the environment wins, and a value may be gone", () => {
    const env = { NODEDB_LOG_LEVEL: "warn" };
    expect(changedKeys(valuesOf("", env), valuesOf('[log]\nlevel = "debug"\n', env)).live).toEqual([]);
    expect(changedKeys(valuesOf('[log]\nformat = "json"\n'), valuesOf("")).restart).toEqual(["log.format"]);
  });
});

describe("a reload", () => {
  function stage(...texts: readonly string[]) {
    const lines: { level: string; keys?: readonly string[]; applied?: readonly string[]; text: string }[] =
      [];
    const write = (level: string) => (first: unknown, text?: string) =>
      lines.push(
        typeof first === "string"
          ? { level, text: first }
          : { level, ...(first as object), text: text ?? "" },
      );
    const log = { error: write("error"), warn: write("warn"), info: write("info") } as unknown as Log;
    const given: number[] = [];
    let isBroken = false;
    const parts: ReloadPart[] = [
      {
        name: "limits",
        keys: ["auth."],
        apply: (next) => {
          if (isBroken) throw new Error("broken");
          given.push(next.auth.maxFailedLogins);
        },
      },
      { name: "others", keys: ["upstream."], apply: async (next) => void given.push(next.upstream.poolSize) },
    ];
    const rest = [...texts];
    const reload = createReload({
      started: valuesOf(""),
      load: () => load(rest.shift() ?? ""),
      parts,
      log,
    });
    return {
      given,
      breakIt: (broken: boolean) => {
        isBroken = broken;
      },
      run: async () => {
        lines.length = 0;
        await reload();
        return lines;
      },
    };
  }

  test("names what needs a restart each time until it is back, and what was applied once", async () => {
    const text = '[server]\nhost = "0.0.0.0"\n[auth]\nmax_failed_logins = 7\n';
    const { run, given } = stage(text, text, "[auth]\nmax_failed_logins = 7\n");
    const restart = {
      level: "warn",
      keys: ["server.host"],
      text: "these keys have changed and need a restart",
    };
    const done = (...applied: string[]) => ({ level: "info", applied, text: "configuration reloaded" });
    expect(await run()).toEqual([restart, done("auth.max_failed_logins")]);
    expect(await run()).toEqual([restart, done()]);
    expect(await run()).toEqual([done()]);
    expect(given).toEqual([7, 20, 7, 20, 7, 20]);
  });

  test("a part that fails keeps none of the others from theirs, and its keys are not called applied", async () => {
    const text = "[upstream]\npool_size = 3\n[auth]\nmax_failed_logins = 7\n";
    const { run, given, breakIt } = stage(text, text);
    breakIt(true);
    expect(await run()).toMatchObject([
      { level: "error", text: "limits not reloaded" },
      { applied: ["upstream.pool_size"] },
    ]);
    expect(given).toEqual([3]);
    breakIt(false);
    expect(await run()).toMatchObject([{ applied: ["auth.max_failed_logins"] }]);
    expect(given).toEqual([3, 7, 3]);
  });

  test("with mistakes changes nothing", async () => {
    const { run, given } = stage("[auth]\nmax_failed_logins = -1\n");
    expect(await run()).toMatchObject([
      { level: "error", text: expect.stringContaining("nodedb.toml:2: auth.max_failed_logins") },
    ]);
    expect(given).toEqual([]);
  });
});
