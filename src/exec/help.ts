/** SHOW AUTH HELP: the syntax of every statement of the front-end, with an example. */

import type { Statement, StatementKind } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import type { Column, StatementResult } from "./result.ts";

/** One spelling of a statement. */
export interface HelpEntry {
  readonly statement: string;
  readonly kind: StatementKind;
  readonly syntax: string;
  readonly example: string;
}

export const helpColumns: readonly Column[] = [
  { name: "statement", type: "text" },
  { name: "syntax", type: "text" },
  { name: "example", type: "text" },
];

/** In the order of the contract's chapters; the grammar's tests hold each example and each kind against it. */
export const helpEntries: readonly HelpEntry[] = [
  {
    statement: "CREATE USER",
    kind: "create_user",
    syntax:
      "CREATE USER [IF NOT EXISTS] name [WITH] PASSWORD 'password' [ROLE role [, ...]] [TENANT id | name] [VALID UNTIL 'timestamp'] [CONNECTION LIMIT n]",
    example: "CREATE USER alice WITH PASSWORD 'correct horse battery' ROLE readonly",
  },
  {
    statement: "ALTER USER",
    kind: "alter_user",
    syntax:
      "ALTER USER name [WITH] [SET] [PASSWORD 'password'] [VALID UNTIL 'timestamp'] [CONNECTION LIMIT n] [LOGIN | NOLOGIN]",
    example: "ALTER USER alice VALID UNTIL '2030-01-01' CONNECTION LIMIT 5",
  },
  {
    statement: "ALTER USER SET ROLE",
    kind: "set_user_roles",
    syntax: "ALTER USER name SET ROLE role [, ...]",
    example: "ALTER USER alice SET ROLE readwrite",
  },
  {
    statement: "ALTER USER SET DEFAULT DATABASE",
    kind: "set_user_default_database",
    syntax: "ALTER USER name SET DEFAULT DATABASE database",
    example: "ALTER USER alice SET DEFAULT DATABASE analytics",
  },
  {
    statement: "ALTER USER RENAME",
    kind: "rename_user",
    syntax: "ALTER USER name RENAME TO new_name",
    example: "ALTER USER alice RENAME TO alicia",
  },
  {
    statement: "DROP USER",
    kind: "drop_user",
    syntax: "DROP USER [IF EXISTS] name [, ...] [REASSIGN OWNED TO new_owner]",
    example: "DROP USER IF EXISTS alice REASSIGN OWNED TO bob",
  },
  { statement: "SHOW USERS", kind: "show_users", syntax: "SHOW USERS", example: "SHOW USERS" },
  { statement: "SHOW SESSION", kind: "show_session", syntax: "SHOW SESSION", example: "SHOW SESSION" },
  {
    statement: "CREATE ROLE",
    kind: "create_role",
    syntax: "CREATE ROLE [IF NOT EXISTS] name [INHERIT parent]",
    example: "CREATE ROLE analyst INHERIT readonly",
  },
  {
    statement: "ALTER ROLE SET INHERIT",
    kind: "alter_role_parent",
    syntax: "ALTER ROLE name SET INHERIT parent",
    example: "ALTER ROLE analyst SET INHERIT readwrite",
  },
  {
    statement: "DROP ROLE",
    kind: "drop_role",
    syntax: "DROP ROLE [IF EXISTS] name [, ...]",
    example: "DROP ROLE analyst",
  },
  { statement: "SHOW ROLES", kind: "show_roles", syntax: "SHOW ROLES", example: "SHOW ROLES" },
  {
    statement: "GRANT ROLE",
    kind: "grant_roles",
    syntax: "GRANT [ROLE] role [, ...] TO name [, ...]",
    example: "GRANT ROLE analyst TO alice",
  },
  {
    statement: "REVOKE ROLE",
    kind: "revoke_roles",
    syntax: "REVOKE [ROLE] role [, ...] FROM name [, ...]",
    example: "REVOKE ROLE analyst FROM alice",
  },
  {
    statement: "GRANT CONNECT ON DATABASE",
    kind: "grant_connect",
    syntax: "GRANT CONNECT ON DATABASE database [, ...] TO name [, ...]",
    example: "GRANT CONNECT ON DATABASE analytics TO alice",
  },
  {
    statement: "REVOKE CONNECT ON DATABASE",
    kind: "revoke_connect",
    syntax: "REVOKE CONNECT ON DATABASE database [, ...] FROM name [, ...]",
    example: "REVOKE CONNECT ON DATABASE analytics FROM alice",
  },
  {
    statement: "SHOW GRANTS",
    kind: "show_grants",
    syntax: "SHOW GRANTS [FOR name]",
    example: "SHOW GRANTS FOR alice",
  },
  {
    statement: "SHOW PERMISSIONS",
    kind: "show_permissions",
    syntax: "SHOW PERMISSIONS [ON table] [FOR name]",
    example: "SHOW PERMISSIONS ON public.orders FOR alice",
  },
  {
    statement: "CREATE API KEY",
    kind: "create_api_key",
    syntax:
      "CREATE API KEY 'name' ROLE role [WITH DATABASES (database [, ...])] [EXPIRES IN 'interval' | EXPIRES seconds]",
    example: "CREATE API KEY 'my-service' ROLE readwrite EXPIRES IN '90 days'",
  },
  {
    statement: "CREATE API KEY FOR",
    kind: "create_api_key",
    syntax:
      "CREATE API KEY ['name'] FOR [USER | SERVICE ACCOUNT] owner [WITH DATABASES (database [, ...])] [EXPIRES IN 'interval' | EXPIRES seconds]",
    example: "CREATE API KEY 'reports' FOR alice WITH DATABASES (analytics, logs)",
  },
  {
    statement: "ALTER API KEY SET DATABASES",
    kind: "alter_api_key_databases",
    syntax: "ALTER API KEY 'name' SET DATABASES (database [, ...])",
    example: "ALTER API KEY 'reports' SET DATABASES (analytics)",
  },
  {
    statement: "ALTER API KEY ROTATE",
    kind: "rotate_api_key",
    syntax: "ALTER API KEY 'name' ROTATE [OVERLAP 'interval']",
    example: "ALTER API KEY 'reports' ROTATE OVERLAP '24h'",
  },
  {
    statement: "DROP API KEY",
    kind: "drop_api_key",
    syntax: "DROP API KEY [IF EXISTS] 'name'",
    example: "DROP API KEY 'reports'",
  },
  {
    statement: "REVOKE API KEY",
    kind: "revoke_api_key",
    syntax: "REVOKE API KEY 'key_id'",
    example: "REVOKE API KEY 'a1B2c3D4e5F6'",
  },
  {
    statement: "SHOW API KEYS",
    kind: "show_api_keys",
    syntax: "{ SHOW | LIST } API KEYS [FOR name]",
    example: "SHOW API KEYS FOR alice",
  },
  {
    statement: "CREATE SERVICE ACCOUNT",
    kind: "create_service_account",
    syntax:
      "CREATE SERVICE ACCOUNT [IF NOT EXISTS] 'name' FOR DATABASE database [, ...] [ROLE role] [TENANT id | name]",
    example: "CREATE SERVICE ACCOUNT 'batch-processor' FOR DATABASE analytics ROLE readonly",
  },
  {
    statement: "ALTER SERVICE ACCOUNT SET DATABASES",
    kind: "alter_service_account_databases",
    syntax: "ALTER SERVICE ACCOUNT 'name' SET DATABASES (database [, ...])",
    example: "ALTER SERVICE ACCOUNT 'batch-processor' SET DATABASES (analytics, logs)",
  },
  {
    statement: "ALTER SERVICE ACCOUNT SET ROLE",
    kind: "alter_service_account_roles",
    syntax: "ALTER SERVICE ACCOUNT 'name' SET ROLE role [, ...]",
    example: "ALTER SERVICE ACCOUNT 'batch-processor' SET ROLE readwrite",
  },
  {
    statement: "DROP SERVICE ACCOUNT",
    kind: "drop_service_account",
    syntax: "DROP SERVICE ACCOUNT [IF EXISTS] 'name' [REASSIGN OWNED TO new_owner]",
    example: "DROP SERVICE ACCOUNT 'batch-processor' REASSIGN OWNED TO alice",
  },
  {
    statement: "SHOW SERVICE ACCOUNTS",
    kind: "show_service_accounts",
    syntax: "SHOW SERVICE ACCOUNTS",
    example: "SHOW SERVICE ACCOUNTS",
  },
  {
    statement: "CREATE OIDC PROVIDER",
    kind: "create_oidc_provider",
    syntax:
      "CREATE OIDC PROVIDER [IF NOT EXISTS] name WITH (issuer = 'url' [, jwks_url = 'url'] [, audience = 'text'] [, tenant = id] [, algorithms = ('name' [, ...])] [, claim_mapping = [ { claim = 'claim', value = 'text' | null | '*', effect = { [default_database = 'database'] [, add_databases = ['database', ...]] [, add_roles = ['role', ...]] } } [, ...] ]])",
    example:
      "CREATE OIDC PROVIDER okta WITH (issuer = 'https://id.example.com/', audience = 'nodedb-api', claim_mapping = [ { claim = 'groups', value = 'eng', effect = { default_database = 'analytics', add_roles = ['readwrite'] } } ])",
  },
  {
    statement: "CREATE OIDC PROVIDER ISSUER",
    kind: "create_oidc_provider",
    syntax:
      "CREATE OIDC PROVIDER [IF NOT EXISTS] name ISSUER 'url' [JWKS_URI 'url'] [TENANT id | name] [AUDIENCE 'text'] [CLAIM MAPPING WHEN claim = 'text' [SET DEFAULT_DATABASE = database] [ADD DATABASES [database, ...]] [ADD ROLES ['role', ...]] [WHEN ...]]",
    example:
      "CREATE OIDC PROVIDER okta ISSUER 'https://id.example.com/' JWKS_URI 'https://id.example.com/jwks' AUDIENCE 'nodedb-api' CLAIM MAPPING WHEN groups = 'eng' SET DEFAULT_DATABASE = analytics ADD ROLES ['readwrite']",
  },
  {
    statement: "ALTER OIDC PROVIDER SET",
    kind: "alter_oidc_provider",
    syntax: "ALTER OIDC PROVIDER name SET { (option = value [, ...]) | CLAIM MAPPING WHEN ... }",
    example: "ALTER OIDC PROVIDER okta SET (audience = 'nodedb-api')",
  },
  {
    statement: "ALTER OIDC PROVIDER REFRESH JWKS",
    kind: "refresh_oidc_provider",
    syntax: "ALTER OIDC PROVIDER name REFRESH JWKS",
    example: "ALTER OIDC PROVIDER okta REFRESH JWKS",
  },
  {
    statement: "DROP OIDC PROVIDER",
    kind: "drop_oidc_provider",
    syntax: "DROP OIDC PROVIDER [IF EXISTS] name",
    example: "DROP OIDC PROVIDER okta",
  },
  {
    statement: "SHOW OIDC PROVIDERS",
    kind: "show_oidc_providers",
    syntax: "SHOW OIDC PROVIDERS",
    example: "SHOW OIDC PROVIDERS",
  },
  {
    statement: "CREATE RLS POLICY",
    kind: "create_rls_policy",
    syntax: "CREATE RLS POLICY name ON table FOR { READ | WRITE | ALL } USING (predicate) [RESTRICTIVE]",
    example: "CREATE RLS POLICY own_orders ON orders FOR ALL USING (user_id = $auth.id)",
  },
  {
    statement: "DROP RLS POLICY",
    kind: "drop_rls_policy",
    syntax: "DROP RLS POLICY [IF EXISTS] name ON table",
    example: "DROP RLS POLICY own_orders ON orders",
  },
  {
    statement: "SHOW RLS POLICIES",
    kind: "show_rls_policies",
    syntax: "SHOW RLS POLICIES [ON table]",
    example: "SHOW RLS POLICIES ON orders",
  },
  {
    statement: "CREATE TENANT",
    kind: "create_tenant",
    syntax: "CREATE TENANT [IF NOT EXISTS] name [ID id]",
    example: "CREATE TENANT acme ID 42",
  },
  {
    statement: "ALTER TENANT SET QUOTA",
    kind: "alter_tenant_quota",
    syntax: "ALTER TENANT { id | name } SET QUOTA quota = n",
    example: "ALTER TENANT acme SET QUOTA max_connections = 20",
  },
  {
    statement: "DROP TENANT",
    kind: "drop_tenant",
    syntax: "DROP TENANT { id | name }",
    example: "DROP TENANT acme",
  },
  { statement: "SHOW TENANTS", kind: "show_tenants", syntax: "SHOW TENANTS", example: "SHOW TENANTS" },
  { statement: "SHOW SESSIONS", kind: "show_sessions", syntax: "SHOW SESSIONS", example: "SHOW SESSIONS" },
  {
    statement: "KILL SESSION",
    kind: "kill_session",
    syntax: "KILL SESSION 'session_id'",
    example: "KILL SESSION '3f2a9c'",
  },
  {
    statement: "SHOW AUDIT LOG",
    kind: "show_audit_log",
    syntax: "SHOW AUDIT LOG [WHERE column { = | <> | < | <= | > | >= } 'value' [AND ...]] [LIMIT n]",
    example: "SHOW AUDIT LOG WHERE event = 'AuthFailure' AND username = 'alice' LIMIT 20",
  },
  {
    statement: "VERIFY AUDIT CHAIN",
    kind: "verify_audit_chain",
    syntax: "VERIFY AUDIT CHAIN",
    example: "VERIFY AUDIT CHAIN",
  },
  {
    statement: "SHOW AUTH HELP",
    kind: "show_auth_help",
    syntax: "SHOW AUTH HELP [statement]",
    example: "SHOW AUTH HELP CREATE API KEY",
  },
];

/** Letters and blanks as the table has them: `create  user` is CREATE USER. */
function normalize(topic: string): string {
  return topic.trim().split(/\s+/).join(" ").toUpperCase();
}

function isPhraseIn(phrase: string, statement: string): boolean {
  return ` ${statement} `.includes(` ${phrase} `);
}

/** In characters: psql makes a column as wide as its longest line, and so every row of it. */
const maxLineLength = 72;

/** Breaks at blanks outside of quotes, so that what was an example stays one. */
function breakLines(text: string): string {
  const lines: string[] = [];
  for (const [word] of text.matchAll(/(?:'[^']*'|[^\s'])+/g)) {
    const last = lines.at(-1);
    if (last === undefined || last.length + 1 + word.length > maxLineLength) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines.join("\n");
}

/**
 * The statements that begin with the topic's words; when there is none, those that hold them (`API KEY`).
 *
 * @throws SqlError undefined_object when no statement does.
 */
export function showAuthHelp(statement: Extract<Statement, { kind: "show_auth_help" }>): StatementResult {
  const topic = normalize(statement.topic ?? "");
  let found = helpEntries.filter((entry) =>
    `${entry.statement} `.startsWith(topic === "" ? "" : `${topic} `),
  );
  if (found.length === 0) found = helpEntries.filter((entry) => isPhraseIn(topic, entry.statement));
  if (found.length === 0) {
    throw new SqlError("undefined_object", "there is no help on this topic", {
      hint: "SHOW AUTH HELP alone lists every statement.",
    });
  }
  const rows = found.map(({ statement, syntax, example }) => [
    statement,
    breakLines(syntax),
    breakLines(example),
  ]);
  return { tag: "SHOW", table: { columns: helpColumns, rows }, notices: [] };
}
