/** What the generated parser returns: statements as they are written, before names and values are checked. */

/** A string constant; its parts are what stands between the quotes, escapes still in place. */
export interface StringSyntax {
  readonly type: "literal";
  readonly style: "plain" | "escape" | "dollar";
  readonly parts: readonly string[];
  /** 0-based offset in UTF-16 units, as everywhere in this file. */
  readonly offset: number;
}

export type NameSyntax =
  | { readonly type: "bare"; readonly text: string; readonly offset: number }
  | { readonly type: "quoted"; readonly text: string; readonly offset: number }
  | { readonly type: "string"; readonly string: StringSyntax; readonly offset: number };

export type UserSyntax =
  | NameSyntax
  | { readonly type: "self"; readonly word: string; readonly offset: number };

export interface IntegerSyntax {
  readonly type: "integer";
  readonly digits: string;
  readonly offset: number;
}

/** A plus, a minus, an equals sign or TO. */
export interface SignSyntax {
  readonly text: string;
  readonly offset: number;
}

interface OptionBase {
  /** The option's keywords, for messages. */
  readonly word: string;
  readonly offset: number;
}

export type OptionSyntax =
  | (OptionBase & { readonly type: "password"; readonly value: StringSyntax | null })
  | (OptionBase & { readonly type: "valid_until"; readonly value: StringSyntax })
  | (OptionBase & {
      readonly type: "connection_limit";
      readonly sign: SignSyntax | null;
      readonly limit: IntegerSyntax;
    })
  | (OptionBase & {
      readonly type: "roles";
      readonly word: "ROLE" | "IN ROLE";
      readonly names: readonly NameSyntax[];
    })
  | (OptionBase & { readonly type: "tenant"; readonly tenant: IntegerSyntax | NameSyntax })
  /** INHERIT with a name: the role that a new role inherits from. */
  | (OptionBase & { readonly type: "parent"; readonly name: NameSyntax })
  | (OptionBase & { readonly type: "flag" })
  | (OptionBase & { readonly type: "unsupported" });

export type Spelling = "USER" | "ROLE";

/** Where something begins that has no other content. */
export interface PlaceSyntax {
  readonly offset: number;
}

export interface TableSyntax {
  readonly schema: NameSyntax | null;
  readonly name: NameSyntax;
}

export type TenantSyntax = IntegerSyntax | NameSyntax;

export type UserStatementSyntax =
  | {
      readonly type: "create";
      readonly spelling: Spelling;
      readonly user: UserSyntax;
      readonly ifNotExists: boolean;
      readonly options: readonly OptionSyntax[];
    }
  | {
      readonly type: "alter";
      readonly spelling: Spelling;
      readonly user: UserSyntax;
      readonly options: readonly OptionSyntax[];
    }
  | {
      readonly type: "rename";
      readonly spelling: Spelling;
      readonly user: UserSyntax;
      readonly newName: UserSyntax;
    }
  | {
      readonly type: "set_roles";
      readonly spelling: Spelling;
      readonly user: UserSyntax;
      readonly sign: SignSyntax | null;
      readonly roles: readonly NameSyntax[];
    }
  | {
      readonly type: "set_default_database";
      readonly spelling: Spelling;
      readonly user: UserSyntax;
      readonly database: NameSyntax;
    }
  | {
      readonly type: "drop";
      readonly spelling: Spelling;
      readonly users: readonly UserSyntax[];
      readonly ifExists: boolean;
      readonly reassignTo: UserSyntax | null;
    }
  | { readonly type: "alter_role_parent"; readonly name: NameSyntax; readonly parent: NameSyntax };

export type GrantSyntax =
  | {
      readonly type: "grant_roles";
      readonly roles: readonly NameSyntax[];
      /** Written GRANT ROLE. */
      readonly onlyOurs: boolean;
      readonly grantees: readonly UserSyntax[];
      /** Where WITH … or GRANTED BY … follows. */
      readonly grantOptions: PlaceSyntax | null;
    }
  | {
      readonly type: "grant_connect";
      readonly databases: readonly NameSyntax[];
      readonly grantees: readonly UserSyntax[];
      /** WITH … or GRANTED BY … follows, which is PostgreSQL's to judge. */
      readonly hasOptions: boolean;
    }
  | {
      readonly type: "revoke_roles";
      readonly roles: readonly NameSyntax[];
      /** Written REVOKE ROLE. */
      readonly onlyOurs: boolean;
      readonly grantees: readonly UserSyntax[];
      readonly grantor: PlaceSyntax | null;
    }
  | {
      readonly type: "revoke_connect";
      readonly databases: readonly NameSyntax[];
      readonly grantees: readonly UserSyntax[];
      readonly grantor: PlaceSyntax | null;
    };

export type KeyHolderSyntax =
  | { readonly type: "roles"; readonly roles: readonly NameSyntax[]; readonly offset: number }
  | {
      readonly type: "user" | "service_account" | "any";
      readonly owner: UserSyntax;
      readonly offset: number;
    };

export type KeyOptionSyntax =
  | (OptionBase & { readonly type: "databases"; readonly databases: readonly NameSyntax[] })
  | (OptionBase & { readonly type: "expires"; readonly interval: StringSyntax; readonly seconds?: never })
  | (OptionBase & { readonly type: "expires"; readonly seconds: IntegerSyntax; readonly interval?: never });

export type ServiceAccountOptionSyntax =
  | (OptionBase & { readonly type: "roles"; readonly names: readonly NameSyntax[] })
  | (OptionBase & { readonly type: "tenant"; readonly tenant: TenantSyntax });

export type KeyAndAccountSyntax =
  | {
      readonly type: "create_api_key";
      readonly name: NameSyntax | null;
      readonly holder: KeyHolderSyntax;
      readonly options: readonly KeyOptionSyntax[];
    }
  | {
      readonly type: "alter_api_key_databases" | "alter_service_account_databases";
      readonly name: NameSyntax;
      readonly databases: readonly NameSyntax[];
    }
  | { readonly type: "rotate_api_key"; readonly name: NameSyntax; readonly overlap: StringSyntax | null }
  | { readonly type: "drop_api_key"; readonly name: NameSyntax; readonly ifExists: boolean }
  | { readonly type: "revoke_api_key"; readonly keyId: NameSyntax }
  | { readonly type: "show_api_keys"; readonly user: UserSyntax | null }
  | {
      readonly type: "create_service_account";
      readonly name: UserSyntax;
      readonly ifNotExists: boolean;
      readonly databases: readonly NameSyntax[];
      readonly options: readonly ServiceAccountOptionSyntax[];
    }
  | {
      readonly type: "alter_service_account_roles";
      readonly name: NameSyntax;
      readonly roles: readonly NameSyntax[];
    }
  | {
      readonly type: "drop_service_account";
      readonly name: NameSyntax;
      readonly ifExists: boolean;
      readonly reassignTo: UserSyntax | null;
    };

export type ClaimEffectSyntax =
  | (OptionBase & { readonly type: "default_database"; readonly database: NameSyntax })
  | (OptionBase & { readonly type: "add_databases" | "add_roles"; readonly names: readonly NameSyntax[] });

export type ClaimFieldSyntax =
  | (OptionBase & { readonly type: "claim"; readonly path: readonly NameSyntax[] })
  | (OptionBase & { readonly type: "value"; readonly value: StringSyntax | null })
  | (OptionBase & { readonly type: "effects"; readonly effects: readonly ClaimEffectSyntax[] });

/** A rule as an object in braces, its fields in any order, or as a WHEN clause. */
export type ClaimRuleSyntax =
  | { readonly type: "object"; readonly fields: readonly ClaimFieldSyntax[]; readonly offset: number }
  | {
      readonly type: "clause";
      readonly path: readonly NameSyntax[];
      readonly value: StringSyntax | null;
      readonly effects: readonly ClaimEffectSyntax[];
      readonly offset: number;
    };

export type OidcOptionSyntax =
  | (OptionBase & { readonly type: "issuer" | "jwks_url" | "audience"; readonly text: StringSyntax })
  | (OptionBase & { readonly type: "tenant"; readonly tenant: TenantSyntax })
  | (OptionBase & { readonly type: "algorithms"; readonly texts: readonly StringSyntax[] })
  | (OptionBase & { readonly type: "claim_mapping"; readonly rules: readonly ClaimRuleSyntax[] });

export type OidcProviderSyntax =
  | {
      readonly type: "create_oidc_provider";
      readonly name: NameSyntax;
      readonly ifNotExists: boolean;
      readonly options: readonly OidcOptionSyntax[];
    }
  | {
      readonly type: "alter_oidc_provider";
      readonly name: NameSyntax;
      readonly options: readonly OidcOptionSyntax[];
    }
  | { readonly type: "refresh_oidc_provider"; readonly name: NameSyntax }
  | { readonly type: "drop_oidc_provider"; readonly name: NameSyntax; readonly ifExists: boolean };

export interface AuditConditionSyntax {
  readonly column: NameSyntax;
  readonly operator: "=" | "<>" | "<" | "<=" | ">" | ">=";
  readonly value: StringSyntax | IntegerSyntax;
}

export type TableAndTenantSyntax =
  | {
      readonly type: "create_rls_policy";
      readonly name: NameSyntax;
      readonly table: TableSyntax;
      readonly access: "read" | "write" | "all";
      readonly predicate: { readonly text: string; readonly offset: number };
      readonly isRestrictive: boolean;
    }
  | {
      readonly type: "drop_rls_policy";
      readonly name: NameSyntax;
      readonly table: TableSyntax;
      readonly ifExists: boolean;
    }
  | {
      readonly type: "create_tenant";
      readonly name: NameSyntax;
      readonly ifNotExists: boolean;
      readonly id: IntegerSyntax | null;
    }
  | {
      readonly type: "alter_tenant_quota";
      readonly tenant: TenantSyntax;
      readonly quota: NameSyntax;
      readonly sign: SignSyntax | null;
      readonly value: IntegerSyntax;
    }
  | { readonly type: "drop_tenant"; readonly tenant: TenantSyntax }
  | { readonly type: "kill_session"; readonly sessionId: StringSyntax }
  | { readonly type: "verify_audit_chain" };

export type ShowSyntax =
  | {
      readonly type:
        | "show_users"
        | "show_session"
        | "show_sessions"
        | "show_roles"
        | "show_tenants"
        | "show_service_accounts"
        | "show_oidc_providers";
    }
  | { readonly type: "show_grants"; readonly user: UserSyntax | null }
  | {
      readonly type: "show_permissions";
      readonly table: TableSyntax | null;
      readonly user: UserSyntax | null;
    }
  | { readonly type: "show_rls_policies"; readonly table: TableSyntax | null }
  | {
      readonly type: "show_audit_log";
      readonly conditions: readonly AuditConditionSyntax[];
      readonly limit: IntegerSyntax | null;
    }
  | {
      readonly type: "show_auth_help";
      readonly topic:
        | { readonly type: "string"; readonly string: StringSyntax }
        | { readonly type: "words"; readonly words: readonly string[] }
        | null;
    };

export type StatementSyntax =
  | UserStatementSyntax
  | GrantSyntax
  | KeyAndAccountSyntax
  | OidcProviderSyntax
  | TableAndTenantSyntax
  | ShowSyntax;
