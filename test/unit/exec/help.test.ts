/** SHOW AUTH HELP against the grammar: every statement has an entry, and every example is that statement. */

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { parseStatement } from "../../../src/ddl/parse-statement.ts";
import { SqlError } from "../../../src/errors/sql-error.ts";
import { helpEntries, showAuthHelp } from "../../../src/exec/help.ts";

/** The kinds as src/ddl/statement.ts declares them: types leave no trace that a test could read. */
function declaredKinds(): string[] {
  const source = readFileSync(new URL("../../../src/ddl/statement.ts", import.meta.url), "utf8");
  const declarations = [...source.matchAll(/readonly kind: ([^;]+);/g)];
  return declarations.flatMap(([, union = ""]) =>
    [...union.matchAll(/"(\w+)"/g)].map(([, kind = ""]) => kind),
  );
}

function statementsOn(topic: string): unknown[] {
  return showAuthHelp({ kind: "show_auth_help", topic }).table?.rows.map(([statement]) => statement) ?? [];
}

describe("helpEntries", () => {
  it.each(helpEntries)("shows an example of $statement that is one", ({ example, kind }) => {
    expect(parseStatement(example)).toMatchObject({ kind });
    expect(parseStatement(`${example};`)).toMatchObject({ kind });
  });

  it("is shown in lines that fit a terminal, and examples stay what they are", () => {
    const rows = showAuthHelp({ kind: "show_auth_help" }).table?.rows ?? [];
    expect(rows.length).toBe(helpEntries.length);
    for (const [index, [statement, syntax, example]] of rows.entries()) {
      const lines = [syntax, example].flatMap((text) => String(text).split("\n"));
      expect(
        lines.filter((line) => line.length > 72),
        String(statement),
      ).toEqual([]);
      expect(String(syntax).replaceAll("\n", " ")).toBe(helpEntries[index]?.syntax);
      expect(parseStatement(String(example))).toMatchObject({ kind: helpEntries[index]?.kind });
    }
  });

  it("has an entry for every kind of statement, and none for another", () => {
    const kinds = declaredKinds();
    expect(kinds.length).toBeGreaterThan(40);
    expect([...new Set(helpEntries.map(({ kind }) => kind))].sort()).toEqual([...new Set(kinds)].sort());
  });

  it("names each statement once, by words of its syntax in their order", () => {
    const names = helpEntries.map(({ statement }) => statement);
    expect(new Set(names).size).toBe(names.length);
    for (const { statement, syntax } of helpEntries) {
      const words = statement.split(" ").join("\\b.*?\\b");
      expect(syntax).toMatch(new RegExp(`\\b${words}\\b`));
    }
  });
});

describe("showAuthHelp", () => {
  it("lists every statement without a topic", () => {
    const result = showAuthHelp({ kind: "show_auth_help" });
    expect(result.tag).toBe("SHOW");
    expect(result.table?.columns.map(({ name }) => name)).toEqual(["statement", "syntax", "example"]);
    expect(result.table?.rows).toHaveLength(helpEntries.length);
  });

  it("finds the statements that begin with the words, in any case", () => {
    expect(statementsOn("create  Api key")).toEqual(["CREATE API KEY", "CREATE API KEY FOR"]);
    expect(statementsOn("SHOW SESSION")).toEqual(["SHOW SESSION"]);
  });

  it("finds the statements that hold the words when none begins with them", () => {
    expect(statementsOn("tenant")).toEqual(["CREATE TENANT", "ALTER TENANT SET QUOTA", "DROP TENANT"]);
  });

  it("says that there is no help on anything else, without repeating it", () => {
    try {
      statementsOn("sesame");
      expect.unreachable();
    } catch (error) {
      if (!(error instanceof SqlError)) throw error;
      expect(error.condition).toBe("undefined_object");
      expect(error.message).not.toContain("sesame");
    }
  });
});
