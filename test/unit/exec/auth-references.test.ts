/** `$auth.…` to function calls, and back for SHOW. */

import { describe, expect, it } from "vitest";
import { SqlError } from "../../../src/errors/sql-error.ts";
import { rewriteAuth, showAuthReferences } from "../../../src/exec/auth-references.ts";

const options = { standardConformingStrings: true };

function rewrite(sql: string, schema = "auth"): string {
  const functions = { schema, claims: new Set(["id", "department", "it's", "back\\slash"]) };
  return rewriteAuth(Buffer.from(sql), functions, options).toString();
}

function refusal(sql: string): SqlError {
  try {
    rewrite(sql);
  } catch (error) {
    if (error instanceof SqlError) return error;
    throw error;
  }
  throw new Error("was not refused");
}

describe("rewriteAuth", () => {
  it.each([
    ["select $auth.id", "select (SELECT auth.id())"],
    ["select $AUTH.Role", "select (SELECT auth.role())"],
    [
      "select $auth.roles, $auth.org_id",
      "select ((SELECT auth.roles())::pg_catalog.text[]), (SELECT auth.org_id())",
    ],
    ["a = $auth.tenant_id::int8", "a = (SELECT auth.tenant_id())::int8"],
    ["$auth.email", "(SELECT auth.email())"],
    ["'admin' = any($auth.scopes)", "'admin' = any(((SELECT auth.scopes())::pg_catalog.text[]))"],
    ["$auth.scopes CONTAINS 'a''b' and x", "(SELECT auth.has_scope('a''b')) and x"],
    ["$auth.department", "(SELECT auth.claim('department'))"],
    [`$auth."it's"`, "(SELECT auth.claim('it''s'))"],
    [`$auth."back\\slash"`, "(SELECT auth.claim(E'back\\\\slash'))"],
  ])("rewrites %j to a call that runs once", (written, expected) => {
    expect(rewrite(written)).toBe(expected);
  });

  it.each([
    "select '$auth.id'",
    'select "$auth.id"',
    "select $$ $auth.id $$",
    "select 1 -- $auth.nothing",
    "select /* $auth.nothing */ 1",
    "select a$auth.id",
    "select $1, $auth",
  ])("leaves %j as it is", (sql) => {
    const text = Buffer.from(sql);
    expect(rewriteAuth(text, { schema: "auth", claims: new Set() }, options)).toBe(text);
  });

  it("takes the schema's name from the configuration and quotes it where it has to be", () => {
    expect(rewrite("$auth.id", "nodedb_auth")).toBe("(SELECT nodedb_auth.id())");
    expect(rewrite("$auth.id", 'My "auth"')).toBe('(SELECT "My ""auth""".id())');
    expect(rewrite("$auth.id", "user")).toBe('(SELECT "user".id())');
  });

  it("refuses a name that there is not at its character, and names those that there are", () => {
    const error = refusal("select 'é😀' = $auth.nothing");
    expect([error.condition, error.position]).toEqual(["syntax_error", 15]);
    expect(error.message).toBe("$auth.nothing does not exist");
    expect(error.hint).toContain("$auth.department, $auth.email, $auth.id,");
  });

  it("names each claim that there is once, mapped or not", () => {
    const { hint = "" } = refusal("select $auth.nothing");
    expect(hint.match(/\$auth\.(id|department)\b/g)).toEqual(["$auth.department", "$auth.id"]);
  });

  it.each(["$auth.constructor", "$auth.has_scope", "$auth.claim", '$auth."ID"'])("refuses %j", (sql) => {
    expect(refusal(sql).condition).toBe("syntax_error");
  });
});

describe("showAuthReferences", () => {
  it.each([
    ["(user_id = ( SELECT auth.id() AS id))", "(user_id = $auth.id)"],
    ["'a' = ANY (( SELECT auth.roles() AS roles)::text[])", "'a' = ANY ($auth.roles)"],
    ["( SELECT auth.has_scope('a''b'::text) AS has_scope)", "$auth.scopes CONTAINS 'a''b'"],
    ["( SELECT auth.claim('department'::text) AS claim)", "$auth.department"],
    ["( SELECT auth.other() AS other)", "( SELECT auth.other() AS other)"],
    ["( SELECT other.id() AS id)", "( SELECT other.id() AS id)"],
  ])("shows %j as %j", (expression, expected) => {
    expect(showAuthReferences(expression, { schema: "auth" })).toBe(expected);
  });

  it("knows a schema that has to be quoted", () => {
    expect(showAuthReferences('( SELECT "my.auth".id() AS id)', { schema: "my.auth" })).toBe("$auth.id");
  });
});
