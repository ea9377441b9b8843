/** PostgreSQL's older spellings: GROUP for a role, and SET ROLE as a parameter; and names that are keywords. */

import { describe, expect, it } from "vitest";
import { classify } from "../../../src/ddl/classify.ts";
import { parseStatement } from "../../../src/ddl/parse-statement.ts";

describe("parseStatement of GROUP", () => {
  it.each([
    ["create group g", "create role g"],
    ["create group g inherit readonly", "create role g inherit readonly"],
    ["create group g password 'p'", "create role g  password 'p'"],
    ["drop group if exists a, b", "drop role if  exists a, b"],
    ["alter group g rename to h", "alter role g  rename to h"],
  ])("reads %j as %j", (group, role) => {
    const withoutPlaces = (sql: string) =>
      JSON.parse(
        JSON.stringify(parseStatement(sql), (key, value: unknown) => (key === "position" ? 0 : value)),
      );
    expect(withoutPlaces(group)).toEqual(withoutPlaces(role));
  });

  it("reads ADD USER and DROP USER as a grant and a revoke", () => {
    expect(parseStatement("alter group g add user a, current_user")).toEqual({
      kind: "grant_roles",
      roles: [{ text: "g", position: 13 }],
      grantees: [
        { text: "a", position: 24 },
        { self: true, position: 27 },
      ],
    });
    expect(parseStatement("alter group g drop user a")).toEqual({
      kind: "revoke_roles",
      roles: [{ text: "g", position: 13 }],
      grantees: [{ text: "a", position: 25 }],
    });
  });
});

describe("parseStatement of SET ROLE with a sign", () => {
  it.each([
    ["alter user bob set role = readonly", "=", 25],
    ["alter role bob set role to readonly", "to", 25],
    ["alter user bob set role/**/=readonly", "=", 28],
  ])("keeps the sign of %j for the executor, which knows whether bob is a user", (sql, text, position) => {
    expect(parseStatement(sql)).toMatchObject({ kind: "set_user_roles", sign: { text, position } });
    const bytes = Buffer.from(sql);
    const options = { standardConformingStrings: true };
    expect(classify(bytes, 0, bytes.length, options).map(({ kind }) => kind)).toEqual(["ours"]);
  });

  it("has none without one", () => {
    expect(parseStatement("alter user bob set role readonly")).not.toHaveProperty("sign");
  });
});

describe("parseStatement of the default tenant", () => {
  it.each([
    "create user bob tenant default",
    "create user bob tenant DEFAULT password 'p'",
    "create service account s for database d tenant default",
  ])("takes its name without quotes in %j", (sql) => {
    expect(JSON.stringify(parseStatement(sql))).toContain('"name":"default"');
  });

  it("takes it in statements about tenants", () => {
    expect(parseStatement("alter tenant default set quota max_connections = 5")).toMatchObject({
      tenant: { name: "default", position: 14 },
    });
    expect(parseStatement("alter tenant default set quota max_connections = -1")).toMatchObject({
      value: -1,
    });
    expect(parseStatement("drop tenant default;")).toMatchObject({
      tenant: { name: "default", position: 13 },
    });
  });
});
