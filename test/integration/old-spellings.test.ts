/** Spellings that PostgreSQL shares with us, on users and roles of ours and on PostgreSQL's own: GROUP, SET ROLE with a sign, options. */

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

  const refused = async (sql: string) => {
    const before = await stack.snapshot();
    const error = await stack.run("root_user", sql).catch((caught: unknown) => caught);
    expect(error, sql).toBeInstanceOf(SqlError);
    expect(await stack.snapshot()).toBe(before);
    return error as SqlError;
  };

  test.each([
    ["ALTER ROLE worker CREATEDB", 19],
    ["ALTER ROLE worker VALID UNTIL 'infinity' SUPERUSER", 42],
    ["ALTER USER worker BYPASSRLS NOINHERIT", 19],
  ])("%j is refused for a user of ours, in whichever spelling", async (sql, position) => {
    expect(await refused(sql)).toMatchObject({ condition: "feature_not_supported", position });
  });

  test.each(["ALTER ROLE foreigner CREATEDB", "ALTER USER foreigner VALID UNTIL 'infinity' SUPERUSER"])(
    "%j is forwarded for a role of PostgreSQL's own",
    async (sql) => {
      expect(await stack.run("root_user", sql)).toBe("forward");
    },
  );

  test.each([
    "CREATE ROLE heir INHERIT superuser",
    "CREATE ROLE heir INHERIT SUPERUSER;",
    'CREATE ROLE heir INHERIT "superuser"',
  ])("%j names the parent that cannot be inherited", async (sql) => {
    expect(await refused(sql)).toMatchObject({ condition: "feature_not_supported", position: 26 });
    expect(await stack.sql("SELECT FROM pg_roles WHERE rolname = 'heir'")).toEqual([]);
  });

  test("INHERIT admin names the parent, although ADMIN is an option of PostgreSQL's", async () => {
    await stack.run("root_user", "CREATE ROLE heir INHERIT admin");
    expect(await stack.sql("SELECT parent FROM nodedb.role WHERE name = 'heir'")).toEqual([
      { parent: "admin" },
    ]);
    await stack.run("root_user", "DROP ROLE heir");
  });

  test.each([
    ["GRANT ROLE pg_monitor TO worker", 12],
    ["REVOKE ROLE pg_monitor FROM worker", 13],
    ["GRANT ROLE foreigner TO worker", 12],
    ["GRANT ROLE nothing TO worker", 12],
    ["GRANT ROLE readonly, foreigner TO worker", 22],
  ])("%j names an undefined role: PostgreSQL has no such statement", async (sql, position) => {
    expect(await refused(sql)).toMatchObject({ condition: "undefined_object", position });
  });

  test("GRANT ROLE of a user is refused as well", async () => {
    expect(await refused("GRANT ROLE worker TO root_user")).toMatchObject({ condition: "wrong_object_type" });
  });

  test.each([
    "GRANT pg_monitor TO worker",
    "REVOKE pg_monitor FROM worker",
    "GRANT pg_monitor TO worker WITH ADMIN OPTION",
  ])("without the word, %j is PostgreSQL's", async (sql) => {
    expect(await stack.run("root_user", sql)).toBe("forward");
  });

  test.each([
    ["GRANT readonly TO worker WITH ADMIN OPTION", 26],
    ["GRANT ROLE readonly TO worker GRANTED BY root_user", 31],
  ])("%j is refused: what is granted by us has no options", async (sql, position) => {
    expect(await refused(sql)).toMatchObject({ condition: "feature_not_supported", position });
  });
});
