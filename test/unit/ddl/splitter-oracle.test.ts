/** The splitter against PostgreSQL's own parser and scanner (libpg-query), and against node-sql-parser. */

import fc from "fast-check";
import { loadModule, parseSync, scanSync } from "libpg-query";
import nodeSqlParser from "node-sql-parser";
import { beforeAll, describe, expect, it } from "vitest";
import { TokenScanner } from "../../../src/ddl/lexer.ts";
import { splitStatements } from "../../../src/ddl/splitter.ts";

const on = { standardConformingStrings: true };

/**
 * libpg-query makes a token of each comment, and so loses one thing that PostgreSQL does: a string goes on behind
 * a line comment. splitter.test.ts holds that case; no text here may contain it.
 */
const stringBeforeLineComment = /'\s*--/;

/** Statements that PostgreSQL 18 accepts, each with something that a splitter can get wrong. */
const corpus = [
  "select 1",
  "select 'a;b', 'it''s; so', 'c:\\'",
  "select E'a\\';b', e'\\\\', E'\\x3b\\073\\u003b'",
  "select 'a'\n';b'",
  "select U&'d\\0061t\\+000061;' , U&'x!0041' uescape '!'",
  "select b'10', x'ff', n'a;b'",
  'select "a;""b" from "t;" as "x;y"',
  'select U&"d;\\0061" from t',
  "select $$a;'\"b$$, $t$ ; $$ ; $T$ $t$, $é$;$é$",
  "select a$b$c, é$x$ from t",
  "select /* ; ' /* \" ; */ $$ */ 1 -- ; '",
  "select 1 -- ;\r + 2",
  "select 2 */* ; */3, 4 +-- ;\n 5, 6 /--;\n 7",
  "select @-1, 2!=-1, 3<@4, a->>'b;', c#>>'{d;e}', f?|array[';']",
  "select 1::text, b[1:2], c.d.e, (f).g",
  "select $1, $2::int",
  "select case when a then ';' else case b when 1 then 2 end end as end from t",
  "select 1e10, .5, 1., 0x1F, 1_000",
  "prepare p (int) as select $1 + 1",
  "insert into t values (1, ';'), (2, E'\\n;') on conflict do nothing returning *",
  "begin",
  "begin isolation level serializable, read only",
  "end",
  "start transaction",
  "savepoint a",
  "create rule r as on insert to t do also (insert into a values (1); delete from b; select ';')",
  "create rule r as on delete to t do instead (;;update t set a = 1;;)",
  "create function f(a int) returns int language sql begin atomic select 1; select a; end",
  "create or replace function f() returns int begin atomic select case when true then 1 else 2 end; end",
  "create function f() returns int begin atomic; select 1 as end; select t.case from t; select (case 1 when 1 then 2 end); end",
  "CREATE OR REPLACE PROCEDURE p() BEGIN /* a */ ATOMIC INSERT INTO t VALUES (1); END",
  "create procedure p() begin atomic end",
  "create function begin() returns int return 1",
  "create function s.end_of() returns int return case when true then 1 end",
  "create function f(begin int) returns int language sql as $$select 1; select 2;$$",
  "create function f() returns text language plpgsql as $f$ begin return 'a;'; end; $f$",
  "do $$ begin perform 1; end $$",
  "do language plpgsql 'begin null; end'",
  "create trigger t before insert on x for each row execute function f()",
  "create policy p on t using (a = ';')",
  "copy t from stdin with (format csv, delimiter ';')",
  "explain (analyze, costs off) select 1",
  "create table t (a int default 1, b text check (b <> ';'))",
  "comment on table t is 'a;'",
  "create user bob password 'a;b'",
  "create user mapping for bob server s options (user ';')",
  "alter role bob set search_path = 'a;b', c",
  "listen x",
  "notify x, 'a;b'",
  "create operator <-> (procedure = f)",
  "merge into t using s on t.a = s.a when matched then delete when not matched then insert values (';')",
  "grant select on t to bob",
  "show search_path",
];

/** What may stand between two statements. */
const separator = fc.constantFrom(";", " ;\n", ";;", "; -- x ; '\n;", "/* ; */;/* /* ; */ ; */", ";\f\v\t");

interface Range {
  start: number;
  end: number;
}

function ourRanges(sql: string): Range[] {
  const text = Buffer.from(sql);
  return splitStatements(text, 0, text.length, on);
}

/** PostgreSQL's own ranges in bytes; a length of zero means up to the end. */
function postgresRanges(sql: string): Range[] {
  const bytes = Buffer.byteLength(sql);
  return (parseSync(sql).stmts ?? []).map(({ stmt_location: start = 0, stmt_len: length = 0 }) => ({
    start,
    end: length === 0 ? bytes : start + length,
  }));
}

function ourSemicolons(sql: string): number[] {
  const text = Buffer.from(sql);
  const scanner = new TokenScanner(text, 0, text.length, on);
  const found: number[] = [];
  while (scanner.next() !== "end") if (scanner.isSymbol(";")) found.push(scanner.start);
  return found;
}

/** Offsets of semicolon tokens, or undefined when PostgreSQL's scanner refuses the text. */
function postgresSemicolons(sql: string): number[] | undefined {
  try {
    return scanSync(sql)
      .tokens.filter(({ text }) => text === ";")
      .map(({ start }) => start);
  } catch {
    return undefined;
  }
}

beforeAll(loadModule);

describe("splitStatements against PostgreSQL's parser", () => {
  it.each(corpus)("agrees on %j", (sql) => {
    expect(ourRanges(sql)).toEqual(postgresRanges(sql));
    expect(ourRanges(sql)).toHaveLength(1);
  });

  it("agrees on any sequence of valid statements", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.constantFrom(...corpus), separator), { minLength: 1, maxLength: 8 }),
        (parts) => {
          // A newline ends the line comment that a statement may end with.
          const sql = parts.map(([statement, between]) => `${statement}\n${between}`).join("");
          expect(ourRanges(sql)).toEqual(postgresRanges(sql));
          expect(ourRanges(sql)).toHaveLength(parts.length);
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe("TokenScanner against PostgreSQL's scanner", () => {
  const soup = fc.string({
    unit: fc.constantFrom(
      ..."''''\"$$$;;;-/*\\&aeEuUbxn_1é+()\n\r \t.:".split(""),
      "/*",
      "*/",
      "--",
      "''",
      "$$",
      "\\'",
      "\n'",
    ),
    maxLength: 40,
  });

  it("finds the same semicolons in any text that PostgreSQL can scan", () => {
    let compared = 0;
    fc.assert(
      fc.property(soup, (sql) => {
        fc.pre(!stringBeforeLineComment.test(sql));
        const expected = postgresSemicolons(sql);
        if (expected === undefined) return;
        compared++;
        expect(ourSemicolons(sql)).toEqual(expected);
      }),
      { numRuns: 5000 },
    );
    expect(compared).toBeGreaterThan(500);
  });
});

describe("splitStatements against node-sql-parser", () => {
  const parser = new nodeSqlParser.Parser();

  function countOfOther(sql: string): number | undefined {
    try {
      const parsed = parser.astify(sql, { database: "postgresql" });
      return Array.isArray(parsed) ? parsed.length : 1;
    } catch {
      return undefined;
    }
  }

  it("counts the same statements where that parser understands them", () => {
    const understood = corpus.filter((sql) => countOfOther(sql) === 1 && !sql.includes("--"));
    expect(understood.length).toBeGreaterThan(10);
    for (const first of understood.slice(0, 12)) {
      for (const second of understood.slice(0, 4)) {
        const sql = `${first};\n${second};`;
        expect([sql, ourRanges(sql).length]).toEqual([sql, countOfOther(sql) ?? 2]);
      }
    }
  });
});
