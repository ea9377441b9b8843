/** The examples of docs/http.md and of the page at /v1/docs are run as they are printed, by the real curl, with the answers printed. */

import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { examples as pageExamples } from "../../src/http/openapi-page.ts";
import { isRunnable } from "../support/client-program.ts";
import { createKey } from "../support/http.ts";
import { requireClient } from "../support/skips.ts";
import { openStage, type Stage } from "../support/stage.ts";

const page = readFileSync(new URL("../../docs/http.md", import.meta.url), "utf8");

/** Shell blocks, each with the block of JSON right after it. */
const documented = [...page.matchAll(/^```sh\n([\s\S]*?)```\n(?:\n```json\n([\s\S]*?)```)?/gm)].map(
  ([, command = "", answer]) => ({ name: command.split("\n")[0] ?? "", command, answer }),
);

let stage: Stage;
let home: string;
let key: string;
let adminKey: string;

beforeAll(async () => {
  stage = await openStage();
  await stage.asAdmin("CREATE TABLE item (id int PRIMARY KEY, name text, price numeric)");
  await stage.asAdmin("INSERT INTO item VALUES (7, 'nail', 0.1)");
  await stage.asAdmin("GRANT ALL ON item TO alice");
  key = await createKey(stage, "alice-key", "FOR alice");
  adminKey = await createKey(stage, "boss", "ROLE admin");
  home = mkdtempSync(join(tmpdir(), "nodedb-curl-"));
  // Where the examples say localhost:6480, the port of this run is meant.
  writeFileSync(
    join(home, ".curlrc"),
    `connect-to = "localhost:6480:127.0.0.1:${stage.frontEnd.httpPort}"\nsilent\nshow-error\n`,
  );
});

afterAll(async () => {
  rmSync(home, { recursive: true, force: true });
  await stage?.close();
});

async function shell(command: string): Promise<string> {
  const { stdout } = await promisify(execFile)("bash", ["-euc", command], {
    env: { PATH: process.env.PATH, HOME: home, CURL_HOME: home, KEY: key, ADMIN_KEY: adminKey },
  });
  return stdout;
}

/** Each line, or the whole, as JSON; what changes from run to run is … in the document. */
function parsed(text: string, isLines: boolean): unknown {
  return isLines
    ? text
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line))
    : JSON.parse(text);
}

function expectLike(actual: unknown, expected: unknown): void {
  if (expected === "…") expect(actual).toEqual(expect.any(String));
  else if (typeof expected === "object" && expected !== null) {
    expect(Object.keys(actual as object)).toEqual(Object.keys(expected));
    for (const [name, part] of Object.entries(expected)) {
      expectLike((actual as Record<string, unknown>)[name], part);
    }
  } else expect(actual).toEqual(expected);
}

describe("docs/http.md", () => {
  const hasCurl = requireClient("curl", isRunnable("curl", "--version"));

  test("has examples", () => {
    expect(documented.length).toBeGreaterThan(4);
    for (const { answer, name } of documented) expect(answer, name).toBeDefined();
  });

  test.skipIf(!hasCurl).each(documented)("$name", async ({ command, answer = "" }) => {
    const isLines = command.includes("/stream");
    expectLike(parsed(await shell(command), isLines), parsed(answer, isLines));
  });
});

describe("the page", () => {
  const hasCurl = requireClient("curl", isRunnable("curl", "--version"));

  test.skipIf(!hasCurl).each(Object.entries(pageExamples))("its example of %s", async (route, commands) => {
    for (const command of commands.split("\n\n")) {
      const [first] = parsed(await shell(command), true) as [Record<string, unknown>];
      expect(first).toMatchObject(route.endsWith("/stream") ? { meta: expect.anything() } : { status: "ok" });
    }
  });
});
