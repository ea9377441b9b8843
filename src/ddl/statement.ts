/** The statements that the front-end runs itself, as the grammar returns them (docs: the auth SQL contract). */

/** A name in a statement: folded to lower case unless quoted, and where it stands. */
export interface Name {
  readonly text: string;
  /** 1-based character offset of its first character in the statement's text. */
  readonly position: number;
}

/** A user as a statement may name one: by name, or as PostgreSQL's CURRENT_USER, CURRENT_ROLE, SESSION_USER. */
export type UserReference = Name | { readonly self: true; readonly position: number };

/** A tenant by its number or by its name. */
export type TenantReference =
  | { readonly id: number; readonly position: number }
  | { readonly name: string; readonly position: number };

/** A text value in a statement and where it stands (its opening quote). */
export interface TextValue {
  readonly value: string;
  readonly position: number;
}

/** What CREATE USER and ALTER USER may set; absent means not mentioned. */
export interface UserOptions {
  /** Clear text or a SCRAM verifier; never logged. `null` is `PASSWORD NULL`. */
  readonly password?: TextValue | { readonly value: null; readonly position: number };
  /** Role names as written; ROLE, IN ROLE, IN GROUP and SUPERUSER all end here. */
  readonly roles?: readonly Name[];
  readonly tenant?: TenantReference;
  /** The timestamp's text, not yet checked (`infinity` included). */
  readonly validUntil?: TextValue;
  /** -1 is no limit. */
  readonly connectionLimit?: number;
  readonly canLogin?: boolean;
  /** In ALTER, the first option that only a role of PostgreSQL's own can have: an error for a user of ours. */
  readonly unsupported?: UnsupportedOption;
}

/** An option that the front-end has no place for, and what to do instead. */
export interface UnsupportedOption {
  readonly message: string;
  readonly hint: string | undefined;
  readonly position: number;
}

export type UserStatement =
  | {
      readonly kind: "create_user";
      readonly name: Name;
      readonly ifNotExists: boolean;
      readonly options: UserOptions;
      /** CREATE ROLE … LOGIN is the same statement with another command tag. */
      readonly spelling: "USER" | "ROLE";
    }
  | {
      readonly kind: "alter_user";
      readonly user: UserReference;
      readonly options: UserOptions;
      readonly spelling: "USER" | "ROLE";
    }
  | {
      readonly kind: "set_user_roles";
      readonly user: UserReference;
      readonly roles: readonly Name[];
      /** SET ROLE = r or TO r, which sets PostgreSQL's parameter `role`: an error for a user of ours. */
      readonly sign?: { readonly text: string; readonly position: number };
      readonly spelling: "USER" | "ROLE";
    }
  | {
      readonly kind: "set_user_default_database";
      readonly user: UserReference;
      readonly database: Name;
      readonly spelling: "USER" | "ROLE";
    }
  | {
      readonly kind: "rename_user";
      readonly user: UserReference;
      readonly newName: Name;
      readonly spelling: "USER" | "ROLE";
    }
  | {
      readonly kind: "drop_user";
      readonly users: readonly UserReference[];
      readonly ifExists: boolean;
      readonly reassignTo?: UserReference;
      readonly spelling: "USER" | "ROLE";
    }
  | { readonly kind: "show_users" }
  | { readonly kind: "show_session" };

/** Custom roles, and membership in them (auth SQL: roles and grants). */
export type RoleStatement =
  | {
      readonly kind: "create_role";
      readonly name: Name;
      readonly ifNotExists: boolean;
      readonly parent?: Name;
    }
  | { readonly kind: "alter_role_parent"; readonly name: Name; readonly parent: Name }
  /**
   * Also reached by DROP ROLE of a user: the executor tells which it is. With REASSIGN OWNED or CURRENT_USER, which
   * only users have, DROP ROLE is a drop_user of spelling ROLE.
   */
  | { readonly kind: "drop_role"; readonly names: readonly Name[]; readonly ifExists: boolean }
  | { readonly kind: "show_roles" }
  | {
      readonly kind: "grant_roles" | "revoke_roles";
      readonly roles: readonly Name[];
      /** Written GRANT ROLE, which PostgreSQL does not have: no role of its own is meant. */
      readonly onlyOurs?: true;
      readonly grantees: readonly UserReference[];
      /** WITH … or GRANTED BY …: PostgreSQL's for roles of its own, an error for ours. */
      readonly grantOptions?: { readonly position: number };
    }
  | {
      readonly kind: "grant_connect" | "revoke_connect";
      readonly databases: readonly Name[];
      readonly grantees: readonly UserReference[];
    }
  | { readonly kind: "show_grants"; readonly user?: UserReference }
  | { readonly kind: "show_permissions"; readonly table?: QualifiedName; readonly user?: UserReference };

/** A table: `schema` absent means the session's search_path. */
export interface QualifiedName {
  readonly schema?: string;
  readonly name: string;
  readonly position: number;
}

/** `EXPIRES IN '90 days'` (an interval's text, checked by PostgreSQL) or `EXPIRES 3600` (seconds). */
export type Expiry =
  | { readonly interval: string; readonly position: number }
  | { readonly seconds: number; readonly position: number };

export type ApiKeyStatement =
  | {
      readonly kind: "create_api_key";
      /** Absent: named after its key id. */
      readonly name?: Name;
      /** A stand-alone key has roles; one FOR somebody acts as that owner. */
      readonly holder:
        | { readonly roles: readonly Name[] }
        | { readonly ownerKind: "user" | "service_account" | "any"; readonly owner: UserReference };
      readonly databases?: readonly Name[];
      readonly expires?: Expiry;
    }
  | { readonly kind: "alter_api_key_databases"; readonly name: Name; readonly databases: readonly Name[] }
  | {
      readonly kind: "rotate_api_key";
      readonly name: Name;
      readonly overlap?: { readonly interval: string; readonly position: number };
    }
  | { readonly kind: "drop_api_key"; readonly name: Name; readonly ifExists: boolean }
  | { readonly kind: "revoke_api_key"; readonly keyId: Name }
  /** SHOW API KEYS and LIST API KEYS. */
  | { readonly kind: "show_api_keys"; readonly owner?: UserReference };

export type ServiceAccountStatement =
  | {
      readonly kind: "create_service_account";
      readonly name: Name;
      readonly ifNotExists: boolean;
      readonly databases: readonly Name[];
      readonly roles?: readonly Name[];
      readonly tenant?: TenantReference;
    }
  | {
      readonly kind: "alter_service_account_databases";
      readonly name: Name;
      readonly databases: readonly Name[];
    }
  | { readonly kind: "alter_service_account_roles"; readonly name: Name; readonly roles: readonly Name[] }
  | {
      readonly kind: "drop_service_account";
      readonly name: Name;
      readonly ifExists: boolean;
      readonly reassignTo?: UserReference;
    }
  | { readonly kind: "show_service_accounts" };

/** One rule of a claim mapping; `value` null matches any non-empty value, as '*' does. */
export interface ClaimRule {
  readonly claim: string;
  readonly value: string | null;
  readonly defaultDatabase?: Name;
  readonly addDatabases: readonly Name[];
  readonly addRoles: readonly Name[];
  readonly position: number;
}

/** What CREATE and ALTER OIDC PROVIDER may set; absent means not mentioned. */
export interface OidcProviderOptions {
  readonly issuer?: TextValue;
  readonly jwksUrl?: TextValue;
  readonly audience?: TextValue;
  readonly tenant?: TenantReference;
  readonly algorithms?: readonly TextValue[];
  readonly claimMapping?: readonly ClaimRule[];
}

export type OidcProviderStatement =
  | {
      readonly kind: "create_oidc_provider";
      readonly name: Name;
      readonly ifNotExists: boolean;
      readonly options: OidcProviderOptions;
    }
  | { readonly kind: "alter_oidc_provider"; readonly name: Name; readonly options: OidcProviderOptions }
  | { readonly kind: "refresh_oidc_provider"; readonly name: Name }
  | { readonly kind: "drop_oidc_provider"; readonly name: Name; readonly ifExists: boolean }
  | { readonly kind: "show_oidc_providers" };

export type RlsPolicyStatement =
  | {
      readonly kind: "create_rls_policy";
      readonly name: Name;
      readonly table: QualifiedName;
      readonly access: "read" | "write" | "all";
      /** SQL text between the parentheses, as written, `$auth` not yet rewritten; and where it begins. */
      readonly predicate: TextValue;
      readonly isRestrictive: boolean;
    }
  | {
      readonly kind: "drop_rls_policy";
      readonly name: Name;
      readonly table: QualifiedName;
      readonly ifExists: boolean;
    }
  | { readonly kind: "show_rls_policies"; readonly table?: QualifiedName };

export type TenantStatement =
  | {
      readonly kind: "create_tenant";
      readonly name: Name;
      readonly ifNotExists: boolean;
      readonly id?: { readonly value: number; readonly position: number };
    }
  | {
      readonly kind: "alter_tenant_quota";
      readonly tenant: TenantReference;
      readonly quota: Name;
      readonly value: number;
    }
  | { readonly kind: "drop_tenant"; readonly tenant: TenantReference }
  | { readonly kind: "show_tenants" };

export type SessionStatement =
  | { readonly kind: "show_sessions" }
  | { readonly kind: "kill_session"; readonly sessionId: TextValue };

/** One condition of SHOW AUDIT LOG WHERE; conditions are joined by AND. */
export interface AuditCondition {
  /** A column of SHOW AUDIT LOG, lower case, checked by the executor. */
  readonly column: Name;
  readonly operator: "=" | "<>" | "<" | "<=" | ">" | ">=";
  readonly value: TextValue;
}

export type AuditStatement =
  | {
      readonly kind: "show_audit_log";
      readonly conditions: readonly AuditCondition[];
      readonly limit?: number;
    }
  | { readonly kind: "verify_audit_chain" };

/** SHOW AUTH HELP [topic]: syntax and an example of each statement, or of those that begin with the words. */
export type HelpStatement = { readonly kind: "show_auth_help"; readonly topic?: string };

export type Statement =
  | UserStatement
  | RoleStatement
  | ApiKeyStatement
  | ServiceAccountStatement
  | OidcProviderStatement
  | RlsPolicyStatement
  | TenantStatement
  | SessionStatement
  | AuditStatement
  | HelpStatement;

export type StatementKind = Statement["kind"];
