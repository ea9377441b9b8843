/** What the audit log is told of statements: which were run on what, and which were refused. Names, never literals. */

import type { PoolClient } from "pg";
import { Lockout } from "../catalog/lockout.ts";
import type { Queryable } from "../catalog/users.ts";
import type { Name, Statement, TenantReference, UserReference } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import type { AuditEntry } from "../observe/audit.ts";
import type { ExecutionContext, ExecutorDependencies } from "./context.ts";
import type { StatementResult } from "./result.ts";

type Result = StatementResult | "forward";

/**
 * Runs a statement and sees to its audit entry. That of a change is written by the transaction of the change, so that there is
 * no one without the other; that of a refusal is noted.
 *
 * @param run with dependencies whose catalog writes the entry too
 */
export async function audited(
  deps: ExecutorDependencies,
  statement: Statement,
  context: ExecutionContext,
  run: (deps: ExecutorDependencies) => Promise<Result>,
): Promise<Result> {
  const description = describe(statement, context);
  const finish = async (client: Queryable, result: unknown): Promise<void> => {
    if (description === undefined || result === "forward") return;
    await deps.audit.recordIn(
      client,
      entryOf(context, description.event, description.words + noticesOf(result)),
    );
    const freed = freedName(statement, context);
    if (freed !== undefined) await Lockout.clear(client, freed);
  };
  try {
    const { transaction } = context;
    if (transaction !== undefined) {
      const result = await run(deps);
      await finish(transaction.client, result);
      return result;
    }
    if (description === undefined) return await run(deps);
    const withEntry =
      <T>(work: (client: PoolClient) => Promise<T>) =>
      async (client: PoolClient): Promise<T> => {
        const result = await work(client);
        await finish(client, result);
        return result;
      };
    return await run({
      ...deps,
      catalog: { ...deps.catalog, write: (work) => deps.catalog.write(withEntry(work)) },
      sessionTable: {
        flush: () => deps.sessionTable.flush(),
        change: (work) => deps.sessionTable.change(withEntry(work)),
      },
    });
  } catch (error) {
    if (error instanceof SqlError && error.condition === "insufficient_privilege") {
      const words = description?.words ?? statement.kind.replaceAll("_", " ").toUpperCase();
      deps.audit.record(entryOf(context, "AuthzDenied", `${words}: ${error.message}`));
    }
    throw error;
  }
}

function entryOf(context: ExecutionContext, event: AuditEntry["event"], detail: string): AuditEntry {
  const { identity, sessionId, clientAddress } = context;
  return {
    event,
    username: identity.principal.name,
    tenantId: identity.tenantId,
    source: clientAddress,
    sessionId,
    detail,
  };
}

/** `role "x" does not exist, skipping` belongs to what was done. */
function noticesOf(result: unknown): string {
  const notices = (result as Partial<StatementResult> | undefined)?.notices;
  return notices === undefined || notices.length === 0 ? "" : ` (${notices.join("; ")})`;
}

/** The name whose lockout an administrator ends with ALTER USER … PASSWORD or LOGIN. */
function freedName(statement: Statement, context: ExecutionContext): string | undefined {
  if (statement.kind !== "alter_user") return undefined;
  const { options, user } = statement;
  if (options.canLogin !== true && typeof options.password?.value !== "string") return undefined;
  return "self" in user ? context.identity.principal.name : user.text;
}

interface Description {
  readonly event: "PrivilegeChange" | "AdminAction";
  readonly words: string;
}

/** @returns undefined for a statement that only reads */
function describe(statement: Statement, context: ExecutionContext): Description | undefined {
  const admin = (words: string): Description => ({ event: "AdminAction", words });
  const privilege = (words: string): Description => ({ event: "PrivilegeChange", words });
  const user = (reference: UserReference) => quoted(userName(reference, context));
  switch (statement.kind) {
    case "create_user": {
      const { spelling, name, options } = statement;
      return admin(`CREATE ${spelling} ${quoted(name.text)}${rolesOf(options.roles)}`);
    }
    case "alter_user": {
      const { options, spelling } = statement;
      const words = `ALTER ${spelling} ${user(statement.user)}`;
      const changes = [
        ...(options.password === undefined ? [] : ["PASSWORD"]),
        ...(options.canLogin === undefined ? [] : [options.canLogin ? "LOGIN" : "NOLOGIN"]),
        ...(options.validUntil === undefined ? [] : ["VALID UNTIL"]),
        ...(options.connectionLimit === undefined ? [] : ["CONNECTION LIMIT"]),
      ];
      const detail = `${words} ${changes.join(", ")}${rolesOf(options.roles)}`.trimEnd();
      return options.canLogin === undefined && options.roles === undefined
        ? admin(detail)
        : privilege(detail);
    }
    case "set_user_roles":
      return privilege(
        `ALTER ${statement.spelling} ${user(statement.user)} SET ROLE ${list(statement.roles)}`,
      );
    case "set_user_default_database":
      return admin(
        `ALTER ${statement.spelling} ${user(statement.user)} SET DEFAULT DATABASE ${quoted(statement.database.text)}`,
      );
    case "rename_user":
      return admin(
        `ALTER ${statement.spelling} ${user(statement.user)} RENAME TO ${quoted(statement.newName.text)}`,
      );
    case "drop_user": {
      const reassigned =
        statement.reassignTo === undefined ? "" : ` REASSIGN OWNED TO ${user(statement.reassignTo)}`;
      return admin(`DROP ${statement.spelling} ${statement.users.map(user).join(", ")}${reassigned}`);
    }
    case "create_role":
      return admin(`CREATE ROLE ${quoted(statement.name.text)}`);
    case "alter_role_parent":
      return privilege(
        `ALTER ROLE ${quoted(statement.name.text)} SET INHERIT ${quoted(statement.parent.text)}`,
      );
    case "drop_role":
      return admin(`DROP ROLE ${list(statement.names)}`);
    case "grant_roles":
      return privilege(`GRANT ${list(statement.roles)} TO ${statement.grantees.map(user).join(", ")}`);
    case "revoke_roles":
      return privilege(`REVOKE ${list(statement.roles)} FROM ${statement.grantees.map(user).join(", ")}`);
    case "grant_connect":
      return privilege(
        `GRANT CONNECT ON DATABASE ${list(statement.databases)} TO ${statement.grantees.map(user).join(", ")}`,
      );
    case "revoke_connect":
      return privilege(
        `REVOKE CONNECT ON DATABASE ${list(statement.databases)} FROM ${statement.grantees.map(user).join(", ")}`,
      );
    case "create_api_key": {
      const name = statement.name === undefined ? "" : ` ${quoted(statement.name.text)}`;
      const { holder } = statement;
      return admin(
        `CREATE API KEY${name}${"roles" in holder ? rolesOf(holder.roles) : ` FOR ${user(holder.owner)}`}`,
      );
    }
    case "alter_api_key_databases":
      return privilege(
        `ALTER API KEY ${quoted(statement.name.text)} SET DATABASES ${list(statement.databases)}`,
      );
    case "rotate_api_key":
      return admin(`ALTER API KEY ${quoted(statement.name.text)} ROTATE`);
    case "drop_api_key":
      return admin(`DROP API KEY ${quoted(statement.name.text)}`);
    case "revoke_api_key":
      return admin(`REVOKE API KEY ${quoted(statement.keyId.text)}`);
    case "create_service_account":
      return admin(
        `CREATE SERVICE ACCOUNT ${quoted(statement.name.text)} FOR DATABASE ${list(statement.databases)}${rolesOf(statement.roles)}`,
      );
    case "alter_service_account_databases":
      return privilege(
        `ALTER SERVICE ACCOUNT ${quoted(statement.name.text)} SET DATABASES ${list(statement.databases)}`,
      );
    case "alter_service_account_roles":
      return privilege(
        `ALTER SERVICE ACCOUNT ${quoted(statement.name.text)} SET ROLE ${list(statement.roles)}`,
      );
    case "drop_service_account":
      return admin(`DROP SERVICE ACCOUNT ${quoted(statement.name.text)}`);
    case "create_oidc_provider":
      return admin(`CREATE OIDC PROVIDER ${quoted(statement.name.text)}`);
    case "alter_oidc_provider":
      return admin(
        `ALTER OIDC PROVIDER ${quoted(statement.name.text)} SET ${Object.keys(statement.options).join(", ")}`,
      );
    case "refresh_oidc_provider":
      return admin(`ALTER OIDC PROVIDER ${quoted(statement.name.text)} REFRESH JWKS`);
    case "drop_oidc_provider":
      return admin(`DROP OIDC PROVIDER ${quoted(statement.name.text)}`);
    case "create_rls_policy":
      return privilege(`CREATE RLS POLICY ${quoted(statement.name.text)} ON ${tableName(statement.table)}`);
    case "drop_rls_policy":
      return privilege(`DROP RLS POLICY ${quoted(statement.name.text)} ON ${tableName(statement.table)}`);
    case "create_tenant":
      return admin(`CREATE TENANT ${quoted(statement.name.text)}`);
    case "alter_tenant_quota":
      return admin(
        `ALTER TENANT ${tenantName(statement.tenant)} SET QUOTA ${statement.quota.text} = ${statement.value}`,
      );
    case "drop_tenant":
      return admin(`DROP TENANT ${tenantName(statement.tenant)}`);
    case "kill_session":
      return admin(`KILL SESSION ${/^[0-9a-f-]{36}$/i.exec(statement.sessionId.value)?.[0] ?? ""}`.trimEnd());
    default:
      return undefined;
  }
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

function list(names: readonly Name[]): string {
  return names.map(({ text }) => quoted(text)).join(", ");
}

function rolesOf(roles: readonly Name[] | undefined): string {
  return roles === undefined || roles.length === 0 ? "" : ` ROLE ${list(roles)}`;
}

function userName(reference: UserReference, context: ExecutionContext): string {
  return "self" in reference ? context.identity.principal.name : reference.text;
}

function tenantName(reference: TenantReference): string {
  return "id" in reference ? String(reference.id) : quoted(reference.name);
}

function tableName({ schema, name }: { readonly schema?: string; readonly name: string }): string {
  return schema === undefined ? quoted(name) : `${quoted(schema)}.${quoted(name)}`;
}
