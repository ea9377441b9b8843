/** docs/security.md: the tests that it names are there, and the functions that it lists are those that are installed. */

import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { claimsFunctionsSql } from "../../src/upstream/claims-functions.ts";

const root = new URL("../../", import.meta.url);
const page = readFileSync(new URL("docs/security.md", root), "utf8");

/** The rows of the table under this head, cell by cell. */
function tableOf(head: string): string[][] {
  const after = page.split(`${head}\n`)[1] ?? "";
  const [table = ""] = after.split("\n\n");
  return table
    .split("\n")
    .slice(1)
    .map((line) => line.replaceAll(/^\| | \|$/g, "").split(" | "));
}

describe("docs/security.md", () => {
  const attempts = tableOf("| attempt | why it fails | test |");

  it("has what is tried against claims", () => {
    expect(attempts.length).toBeGreaterThan(25);
  });

  it.each(attempts)("names a test for: %s", (_attempt, _why, named = "") => {
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
