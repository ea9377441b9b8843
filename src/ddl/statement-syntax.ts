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
      readonly isNegative: boolean;
      readonly limit: IntegerSyntax;
    })
  | (OptionBase & {
      readonly type: "roles";
      readonly word: "ROLE" | "IN ROLE";
      readonly names: readonly NameSyntax[];
    })
  | (OptionBase & { readonly type: "tenant"; readonly tenant: IntegerSyntax | NameSyntax })
  | (OptionBase & { readonly type: "flag" })
  | (OptionBase & { readonly type: "unsupported" });

export type Spelling = "USER" | "ROLE";

export type StatementSyntax =
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
  | { readonly type: "show_users" }
  | { readonly type: "show_session" };
