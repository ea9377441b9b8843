/** docs/security.md: the tests that it names are there; its credentials, reasons and functions are those of the code. */

import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { authMethods, refusalReasons } from "../../src/auth/identity.ts";
import { claimsFunctionsSql } from "../../src/upstream/claims-functions.ts";

const root = new URL("../../", import.meta.url);
const page = readFileSync(new URL("docs/security.md", root), "utf8");

/** The rows of the table under this head, cell by cell. */
function tableOf(head: string, text = page): string[][] {
  const after = text.split(`${head}\n`)[1] ?? "";
  const [table = ""] = after.split("\n\n");
  return table
    .split("\n")
    .slice(1)
    .map((line) => line.replaceAll(/^\| | \|$/g, "").split(" | "));
}

describe("docs/security.md", () => {
  const attempts = tableOf("| attempt | why it fails | test |");

  const credentials = tableOf("| `auth_method` | PostgreSQL protocol | HTTP | stands for | test |");
  const backquoted = (cell = "") => [...cell.matchAll(/`(\w[\w-]*)`/g)].map(([, word]) => word);

  it("has each credential, in the order in which it is looked for", () => {
    expect(credentials.map(([method]) => backquoted(method))).toEqual(authMethods.map((method) => [method]));
  });

  it("has each reason of a refusal once, here or among the tokens", () => {
    const tokens = readFileSync(new URL("docs/oidc.md", root), "utf8");
    const rows = [...tableOf("| reason | |"), ...tableOf("| reason | look at |", tokens)];
    expect(rows.flatMap(([reasons]) => backquoted(reasons)).toSorted()).toEqual(refusalReasons.toSorted());
  });

  it("has what is tried against claims", () => {
    expect(attempts.length).toBeGreaterThan(25);
  });

  const named = [...attempts, ...credentials].map((cells) => [cells[0] ?? "", cells.at(-1) ?? ""] as const);
  it.each(named)("names a test for: %s", (_what, named) => {
    const [, file = "", title = ""] = /^`([\w/-]+)`: (.+)$/.exec(named) ?? [];
    const path = new URL(`test/${file.includes("/") ? file : `integration/${file}`}.test.ts`, root);
    expect(existsSync(path), named).toBe(true);
    expect(title).not.toBe("");
    expect(readFileSync(path, "utf8")).toContain(title);
  });

  it("lists each function that is installed, with its type, and no other", () => {
    const installed = claimsFunctionsSql("auth").matchAll(
      /^CREATE OR REPLACE FUNCTION "auth"\.(\w+)\((\w*)[^)]*\) RETURNS pg_catalog\.([\w[\]]+)/gm,
    );
    const functions = [...installed].map(([, name, argument, type]) => [
      `\`auth.${name}(${argument})\``,
      type,
    ]);
    const listed = tableOf("| function | type | reads |").map(([name, type]) => [name, type]);
    expect(functions.length).toBeGreaterThan(10);
    expect(listed.toSorted()).toEqual(functions.toSorted());
  });
});
