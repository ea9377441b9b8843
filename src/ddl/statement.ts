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
}

export type Statement =
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

export type StatementKind = Statement["kind"];
