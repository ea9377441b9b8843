/** Names in statements about databases. */

import { expect, test } from "vitest";
import { mayNeedAttention } from "../../../src/ddl/classify.ts";
import { namesInDatabaseCommands } from "../../../src/ddl/database-command.ts";

function namesIn(sql: string, standardConformingStrings = true): readonly string[] {
  const text = Buffer.from(sql);
  if (!mayNeedAttention(text, 0, text.length)) return [];
  return namesInDatabaseCommands(text, 0, text.length, { standardConformingStrings });
}

test.each([
  ["DROP DATABASE sales", "sales"],
  ["drop/* now */database if exists Sales with (force)", "sales"],
  ['-- gone\n DROP DATABASE "Sales ""2020""";', 'Sales "2020"'],
  ["ALTER DATABASE été RENAME TO hiver", "été"],
  ["ALTER DATABASE old RENAME TO new", "new"],
  ['CREATE DATABASE copy OWNER = bob TEMPLATE = "Pattern"', "Pattern"],
  ["SELECT 1; SELECT 2; DROP DATABASE sales", "sales"],
])("%s names %s", (sql, name) => {
  expect(namesIn(sql)).toContain(name);
});

test.each([
  "SELECT 'DROP DATABASE sales'",
  "SELECT 1; SELECT ';DROP DATABASE sales'",
  "/* DROP DATABASE sales */ SELECT 1",
  "CREATE TABLE database (n int); DROP TABLE database",
  "GRANT CONNECT ON DATABASE sales TO bob",
  "DROP",
  "",
])("%s names none", (sql) => {
  expect(namesIn(sql)).toEqual([]);
});

test("a name is found where the session's strings know backslashes", () => {
  expect(namesIn("SELECT '\\''; DROP DATABASE sales --'", false)).toContain("sales");
  expect(namesIn("SELECT '\\''; DROP DATABASE sales --'", true)).toEqual([]);
});
