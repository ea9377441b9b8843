/** Statements about users, and about roles in their CREATE ROLE, ALTER ROLE and DROP ROLE spellings. */

import { SqlError } from "../errors/sql-error.ts";
import {
  buildInteger,
  buildName,
  buildNames,
  buildNewName,
  buildTenant,
  buildText,
  buildUser,
  type PositionOf,
  refuseLongList,
  refuseRepeated,
} from "./build-values.ts";
import type { Name, Statement, UnsupportedOption, UserOptions, UserReference } from "./statement.ts";
import type { OptionSyntax, UserStatementSyntax } from "./statement-syntax.ts";

const useSetRole = "Use ALTER USER … SET ROLE.";

/** Options of PostgreSQL's that the front-end has no place for, and what to do instead. */
const unsupportedOptions: Readonly<Record<string, { readonly message?: string; readonly hint?: string }>> = {
  CREATEDB: { hint: "Databases are created by a superuser; use ROLE superuser." },
  CREATEROLE: { hint: "Use ROLE admin, whose members manage users." },
  REPLICATION: { hint: "Replication connects to PostgreSQL itself, as a role made there." },
  BYPASSRLS: { hint: "Only ROLE superuser sees every row." },
  NOINHERIT: { hint: "A user always has the privileges of its roles." },
  INHERIT: { message: "a user cannot inherit from a role", hint: "Use ROLE to give it the role." },
  ADMIN: { hint: "Use ROLE admin for those who manage users." },
  USER: { message: "a user cannot have members", hint: "Use GRANT role TO name." },
  SYSID: { message: "SYSID can no longer be specified" },
  "UNENCRYPTED PASSWORD": {
    message: "UNENCRYPTED PASSWORD is no longer supported",
    hint: "Remove UNENCRYPTED to store the password in encrypted form instead.",
  },
};

function describeUnsupported(option: OptionSyntax, position: number, hint?: string): UnsupportedOption {
  const known = unsupportedOptions[option.word];
  const message = known?.message ?? `role option ${option.word} is not supported`;
  return { message, hint: hint ?? known?.hint, position };
}

function unsupported(option: OptionSyntax, position: number): SqlError {
  const { message, hint } = describeUnsupported(option, position);
  return new SqlError("feature_not_supported", message, { position, hint });
}

function buildConnectionLimit(
  option: Extract<OptionSyntax, { type: "connection_limit" }>,
  positionOf: PositionOf,
): number {
  const limit = buildInteger(option.limit, 0x7fffffff, "connection limit", positionOf);
  if (option.sign?.text !== "-" || limit === 0) return limit;
  if (limit === 1) return -1;
  throw new SqlError("invalid_parameter_value", `invalid connection limit: -${limit}`, {
    position: positionOf(option.sign.offset),
  });
}

/** What may be given once: LOGIN and NOLOGIN are the same thing. */
function optionKey(option: OptionSyntax): string {
  return option.type === "flag" ? option.word.replace(/^NO/, "") : option.word;
}

type Building = { -readonly [Key in keyof UserOptions]: UserOptions[Key] };

function buildFlag(
  option: OptionSyntax,
  verb: "create" | "alter",
  building: Building,
  roles: Name[],
  positionOf: PositionOf,
): void {
  const position = positionOf(option.offset);
  switch (option.word) {
    case "LOGIN":
    case "NOLOGIN":
      building.canLogin = option.word === "LOGIN";
      return;
    case "SUPERUSER":
    case "NOSUPERUSER":
      // In ALTER it would have to add one role or take one away; only SET ROLE changes roles.
      if (verb === "alter") building.unsupported ??= describeUnsupported(option, position, useSetRole);
      else if (option.word === "SUPERUSER") roles.push({ text: "superuser", position });
      return;
    case "INHERIT":
      return;
    default:
      if (!(option.word in unsupportedOptions)) return;
      // A role of PostgreSQL's own may be altered so; whose it is, the executor knows.
      if (verb === "alter") building.unsupported ??= describeUnsupported(option, position);
      else throw unsupported(option, position);
  }
}

function buildOptions(
  options: readonly OptionSyntax[],
  verb: "create" | "alter",
  positionOf: PositionOf,
): UserOptions {
  refuseRepeated(options, optionKey, positionOf);
  const building: Building = {};
  const roles: Name[] = [];
  for (const option of options) {
    switch (option.type) {
      case "password":
        building.password =
          option.value === null
            ? { value: null, position: positionOf(option.offset) }
            : buildText(option.value, positionOf);
        break;
      case "valid_until":
        building.validUntil = buildText(option.value, positionOf);
        break;
      case "connection_limit":
        building.connectionLimit = buildConnectionLimit(option, positionOf);
        break;
      case "tenant":
        building.tenant = buildTenant(option.tenant, positionOf);
        break;
      case "roles":
        roles.push(...option.names.map((name) => buildName(name, positionOf)));
        break;
      case "parent": {
        const name = buildName(option.name, positionOf);
        // Of somebody who can log in, PostgreSQL's two options are meant.
        if (option.name.type !== "bare" || name.text !== "superuser") {
          throw unsupported(option, positionOf(option.offset));
        }
        roles.push(name);
        break;
      }
      case "flag":
        buildFlag(option, verb, building, roles, positionOf);
        break;
      case "unsupported":
        throw unsupported(option, positionOf(option.offset));
    }
  }
  const noSuperuser = options.find((option) => option.word === "NOSUPERUSER");
  if (noSuperuser !== undefined && roles.some((role) => role.text === "superuser")) {
    const position = positionOf(noSuperuser.offset);
    throw new SqlError("syntax_error", "conflicting or redundant options", { position });
  }
  if (roles.length > 0) building.roles = roles;
  return building;
}

type CreateSyntax = Extract<UserStatementSyntax, { type: "create" }>;
type DropSyntax = Extract<UserStatementSyntax, { type: "drop" }>;
type AlterSyntax = Exclude<UserStatementSyntax, { type: "create" | "drop" | "alter_role_parent" }>;

/** Options that say of a role what is so anyway. */
const roleDefaults: ReadonlySet<string> = new Set([
  "NOLOGIN",
  "INHERIT",
  "NOSUPERUSER",
  "NOCREATEDB",
  "NOCREATEROLE",
  "NOREPLICATION",
  "NOBYPASSRLS",
]);

function isLoginOrPassword(option: OptionSyntax): boolean {
  if (option.type === "password") return option.value !== null;
  return option.word === "LOGIN" || option.word === "UNENCRYPTED PASSWORD";
}

/**
 * Whether CREATE ROLE asks for what only a role of PostgreSQL's own can be (CREATE ROLE n CREATEDB). A statement with a
 * password never does: PostgreSQL would write it to its log.
 */
export function staysUpstream({ spelling, ifNotExists, options }: CreateSyntax): boolean {
  if (spelling === "USER" || ifNotExists || options.some(isLoginOrPassword)) return false;
  if (options.some((option) => option.type === "parent")) return false;
  return options.some((option) => option.type !== "flag" || !roleDefaults.has(option.word));
}

/** As in PostgreSQL, CREATE ROLE makes a user when it can log in or has a password. */
function buildCreate(syntax: CreateSyntax, positionOf: PositionOf): Statement {
  const { spelling, ifNotExists } = syntax;
  if (spelling === "ROLE" && !syntax.options.some(isLoginOrPassword)) {
    return buildCreateRole(syntax, positionOf);
  }
  const name = buildNewName(syntax.user, positionOf);
  const options = buildOptions(syntax.options, "create", positionOf);
  const canLogin = options.canLogin ?? (spelling === "ROLE" ? false : undefined);
  const complete = canLogin === undefined ? options : { ...options, canLogin };
  return { kind: "create_user", name, ifNotExists, options: complete, spelling };
}

function buildCreateRole(syntax: CreateSyntax, positionOf: PositionOf): Statement {
  const name = buildNewName(syntax.user, positionOf);
  refuseRepeated(syntax.options, optionKey, positionOf);
  let parent: Name | undefined;
  for (const option of syntax.options) {
    if (option.type === "parent") parent = buildName(option.name, positionOf);
    else if (option.type !== "flag" || !roleDefaults.has(option.word)) {
      throw unsupported(option, positionOf(option.offset));
    }
  }
  const statement = { kind: "create_role", name, ifNotExists: syntax.ifNotExists } as const;
  return parent === undefined ? statement : { ...statement, parent };
}

/**
 * DROP ROLE may mean users or custom roles, which the catalog knows. Only users have objects to reassign, and only a
 * user can be meant by CURRENT_USER.
 */
function buildDrop(syntax: DropSyntax, positionOf: PositionOf): Statement {
  refuseLongList(syntax.users, "users");
  const users = syntax.users.map((user) => buildUser(user, positionOf));
  const names = users.filter((user): user is Name => !("self" in user));
  const { spelling, ifExists } = syntax;
  if (spelling === "ROLE" && syntax.reassignTo === null && names.length === users.length) {
    return { kind: "drop_role", names, ifExists };
  }
  const statement = { kind: "drop_user", users, ifExists, spelling } as const;
  if (syntax.reassignTo === null) return statement;
  return { ...statement, reassignTo: buildUser(syntax.reassignTo, positionOf) };
}

function buildAlter(syntax: AlterSyntax, user: UserReference, positionOf: PositionOf): Statement {
  const { spelling } = syntax;
  switch (syntax.type) {
    case "alter": {
      const options = buildOptions(syntax.options, "alter", positionOf);
      return { kind: "alter_user", user, options, spelling };
    }
    case "rename":
      return { kind: "rename_user", user, newName: buildNewName(syntax.newName, positionOf), spelling };
    case "set_roles": {
      const roles = buildNames(syntax.roles, "roles", positionOf);
      const statement = { kind: "set_user_roles", user, roles, spelling } as const;
      if (syntax.sign === null) return statement;
      const { text, offset } = syntax.sign;
      return { ...statement, sign: { text, position: positionOf(offset) } };
    }
    case "set_default_database": {
      const database = buildName(syntax.database, positionOf);
      return { kind: "set_user_default_database", user, database, spelling };
    }
  }
}

/** @throws SqlError as buildStatement does */
export function buildUserStatement(syntax: UserStatementSyntax, positionOf: PositionOf): Statement {
  switch (syntax.type) {
    case "create":
      return buildCreate(syntax, positionOf);
    case "drop":
      return buildDrop(syntax, positionOf);
    case "alter_role_parent": {
      const name = buildName(syntax.name, positionOf);
      return { kind: syntax.type, name, parent: buildName(syntax.parent, positionOf) };
    }
    default:
      return buildAlter(syntax, buildUser(syntax.user, positionOf), positionOf);
  }
}
