/** Which statements are ours, and that the hot path's question never misses one of them. */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { classify, mayNeedAttention } from "../../../src/ddl/classify.ts";

const on = { standardConformingStrings: true };

function kinds(sql: string): string[] {
  const text = Buffer.from(sql);
  return classify(text, 0, text.length, on).map(({ kind }) => kind);
}

function attention(sql: string): boolean {
  // What surrounds the text in its buffer must not matter: a NUL and the next message follow it.
  const text = Buffer.from(`;${sql}\0;;create user`);
  return mayNeedAttention(text, 1, 1 + Buffer.byteLength(sql));
}

const ours = [
  "create user bob password 'x'",
  "CREATE ROLE bob LOGIN",
  "cReAtE/* ; */uSeR--x\nbob",
  "  \n\t/* a /* b */ */ -- c\n create\nuser bob",
  'create user"bob"',
  "create user if not exists bob",
  "create user mapping password 'x'",
  "create user mapping",
  "create user mapping in role x",
  "create user",
  "alter user bob password 'x'",
  "alter user bob",
  "alter role bob with login",
  "alter user bob set password 'x'",
  "alter user bob set /**/ role admin",
  "alter user bob set role 'admin'",
  "alter user bob set default database d",
  "alter user 'bob' rename to b",
  "alter user U&\"bob\" uescape '!' set role r",
  "alter user current_user password 'x'",
  "alter user mapping password 'x'",
  "alter user mapping set role r",
  "alter user all password 'x'",
  "alter user bob in role x",
  "drop user bob",
  "drop user if exists bob, mapping",
  "drop user mapping",
  "drop user mapping, bob",
  "drop role bob",
  "show users",
  "SHOW /* ; */ Session -- x",
  "show session /* x */",
  "alter role analyst set inherit readonly",
  "grant readonly to bob",
  "grant role a, b to c",
  "GRANT/**/'a' -- x\n to c",
  'grant "select" to c',
  "grant select_all to c",
  "grant insert to c",
  "grant connect to c",
  "grant connect on database d to c",
  "Grant Connect\nOn /**/ Database d to c",
  "grant a to c with admin option",
  "grant a",
  "revoke admin from bob",
  "revoke option from bob",
  "revoke api from bob",
  "revoke role a from bob cascade",
  "revoke connect on database d from c",
  "revoke api key 'x'",
  "create api key 'x' role y",
  "create/**/api/**/key",
  "create service account 'x'",
  "create oidc provider x",
  "create rls policy x on t",
  "create tenant x",
  "alter api key 'x' rotate",
  "alter service account 'x' set role y",
  "alter oidc provider x refresh jwks",
  "alter tenant x set quota y = 1",
  "drop api key 'x'",
  "drop service account 'x'",
  "drop oidc provider x",
  "drop rls policy x on t",
  "drop tenant x",
  "show roles",
  "Show TENANTS ;",
  "show sessions",
  "show grants",
  "show grants for x",
  "show permissions on t for x",
  "show api keys",
  "show api keys whatever",
  "show service accounts",
  "show oidc providers",
  "show rls policies on t",
  "show audit log limit 5",
  "show auth help create user",
  "LIST api keys",
  "list/**/api keys",
  "kill session 'x'",
  "verify audit chain",
];

const forwarded = [
  "select 1",
  "create table t (a int)",
  "create users",
  "create user_1",
  "create usér x",
  "create role$ x",
  'create "user" x',
  "create $$user$$ x",
  "creates user x",
  "create table user",
  "create user mapping for bob server s",
  "create user mapping if not exists for bob server s",
  "create /**/ user /**/ mapping -- x\n for current_user server s",
  "alter user mapping for bob server s options (set user 'x')",
  "drop user mapping for bob server s",
  "drop user mapping if exists for bob server s",
  "alter user bob set search_path = 'x'",
  "alter user bob set role from current",
  "alter user bob set role_x to admin",
  "alter user bob set default_transaction_read_only = on",
  "alter user bob set time zone 'UTC'",
  "alter user bob reset all",
  "alter role bob in database d set role = x",
  "alter role bob in database d reset all",
  "alter role all set search_path = x",
  "alter user all in database d reset all",
  "alter user U&\"bob\" uescape '!' set search_path = x",
  "alter table t add user int",
  "drop table user",
  "show session authorization",
  "show session_authorization",
  "show server_version",
  "show users_x",
  "show users x",
  "show users, session",
  'show "users"',
  "show all",
  "show",
  "user create bob",
  "(create user bob)",
  "\ufeffcreate user bob",
  "alter role bob set inherit = x",
  "alter role bob set inherit to x",
  "grant select on t to bob",
  "grant select (a, b), insert on t to bob",
  "grant all privileges on all tables in schema s to bob",
  "grant insert, update on t to bob",
  "grant usage on schema connect to bob",
  "grant create on database d to bob",
  "grant connect, create on database d to bob",
  "grant connect on table t to bob",
  "grant temporary on database d to bob",
  "grant all to bob",
  "grant execute on function f(int) to bob",
  "revoke select on t from bob",
  "revoke grant option for connect on database d from bob",
  "revoke admin option for a from bob",
  "revoke api on t from bob",
  "create api",
  "create api keys",
  "create api_key x",
  'create "api" key x',
  "create service",
  "create policy p on t",
  "create tenants x",
  "alter policy p on t to bob",
  "alter rls x",
  "drop tenants x",
  "show role",
  "show roles.x",
  "show grants.x",
  "show permissions.x",
  "show tenants_x",
  "show tenants, roles",
  'show "roles"',
  "show api",
  "show audit_log",
  "show audit.log",
  "list keys",
  "kill 5",
  "verify",
  "verify audit",
  "values (1)",
  "vacuum",
  "rollback",
  "release a",
  "reset all",
  "lock t",
  "listen x",
  "load 'x'",
];

describe("classify", () => {
  it.each(ours)("takes %j for ours", (sql) => {
    expect(kinds(sql)).toEqual(["ours"]);
  });

  it.each(forwarded)("forwards %j", (sql) => {
    expect(kinds(sql)).toEqual(["forward"]);
  });

  it("says of each statement of a text who runs it, and where it stands", () => {
    const sql = "begin; create user bob password 'a;b' ;; alter user bob set x = 1; commit";
    const text = Buffer.from(sql);
    expect(
      classify(text, 0, text.length, on).map(({ kind, start, end }) => [kind, sql.slice(start, end)]),
    ).toEqual([
      ["forward", "begin"],
      ["ours", "create user bob password 'a;b' "],
      ["forward", "alter user bob set x = 1"],
      ["forward", "commit"],
    ]);
  });

  it("finds nothing of ours inside quotes, comments and routine bodies", () => {
    for (const sql of [
      "select '; create user bob'",
      "select $$; create user bob; $$",
      "select 1 /* ; create user bob; */",
      "do $$ begin; create user bob; end $$",
      "create function f() returns int begin atomic select 1; show users; end",
    ]) {
      expect([sql, kinds(sql)]).toEqual([sql, ["forward"]]);
    }
  });

  it("follows standard_conforming_strings", () => {
    const text = Buffer.from("select 'a\\'; show users; --'");
    const off = { standardConformingStrings: false };
    expect(classify(text, 0, text.length, on).map(({ kind }) => kind)).toEqual(["forward", "ours"]);
    expect(classify(text, 0, text.length, off).map(({ kind }) => kind)).toEqual(["forward"]);
  });
});

describe("mayNeedAttention", () => {
  it.each(ours)("is true for %j", (sql) => {
    expect(attention(sql)).toBe(true);
  });

  it.each([
    "",
    "  ",
    ";",
    "select 1",
    "SELECT 1; ",
    " \n insert into t values (1)",
    "begin;",
    "commit",
    "set search_path = x",
    "savepoint a",
    "create table t (a int)",
    "CREATE USERS",
    "create role_x",
    "alter table t add user int",
    "drop table t",
    "show server_version",
    "show users_x",
    "deallocate all",
    "analyze",
    "c",
    "show",
    "rollback",
    "ROLLBACK TO a",
    "release a",
    "reset all",
    "lock table t",
    "listen api",
    "load 'x'",
    "values (1)",
    "vacuum",
    "grant select on t to bob",
    "GRANT ALL ON t TO bob",
    "grant usage on schema s to bob",
    "grant create on database d to bob",
    "revoke all on t from bob",
    "revoke execute\n on function f from bob",
    "show roles_x",
    "list keys",
    "kill 5",
    "create ",
    "create us",
    `select '${"x".repeat(95)}'`,
    `select '${"x".repeat(1000)}';\n`,
  ])("is false for %j, which is a single statement and not ours", (sql) => {
    expect(attention(sql)).toBe(false);
  });

  it.each([
    "select 1; select 2",
    ";select 1",
    "select 1;;",
    `select '${"x".repeat(90)}'; select 2`,
    `select '${"x".repeat(1000)}'; select 2`,
    "select ';'",
    "-- x\nselect 1",
    "/* x */ select 1",
    "create /**/ table t ()",
  ])("is true for %j, which has to be looked at", (sql) => {
    expect(attention(sql)).toBe(true);
  });

  it("looks at its own part of a large buffer only", () => {
    const sql = `select '${"x".repeat(200)}'`;
    for (const behind of [0, 100, 20_000]) {
      const text = Buffer.from(`;${sql}\0;z${"y".repeat(behind)}`);
      expect(mayNeedAttention(text, 1, 1 + sql.length)).toBe(false);
      expect(mayNeedAttention(text, 1, 4 + sql.length)).toBe(true);
    }
  });

  const anyCase = (word: string) =>
    fc
      .array(fc.boolean(), { minLength: word.length, maxLength: word.length })
      .map((upper) => [...word].map((letter, at) => (upper[at] ? letter.toUpperCase() : letter)).join(""));
  const blank = fc
    .array(fc.constantFrom(" ", "\n", "\t", "\v", "\f", "\r", "/* ; */", "-- x\n", "/* /* */ */"), {
      maxLength: 3,
    })
    .map((parts) => parts.join(""));
  const word = fc.constantFrom(
    ..."create alter drop show user role users session mapping for if set reset bob password default database in".split(
      " ",
    ),
    ..."select begin with login 'x' \"y\" = ; ( ) $$z$$ E'\\'' - / to".split(" "),
  );
  const text = fc
    .array(fc.tuple(blank, word.chain(anyCase)), { maxLength: 8 })
    .map((parts) => parts.map(([before, part]) => before + part).join(""));
  const likelyOurs = fc
    .tuple(
      blank,
      fc.constantFrom(..."create alter drop show grant revoke list kill verify".split(" ")).chain(anyCase),
      blank,
      fc
        .constantFrom(
          ..."user|role|users|session|sessions|roles|tenants|grants|permissions|api key|api keys|service account".split(
            "|",
          ),
          ..."service accounts|oidc provider|oidc providers|rls policy|rls policies|tenant|audit log|audit chain".split(
            "|",
          ),
          ..."auth help|connect on database|bob to|select on|admin option for".split("|"),
        )
        .chain(anyCase),
      text,
    )
    .map((parts) => parts.join(""));

  it("is never false for a text that holds a statement of ours or several statements", () => {
    let found = 0;
    fc.assert(
      fc.property(
        fc.oneof(
          text,
          likelyOurs,
          fc.tuple(text, likelyOurs).map((parts) => parts.join(";")),
        ),
        (sql) => {
          const classified = kinds(sql);
          if (!classified.includes("ours") && classified.length < 2) return;
          found++;
          expect(attention(sql)).toBe(true);
        },
      ),
      { numRuns: 3000 },
    );
    expect(found).toBeGreaterThan(300);
  });
});
