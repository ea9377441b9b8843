/** GROUP, and SET ROLE with a sign, on users and roles of ours and on PostgreSQL's own. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SqlError } from "../../src/errors/sql-error.ts";
import { type CatalogStack, openCatalogStack } from "../support/catalog-stack.ts";
import { startPostgres, type TestPostgres } from "../support/postgres.ts";

describe("PostgreSQL's other spellings", () => {
  let postgres: TestPostgres;
  let stack: CatalogStack;

  beforeAll(async () => {
    postgres = await startPostgres({ version: "embedded" });
    stack = await openCatalogStack(postgres, { isEmbedded: true });
    await stack.run("root_user", "CREATE USER worker PASSWORD 'long enough' ROLE readonly");
    await stack.sql("CREATE ROLE foreigner");
  });

  afterAll(async () => {
    await stack?.close();
    await postgres?.dispose();
  });

  test.each(["ALTER USER worker SET ROLE = readwrite", "ALTER ROLE worker SET ROLE TO readwrite"])(
    "%j is refused with the spelling that changes roles, and changes nothing",
    async (sql) => {
      const before = await stack.snapshot();
      const error = await stack.run("root_user", sql).catch((caught: unknown) => caught);
      expect(error).toBeInstanceOf(SqlError);
      expect(error).toMatchObject({ condition: "syntax_error", position: 28 });
      expect((error as SqlError).hint).toMatch(/SET ROLE readwrite\.$/);
      expect(await stack.snapshot()).toBe(before);
      expect(await stack.sql("SELECT FROM pg_db_role_setting")).toEqual([]);
    },
  );

  test("SET ROLE with a sign is forwarded for a role of PostgreSQL's own", async () => {
    expect(await stack.run("root_user", "ALTER ROLE foreigner SET ROLE = 'worker'")).toBe("forward");
    expect(await stack.run("root_user", "ALTER GROUP foreigner ADD USER worker")).toBe("forward");
  });

  test("a group is a custom role", async () => {
    await stack.run("root_user", "CREATE GROUP analysts");
    await stack.run("root_user", "ALTER GROUP analysts ADD USER worker");
    const shown = async () => {
      const result = await stack.run("root_user", "SHOW GRANTS FOR worker");
      return result === "forward" ? [] : result.table?.rows.map(([, role]) => role);
    };
    expect(await shown()).toContain("analysts");
    await stack.run("root_user", "ALTER GROUP analysts DROP USER worker");
    expect(await shown()).not.toContain("analysts");
    expect(await stack.run("root_user", "DROP GROUP analysts")).toMatchObject({ tag: "DROP ROLE" });
    expect(await stack.sql("SELECT FROM pg_roles WHERE rolname = 'analysts'")).toEqual([]);
  });
});
