/** docs/sql.md says what the help, the grammar and the results say: each statement once, in the order of the help. */

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { parseStatement } from "../../src/ddl/parse-statement.ts";
import { splitStatements } from "../../src/ddl/splitter.ts";
import { conditions } from "../../src/errors/conditions.ts";
import { helpEntries } from "../../src/exec/help.ts";
import { resultColumns } from "../../src/exec/result-columns.ts";
import { auditLevelOf } from "../../src/observe/audit.ts";

const page = readFileSync(new URL("../../docs/sql.md", import.meta.url), "utf8");

interface Section {
  readonly title: string;
  readonly text: string;
}

const sections: readonly Section[] = page
  .split(/^### /m)
  .slice(1)
  .map((part) => {
    const [title = "", ...lines] = part.split("\n");
    // The next chapter's head is no part of the section.
    return { title, text: lines.join("\n").split(/^## /m)[0] ?? "" };
  });

const oneLine = (text: string) => text.trim().split(/\s+/).join(" ");

function block(text: string, language: string): string {
  return new RegExp(`^\`\`\`${language}\n([^]*?)^\`\`\`$`, "m").exec(text)?.[1] ?? "";
}

/** The examples of a section, as the program would cut them. */
function examples(text: string): string[] {
  const bytes = Buffer.from(block(text, "sql"));
  return splitStatements(bytes, 0, bytes.length, { standardConformingStrings: true }).map(({ start, end }) =>
    bytes.toString("utf8", start, end),
  );
}

const withoutPlaces = (sql: string) =>
  JSON.parse(JSON.stringify(parseStatement(sql), (key, value: unknown) => (key === "position" ? 0 : value)));

describe("docs/sql.md", () => {
  it("has a section for each statement of the help, in its order, and no other", () => {
    expect(sections.map(({ title }) => title)).toEqual(helpEntries.map(({ statement }) => statement));
  });

  it.each(helpEntries)("has the syntax of $statement as SHOW AUTH HELP shows it", ({ statement, syntax }) => {
    const section = sections.find(({ title }) => title === statement);
    expect(oneLine(block(section?.text ?? "", ""))).toBe(oneLine(syntax));
  });

  it.each(helpEntries)(
    "has examples of $statement, that of the help first",
    ({ statement, example, kind }) => {
      const written = examples(sections.find(({ title }) => title === statement)?.text ?? "");
      expect(withoutPlaces(written[0] ?? "")).toEqual(withoutPlaces(example));
      for (const sql of written) {
        const { kind: parsed } = withoutPlaces(sql);
        // CREATE USER and CREATE API KEY have two sections each, which share a kind.
        expect(parsed, sql).toBe(kind);
      }
    },
  );

  it.each(helpEntries)("names the columns of $statement", ({ statement, example }) => {
    const parsed = parseStatement(example);
    const columns = parsed === "forward" ? undefined : resultColumns(parsed);
    const text = oneLine(sections.find(({ title }) => title === statement)?.text ?? "");
    const written = /Columns: `([^`]*)`/.exec(text)?.[1];
    expect(written).toBe(columns?.map(({ name }) => name).join(", "));
  });

  it("says of each statement who may run it", () => {
    for (const { title, text } of sections) {
      expect(text, title).toMatch(/^Who: (any|self|admin|superuser|the table's owner)\b/m);
    }
  });

  it("says of each statement which errors are its own", () => {
    for (const { title, text } of sections) {
      expect(text, title).toMatch(/^Errors: (none of its own|as above|\b[0-9X][0-9A-Z]{4}\b)/m);
    }
  });

  it("says from which level on each event is in the audit log", () => {
    const rows = [...page.matchAll(/^\| (\w+) \| (minimal|standard|full) \|/gm)];
    expect(Object.fromEntries(rows.map(([, event, level]) => [event, level]))).toEqual(auditLevelOf);
  });

  it("names no SQLSTATE that is never raised, and none that PostgreSQL does not have", () => {
    const known = new Set<string>(Object.values(conditions));
    const named = page.match(/\b(?:[0-9][0-9A-Z]{4}|XX[0-9]{3})\b/g) ?? [];
    expect(named.length).toBeGreaterThan(50);
    for (const state of named) expect(known).toContain(state);
  });
});
