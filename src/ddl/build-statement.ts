/** Checks what the grammar cannot say about a statement (names, ranges, options given twice) and gives it its final shape. */

import { SqlError } from "../errors/sql-error.ts";
import { buildKeyAndAccountStatement } from "./build-key-and-account.ts";
import { buildOidcProviderStatement } from "./build-oidc-provider.ts";
import { buildUserStatement } from "./build-user.ts";
import {
  buildInteger,
  buildName,
  buildNames,
  buildTable,
  buildTenant,
  buildText,
  buildUser,
  type PositionOf,
  refuseLongList,
} from "./build-values.ts";
import type { AuditCondition, Statement } from "./statement.ts";
import type { AuditConditionSyntax, GrantSyntax, PlaceSyntax, StatementSyntax } from "./statement-syntax.ts";
import { decodeString } from "./string-literal.ts";

/** Most rows that SHOW AUDIT LOG LIMIT may ask for, and largest quota. */
const maxCount = 0x7fffffff;

/** PostgreSQL would take back only what that role has granted; in the catalog a grant has no grantor. */
function refuseGrantor(grantor: PlaceSyntax | null, positionOf: PositionOf): void {
  if (grantor === null) return;
  throw new SqlError("feature_not_supported", "GRANTED BY is not supported", {
    position: positionOf(grantor.offset),
    hint: "Leave GRANTED BY out.",
  });
}

function buildGrant(syntax: GrantSyntax, positionOf: PositionOf): Statement {
  refuseLongList(syntax.grantees, "grantees");
  const grantees = syntax.grantees.map((grantee) => buildUser(grantee, positionOf));
  switch (syntax.type) {
    case "revoke_roles":
    case "grant_roles": {
      if (syntax.type === "revoke_roles") refuseGrantor(syntax.grantor, positionOf);
      const place = syntax.type === "grant_roles" ? syntax.grantOptions : null;
      return {
        kind: syntax.type,
        roles: buildNames(syntax.roles, "roles", positionOf),
        ...(syntax.onlyOurs ? { onlyOurs: true } : {}),
        grantees,
        ...(place === null ? {} : { grantOptions: { position: positionOf(place.offset) } }),
      };
    }
    case "revoke_connect":
    case "grant_connect": {
      if (syntax.type === "revoke_connect") refuseGrantor(syntax.grantor, positionOf);
      return {
        kind: syntax.type,
        databases: buildNames(syntax.databases, "databases", positionOf),
        grantees,
      };
    }
  }
}

function buildCondition(syntax: AuditConditionSyntax, positionOf: PositionOf): AuditCondition {
  const value =
    syntax.value.type === "integer"
      ? { value: syntax.value.digits.replaceAll("_", ""), position: positionOf(syntax.value.offset) }
      : buildText(syntax.value, positionOf);
  return { column: buildName(syntax.column, positionOf), operator: syntax.operator, value };
}

/**
 * The statement that the parser's result stands for.
 *
 * @throws SqlError syntax_error, invalid_parameter_value, feature_not_supported, reserved_name,
 *   program_limit_exceeded or character_not_in_repertoire, with the position of what is wrong.
 */
export function buildStatement(syntax: StatementSyntax, positionOf: PositionOf): Statement {
  switch (syntax.type) {
    case "create":
    case "alter":
    case "rename":
    case "set_roles":
    case "set_default_database":
    case "drop":
    case "alter_role_parent":
      return buildUserStatement(syntax, positionOf);
    case "grant_roles":
    case "grant_connect":
    case "revoke_roles":
    case "revoke_connect":
      return buildGrant(syntax, positionOf);
    case "create_api_key":
    case "alter_api_key_databases":
    case "rotate_api_key":
    case "drop_api_key":
    case "revoke_api_key":
    case "show_api_keys":
    case "create_service_account":
    case "alter_service_account_databases":
    case "alter_service_account_roles":
    case "drop_service_account":
      return buildKeyAndAccountStatement(syntax, positionOf);
    case "create_oidc_provider":
    case "alter_oidc_provider":
    case "refresh_oidc_provider":
    case "drop_oidc_provider":
      return buildOidcProviderStatement(syntax, positionOf);
    default:
      return buildOther(syntax, positionOf);
  }
}

type OtherSyntax = Extract<
  StatementSyntax,
  {
    type:
      | "create_rls_policy"
      | "drop_rls_policy"
      | "create_tenant"
      | "alter_tenant_quota"
      | "drop_tenant"
      | "kill_session"
      | "verify_audit_chain"
      | Exclude<`show_${string}`, "show_api_keys">;
  }
>;

function buildOther(syntax: OtherSyntax, positionOf: PositionOf): Statement {
  switch (syntax.type) {
    case "create_rls_policy": {
      const { access, isRestrictive } = syntax;
      const position = positionOf(syntax.predicate.offset);
      if (syntax.predicate.text.trim() === "") {
        const at = positionOf(syntax.predicate.offset + syntax.predicate.text.length);
        throw new SqlError("syntax_error", 'syntax error at or near ")"', {
          position: at,
          detail: "Expected a predicate.",
        });
      }
      return {
        kind: syntax.type,
        name: buildName(syntax.name, positionOf),
        table: buildTable(syntax.table, positionOf),
        access,
        predicate: { value: syntax.predicate.text, position },
        isRestrictive,
      };
    }
    case "drop_rls_policy": {
      const name = buildName(syntax.name, positionOf);
      const table = buildTable(syntax.table, positionOf);
      return { kind: syntax.type, name, table, ifExists: syntax.ifExists };
    }
    case "create_tenant": {
      const name = buildName(syntax.name, positionOf);
      const statement = { kind: syntax.type, name, ifNotExists: syntax.ifNotExists } as const;
      if (syntax.id === null) return statement;
      const value = buildInteger(syntax.id, Number.MAX_SAFE_INTEGER, "tenant number", positionOf);
      return { ...statement, id: { value, position: positionOf(syntax.id.offset) } };
    }
    case "alter_tenant_quota": {
      const tenant = buildTenant(syntax.tenant, positionOf);
      const quota = buildName(syntax.quota, positionOf);
      const value = buildInteger(syntax.value, maxCount, "quota", positionOf);
      return { kind: syntax.type, tenant, quota, value: syntax.sign?.text === "-" ? -value : value };
    }
    case "drop_tenant":
      return { kind: syntax.type, tenant: buildTenant(syntax.tenant, positionOf) };
    case "kill_session":
      return { kind: syntax.type, sessionId: buildText(syntax.sessionId, positionOf) };
    case "show_grants":
      if (syntax.user === null) return { kind: syntax.type };
      return { kind: syntax.type, user: buildUser(syntax.user, positionOf) };
    case "show_permissions":
      return {
        kind: syntax.type,
        ...(syntax.table === null ? {} : { table: buildTable(syntax.table, positionOf) }),
        ...(syntax.user === null ? {} : { user: buildUser(syntax.user, positionOf) }),
      };
    case "show_rls_policies":
      if (syntax.table === null) return { kind: syntax.type };
      return { kind: syntax.type, table: buildTable(syntax.table, positionOf) };
    case "show_audit_log": {
      const conditions = syntax.conditions.map((condition) => buildCondition(condition, positionOf));
      if (syntax.limit === null) return { kind: syntax.type, conditions };
      return {
        kind: syntax.type,
        conditions,
        limit: buildInteger(syntax.limit, maxCount, "limit", positionOf),
      };
    }
    case "show_auth_help": {
      const { topic } = syntax;
      if (topic === null) return { kind: syntax.type };
      if (topic.type === "words") return { kind: syntax.type, topic: topic.words.join(" ") };
      return { kind: syntax.type, topic: decodeString(topic.string, positionOf(topic.string.offset)) };
    }
    default:
      return { kind: syntax.type };
  }
}
