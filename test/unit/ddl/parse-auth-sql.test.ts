/** The grammar beyond users: roles, keys, accounts, providers, policies, tenants, sessions, audit. */

import fc from "fast-check";
import { loadModule, parseSync } from "libpg-query";
import { beforeAll, describe, expect, it } from "vitest";
import { parseStatement } from "../../../src/ddl/parse-statement.ts";
import { SqlError } from "../../../src/errors/sql-error.ts";

/** A statement without its positions, which have tests of their own. */
function parsed(sql: string): unknown {
  return JSON.parse(
    JSON.stringify(parseStatement(sql), (key, value: unknown) => (key === "position" ? undefined : value)),
  );
}

function refusal(sql: string): SqlError {
  try {
    parseStatement(sql);
  } catch (error) {
    if (error instanceof SqlError) return error;
    throw error;
  }
  throw new Error(`not refused: ${sql}`);
}

const name = (text: string) => ({ text });
const names = (...texts: readonly string[]) => texts.map(name);
const value = (text: string) => ({ value: text });
const self = { self: true };

describe("parseStatement, roles and grants", () => {
  it.each<[string, object]>([
    ["create role analyst", { kind: "create_role", name: name("analyst"), ifNotExists: false }],
    [
      "CREATE ROLE IF NOT EXISTS 'An Analyst' INHERIT ReadOnly;",
      { kind: "create_role", name: name("An Analyst"), ifNotExists: true, parent: name("readonly") },
    ],
    [
      "create role a with nologin inherit nosuperuser nocreatedb nocreaterole noreplication nobypassrls",
      { kind: "create_role", name: name("a"), ifNotExists: false },
    ],
    [
      "create role a nologin inherit b",
      { kind: "create_role", name: name("a"), ifNotExists: false, parent: name("b") },
    ],
    [
      'create role a inherit "login"',
      { kind: "create_role", name: name("a"), ifNotExists: false, parent: name("login") },
    ],
    [
      "create role a inherit login",
      {
        kind: "create_user",
        name: name("a"),
        ifNotExists: false,
        options: { canLogin: true },
        spelling: "ROLE",
      },
    ],
    [
      "create role a inherit Admin",
      { kind: "create_role", name: name("a"), ifNotExists: false, parent: name("admin") },
    ],
    [
      "create role a inherit SUPERUSER /* c */ ;",
      { kind: "create_role", name: name("a"), ifNotExists: false, parent: name("superuser") },
    ],
    [
      "create role a login inherit superuser",
      {
        kind: "create_user",
        name: name("a"),
        ifNotExists: false,
        options: { canLogin: true, roles: names("superuser") },
        spelling: "ROLE",
      },
    ],
    ["alter role a set inherit b", { kind: "alter_role_parent", name: name("a"), parent: name("b") }],
    ["drop role a", { kind: "drop_role", names: names("a"), ifExists: false }],
    ["drop role if exists a, 'B'", { kind: "drop_role", names: names("a", "B"), ifExists: true }],
    [
      "drop role a reassign owned to b",
      { kind: "drop_user", users: names("a"), ifExists: false, spelling: "ROLE", reassignTo: name("b") },
    ],
    ["show roles", { kind: "show_roles" }],
    ["grant a to b", { kind: "grant_roles", roles: names("a"), grantees: names("b") }],
    [
      "grant role a, 'B' to c, current_user",
      { kind: "grant_roles", roles: names("a", "B"), onlyOurs: true, grantees: [name("c"), self] },
    ],
    ["grant role to b", { kind: "grant_roles", roles: names("role"), grantees: names("b") }],
    ["grant role, a to b", { kind: "grant_roles", roles: names("role", "a"), grantees: names("b") }],
    ["grant connect to b", { kind: "grant_roles", roles: names("connect"), grantees: names("b") }],
    [
      "revoke role a from b",
      { kind: "revoke_roles", roles: names("a"), onlyOurs: true, grantees: names("b") },
    ],
    [
      "grant a to b with admin option",
      { kind: "grant_roles", roles: names("a"), grantees: names("b"), grantOptions: {} },
    ],
    [
      "grant role a to b with inherit true, set false granted by c",
      { kind: "grant_roles", roles: names("a"), onlyOurs: true, grantees: names("b"), grantOptions: {} },
    ],
    [
      "grant a to b granted by current_user",
      { kind: "grant_roles", roles: names("a"), grantees: names("b"), grantOptions: {} },
    ],
    [
      "revoke admin, api from b cascade",
      { kind: "revoke_roles", roles: names("admin", "api"), grantees: names("b") },
    ],
    [
      'grant connect on database d, "E" to b',
      { kind: "grant_connect", databases: names("d", "E"), grantees: names("b") },
    ],
    [
      "revoke connect on database d from group b restrict",
      { kind: "revoke_connect", databases: names("d"), grantees: names("b") },
    ],
    ["show grants", { kind: "show_grants" }],
    ["show grants for Bob", { kind: "show_grants", user: name("bob") }],
    ["show permissions", { kind: "show_permissions" }],
    ["show permissions on t", { kind: "show_permissions", table: { name: "t" } }],
    [
      'show permissions on s."T" for current_user',
      { kind: "show_permissions", table: { schema: "s", name: "T" }, user: self },
    ],
  ])("understands %j", (sql, expected) => {
    expect(parsed(sql)).toEqual(expected);
  });

  it.each([
    "grant connect on database d to b with grant option",
    "revoke admin option for a from b",
    "revoke grant option for connect on database d from b",
  ])("leaves %j to PostgreSQL, which alone keeps such options", (sql) => {
    expect(parseStatement(sql)).toBe("forward");
  });

  it.each([
    ["revoke a from b granted by c", "GRANTED BY is not supported", 17],
    ["create role if not exists a createdb", "role option CREATEDB is not supported", 29],
    ["create role a inherit b in role c", "role option IN ROLE is not supported", 25],
    ["create role a login inherit b", "a user cannot inherit from a role", 21],
  ])("refuses %j as not supported", (sql, message, position) => {
    const error = refusal(sql);
    expect([error.condition, error.message, error.position]).toEqual([
      "feature_not_supported",
      message,
      position,
    ]);
  });
});

describe("parseStatement, API keys and service accounts", () => {
  const key = (rest: object) => ({ kind: "create_api_key", ...rest });
  it.each<[string, object]>([
    ["create api key 'n' role r", key({ name: name("n"), holder: { roles: names("r") } })],
    [
      "CREATE API KEY 'n' ROLE r EXPIRES IN '90 days' WITH DATABASES (a, 'B')",
      key({
        name: name("n"),
        holder: { roles: names("r") },
        databases: names("a", "B"),
        expires: { interval: "90 days" },
      }),
    ],
    [
      "create api key for alice expires 3600",
      key({ holder: { ownerKind: "any", owner: name("alice") }, expires: { seconds: 3600 } }),
    ],
    [
      "create api key 'n' for user a",
      key({ name: name("n"), holder: { ownerKind: "user", owner: name("a") } }),
    ],
    [
      "create api key n for service account 'A-b'",
      key({ name: name("n"), holder: { ownerKind: "service_account", owner: name("A-b") } }),
    ],
    [
      "create api key for service with databases (d)",
      key({ holder: { ownerKind: "any", owner: name("service") }, databases: names("d") }),
    ],
    ["create api key for current_user", key({ holder: { ownerKind: "any", owner: self } })],
    [
      "alter api key 'n' set databases (a)",
      { kind: "alter_api_key_databases", name: name("n"), databases: names("a") },
    ],
    ["alter api key 'n' rotate", { kind: "rotate_api_key", name: name("n") }],
    [
      "alter api key 'n' rotate overlap '24h'",
      { kind: "rotate_api_key", name: name("n"), overlap: { interval: "24h" } },
    ],
    ["drop api key if exists 'n'", { kind: "drop_api_key", name: name("n"), ifExists: true }],
    ["revoke api key 'aB3'", { kind: "revoke_api_key", keyId: name("aB3") }],
    ["show api keys", { kind: "show_api_keys" }],
    ["list api keys for a", { kind: "show_api_keys", owner: name("a") }],
    [
      "create service account if not exists 'n' for database a, b tenant 42 role r",
      {
        kind: "create_service_account",
        name: name("n"),
        ifNotExists: true,
        databases: names("a", "b"),
        roles: names("r"),
        tenant: { id: 42 },
      },
    ],
    [
      "alter service account 'n' set databases (a, b)",
      { kind: "alter_service_account_databases", name: name("n"), databases: names("a", "b") },
    ],
    [
      "alter service account 'n' set role r",
      { kind: "alter_service_account_roles", name: name("n"), roles: names("r") },
    ],
    [
      "drop service account 'n' reassign owned to m",
      { kind: "drop_service_account", name: name("n"), ifExists: false, reassignTo: name("m") },
    ],
    ["show service accounts", { kind: "show_service_accounts" }],
  ])("understands %j", (sql, expected) => {
    expect(parsed(sql)).toEqual(expected);
  });
});

describe("parseStatement, OIDC providers", () => {
  const rules = [
    {
      claim: "groups",
      value: "eng",
      defaultDatabase: name("d"),
      addDatabases: names("d", "e"),
      addRoles: names("r"),
    },
    { claim: "realm_access.roles", value: null, addDatabases: [], addRoles: names("readonly") },
  ];
  const provider = (options: object) => ({
    kind: "create_oidc_provider",
    name: name("p"),
    ifNotExists: false,
    options,
  });

  it.each<[string, object]>([
    [
      `create oidc provider p with (issuer = 'i', jwks_url = 'j', audience = 'a', tenant = 42,
       algorithms = ('ES256', 'RS256'), claim_mapping = [
         { claim = 'groups', value = 'eng', effect = { default_database = 'd', add_databases = ['d', 'e'], add_roles = ['r'] } },
         { effect = { add_roles = ['readonly'] }, claim_value = null, claim_name = 'realm_access.roles' } ])`,
      provider({
        issuer: value("i"),
        jwksUrl: value("j"),
        audience: value("a"),
        tenant: { id: 42 },
        algorithms: [value("ES256"), value("RS256")],
        claimMapping: rules,
      }),
    ],
    [
      `create oidc provider p tenant acme claim mapping
         when groups = 'eng' set default_database = d add databases [d, e] add roles ['r']
         when realm_access.roles = null add roles readonly
       audience 'a' issuer 'i' jwks_uri 'j'`,
      provider({
        tenant: { name: "acme" },
        claimMapping: rules,
        audience: value("a"),
        issuer: value("i"),
        jwksUrl: value("j"),
      }),
    ],
    [
      "create oidc provider p with (issuer = 'i', claim_mapping = [{claim = 'https://x.example/claims/a-name-that-is-longer-than-63-bytes-is', value = '*', effect = {}}])",
      provider({
        issuer: value("i"),
        claimMapping: [
          {
            claim: "https://x.example/claims/a-name-that-is-longer-than-63-bytes-is",
            value: "*",
            addDatabases: [],
            addRoles: [],
          },
        ],
      }),
    ],
    [
      "alter oidc provider p set (audience = 'a', claim_mapping = [])",
      { kind: "alter_oidc_provider", name: name("p"), options: { audience: value("a"), claimMapping: [] } },
    ],
    [
      "alter oidc provider p set claim mapping when Sub = '*' add databases (d)",
      {
        kind: "alter_oidc_provider",
        name: name("p"),
        options: { claimMapping: [{ claim: "sub", value: "*", addDatabases: names("d"), addRoles: [] }] },
      },
    ],
    ["alter oidc provider p refresh jwks", { kind: "refresh_oidc_provider", name: name("p") }],
    ["drop oidc provider if exists p", { kind: "drop_oidc_provider", name: name("p"), ifExists: true }],
    ["show oidc providers", { kind: "show_oidc_providers" }],
  ])("understands %j", (sql, expected) => {
    expect(parsed(sql)).toEqual(expected);
  });
});

describe("parseStatement, policies, tenants, sessions and audit", () => {
  const policy = (predicate: string) => `create rls policy p on s.t for read using (${predicate})`;

  it.each<[string, object]>([
    [
      "create rls policy p on t for write using (a = $auth.id) restrictive",
      {
        kind: "create_rls_policy",
        name: name("p"),
        table: { name: "t" },
        access: "write",
        predicate: value("a = $auth.id"),
        isRestrictive: true,
      },
    ],
    [
      "drop rls policy if exists p on s.t",
      { kind: "drop_rls_policy", name: name("p"), table: { schema: "s", name: "t" }, ifExists: true },
    ],
    ["show rls policies", { kind: "show_rls_policies" }],
    ["show rls policies on t", { kind: "show_rls_policies", table: { name: "t" } }],
    [
      "create tenant if not exists Acme id 42",
      { kind: "create_tenant", name: name("acme"), ifNotExists: true, id: { value: 42 } },
    ],
    ["create tenant acme", { kind: "create_tenant", name: name("acme"), ifNotExists: false }],
    [
      "alter tenant 42 set quota max_connections = 20",
      { kind: "alter_tenant_quota", tenant: { id: 42 }, quota: name("max_connections"), value: 20 },
    ],
    ["drop tenant acme", { kind: "drop_tenant", tenant: { name: "acme" } }],
    ["show tenants", { kind: "show_tenants" }],
    ["show sessions", { kind: "show_sessions" }],
    ["kill session 'x'", { kind: "kill_session", sessionId: value("x") }],
    ["show audit log", { kind: "show_audit_log", conditions: [] }],
    [
      "show audit log where event = 'AuthFailure' and tenant_id <> 1 and seq >= 10 limit 5",
      {
        kind: "show_audit_log",
        conditions: [
          { column: name("event"), operator: "=", value: value("AuthFailure") },
          { column: name("tenant_id"), operator: "<>", value: value("1") },
          { column: name("seq"), operator: ">=", value: value("10") },
        ],
        limit: 5,
      },
    ],
    ["verify audit chain", { kind: "verify_audit_chain" }],
    ["show auth help", { kind: "show_auth_help" }],
    ["show auth help create  USER", { kind: "show_auth_help", topic: "create USER" }],
    ["show auth help 'api key'", { kind: "show_auth_help", topic: "api key" }],
  ])("understands %j", (sql, expected) => {
    expect(parsed(sql)).toEqual(expected);
  });

  it.each([
    "true",
    " a = (b) ",
    "x = ')' and y = E'\\')'",
    'a = "b)"',
    "a /* ) /* ) */ */ = b",
    "a -- )\n = b",
    "$$)$$ = $q$)$q$",
    "é = '😀' and (a, (b)) in (select 1)",
  ])("takes the predicate (%s) as it is written", (predicate) => {
    const statement = parseStatement(policy(predicate));
    expect(statement).toMatchObject({ predicate: { value: predicate, position: 44 } });
  });

  it.each([
    ["", 'syntax error at or near ")"', 44],
    ["a = (b", "syntax error at end of input", 51],
    ["a = 'b", "unterminated quoted string", 48],
    ["a); drop table t; --", 'syntax error at or near "drop"', 48],
    ["a; b", 'syntax error at or near ";"', 45],
    ["a)) or (b", 'syntax error at or near ")"', 46],
  ])("refuses the predicate (%s)", (predicate, message, position) => {
    const error = refusal(policy(predicate));
    expect([error.condition, error.message, error.position]).toEqual(["syntax_error", message, position]);
  });
});

describe("parseStatement, refusals", () => {
  it.each<[string, string, number, string | undefined]>([
    ["create api key 'n'", "syntax error at end of input", 19, "Expected FOR or ROLE."],
    ["create api key role r", 'syntax error at or near "r"', 21, "Expected FOR or ROLE."],
    ["create api key for a with databases ()", 'syntax error at or near ")"', 38, "Expected name."],
    ["create api key 'n' role r expires 5 expires in 'x'", "conflicting or redundant options", 37, undefined],
    ["alter api key 'n'", "syntax error at end of input", 18, "Expected ROTATE or SET."],
    ["create service account 'n'", "syntax error at end of input", 27, "Expected FOR."],
    ["create oidc provider p", "syntax error at end of input", 23, undefined],
    [
      "create oidc provider p with (issuer = 5)",
      'syntax error at or near "5"',
      39,
      "Expected string literal.",
    ],
    ["create oidc provider p audience 'a'", "an OIDC provider needs an issuer", 22, undefined],
    ["create oidc provider p issuer 'i' issuer 'j'", "conflicting or redundant options", 35, undefined],
    [
      "create oidc provider p with (issuer = 'i', claim_mapping = [{claim = 'a', effect = {}}])",
      "a rule of a claim mapping is incomplete",
      61,
      "A rule has a claim, a value (null or '*' for any) and an effect.",
    ],
    [
      "create rls policy p on t for x using (a)",
      'syntax error at or near "x"',
      30,
      "Expected ALL, READ or WRITE.",
    ],
    ["create tenant a id b", 'syntax error at or near "b"', 20, "Expected integer."],
    ["alter tenant a set quota max_connections = -x", 'syntax error at or near "x"', 45, "Expected integer."],
    ["kill session 5", 'syntax error at or near "5"', 14, "Expected string literal."],
    ["show audit log where event", "syntax error at end of input", 27, "Expected comparison."],
    ["show audit log limit", "syntax error at end of input", 21, "Expected integer."],
    ["grant a b", 'syntax error at or near "b"', 9, "Expected TO or a comma."],
    ["grant role a to", "syntax error at end of input", 16, "Expected CURRENT_USER, GROUP or name."],
    [
      "revoke a from b for c",
      'syntax error at or near "for"',
      17,
      "Expected CASCADE, GRANTED, RESTRICT, a comma or end of statement.",
    ],
    ["show api keys bob", 'syntax error at or near "bob"', 15, "Expected FOR or end of statement."],
    ["alter role a set inherit", "syntax error at end of input", 25, "Expected name."],
    ["alter user a set inherit b", 'syntax error at or near "inherit"', 18, undefined],
  ])("refuses %j at the character", (sql, message, position, detail) => {
    const error = refusal(sql);
    expect([error.condition, error.message, error.position]).toEqual(["syntax_error", message, position]);
    if (detail !== undefined) expect(error.detail).toBe(detail);
  });

  it.each([
    ["create role public", "reserved_name"],
    ["create service account current_user for database d", "reserved_name"],
    ["create api key 'n' role r expires 99999999999", "invalid_parameter_value"],
    [`grant ${"a,".repeat(1000)}a to b`, "program_limit_exceeded"],
    [`grant a to ${"b,".repeat(1000)}b`, "program_limit_exceeded"],
  ])("refuses %.60s… as %s", (sql, condition) => {
    expect(refusal(sql).condition).toBe(condition);
  });

  it.each([
    "create api key 'sesame' 'sesame' role r",
    "create api key 'n' role r expires 'sesame'",
    "kill session 'sesame' 'sesame'",
    "create oidc provider p with (issuer = 'sesame' 'sesame')",
    "create rls policy p on t for all using (a = 'sesame') 'sesame'",
    "show audit log where username = 'sesame' 'sesame'",
    "revoke api key 'sesame",
  ])("shows no literal of %j", (sql) => {
    const error = refusal(sql);
    expect([error.message, error.detail, error.hint].join("\n")).not.toContain("sesame");
  });

  it("fails only with an SqlError, whatever follows the keywords", () => {
    const unit = fc.constantFrom(
      ..."'\"$;-/*\\ \nab(){}[]=,.<>1😀",
      "for ",
      "role ",
      "with ",
      "set ",
      "using (",
      "when ",
      "on ",
    );
    fc.assert(
      fc.property(
        fc.constantFrom(
          "create api key ",
          "create rls policy p on t for all using (",
          "create oidc provider p ",
          "create oidc provider p issuer 'i' claim_mapping [{",
          "create service account ",
          "show audit log ",
          "grant ",
          "revoke ",
          "show auth help ",
        ),
        fc.string({ unit, maxLength: 25 }),
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

  it("answers predicates and mappings that nest or go on for long within a second of CPU time", () => {
    const start = process.cpuUsage();
    const deep = "(".repeat(200_000);
    expect(refusal(`create rls policy p on t for all using (${deep}`).condition).toBe("syntax_error");
    const long = `create rls policy p on t for all using (${"'a',".repeat(100_000)}1)`;
    expect(parseStatement(long)).toMatchObject({ kind: "create_rls_policy" });
    const { user, system } = process.cpuUsage(start);
    expect((user + system) / 1000).toBeLessThan(1000);
  });
});

describe("the statements of NodeDB's documentation", () => {
  it.each([
    "CREATE USER alice WITH PASSWORD 'strong_password_here';",
    "-- Create with a specific role\nCREATE USER bob WITH PASSWORD 'secret' ROLE readonly;",
    "CREATE USER service_bot WITH PASSWORD 'key' ROLE readwrite TENANT 42;",
    "SHOW USERS;",
    "CREATE API KEY 'my-service' ROLE readwrite;",
    "CREATE API KEY 'analytics-svc' FOR service_account WITH DATABASES (analytics, logs);",
    "DROP API KEY 'my-service';",
    "CREATE API KEY 'prod-reader' FOR alice WITH DATABASES (prod);",
    "CREATE SERVICE ACCOUNT 'batch-processor' FOR DATABASE analytics;",
    "CREATE API KEY 'batch-key' FOR 'batch-processor' WITH DATABASES (analytics);",
    "ALTER SERVICE ACCOUNT 'batch-processor' SET DATABASES (analytics, logs);",
    "SHOW SERVICE ACCOUNTS;",
    "CREATE OIDC PROVIDER auth0 WITH (\nissuer = 'https://your-domain.auth0.com/',\njwks_url = 'https://your-domain.auth0.com/.well-known/jwks.json',\naudience = 'nodedb-api'\n);",
  ])("are understood: %s", (sql) => {
    expect(parseStatement(sql)).not.toBe("forward");
  });
});

describe("GRANT and REVOKE against PostgreSQL's grammar", () => {
  beforeAll(loadModule);

  /** What PostgreSQL's parser makes of a text: roles without options are ours, everything else is its own. */
  function oracle(sql: string): "roles" | "privileges" | "refused" {
    try {
      const { stmts } = parseSync(sql) as { stmts: readonly { readonly stmt: Record<string, unknown> }[] };
      return "GrantRoleStmt" in (stmts[0]?.stmt ?? {}) ? "roles" : "privileges";
    } catch {
      return "refused";
    }
  }

  const outcome = (sql: string) => {
    try {
      const statement = parseStatement(sql);
      return statement === "forward" ? "forward" : statement.kind;
    } catch (error) {
      return error instanceof SqlError ? error.condition : "bug";
    }
  };

  it("forwards every grant of privileges but CONNECT ON DATABASE, and refuses nothing that PostgreSQL takes", () => {
    const privilege = fc.constantFrom(
      "select",
      "insert",
      "connect",
      "all",
      "usage",
      "create",
      "select (a)",
      "temp",
      "a",
      "admin",
    );
    const target = fc.constantFrom(
      "",
      "on t",
      "on table t",
      "on database d",
      "on schema s",
      "on all tables in schema s",
    );
    const tail = fc.constantFrom("", "", "with grant option", "with admin option", "granted by current_user");
    const seen = { roles: 0, privileges: 0, refused: 0 };
    fc.assert(
      fc.property(
        fc.array(privilege, { minLength: 1, maxLength: 2 }),
        target,
        tail,
        (privileges, on, rest) => {
          const sql = `grant ${privileges.join(", ")} ${on} to b ${rest}`;
          const expected = oracle(sql);
          seen[expected]++;
          const isConnect = privileges.join() === "connect" && on === "on database d";
          const actual = outcome(sql);
          const bareRoles = !privileges.some((word) => /^(select|all|create)/.test(word));
          if (expected === "privileges")
            expect([sql, actual]).toEqual([sql, isConnect && rest === "" ? "grant_connect" : "forward"]);
          if (expected === "roles" && bareRoles) expect([sql, actual]).toEqual([sql, "grant_roles"]);
        },
      ),
      { numRuns: 800 },
    );
    expect(Math.min(seen.roles, seen.privileges)).toBeGreaterThan(50);
  });
});
