/** Names that a user may and may not have. */

import { describe, expect, it } from "vitest";
import { checkNewName, isReservedName } from "../../../src/exec/role-names.ts";
import { builtInRoles, groupOf } from "../../../src/upstream/built-in-groups.ts";

describe("names of users", () => {
  it("built-in roles, their groups and PostgreSQL's own names are reserved", () => {
    const reserved = [
      ...builtInRoles,
      ...builtInRoles.map(groupOf),
      "pg_read_all_data",
      "public",
      "none",
      "nodedb_",
    ];
    expect(reserved.filter((name) => !isReservedName(name))).toEqual([]);
  });

  it("names that only look alike are not", () => {
    const free = ["nodedb", "PUBLIC", "Admin", "pgbouncer", "readonly2", "my_admin", "日本"];
    expect(free.filter(isReservedName)).toEqual([]);
  });

  it.each([
    ["", false],
    ["a", true],
    ["x".repeat(63), true],
    ["x".repeat(64), false],
    ["é".repeat(31), true],
    ["é".repeat(32), false],
    ["a\0b", false],
  ])("%j fits PostgreSQL's 63 bytes: %s", (text, fits) => {
    const check = () => checkNewName({ text, position: 3 });
    if (fits) expect(check).not.toThrow();
    else expect(check).toThrow(expect.objectContaining({ sqlstate: "22023", position: 3 }));
  });
});
