/** The splitter against hand-made texts, and against itself whatever surrounds a statement. */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TokenScanner } from "../../../src/ddl/lexer.ts";
import { splitStatements } from "../../../src/ddl/splitter.ts";

const on = { standardConformingStrings: true };
const off = { standardConformingStrings: false };

function split(sql: string, options = on): string[] {
  const text = Buffer.from(sql);
  return splitStatements(text, 0, text.length, options).map(({ start, end }) =>
    text.toString("utf8", start, end),
  );
}

describe("splitStatements", () => {
  it.each<[string, string, string[]]>([
    [
      "leaves out the semicolon and leading blanks",
      " \n\v\f/* c */ select 1 ; --x\n select 2",
      ["select 1 ", "select 2"],
    ],
    ["leaves out empty statements", ";;  ; /* a */ ; -- b", []],
    ["finds nothing in an empty text", "", []],
    ["keeps a semicolon in a plain string", "select 'a;''b;'; x", ["select 'a;''b;'", "x"]],
    ["gives a backslash no meaning in a plain string", "select 'a\\'; x", ["select 'a\\'", "x"]],
    ["reads backslashes in E''", "select e'a\\';b'; x", ["select e'a\\';b'", "x"]],
    ["reads a doubled backslash in E''", "select E'a\\\\'; x", ["select E'a\\\\'", "x"]],
    [
      "continues E'' over a newline with backslashes",
      "select E'a' --c\n 'b\\';c'; x",
      ["select E'a' --c\n 'b\\';c'", "x"],
    ],
    ["does not continue E'' without a newline", "select E'a'  'b\\'; x", ["select E'a'  'b\\'", "x"]],
    [
      "does not continue E'' over a block comment",
      "select E'a'/*\n*/'b\\'; x",
      ["select E'a'/*\n*/'b\\'", "x"],
    ],
    ["takes a longer word before a quote for no prefix", "select fe'a\\'; x", ["select fe'a\\'", "x"]],
    ["reads U&'' without backslashed quotes", "select U&'a\\'; x", ["select U&'a\\'", "x"]],
    ["reads B'', X'' and N''", "select b'1;0', X'F;', n'a;'''; x", ["select b'1;0', X'F;', n'a;'''", "x"]],
    ["reads quoted identifiers", 'select "a;""b;", u&"c;""d;"; x', ['select "a;""b;", u&"c;""d;"', "x"]],
    ["reads dollar quotes", "select $$a;'$$, $t$b;$$;$T$;$t$; x", ["select $$a;'$$, $t$b;$$;$T$;$t$", "x"]],
    ["finds a closing tag right behind another dollar sign", "select $a$ $$a$; x", ["select $a$ $$a$", "x"]],
    [
      "begins no dollar quote inside an identifier",
      "select a$$b; select c$$d",
      ["select a$$b", "select c$$d"],
    ],
    ["begins no dollar quote inside a multi-byte identifier", "select é$$b; x$$", ["select é$$b", "x$$"]],
    [
      "begins a dollar quote after a number or parameter",
      "select 1$$;$$, $1$$;$$; x",
      ["select 1$$;$$, $1$$;$$", "x"],
    ],
    ["takes a tag that begins with a digit for none", "select $1$;$1$; x", ["select $1$", "$1$", "x"]],
    ["nests block comments", "select /* ; /* ; */ ; */ 1; x", ["select /* ; /* ; */ ; */ 1", "x"]],
    ["does not close a comment with its own star", "select /*/ ; */ 1; x", ["select /*/ ; */ 1", "x"]],
    ["closes a comment with many stars", "select /***;***/ 1; x", ["select /***;***/ 1", "x"]],
    ["ends a line comment at a carriage return", "select 1 --;\r; x", ["select 1 --;\r", "x"]],
    ["finds a line comment inside an operator", "select 1 +-- ;\n 2; x", ["select 1 +-- ;\n 2", "x"]],
    ["finds a block comment inside an operator", "select 2 */* ; */ 3; x", ["select 2 */* ; */ 3", "x"]],
    [
      "keeps semicolons in parentheses",
      "create rule r as on insert to t do (a; b); x",
      ["create rule r as on insert to t do (a; b)", "x"],
    ],
    ["ignores a closing parenthesis too many", "select 1); x", ["select 1)", "x"]],
    ["makes the rest one statement after an open parenthesis", "select (1; x", ["select (1; x"]],
    ["makes the rest one statement after an open string", "x; select 'a; b", ["x", "select 'a; b"]],
    ["makes the rest one statement after an open E''", "x; select E'a\\'; b", ["x", "select E'a\\'; b"]],
    ["makes the rest one statement after an open identifier", 'x; select "a; b', ["x", 'select "a; b']],
    [
      "makes the rest one statement after an open dollar quote",
      "x; select $a$; b$$",
      ["x", "select $a$; b$$"],
    ],
    ["makes the rest one statement after an open comment", "x; /* a /* */ ; b", ["x", "/* a /* */ ; b"]],
  ])("%s", (_, sql, expected) => {
    expect(split(sql)).toEqual(expected);
  });

  it("reads backslashes in plain strings when standard_conforming_strings is off", () => {
    expect(split("select 'a\\'; b'; x", off)).toEqual(["select 'a\\'; b'", "x"]);
    expect(split("select n'a\\'; b'; x", off)).toEqual(["select n'a\\'; b'", "x"]);
    // A doubled quote ends B'' and begins a plain string.
    expect(split("select b'1''\\'; b'; x", off)).toEqual(["select b'1''\\'; b'", "x"]);
    expect(split("select U&'a\\'; x", off)).toEqual(["select U&'a\\'", "x"]);
  });

  it.each<[string, string]>([
    ["a body", "create function f() returns int begin atomic select 1; select 2; end"],
    ["a body behind OR REPLACE", "create or replace procedure p() BEGIN /* ; */ ATOMIC select 1; END"],
    [
      "CASE in a body",
      "create function f() returns int begin atomic select case when true then 1 end; select 2; end",
    ],
    [
      "labels named end",
      "create function f() returns int begin atomic select 1 as end; select t.case from t; end",
    ],
    ["an empty body", "create function f() returns void begin atomic end"],
  ])("keeps %s of a routine whole", (_, sql) => {
    expect(split(`${sql}; x`)).toEqual([sql, "x"]);
  });

  it("counts BEGIN ATOMIC only in a routine, and BEGIN only with ATOMIC", () => {
    expect(split("begin; select 1; end")).toEqual(["begin", "select 1", "end"]);
    expect(split("select begin atomic; x")).toEqual(["select begin atomic", "x"]);
    expect(split("create function begin() returns int return 1; x")).toEqual([
      "create function begin() returns int return 1",
      "x",
    ]);
    expect(split("create function atomic() returns int return 1; x")).toEqual([
      "create function atomic() returns int return 1",
      "x",
    ]);
  });

  it("reads no byte outside its bounds", () => {
    const text = Buffer.from("'; select 'a'; select E'x\\' ;'");
    const start = 2;
    expect(splitStatements(text, start, 13, on)).toEqual([{ start: 3, end: 13 }]);
    expect(splitStatements(text, 14, 26, on)).toEqual([{ start: 15, end: 26 }]);
    expect(splitStatements(text, 14, 28, on)).toEqual([{ start: 15, end: 28 }]);
  });

  it.each(["'a'", "E'a'", '"a"', "$$a$$", "/*a*/"])(
    "takes %s for open when its end is out of bounds",
    (sql) => {
      const token = new TokenScanner(Buffer.from(sql), 0, sql.length - 1, on);
      expect(token.next()).toBe("unterminated");
      expect(token.end).toBe(sql.length - 1);
    },
  );

  it("takes time in proportion to the text, however it nests", () => {
    const text = Buffer.from("/*".repeat(200_000));
    expect(splitStatements(text, 0, text.length, on)).toEqual([{ start: 0, end: text.length }]);
  });
});

/** Pieces that are lexically whole and that hold traps; none holds a semicolon outside quotes or opens anything. */
const piece = fc.oneof(
  fc.constantFrom(
    "select",
    "E'\\';'",
    "e'\\\\'",
    "'a;''b'",
    "'\\\\'",
    "U&'\\0061;'",
    "B'1;'",
    "x'f;'",
    "N';'",
    '"a;""b"',
    'U&"d;"',
    "$$;'\"$$",
    "$tag$;$$;$tag$",
    "a$$b",
    "a$t$b",
    "$1",
    "1.5e3",
    "/* ; ' */",
    '/* /* ; */ " */',
    "-- ; ' $$\n",
    "(a; b)",
    "((';'))",
    "+",
    "@-",
    "::",
    "é",
    "case",
    "end",
    "begin",
    "atomic",
  ),
  fc
    .string({ unit: fc.constantFrom("a", "b", "'", ";", '"', "-", "/", "*", "$"), maxLength: 8 })
    .map((text) => `'${text.replaceAll("'", "''")}'`),
);

const statement = fc
  .tuple(
    fc.array(piece, { maxLength: 4 }),
    fc.constantFrom("select", "'x'", "$$y$$"),
    fc.array(piece, { maxLength: 4 }),
  )
  // Spaces keep neighbours apart: a word does not swallow a dollar quote.
  .map(([before, token, after]) => [...before, token, ...after].join(" "));

describe("splitStatements, whatever surrounds a statement", () => {
  it.each([
    ["on", on],
    ["off", off],
  ])("finds the same statements alone and joined (standard_conforming_strings %s)", (_, options) => {
    fc.assert(
      fc.property(
        fc.array(statement, { minLength: 1, maxLength: 6 }),
        fc.constantFrom(";", " ; ", ";;", ";\n--;\n", ";/*;*/"),
        (statements, separator) => {
          const expected = statements.flatMap((sql) => split(sql, options));
          expect(split(statements.join(separator), options).map((sql) => sql.trimEnd())).toEqual(
            expected.map((sql) => sql.trimEnd()),
          );
        },
      ),
      { numRuns: 500 },
    );
  });

  it("finds one statement in each piece, and the same in the middle of a larger buffer", () => {
    fc.assert(
      fc.property(statement, fc.constantFrom("'", '"', "$$", "*/", ";", "x"), (sql, around) => {
        const text = Buffer.from(`${around}${sql}${around}`);
        const start = Buffer.byteLength(around);
        const ranges = splitStatements(text, start, text.length - start, on);
        expect(ranges).toHaveLength(1);
        expect(ranges[0]?.end).toBe(text.length - start);
      }),
      { numRuns: 500 },
    );
  });

  it("covers any bytes with ranges that are in order and hold no leading blank", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (bytes, standardConformingStrings) => {
        const text = Buffer.from(bytes);
        let last = 0;
        for (const { start, end } of splitStatements(text, 0, text.length, { standardConformingStrings })) {
          expect(start).toBeGreaterThanOrEqual(last);
          expect(end).toBeGreaterThan(start);
          expect(end).toBeLessThanOrEqual(text.length);
          expect([0x20, 0x09, 0x0a, 0x0b, 0x0c, 0x0d]).not.toContain(text[start]);
          last = end;
        }
      }),
    );
  });
});
