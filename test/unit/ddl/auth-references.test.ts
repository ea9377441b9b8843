/** Where `$auth.…` is a reference, and that nothing else in a statement is ever touched. */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  findAuthReferences,
  mayHoldAuthReference,
  rewriteAuthReferences,
} from "../../../src/ddl/auth-references.ts";
import { SqlError } from "../../../src/errors/sql-error.ts";

/** Name, written text and literal of each reference. */
function references(sql: string): unknown[] {
  const text = Buffer.from(sql);
  return findAuthReferences(text, 0, text.length).map(({ start, end, name, contains }) => [
    name,
    text.toString("utf8", start, end),
    ...(contains === undefined ? [] : [contains]),
  ]);
}

function rewrite(sql: string): string {
  return rewriteAuthReferences(
    Buffer.from(sql),
    ({ name, contains }) => `<${name}${contains ?? ""}>`,
  ).toString();
}

describe("findAuthReferences", () => {
  it.each<[string, unknown[]]>([
    ["select * from t where user_id = $auth.id", [["id", "$auth.id"]]],
    ["select $AUTH.Org_Id::text", [["org_id", "$AUTH.Org_Id"]]],
    ["select'é'$auth.id", [["id", "$auth.id"]]],
    ['select $auth."Dept ""x"""', [['Dept "x"', '$auth."Dept ""x"""']]],
    ["select $auth.é", [["é", "$auth.é"]]],
    [
      "select ($auth.id,$auth.role)",
      [
        ["id", "$auth.id"],
        ["role", "$auth.role"],
      ],
    ],
    ["select $auth.a.b", [["a", "$auth.a"]]],
    ["select $auth.scopes", [["scopes", "$auth.scopes"]]],
    ["select $auth.scopes contains 'x''y' and a", [["scopes", "$auth.scopes contains 'x''y'", "'x''y'"]]],
    [
      "select $auth.scopes /* , */ CONTAINS\nE'\\'é'",
      [["scopes", "$auth.scopes /* , */ CONTAINS\nE'\\'é'", "E'\\'é'"]],
    ],
    [
      "select $auth.scopes contains $$a$$||$auth.id",
      [
        ["scopes", "$auth.scopes contains $$a$$", "$$a$$"],
        ["id", "$auth.id"],
      ],
    ],
    ["select $auth.scopes contains $1", [["scopes", "$auth.scopes"]]],
    ["select $auth.scopes contains", [["scopes", "$auth.scopes"]]],
    ["select $auth.role contains 'x'", [["role", "$auth.role"]]],
    [
      "select $auth.scopes contains $auth.id",
      [
        ["scopes", "$auth.scopes"],
        ["id", "$auth.id"],
      ],
    ],
    ["select $auth.$auth.id", [["id", "$auth.id"]]],
    ["select $1, $auth.id", [["id", "$auth.id"]]],
  ])("finds them in %j", (sql, expected) => {
    expect(references(sql)).toEqual(expected);
  });

  it.each([
    "select '$auth.id'",
    "select '' '$auth.id'",
    "select 'it''s $auth.id'",
    "select E'\\'$auth.id'",
    'select "$auth.id"',
    'select U&"$auth.id"',
    "select $$ $auth.id $$",
    "select $auth$ $auth.id $auth$",
    "select $x$ $auth.id $x$",
    "select 1 -- $auth.id",
    "select 1 /* /* $auth.id */ $auth.id */",
    "select a$auth.id",
    "select é$auth.id",
    "select '$auth.id",
    "select $auth",
    "select $auth.",
    "select $auth .id",
    "select $auth. id",
    "select $ auth.id",
    "select $auth.1",
    "select $auth.'id'",
    "select $authx.id",
    "select \u0004auth.id",
  ])("finds none in %j", (sql) => {
    expect(references(sql)).toEqual([]);
    expect(rewrite(sql)).toBe(sql);
  });

  it("follows standard_conforming_strings", () => {
    const text = Buffer.from("select 'a\\' || $auth.id --'");
    expect(findAuthReferences(text, 0, text.length)).toHaveLength(1);
    expect(findAuthReferences(text, 0, text.length, { standardConformingStrings: false })).toEqual([]);
  });

  it("looks at its own part of the buffer only", () => {
    const text = Buffer.from("$auth.a $auth.bc $auth.d");
    expect(findAuthReferences(text, 8, 15)).toEqual([{ start: 8, end: 15, name: "b" }]);
    expect(mayHoldAuthReference(text, 9, 16)).toBe(false);
    expect(mayHoldAuthReference(text, 8, 13)).toBe(false);
  });

  it("refuses a reference that is not UTF-8", () => {
    const text = Buffer.concat([Buffer.from("select $auth."), Buffer.of(0xe9)]);
    expect(() => findAuthReferences(text, 0, text.length)).toThrow(SqlError);
  });
});

describe("rewriteAuthReferences", () => {
  it("replaces references and nothing else", () => {
    expect(rewrite("select '$auth.id', $auth.id, $auth.scopes CONTAINS 'a', \"$auth.id\" -- $auth.id")).toBe(
      "select '$auth.id', <id>, <scopes'a'>, \"$auth.id\" -- $auth.id",
    );
  });

  it("returns the very buffer when there is nothing to replace", () => {
    const text = Buffer.from("select $1, '$auth.id'");
    expect(rewriteAuthReferences(text, () => "x")).toBe(text);
  });

  const opaque = fc.constantFrom(
    "'$auth.id'",
    "E'\\'$auth.id'",
    '"$auth.id"',
    "$$ $auth.id $$",
    "$q$ $auth.id $$ $q$",
    "/* $auth.id ' */",
    "-- $auth.id '\n",
    "a$auth.id",
    "$1",
    "select",
    "x =",
    "(",
    ")",
    "$auth",
    "\u00e9",
  );
  const reference = fc.constantFrom("$auth.id", '$auth."Q"', "$AUTH.role", "$auth.scopes contains 'a''b'");
  const piece = fc.oneof(
    opaque.map((written) => ({ written, isReference: false })),
    reference.map((written) => ({ written, isReference: true })),
  );

  it("keeps every byte outside of references, and touches nothing inside quotes and comments", () => {
    let found = 0;
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 8 }), (pieces) => {
        const separator = " ; ";
        const sql = pieces.map(({ written }) => written).join(separator);
        const expected = pieces
          .map(({ written, isReference }) => (isReference ? "<!>" : written))
          .join(separator);
        const text = Buffer.from(sql);
        found += findAuthReferences(text, 0, text.length).length;
        expect(rewriteAuthReferences(text, () => "<!>").toString()).toBe(expected);
      }),
      { numRuns: 1000 },
    );
    expect(found).toBeGreaterThan(200);
  });

  it("puts every statement together again from its references, whatever it holds", () => {
    const unit = fc.constantFrom(
      "$auth.id",
      "$auth.scopes contains ",
      "'",
      '"',
      "$",
      "$$",
      "$auth",
      ".",
      "/*",
      "*/",
      "--",
      "\n",
      "a",
      "\\",
      "é",
      " ",
    );
    fc.assert(
      fc.property(fc.string({ unit, maxLength: 20 }), (sql) => {
        const text = Buffer.from(sql);
        const same = rewriteAuthReferences(text, ({ start, end }) => text.toString("utf8", start, end));
        expect(same.equals(text)).toBe(true);
        if (findAuthReferences(text, 0, text.length).length > 0) {
          expect(mayHoldAuthReference(text, 0, text.length)).toBe(true);
        }
      }),
      { numRuns: 2000 },
    );
  });
});
