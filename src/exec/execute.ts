/** Runs a statement of ours: one function per statement, in the file of its group. */

import type { ReservingBackend } from "../catalog/reserved-roles.ts";
import type { LexerOptions } from "../ddl/lexer.ts";
import type { Statement } from "../ddl/statement.ts";
import { alterUser, renameUser, setUserDefaultDatabase, setUserRoles } from "./alter-user.ts";
import { createApiKey, dropApiKey, revokeApiKey, rotateApiKey, setApiKeyDatabases } from "./api-keys.ts";
import { showAuditLog, verifyAuditChain } from "./audit.ts";
import { audited } from "./audit-trail.ts";
import { rewriteAuth } from "./auth-references.ts";
import { changeConnect } from "./connect-grants.ts";
import type { ExecutionContext, ExecutorDependencies } from "./context.ts";
import { createUser } from "./create-user.ts";
import { dropUser } from "./drop-user.ts";
import { concernsForeignRole } from "./foreign-role.ts";
import { grantRoles, revokeRoles, showGrants } from "./grants.ts";
import { showAuthHelp } from "./help.ts";
import {
  alterOidcProvider,
  createOidcProvider,
  dropOidcProvider,
  refreshOidcProvider,
  showOidcProviders,
} from "./oidc-providers.ts";
import type { StatementResult } from "./result.ts";
import { changeRlsPolicy, showRlsPolicies } from "./rls-policies.ts";
import { createRole, dropRole, setRoleParent, showRoles } from "./roles.ts";
import {
  createServiceAccount,
  dropServiceAccount,
  setServiceAccountDatabases,
  setServiceAccountRoles,
  showServiceAccounts,
} from "./service-accounts.ts";
import { killSession, showSessions } from "./sessions-show.ts";
import { showSession, showUsers } from "./show.ts";
import { showApiKeys } from "./show-api-keys.ts";
import { showPermissions } from "./show-permissions.ts";
import { StatementTransaction } from "./statement-transaction.ts";
import { alterTenantQuota, createTenant, dropTenant, showTenants } from "./tenants.ts";
import { translateErrors } from "./translate-errors.ts";

export interface Executor {
  /**
   * Runs a statement in a transaction of its own and returns when its effect holds: a user that was created can log in.
   *
   * @returns "forward" when the statement names a PostgreSQL role that is not one of our users
   * @throws SqlError for everything that the client did wrong or may not do; nothing has changed then
   */
  execute(statement: Statement, context: ExecutionContext): Promise<StatementResult | "forward">;
  /** The list of statements of a client's transaction. @param backend the upstream connection that the transaction is on */
  beginTransaction(backend: ReservingBackend): StatementTransaction;
  /**
   * `rewriteAuth` with the program's functions and claims.
   *
   * @throws SqlError also when the functions are not to be had in the database
   */
  rewriteAuth(text: Buffer, database: string, options: LexerOptions): Buffer;
  /** True when `execute` would answer "forward". @throws SqlError query_canceled when the signal is aborted */
  concernsForeignRole(statement: Statement, signal: AbortSignal): Promise<boolean>;
}

export function createExecutor(deps: ExecutorDependencies): Executor {
  const execute: Executor["execute"] = (statement, context) => {
    const signal = context.connection?.signal;
    const own = signal === undefined ? deps : { ...deps, catalog: deps.catalog.cancelable(signal) };
    return audited(own, statement, context, (auditing) => dispatch(auditing, statement, context));
  };
  return {
    execute,
    rewriteAuth: (text, database, options) => {
      const rewritten = rewriteAuth(text, deps.authFunctions, options);
      if (rewritten !== text) deps.databases.requireClaims(database);
      return rewritten;
    },
    concernsForeignRole: (statement, signal) =>
      translateErrors(() =>
        deps.catalog.cancelable(signal).read((client) => concernsForeignRole(client, statement)),
      ),
    beginTransaction: (backend) => new StatementTransaction(deps, execute, backend),
  };
}

async function dispatch(
  deps: ExecutorDependencies,
  statement: Statement,
  context: ExecutionContext,
): Promise<StatementResult | "forward"> {
  switch (statement.kind) {
    case "create_user":
      return createUser(deps, statement, context);
    case "alter_user":
      return alterUser(deps, statement, context);
    case "set_user_roles":
      return setUserRoles(deps, statement, context);
    case "set_user_default_database":
      return setUserDefaultDatabase(deps, statement, context);
    case "rename_user":
      return renameUser(deps, statement, context);
    case "drop_user":
      return dropUser(deps, statement, context);
    case "show_users":
      return showUsers(deps, context);
    case "show_session":
      return showSession(deps, context);
    case "create_role":
      return createRole(deps, statement, context);
    case "alter_role_parent":
      return setRoleParent(deps, statement, context);
    case "drop_role":
      return dropRole(deps, statement, context);
    case "show_roles":
      return showRoles(deps, context);
    case "grant_roles":
      return grantRoles(deps, statement, context);
    case "revoke_roles":
      return revokeRoles(deps, statement, context);
    case "grant_connect":
    case "revoke_connect":
      return changeConnect(deps, statement, context);
    case "show_grants":
      return showGrants(deps, statement, context);
    case "show_permissions":
      return showPermissions(deps, statement, context);
    case "create_tenant":
      return createTenant(deps, statement, context);
    case "alter_tenant_quota":
      return alterTenantQuota(deps, statement, context);
    case "drop_tenant":
      return dropTenant(deps, statement, context);
    case "show_tenants":
      return showTenants(deps, context);
    case "create_api_key":
      return createApiKey(deps, statement, context);
    case "alter_api_key_databases":
      return setApiKeyDatabases(deps, statement, context);
    case "rotate_api_key":
      return rotateApiKey(deps, statement, context);
    case "drop_api_key":
      return dropApiKey(deps, statement, context);
    case "revoke_api_key":
      return revokeApiKey(deps, statement, context);
    case "show_api_keys":
      return showApiKeys(deps, statement, context);
    case "create_service_account":
      return createServiceAccount(deps, statement, context);
    case "alter_service_account_databases":
      return setServiceAccountDatabases(deps, statement, context);
    case "alter_service_account_roles":
      return setServiceAccountRoles(deps, statement, context);
    case "drop_service_account":
      return dropServiceAccount(deps, statement, context);
    case "show_service_accounts":
      return showServiceAccounts(deps, context);
    case "create_oidc_provider":
      return createOidcProvider(deps, statement, context);
    case "alter_oidc_provider":
      return alterOidcProvider(deps, statement, context);
    case "refresh_oidc_provider":
      return refreshOidcProvider(deps, statement, context);
    case "drop_oidc_provider":
      return dropOidcProvider(deps, statement, context);
    case "show_oidc_providers":
      return showOidcProviders(deps, context);
    case "show_sessions":
      return showSessions(deps, context);
    case "kill_session":
      return killSession(deps, statement, context);
    case "show_audit_log":
      return showAuditLog(deps, statement, context);
    case "verify_audit_chain":
      return verifyAuditChain(deps, context);
    case "create_rls_policy":
    case "drop_rls_policy":
      return changeRlsPolicy(deps, statement, context);
    case "show_rls_policies":
      return showRlsPolicies(deps, statement, context);
    case "show_auth_help":
      return showAuthHelp(statement);
  }
}
