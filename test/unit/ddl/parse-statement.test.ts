/** The grammar, statement by statement: what is understood, what is refused and where, and what stays PostgreSQL's. */

import fc from "fast-check";
import { loadModule, parseSync } from "libpg-query";
import { beforeAll, describe, expect, it } from "vitest";
import { parseStatement } from "../../../src/ddl/parse-statement.ts";
import { isReservedWord } from "../../../src/ddl/reserved-words.ts";
import { maxStatementBytes } from "../../../src/ddl/statement-text.ts";
import { SqlError } from "../../../src/errors/sql-error.ts";

function refusal(sql: string): SqlError {
  let statement: unknown;
  try {
    statement = parseStatement(sql);
  } catch (error) {
    if (error instanceof SqlError) return error;
    throw error;
  }
  throw new Error(`not refused: ${sql} became ${JSON.stringify(statement)}`);
}

const bob = (position: number) => ({ text: "bob", position });

describe("parseStatement, CREATE USER", () => {
  const create = (options: object, rest: object = {}) => ({
    kind: "create_user",
    name: bob(13),
    ifNotExists: false,
    options,
    spelling: "USER",
    ...rest,
  });

  it.each<[string, object]>([
    ["create user bob", create({})],
    ["CREATE USER Bob WITH;", create({})],
    ["create user bob password 'p'", create({ password: { value: "p", position: 26 } })],
    ["create user bob with encrypted password 'p'", create({ password: { value: "p", position: 41 } })],
    ["create user bob password null", create({ password: { value: null, position: 17 } })],
    ["create user bob role admin", create({ roles: [{ text: "admin", position: 22 }] })],
    [
      'create user bob in role a, "B" role c superuser',
      create({
        roles: [
          { text: "a", position: 25 },
          { text: "B", position: 28 },
          { text: "c", position: 37 },
          { text: "superuser", position: 39 },
        ],
      }),
    ],
    ["create user bob in group a", create({ roles: [{ text: "a", position: 26 }] })],
    ["create user bob tenant 42", create({ tenant: { id: 42, position: 24 } })],
    ["create user bob tenant Acme", create({ tenant: { name: "acme", position: 24 } })],
    ["create user bob tenant 'Acme'", create({ tenant: { name: "Acme", position: 24 } })],
    ["create user bob valid until 'infinity'", create({ validUntil: { value: "infinity", position: 29 } })],
    ["create user bob connection limit 5", create({ connectionLimit: 5 })],
    ["create user bob connection limit +1_0", create({ connectionLimit: 10 })],
    ["create user bob connection limit - 1", create({ connectionLimit: -1 })],
    ["create user bob nologin inherit nosuperuser", create({ canLogin: false })],
    ["create user bob login nocreatedb nocreaterole noreplication nobypassrls", create({ canLogin: true })],
    [
      "create user bob valid until 'x' connection limit 1 tenant 0 role a password 'p' login",
      create({
        password: { value: "p", position: 77 },
        roles: [{ text: "a", position: 66 }],
        tenant: { id: 0, position: 59 },
        validUntil: { value: "x", position: 29 },
        connectionLimit: 1,
        canLogin: true,
      }),
    ],
    ["create user if not exists bob", create({}, { name: bob(27), ifNotExists: true })],
    [
      "create user if password 'p'",
      create({ password: { value: "p", position: 25 } }, { name: { text: "if", position: 13 } }),
    ],
    ["create user password", create({}, { name: { text: "password", position: 13 } })],
    ["create user mapping", create({}, { name: { text: "mapping", position: 13 } })],
    ["create /* x */ user -- y\n bob /* z /* */ */ ; ;", create({}, { name: bob(27) })],
    [
      "create role bob login password 'p'",
      create({ password: { value: "p", position: 32 }, canLogin: true }, { spelling: "ROLE" }),
    ],
    [
      "create role bob password 'p'",
      create({ password: { value: "p", position: 26 }, canLogin: false }, { spelling: "ROLE" }),
    ],
    ["create role bob login", create({ canLogin: true }, { spelling: "ROLE" })],
  ])("understands %j", (sql, expected) => {
    expect(parseStatement(sql)).toEqual(expected);
  });
});

describe("parseStatement, the other statements", () => {
  const user = bob(12);
  it.each<[string, object]>([
    ["alter user bob", { kind: "alter_user", user, options: {}, spelling: "USER" }],
    [
      "alter user bob password 'p'",
      { kind: "alter_user", user, options: { password: { value: "p", position: 25 } }, spelling: "USER" },
    ],
    [
      "alter user bob with set password 'p'",
      { kind: "alter_user", user, options: { password: { value: "p", position: 34 } }, spelling: "USER" },
    ],
    [
      "alter role bob set password 'p'",
      { kind: "alter_user", user, options: { password: { value: "p", position: 29 } }, spelling: "ROLE" },
    ],
    [
      "alter user current_user password null",
      {
        kind: "alter_user",
        user: { self: true, position: 12 },
        options: { password: { value: null, position: 25 } },
        spelling: "USER",
      },
    ],
    [
      "alter user bob valid until 'x' connection limit -1 nologin",
      {
        kind: "alter_user",
        user,
        options: { validUntil: { value: "x", position: 28 }, connectionLimit: -1, canLogin: false },
        spelling: "USER",
      },
    ],
    [
      "alter user bob set role admin, 'X y'",
      {
        kind: "set_user_roles",
        user,
        roles: [
          { text: "admin", position: 25 },
          { text: "X y", position: 32 },
        ],
        spelling: "USER",
      },
    ],
    [
      "alter user bob set default database Shop",
      { kind: "set_user_default_database", user, database: { text: "shop", position: 37 }, spelling: "USER" },
    ],
    [
      'alter role bob rename to "Bob"',
      { kind: "rename_user", user, newName: { text: "Bob", position: 26 }, spelling: "ROLE" },
    ],
    ["drop user bob", { kind: "drop_user", users: [bob(11)], ifExists: false, spelling: "USER" }],
    [
      "drop role if exists bob, session_user, 'x'",
      {
        kind: "drop_user",
        users: [bob(21), { self: true, position: 26 }, { text: "x", position: 40 }],
        ifExists: true,
        spelling: "ROLE",
      },
    ],
    [
      "drop user bob reassign owned to CURRENT_ROLE",
      {
        kind: "drop_user",
        users: [bob(11)],
        ifExists: false,
        reassignTo: { self: true, position: 33 },
        spelling: "USER",
      },
    ],
    ["show users", { kind: "show_users" }],
    ["SHOW SESSION ;", { kind: "show_session" }],
  ])("understands %j", (sql, expected) => {
    expect(parseStatement(sql)).toEqual(expected);
  });
});

describe("parseStatement, names", () => {
  const name = (written: string) => {
    const statement = parseStatement(`create user ${written} login`);
    return statement !== "forward" && statement.kind === "create_user" ? statement.name.text : undefined;
  };

  it.each([
    ["BOB", "bob"],
    ["ÉCOLE_É$1", "École_É$1"],
    ['"BOB"', "BOB"],
    ['"a""b"', 'a"b'],
    ['"select"', "select"],
    ["'Bob; --'", "Bob; --"],
    ["'it''s'", "it's"],
    ["E'a\\'\\x41'", "a'A"],
    ["$$Bob$$", "Bob"],
    ["left", "left"],
    ["between", "between"],
    ["e", "e"],
    ["u", "u"],
    ["😀x", "😀x"],
    [`"${"é".repeat(31)}x"`, `${"é".repeat(31)}x`],
  ])("reads %s", (written, expected) => {
    expect(name(written)).toBe(expected);
  });

  it.each(['""', "''", "E''", "$$$$"])("refuses the empty name %s", (written) => {
    const error = refusal(`create user ${written}`);
    expect([error.condition, error.message, error.position]).toEqual([
      "syntax_error",
      "zero-length delimited identifier",
      13,
    ]);
  });

  it("refuses a name of more than 63 bytes instead of cutting it", () => {
    const error = refusal(`alter user bob rename to ${"é".repeat(32)}`);
    expect(error.condition).toBe("invalid_parameter_value");
    expect(error.position).toBe(26);
    expect(error.detail).toBe("A name has at most 63 bytes; this one has 64.");
    expect(refusal(`create user '${"secret".repeat(11)}'`).message).toBe("name is too long");
  });

  it.each([
    ["create user current_user", "CURRENT_USER cannot be used as a role name here", 13],
    ["alter user bob rename to Session_User", "SESSION_USER cannot be used as a role name here", 26],
    ["create user public", 'role name "public" is reserved', 13],
    ['alter user bob rename to "none"', 'role name "none" is reserved', 26],
  ])("refuses %s as reserved", (sql, message, position) => {
    const error = refusal(sql);
    expect([error.condition, error.message, error.position]).toEqual(["reserved_name", message, position]);
  });

  it("counts positions in characters, not in UTF-16 units or bytes", () => {
    expect(refusal("create user 😀é foo").position).toBe(16);
    expect(parseStatement("alter user 😀 rename to é")).toMatchObject({
      newName: { text: "é", position: 24 },
    });
  });
});

describe("parseStatement, strings", () => {
  const password = (written: string, standardConformingStrings = true) => {
    const statement = parseStatement(`alter user bob password ${written}`, { standardConformingStrings });
    if (statement === "forward" || statement.kind !== "alter_user") return undefined;
    return statement.options.password?.value;
  };

  it.each([
    ["''", ""],
    ["'it''s'", "it's"],
    ["'a\\n'", "a\\n"],
    ["' p '", " p "],
    ["'a'\n  'b'", "ab"],
    ["'a' -- c '\n 'b'", "ab"],
    ["E'a\\'b''c\\\\d\\ne\\te\\q'", "a'b'c\\d\ne\teq"],
    ["e'\\x41\\101\\u0041\\U00000041\\7'", "AAAA\u0007"],
    ["E'\\xc3\\xa9\\303\\251'", "éé"],
    ["E'\\ud83d\\ude00\\U0001F600'", "😀😀"],
    ["E'a'\n'\\x42'", "aB"],
    ["E'\\😀\\\n'", "😀\n"],
    ["$$a'b$$", "a'b"],
    ["$t$a$$b$u$c\\$t$", "a$$b$u$c\\"],
    ["$é$x$é$", "x"],
    ["'é😀'", "é😀"],
  ])("reads %s", (written, expected) => {
    expect(password(written)).toBe(expected);
  });

  it("reads backslashes in plain strings when standard_conforming_strings is off", () => {
    expect(password("'a\\'b'", false)).toBe("a'b");
    expect(password("$$a\\'b$$", false)).toBe("a\\'b");
  });

  it.each([
    ["E'\\u00'", "syntax_error"],
    ["E'\\U0011FFFF'", "syntax_error"],
    ["E'\\u0000'", "syntax_error"],
    ["E'\\ud83d'", "syntax_error"],
    ["E'\\ud83dx'", "syntax_error"],
    ["E'\\ude00'", "syntax_error"],
    ["E'\\xff'", "character_not_in_repertoire"],
    ["E'\\0'", "character_not_in_repertoire"],
    ["U&'x'", "feature_not_supported"],
    ["X'41'", "syntax_error"],
    ["'a' 'b'", "syntax_error"],
  ])("refuses %s", (written, condition) => {
    const error = refusal(`alter user bob password ${written}`);
    expect([error.condition, error.position]).toEqual([condition, written === "'a' 'b'" ? 29 : 25]);
  });
});

describe("parseStatement, refusals", () => {
  it.each<[string, string, number]>([
    ["create user", "syntax error at end of input", 12],
    ["create user bob password", "syntax error at end of input", 25],
    ["create user bob in", "syntax error at end of input", 19],
    ["create user select", 'syntax error at or near "select"', 13],
    ["create user USER login", 'syntax error at or near "USER"', 13],
    ["create user bob foo", 'syntax error at or near "foo"', 17],
    ["create user bob, eve", 'syntax error at or near ","', 16],
    ["create user 12", 'syntax error at or near "12"', 13],
    ["create user bob role", "syntax error at end of input", 21],
    ["create user bob role a,", "syntax error at end of input", 24],
    ["create user bob connection limit x", 'syntax error at or near "x"', 34],
    ["create user bob connection limit 5x", 'syntax error at or near "5x"', 34],
    ["create user bob; select 1", 'syntax error at or near "select"', 18],
    ["create user bob valid until now", 'syntax error at or near "now"', 29],
    ["alter user all password 'x'", 'syntax error at or near "all"', 12],
    ["alter user bob role x", 'syntax error at or near "role"', 16],
    ["alter user bob set default database", "syntax error at end of input", 36],
    ["drop user if exists", "syntax error at end of input", 20],
    ["drop user a b", 'syntax error at or near "b"', 13],
    ["drop user a reassign owned by b", 'syntax error at or near "by"', 28],
    ["create user 'bob", "unterminated quoted string", 13],
    ['create user "bob', "unterminated quoted identifier", 13],
    ["create user bob password $x$p$y$", "unterminated quoted string", 26],
    ["create user bob /* x", "unterminated /* comment", 17],
    ["create user bob password 'p' password null", "conflicting or redundant options", 30],
    ["create user bob login valid until 'x' nologin", "conflicting or redundant options", 39],
    ["create user bob in role a in group b", "conflicting or redundant options", 27],
    ["create user bob nosuperuser role superuser", "conflicting or redundant options", 17],
    ["create user bob createdb createdb", "conflicting or redundant options", 26],
  ])("refuses %j as a syntax error", (sql, message, position) => {
    const error = refusal(sql);
    expect([error.condition, error.message, error.position]).toEqual(["syntax_error", message, position]);
  });

  it("expects no option that it would refuse", () => {
    for (const sql of ["create user bob foo", "create role bob login foo", "alter user bob foo"]) {
      expect(refusal(sql).detail).not.toMatch(
        /\b(CREATEDB|CREATEROLE|REPLICATION|BYPASSRLS|NOINHERIT|ADMIN|SYSID|UNENCRYPTED|USER)\b/,
      );
    }
  });

  it("says in words what was expected", () => {
    expect(refusal("create user bob foo").detail).toMatch(
      /^Expected .*PASSWORD, .*ROLE, .*TENANT.* or .*\.$/,
    );
    expect(refusal("create user bob password").detail).toBe("Expected NULL or string literal.");
    expect(refusal("drop user").detail).toBe("Expected CURRENT_USER, IF or name.");
    expect(refusal("drop user a b").detail).toBe("Expected REASSIGN, a comma or end of statement.");
  });

  it.each([
    ["create user bob createdb", "role option CREATEDB is not supported", 17],
    ["create user bob login createrole", "role option CREATEROLE is not supported", 23],
    ["create user bob replication", "role option REPLICATION is not supported", 17],
    ["create user bob bypassrls", "role option BYPASSRLS is not supported", 17],
    ["create user bob noinherit", "role option NOINHERIT is not supported", 17],
    ["create user bob admin x", "role option ADMIN is not supported", 17],
    ["create user bob sysid 5", "SYSID can no longer be specified", 17],
    ["create user bob unencrypted password 'p'", "UNENCRYPTED PASSWORD is no longer supported", 17],
    ["create role bob login createdb", "role option CREATEDB is not supported", 23],
    ['create user U&"x"', "Unicode escapes with U& are not supported here", 13],
  ])("refuses %j as not supported", (sql, message, position) => {
    const error = refusal(sql);
    expect([error.condition, error.message, error.position]).toEqual([
      "feature_not_supported",
      message,
      position,
    ]);
  });

  it.each([
    ["alter user bob superuser", "role option SUPERUSER is not supported", 16],
    ["alter role bob login nosuperuser", "role option NOSUPERUSER is not supported", 22],
    ["alter role bob password 'p' createdb", "role option CREATEDB is not supported", 29],
    ["alter role bob bypassrls createdb", "role option BYPASSRLS is not supported", 16],
  ])("leaves it to the executor, which knows whose role it is, to refuse %j", (sql, message, position) => {
    expect(parseStatement(sql)).toMatchObject({
      kind: "alter_user",
      options: { unsupported: { message, position, hint: expect.stringMatching(/ROLE/) } },
    });
  });

  it.each(["alter role bob", "alter role bob inherit", "alter user bob inherit"])(
    "finds nothing to refuse in %j",
    (sql) => {
      expect(parseStatement(sql)).toMatchObject({ kind: "alter_user", options: {} });
      expect(parseStatement(sql)).not.toHaveProperty("options.unsupported");
    },
  );

  it.each(["create user bob createdb", "create user bob bypassrls"])(
    "hints at what to do instead of %j",
    (sql) => {
      expect(refusal(sql).hint).toMatch(/ROLE/);
    },
  );

  it.each([
    ["create user bob connection limit -2", "invalid connection limit: -2", 34],
    ["create user bob connection limit 2147483648", "connection limit is out of range", 34],
    ["create user bob tenant 9007199254740993", "tenant number is out of range", 24],
  ])("refuses the value in %j", (sql, message, position) => {
    const error = refusal(sql);
    expect([error.condition, error.message, error.position]).toEqual([
      "invalid_parameter_value",
      message,
      position,
    ]);
  });

  it("refuses a statement that is too long or nests too deeply", () => {
    expect(refusal(`create user bob ${" ".repeat(maxStatementBytes)}`).condition).toBe(
      "program_limit_exceeded",
    );
    expect(refusal(`create user ${"é".repeat(maxStatementBytes / 2)}`).condition).toBe(
      "program_limit_exceeded",
    );
    const deep = 100_000;
    expect(refusal(`create user ${"/*".repeat(deep)}${"*/".repeat(deep)} bob`).condition).toBe(
      "statement_too_complex",
    );
  });
});

describe("parseStatement, costly statements", () => {
  it.each([
    ["comments that are never closed", `create user ${"/*".repeat(500)}`, "syntax_error"],
    ["strings that go on and on", `create user bob password ${"'a'\n".repeat(100_000)}'`, "syntax_error"],
    ["dollar signs", `create user bob password $x$${"$x".repeat(200_000)}`, "syntax_error"],
    ["long lists with characters of two units", `drop user ${"'😀',".repeat(100_000)}`, "syntax_error"],
    ["repeated options", `create user bob ${"login ".repeat(100_000)}`, "syntax_error"],
  ])("answers %s within a second of CPU time", (_, sql, condition) => {
    const start = process.cpuUsage();
    expect(refusal(sql).condition).toBe(condition);
    const { user, system } = process.cpuUsage(start);
    expect((user + system) / 1000).toBeLessThan(1000);
  });
});

describe("parseStatement and PostgreSQL's own roles", () => {
  it.each([
    "create role bob createdb",
    "create role bob role alice",
    "create role bob noinherit",
    "create role bob in role alice",
    "create role bob nologin connection limit 5",
    "alter role bob set inherit = alice",
    "create role bob password null",
    "create role bob foo",
    "create role select",
    'create role U&"x"',
    "alter role bob user x",
    "drop role",
    "alter user bob set search_path = x",
    "alter user bob reset all",
    "alter user bob set role = default",
    "alter user bob set role from current",
    "alter user bob set schema 'x'",
    "create group g user alice",
    "create group g with createdb",
    "alter group g add",
    "alter group g foo",
    "create user mapping for bob server s",
    "show session authorization",
    "select 1",
    "",
  ])("hands %j back", (sql) => {
    expect(parseStatement(sql)).toBe("forward");
  });

  it.each([
    "create role bob foo password 'p'",
    "create role bob password p",
    "create role bob login foo",
    "create role bob 'password 'p'",
    "alter role bob user x encrypted password 'p'",
    "create role bob unencrypted password 'p'",
    "create role bob passwrd 'p'",
    "create role bob passwrd $$p$$",
    "create role bob passwrd 'p",
    "create user bob passwrd 'p'",
    "create group bob passwrd 'p'",
    "create group bob foo password 'p'",
    "alter role bob passwrd 'p'",
    "alter user bob passwrd 'p'",
    "alter user bob set passwrd 'p'",
    "alter role bob set passwrd 'p'",
    "alter group bob passwrd 'p'",
  ])("keeps %j, because PostgreSQL would log it", (sql) => {
    expect(() => parseStatement(sql)).toThrow(SqlError);
  });
});

describe("parseStatement and secrets", () => {
  const fields = (error: SqlError) => [error.message, error.detail, error.hint, String(error)].join("\n");

  it.each([
    "create user bob password sesame",
    "create user bob password 'it's sesame'",
    'create user bob password "sesame"',
    "create user bob password 'x' 'sesame'",
    "create user bob 'sesame'",
    "create user bob 'sesame",
    "create user bob password $$sesame",
    "create user bob password 12345sesame",
    "create user bob password 'x'sesame",
    "create user bob password 'x' sesame and more'",
    "create user bob password 'x' login sesame 'more",
    "create user bob passwrd 'sesame'",
    "create user bob password = sesame",
    "create user bob password U&'sesame'",
    "create user bob password E'sesame\\xff'",
    "create user bob password B'sesame'",
    "create role bob password sesame",
    `create user '${"sesame".repeat(11)}'`,
    "alter user bob set password to sesame",
    "alter user bob connection limit 'sesame'",
  ])("shows no part of the secret in %j", (sql) => {
    expect(fields(refusal(sql))).not.toContain("sesame");
  });

  it.each([
    ["create user bob password 'x' extra", "extra"],
    ["create user bob password 'x' valid until 'y' extra", "extra"],
    ["alter user bob password null extra", "extra"],
    ["create user bob password 'x' connection limit 5x", "5x"],
  ])("names the word that is wrong in %j", (sql, word) => {
    expect(refusal(sql).message).toBe(`syntax error at or near "${word}"`);
  });

  it("shows no part of a password that is cut into the statement anywhere", () => {
    const tokens =
      "create user role bob password 'sesame' \"sesame\" $$sesame$$ extra , ; valid until login 5".split(" ");
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...tokens), { maxLength: 6 }), (rest) => {
        const sql = `create user bob password ${rest.join(" ")}`;
        try {
          parseStatement(sql);
        } catch (error) {
          if (!(error instanceof SqlError)) throw error;
          expect(fields(error)).not.toContain("sesame");
        }
      }),
    );
  });

  it("fails only with an SqlError, whatever follows the keywords", () => {
    const unit = fc.constantFrom(
      ..."'\"$;-/*\\ \nabe(&😀\0,1".split(""),
      "/*",
      "--",
      "password",
      "''",
      "role ",
    );
    fc.assert(
      fc.property(
        fc.constantFrom("create user ", "alter role ", "drop user ", "show users"),
        fc.string({ unit, maxLength: 30 }),
        (head, rest) => {
          try {
            parseStatement(head + rest);
          } catch (error) {
            expect(error).toBeInstanceOf(SqlError);
          }
        },
      ),
      { numRuns: 2000 },
    );
  });
});

describe("parseStatement against PostgreSQL's grammar", () => {
  beforeAll(loadModule);

  function isAccepted(sql: string): boolean {
    try {
      parseSync(sql);
      return true;
    } catch {
      return false;
    }
  }

  it.each(
    `all between bigint bit boolean case cast char check coalesce column concurrently current_user default
    database deferrable do end exists false for from full grant group if ilike in inner int is join left like limit
    login mapping natural none not null offset on only or order outer overlaps password primary public references
    returning right role row select session session_user setof similar some system_user table tenant then to true
    union unique user users using valid values verbose when where window with xmlattributes`.split(/\s+/),
  )("takes %s for a bare name exactly when PostgreSQL does", (word) => {
    let accepted = true;
    try {
      parseStatement(`create user ${word}`);
    } catch {
      accepted = false;
    }
    expect(accepted).toBe(isAccepted(`create user ${word}`));
    if (isReservedWord(word)) expect(accepted).toBe(false);
  });

  it("accepts what PostgreSQL accepts, for the options that both know", () => {
    // No stray string: as a name in a list it is ours alone.
    const option = fc.constantFrom(
      "password 'p'",
      "encrypted password E'p\\''",
      "password null",
      "in role a, b",
      "in group c",
      "valid until 'infinity'",
      "connection limit -1",
      "connection limit 5",
      "login",
      "nologin",
      "inherit",
      "nosuperuser",
      "nocreatedb",
      "5",
      "x",
      ",",
    );
    const condition = (sql: string) => {
      try {
        parseStatement(sql);
        return "ok";
      } catch (error) {
        // PostgreSQL finds repeated options after parsing.
        return error instanceof SqlError && error.message === "conflicting or redundant options"
          ? "ok"
          : "refused";
      }
    };
    fc.assert(
      fc.property(
        fc.array(option, { maxLength: 4 }),
        fc.constantFrom("", "with"),
        (options, optionalWith) => {
          const sql = `create user bob ${optionalWith} ${options.join(" ")}`;
          expect([sql, condition(sql)]).toEqual([sql, isAccepted(sql) ? "ok" : "refused"]);
        },
      ),
      { numRuns: 500 },
    );
  });
});
