/** The columns that a statement of ours returns, known before it runs: drivers describe what they prepare. */

import type { Statement } from "../ddl/statement.ts";
import { auditChainColumns, auditColumns } from "./audit.ts";
import { grantColumns } from "./grants.ts";
import { helpColumns } from "./help.ts";
import { oidcProviderColumns } from "./oidc-providers.ts";
import type { Column } from "./result.ts";
import { rlsPolicyColumns } from "./rls-policies.ts";
import { roleColumns } from "./roles.ts";
import { serviceAccountColumns } from "./service-accounts.ts";
import { sessionsColumns } from "./sessions-show.ts";
import { sessionColumns, userColumns } from "./show.ts";
import { apiKeyColumns, newApiKeyColumns } from "./show-api-keys.ts";
import { permissionColumns } from "./show-permissions.ts";
import { tenantColumns } from "./tenants.ts";

/** @returns undefined when the statement returns no rows */
export function resultColumns(statement: Statement): readonly Column[] | undefined {
  switch (statement.kind) {
    case "show_users":
      return userColumns;
    case "show_session":
      return sessionColumns;
    case "show_roles":
      return roleColumns;
    case "show_grants":
      return grantColumns;
    case "show_permissions":
      return permissionColumns;
    case "show_tenants":
      return tenantColumns;
    case "create_api_key":
    case "rotate_api_key":
      return newApiKeyColumns;
    case "show_api_keys":
      return apiKeyColumns;
    case "show_service_accounts":
      return serviceAccountColumns;
    case "show_oidc_providers":
      return oidcProviderColumns;
    case "show_sessions":
      return sessionsColumns;
    case "show_audit_log":
      return auditColumns;
    case "verify_audit_chain":
      return auditChainColumns;
    case "show_rls_policies":
      return rlsPolicyColumns;
    case "show_auth_help":
      return helpColumns;
    default:
      return undefined;
  }
}
