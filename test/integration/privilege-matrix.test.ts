/** The gates of the auth SQL contract as one table: every statement, by every built-in role, on the own and on another tenant. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parseStatement } from "../../src/ddl/parse-statement.ts";
import { helpEntries } from "../../src/exec/help.ts";
import { builtInRoles } from "../../src/upstream/built-in-groups.ts";
import { openPrivilegeStage, type PrivilegeStage } from "../support/privilege-stage.ts";

/**
 * The callers are of tenant 1. Under each role stand two outcomes: for a target of the own tenant, and for one of another
 * tenant (`.` where the statement has no such target). `{user}` is a readwrite user of the tenant, `{admin}`,
 * `{tenant_admin}` and `{superuser}` are users of it with that role, `{alone}` is a key that belongs to nobody, `{database}`
 * one that only principals of the tenant are let into; `{my_key}` and the like are the caller's. A SHOW with `=> x` is `seen`
 * when it shows x, and `hidden` when not.
 *
 * 42501 permission denied, 42704 does not exist: what belongs to another tenant is not there for anybody but superusers; only
 * new names tell that they are taken (42710), as PostgreSQL has one name space of roles. The others are no gates but hold for
 * everybody who passes them: 42939 reserved name, 0A000 not supported.
 */
const matrix = `
statement                                                                               | readonly      | readwrite     | admin         | tenant_admin  | superuser
                                                                                        | own    other  | own    other  | own    other  | own    other  | own    other
CREATE USER fresh PASSWORD 'long enough'                                                | 42501  .      | 42501  .      | ok     .      | ok     .      | ok     .
CREATE USER fresh PASSWORD 'long enough' TENANT {tenant}                                | 42501  42501  | 42501  42501  | 42501  42501  | 42501  42501  | ok     ok
CREATE USER fresh PASSWORD 'long enough' ROLE {role}                                    | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     42501
CREATE USER fresh PASSWORD 'long enough' ROLE tenant_admin                              | 42501  .      | 42501  .      | 42501  .      | ok     .      | ok     .
CREATE USER fresh PASSWORD 'long enough' SUPERUSER                                      | 42501  .      | 42501  .      | 42501  .      | 42501  .      | ok     .
CREATE USER IF NOT EXISTS {user} PASSWORD 'long enough'                                 | 42501  42501  | 42501  42501  | ok     42710  | ok     42710  | ok     ok
CREATE ROLE fresh LOGIN PASSWORD 'long enough'                                          | 42501  .      | 42501  .      | ok     .      | ok     .      | ok     .
ALTER USER {user} PASSWORD 'long enough too'                                            | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
ALTER USER {tenant_admin} PASSWORD 'long enough too'                                    | 42501  42501  | 42501  42501  | 42501  42704  | ok     42704  | ok     ok
ALTER USER {superuser} PASSWORD 'long enough too'                                       | 42501  42501  | 42501  42501  | 42501  42704  | 42501  42704  | ok     ok
ALTER USER CURRENT_USER PASSWORD 'long enough too'                                      | ok     .      | ok     .      | ok     .      | ok     .      | ok     .
ALTER USER {user} VALID UNTIL '2100-01-01' CONNECTION LIMIT 3                           | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
ALTER USER CURRENT_USER VALID UNTIL '2100-01-01'                                        | 42501  .      | 42501  .      | ok     .      | ok     .      | ok     .
ALTER USER {user} NOLOGIN                                                               | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
ALTER USER {superuser} NOLOGIN                                                          | 42501  42501  | 42501  42501  | 42501  42704  | 42501  42704  | ok     ok
ALTER USER {user} SET ROLE readonly                                                     | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
ALTER USER {user} SET ROLE tenant_admin                                                 | 42501  42501  | 42501  42501  | 42501  42704  | ok     42704  | ok     ok
ALTER USER {user} SET ROLE superuser                                                    | 42501  42501  | 42501  42501  | 42501  42704  | 42501  42704  | ok     ok
ALTER USER {tenant_admin} SET ROLE readonly                                             | 42501  42501  | 42501  42501  | 42501  42704  | ok     42704  | ok     ok
ALTER USER CURRENT_USER SET ROLE readonly                                               | 42501  .      | 42501  .      | 42501  .      | 42501  .      | ok     .
ALTER USER {user} SET DEFAULT DATABASE nodedb                                           | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
ALTER USER CURRENT_USER SET DEFAULT DATABASE nodedb                                     | ok     .      | ok     .      | ok     .      | ok     .      | ok     .
ALTER USER {user} RENAME TO fresh                                                       | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
ALTER USER CURRENT_USER RENAME TO fresh                                                 | 42501  .      | 42501  .      | 0A000  .      | 0A000  .      | 0A000  .
DROP USER {spare_user}                                                                  | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
DROP USER IF EXISTS nobody                                                              | 42501  .      | 42501  .      | ok     .      | ok     .      | ok     .
DROP USER {spare_user} REASSIGN OWNED TO {user}                                         | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
DROP USER {spare_user} REASSIGN OWNED TO {superuser}                                    | 42501  42501  | 42501  42501  | 42501  42704  | 42501  42704  | ok     ok
DROP USER {tenant_admin}                                                                | 42501  42501  | 42501  42501  | 42501  42704  | ok     42704  | ok     ok
DROP USER {superuser}                                                                   | 42501  42501  | 42501  42501  | 42501  42704  | 42501  42704  | ok     ok
DROP USER CURRENT_USER                                                                  | 42501  .      | 42501  .      | 42501  .      | 42501  .      | 42501  .
SHOW USERS => {user}                                                                    | seen   hidden | seen   hidden | seen   hidden | seen   hidden | seen   seen
SHOW SESSION                                                                            | ok     .      | ok     .      | ok     .      | ok     .      | ok     .

CREATE ROLE fresh                                                                       | 42501  .      | 42501  .      | ok     .      | ok     .      | ok     .
CREATE ROLE fresh INHERIT {role}                                                        | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     42501
CREATE ROLE fresh INHERIT tenant_admin                                                  | 42501  .      | 42501  .      | 42501  .      | ok     .      | ok     .
ALTER ROLE {role} SET INHERIT readonly                                                  | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
ALTER ROLE {role} SET INHERIT superuser                                                 | 42501  42501  | 42501  42501  | 42501  42704  | 42501  42704  | 0A000  0A000
DROP ROLE {spare_role}                                                                  | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
DROP ROLE {spare_user}                                                                  | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
DROP ROLE admin                                                                         | 42939  .      | 42939  .      | 42939  .      | 42939  .      | 42939  .
SHOW ROLES => {role}                                                                    | seen   hidden | seen   hidden | seen   hidden | seen   hidden | seen   seen

GRANT readonly TO {user}                                                                | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
GRANT ROLE {role} TO {user}                                                             | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
GRANT ROLE {role} TO CURRENT_USER                                                       | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     42501
GRANT admin TO {user}                                                                   | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
GRANT tenant_admin TO {user}                                                            | 42501  42501  | 42501  42501  | 42501  42704  | ok     42704  | ok     ok
GRANT superuser TO {user}                                                               | 42501  42501  | 42501  42501  | 42501  42704  | 42501  42704  | ok     ok
GRANT superuser TO CURRENT_USER                                                         | 42501  .      | 42501  .      | 42501  .      | 42501  .      | ok     .
REVOKE readwrite FROM {user}                                                            | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
REVOKE tenant_admin FROM {tenant_admin}                                                 | 42501  42501  | 42501  42501  | 42501  42704  | ok     42704  | ok     ok
REVOKE superuser FROM {superuser}                                                       | 42501  42501  | 42501  42501  | 42501  42704  | 42501  42704  | ok     ok
REVOKE superuser FROM CURRENT_USER                                                      | 42501  .      | 42501  .      | 42704  .      | 42704  .      | 42501  .
GRANT CONNECT ON DATABASE {database} TO {user}                                          | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
GRANT CONNECT ON DATABASE {database} TO CURRENT_USER                                    | 42501  42501  | 42501  42501  | ok     42501  | ok     42501  | ok     ok
GRANT CONNECT ON DATABASE nodedb TO {role}                                              | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
GRANT CONNECT ON DATABASE nodedb TO readonly                                            | 42501  .      | 42501  .      | 42501  .      | 42501  .      | ok     .
REVOKE CONNECT ON DATABASE {database} FROM {user}                                       | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
SHOW GRANTS                                                                             | ok     .      | ok     .      | ok     .      | ok     .      | ok     .
SHOW GRANTS FOR CURRENT_USER                                                            | ok     .      | ok     .      | ok     .      | ok     .      | ok     .
SHOW GRANTS FOR {user}                                                                  | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
SHOW PERMISSIONS => {user}                                                              | hidden hidden | hidden hidden | seen   hidden | seen   hidden | seen   seen
SHOW PERMISSIONS FOR {user}                                                             | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
SHOW PERMISSIONS FOR CURRENT_USER                                                       | ok     .      | ok     .      | ok     .      | ok     .      | ok     .
SHOW PERMISSIONS FOR {role}                                                             | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
SHOW PERMISSIONS ON {table} => {user}                                                   | hidden hidden | hidden hidden | seen   hidden | seen   hidden | seen   seen

CREATE API KEY 'fresh' ROLE readonly                                                    | 42501  .      | 42501  .      | ok     .      | ok     .      | ok     .
CREATE API KEY 'fresh' ROLE readonly WITH DATABASES ({database})                        | 42501  42501  | 42501  42501  | ok     42501  | ok     42501  | ok     ok
CREATE API KEY 'fresh' ROLE {role}                                                      | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     42501
CREATE API KEY 'fresh' ROLE tenant_admin                                                | 42501  .      | 42501  .      | 42501  .      | ok     .      | ok     .
CREATE API KEY 'fresh' ROLE superuser                                                   | 42501  .      | 42501  .      | 42501  .      | 42501  .      | ok     .
CREATE API KEY 'fresh' FOR USER {user}                                                  | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
CREATE API KEY 'fresh' FOR {superuser}                                                  | 42501  42501  | 42501  42501  | 42501  42704  | 42501  42704  | ok     ok
CREATE API KEY 'fresh' FOR CURRENT_USER                                                 | ok     .      | ok     .      | ok     .      | ok     .      | ok     .
CREATE API KEY 'fresh' FOR CURRENT_USER WITH DATABASES ({database})                     | 42501  42501  | 42501  42501  | ok     42501  | ok     42501  | ok     ok
CREATE API KEY 'fresh' FOR SERVICE ACCOUNT {account}                                    | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
ALTER API KEY '{key}' SET DATABASES ({database})                                        | 42501  42704  | 42501  42704  | ok     42704  | ok     42704  | ok     ok
ALTER API KEY '{my_key}' SET DATABASES (nodedb)                                         | ok     .      | ok     .      | ok     .      | ok     .      | ok     .
ALTER API KEY '{alone}' SET DATABASES ({database})                                      | 42501  42704  | 42501  42704  | ok     42704  | ok     42704  | ok     ok
ALTER API KEY '{key}' ROTATE                                                            | 42501  42704  | 42501  42704  | ok     42704  | ok     42704  | ok     ok
ALTER API KEY '{my_key}' ROTATE OVERLAP '1h'                                            | ok     .      | ok     .      | ok     .      | ok     .      | ok     .
DROP API KEY '{spare_key}'                                                              | 42501  42704  | 42501  42704  | ok     42704  | ok     42704  | ok     ok
DROP API KEY '{my_spare_key}'                                                           | ok     .      | ok     .      | ok     .      | ok     .      | ok     .
DROP API KEY '{spare_alone}'                                                            | 42501  42704  | 42501  42704  | ok     42704  | ok     42704  | ok     ok
REVOKE API KEY '{key_id}'                                                               | 42501  42704  | 42501  42704  | ok     42704  | ok     42704  | ok     ok
REVOKE API KEY '{my_key_id}'                                                            | ok     .      | ok     .      | ok     .      | ok     .      | ok     .
SHOW API KEYS => {key}                                                                  | hidden hidden | hidden hidden | hidden hidden | hidden hidden | seen   seen
SHOW API KEYS => {my_key}                                                               | seen   .      | seen   .      | seen   .      | seen   .      | seen   .
SHOW API KEYS FOR {user}                                                                | 42501  42501  | 42501  42501  | 42501  42501  | 42501  42501  | ok     ok
LIST API KEYS FOR CURRENT_USER => {my_key}                                              | seen   .      | seen   .      | seen   .      | seen   .      | seen   .

CREATE SERVICE ACCOUNT 'fresh' FOR DATABASE {database}                                  | 42501  42501  | 42501  42501  | ok     42501  | ok     42501  | ok     ok
CREATE SERVICE ACCOUNT 'fresh' FOR DATABASE nodedb TENANT {tenant}                      | 42501  42501  | 42501  42501  | 42501  42501  | 42501  42501  | ok     ok
CREATE SERVICE ACCOUNT 'fresh' FOR DATABASE nodedb ROLE superuser                       | 42501  .      | 42501  .      | 42501  .      | 42501  .      | ok     .
ALTER SERVICE ACCOUNT '{account}' SET DATABASES ({database})                            | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
ALTER SERVICE ACCOUNT '{account}' SET ROLE readonly                                     | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
ALTER SERVICE ACCOUNT '{account}' SET ROLE superuser                                    | 42501  42501  | 42501  42501  | 42501  42704  | 42501  42704  | ok     ok
DROP SERVICE ACCOUNT '{spare_account}'                                                  | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
DROP SERVICE ACCOUNT '{spare_account}' REASSIGN OWNED TO {user}                         | 42501  42501  | 42501  42501  | ok     42704  | ok     42704  | ok     ok
SHOW SERVICE ACCOUNTS => {account}                                                      | 42501  42501  | 42501  42501  | seen   hidden | seen   hidden | seen   seen

CREATE OIDC PROVIDER fresh ISSUER 'https://a.example' JWKS_URI 'https://a.example/k'    | 42501  .      | 42501  .      | 42501  .      | 42501  .      | ok     .
CREATE OIDC PROVIDER fresh WITH (issuer = 'https://fresh.example', tenant = {tenant})   | 42501  42501  | 42501  42501  | 42501  42501  | 42501  42501  | ok     ok
ALTER OIDC PROVIDER {provider} SET (audience = 'us')                                    | 42501  42501  | 42501  42501  | 42501  42501  | 42501  42501  | ok     ok
ALTER OIDC PROVIDER {provider} SET CLAIM MAPPING WHEN a = 'b' ADD ROLES ['readonly']    | 42501  42501  | 42501  42501  | 42501  42501  | 42501  42501  | ok     ok
ALTER OIDC PROVIDER {provider} SET CLAIM MAPPING WHEN a = 'b' ADD ROLES ['superuser']   | 42501  42501  | 42501  42501  | 42501  42501  | 42501  42501  | 42501  42501
ALTER OIDC PROVIDER {provider} REFRESH JWKS                                             | 42501  42501  | 42501  42501  | 42501  42501  | 42501  42501  | ok     ok
DROP OIDC PROVIDER {provider}                                                           | 42501  42501  | 42501  42501  | 42501  42501  | 42501  42501  | ok     ok
SHOW OIDC PROVIDERS => {provider}                                                       | 42501  42501  | 42501  42501  | 42501  42501  | 42501  42501  | seen   seen

CREATE RLS POLICY fresh ON {my_table} FOR READ USING (true)                             | ok     .      | ok     .      | ok     .      | ok     .      | ok     .
CREATE RLS POLICY fresh ON {table} FOR READ USING (true)                                | 42501  42501  | 42501  42501  | ok     42501  | ok     42501  | ok     ok
CREATE RLS POLICY fresh ON table_of_readwrite FOR READ USING (true)                     | 42501  .      | ok     .      | ok     .      | ok     .      | ok     .
CREATE RLS POLICY fresh ON table_of_admin FOR READ USING (true)                         | 42501  .      | 42501  .      | ok     .      | 42501  .      | ok     .
CREATE RLS POLICY fresh ON table_of_superuser FOR READ USING (true)                     | 42501  .      | 42501  .      | 42501  .      | 42501  .      | ok     .
DROP RLS POLICY {my_policy} ON {my_table}                                               | ok     .      | ok     .      | ok     .      | ok     .      | ok     .
DROP RLS POLICY {policy} ON {table}                                                     | 42501  42501  | 42501  42501  | ok     42501  | ok     42501  | ok     ok
SHOW RLS POLICIES => {policy}                                                           | seen   seen   | seen   seen   | seen   seen   | seen   seen   | seen   seen
SHOW RLS POLICIES ON {table} => {policy}                                                | seen   seen   | seen   seen   | seen   seen   | seen   seen   | seen   seen

CREATE TENANT fresh                                                                     | 42501  .      | 42501  .      | 42501  .      | 42501  .      | ok     .
ALTER TENANT {tenant} SET QUOTA max_connections = 5                                     | 42501  42501  | 42501  42501  | 42501  42501  | 42501  42501  | ok     ok
DROP TENANT empty                                                                       | 42501  .      | 42501  .      | 42501  .      | 42501  .      | ok     .
DROP TENANT 0                                                                           | 42501  .      | 42501  .      | 42501  .      | 42501  .      | 42501  .
SHOW TENANTS                                                                            | 42501  .      | 42501  .      | 42501  .      | 42501  .      | ok     .

SHOW SESSIONS => {session}                                                              | hidden hidden | hidden hidden | seen   hidden | seen   hidden | seen   seen
SHOW SESSIONS => {my_session}                                                           | seen   .      | seen   .      | seen   .      | seen   .      | seen   .
KILL SESSION '{session}'                                                                | 42501  42704  | 42501  42704  | ok     42704  | ok     42704  | ok     ok
KILL SESSION '{chief_session}'                                                          | 42501  42704  | 42501  42704  | 42501  42704  | 42501  42704  | ok     ok
KILL SESSION '{my_session}'                                                             | ok     .      | ok     .      | ok     .      | ok     .      | ok     .

SHOW AUDIT LOG                                                                          | 42501  .      | 42501  .      | 42501  .      | 42501  .      | ok     .
VERIFY AUDIT CHAIN                                                                      | 42501  .      | 42501  .      | 42501  .      | 42501  .      | ok     .
SHOW AUTH HELP                                                                          | ok     .      | ok     .      | ok     .      | ok     .      | ok     .
`;

/** Without the two lines of its head. */
const lines = matrix
  .split("\n")
  .filter((line) => line.includes("|"))
  .slice(2);
const templateOf = (line: string) => line.slice(0, line.indexOf("|")).trimEnd();

describe("the privileges of the built-in roles", () => {
  let stage: PrivilegeStage;

  beforeAll(async () => {
    stage = await openPrivilegeStage();
  });
  afterAll(() => stage?.close());

  async function cell(
    template: string,
    role: (typeof builtInRoles)[number],
    target: "own" | "other",
  ): Promise<string> {
    const filled = stage.fill(template, role, target);
    if (target === "other" && filled === stage.fill(template, role, "own")) return ".";
    const [sql = "", shown] = filled.split(" => ");
    const outcome = await stage.attempt(sql, role);
    if (typeof outcome === "string") return outcome;
    if (shown === undefined) return "ok";
    return outcome.table?.rows.some((row) => row.includes(shown)) === true ? "seen" : "hidden";
  }

  for (const line of lines) {
    const template = templateOf(line);
    test(`may run, or may not: ${template}`, async () => {
      const cells: string[] = [];
      for (const role of builtInRoles) {
        const own = await cell(template, role, "own");
        const other = await cell(template, role, "other");
        cells.push(`${own.padEnd(6)} ${other.padEnd(7)}`);
      }
      await stage.checkUnchanged();
      expect(`${template.padEnd(line.indexOf("|"))}| ${cells.join("| ")}`.trimEnd()).toBe(line.trimEnd());
    });
  }

  test("the table has every statement that there is", () => {
    const kinds = lines.map((line) => {
      const [sql = ""] = stage.fill(templateOf(line), "superuser", "own").split(" => ");
      const statement = parseStatement(sql);
      return statement === "forward" ? sql : statement.kind;
    });
    expect(new Set(kinds)).toEqual(new Set([...helpEntries.map(({ kind }) => kind), "show_auth_help"]));
  });
});
