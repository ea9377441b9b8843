/** README.md: the commands of "Four ways in" work as they are printed. */

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { isRunnable } from "../support/client-program.ts";
import { type FrontEnd, startFrontEnd } from "../support/front-end.ts";
import { type Issuer, makeKey, startIssuer } from "../support/issuer.ts";
import { runProgram } from "../support/run-program.ts";
import { requireClient } from "../support/skips.ts";

const readme = readFileSync(new URL("../../README.md", import.meta.url), "utf8");
const [, afterHead = ""] = readme.split("### Four ways in\n");
const [section = ""] = afterHead.split(/^##/m);
const blocks = [...section.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].map(([, language, text = ""]) => ({
  language,
  lines: text.trimEnd().split("\n"),
}));
const linesIn = (language: string) =>
  blocks.filter((block) => block.language === language).flatMap(({ lines }) => lines);
const commands = linesIn("");
const preparations = commands.filter((line) => line.startsWith("openssl "));
const logins = commands.filter((line) => !preparations.includes(line));

describe("README.md", () => {
  const isThere =
    requireClient("psql (postgresql-client-15)", isRunnable("psql", "--version")) &&
    requireClient("curl", isRunnable("curl", "--version")) &&
    requireClient("openssl", isRunnable("openssl", "version"));
  const it = test.skipIf(!isThere);
  const directory = mkdtempSync(join(tmpdir(), "nodedb-readme-"));
  let frontEnd: FrontEnd;
  let issuer: Issuer;
  let environment: NodeJS.ProcessEnv;

  beforeAll(async () => {
    if (!isThere) return;
    for (const line of preparations) expect((await run(line)).status, line).toBe(0);
    frontEnd = await startFrontEnd({
      configuration: linesIn("toml")
        .join("\n")
        .replaceAll(/= "(.*)"/g, (_, file: string) => `= "${join(directory, file)}"`),
    });
    const signingKey = await makeKey("ES256", "k1");
    issuer = await startIssuer([signingKey]);
    const { host, port, adminUser: user, adminPassword: password, database } = frontEnd;
    const admin = new pg.Client({ host, port, user, password, database });
    await admin.connect();
    await admin.query("CREATE USER alice WITH PASSWORD 'strong_password_here'");
    const statements = linesIn("sql").join("\n").replace("https://login.example.com/", issuer.issuer);
    const results = (await admin.query(statements)) as unknown as pg.QueryResult[];
    await admin.end();
    environment = {
      KEY: results.flatMap(({ rows }) => rows).find((row) => "api_key" in row)?.api_key,
      TOKEN: await issuer.sign(signingKey, { aud: "nodedb" }),
    };
  });
  afterAll(async () => {
    await frontEnd?.close();
    await issuer?.close();
    rmSync(directory, { recursive: true });
  });

  function run(line: string) {
    return runProgram("sh", ["-c", line], { PATH: process.env.PATH, ...environment }, { cwd: directory });
  }

  const expected = [
    "alice by scram-sha-256-plus",
    "etl by api-key",
    "etl by api-key",
    "42",
    /^oidc:corp:\S+ by jwt$/,
    "alice by certificate",
    "alice by certificate",
  ];

  it("has as many commands as are tried here", () => {
    expect(logins).toHaveLength(expected.length);
  });

  it.each(expected.map((who, index) => [logins[index] ?? "", who] as const))("%s", async (printed, who) => {
    const line = printed.replace("6432", String(frontEnd.port)).replace("6480", String(frontEnd.httpPort));
    const isPsql = line.includes("psql ");
    const password = line.startsWith("psql -h") ? "PGPASSWORD=strong_password_here " : "";
    const { stdout, stderr, status } = await run(
      isPsql ? `${password}${line} -XAtF " by " -c "SHOW SESSION"` : `${line} --silent --show-error`,
    );
    expect([stderr, status]).toEqual(["", 0]);
    expect(isPsql ? bySession(stdout) : byAnswer(stdout)).toMatch(
      typeof who === "string" ? new RegExp(`^${who}$`) : who,
    );
  });
});

/** Of SHOW SESSION's only row: the user and the method. */
function bySession(stdout: string): string {
  const [user, , , method] = stdout.trim().split(" by ");
  return `${user} by ${method}`;
}

function byAnswer(stdout: string): string {
  const [row] = JSON.parse(stdout).rows;
  return "n" in row ? String(row.n) : `${row.username} by ${row.auth_method}`;
}
