/** Checks what the grammar cannot say about a statement (names, ranges, options given twice) and gives it its final shape. */

import { SqlError } from "../errors/sql-error.ts";
import { foldIdentifier } from "./reserved-words.ts";
import type { Name, Statement, TenantReference, TextValue, UserOptions, UserReference } from "./statement.ts";
import type {
  IntegerSyntax,
  NameSyntax,
  OptionSyntax,
  StatementSyntax,
  StringSyntax,
  UserSyntax,
} from "./statement-syntax.ts";
import { decodeString } from "./string-literal.ts";

/** Turns an offset of the parser into a character position for the client. */
export type PositionOf = (offset: number) => number;

/** Longest name in bytes (PostgreSQL's NAMEDATALEN - 1). */
const maxNameBytes = 63;

/** Most users that one DROP USER names: each is looked up while the catalog waits; more is program_limit_exceeded. */
const maxDroppedUsers = 1000;

const useSetRole = "Use ALTER USER … SET ROLE.";

/** Options of PostgreSQL's that the front-end has no place for, and what to do instead. */
const unsupportedOptions: Readonly<Record<string, { readonly message?: string; readonly hint?: string }>> = {
  CREATEDB: { hint: "Databases are created by a superuser; use ROLE superuser." },
  CREATEROLE: { hint: "Use ROLE admin, whose members manage users." },
  REPLICATION: { hint: "Replication connects to PostgreSQL itself, as a role made there." },
  BYPASSRLS: { hint: "Only ROLE superuser sees every row." },
  NOINHERIT: { hint: "A user always has the privileges of its roles." },
  ADMIN: { hint: "Use ROLE admin for those who manage users." },
  SYSID: { message: "SYSID can no longer be specified" },
  "UNENCRYPTED PASSWORD": {
    message: "UNENCRYPTED PASSWORD is no longer supported",
    hint: "Remove UNENCRYPTED to store the password in encrypted form instead.",
  },
};

function unsupported(option: OptionSyntax, position: number, hint?: string): SqlError {
  const known = unsupportedOptions[option.word];
  const message = known?.message ?? `role option ${option.word} is not supported`;
  return new SqlError("feature_not_supported", message, { position, hint: hint ?? known?.hint });
}

function nameText(syntax: NameSyntax, position: number): string {
  if (syntax.type === "bare") return foldIdentifier(syntax.text);
  if (syntax.type === "quoted") return syntax.text.replaceAll('""', '"');
  return decodeString(syntax.string, position);
}

function buildName(syntax: NameSyntax, positionOf: PositionOf): Name {
  const position = positionOf(syntax.offset);
  const text = nameText(syntax, position);
  if (text === "") throw new SqlError("syntax_error", "zero-length delimited identifier", { position });
  const bytes = Buffer.byteLength(text);
  if (bytes > maxNameBytes) {
    // PostgreSQL cuts the name with a notice; two users who differ at the end would become one.
    const shown =
      syntax.type === "string" ? "name" : `identifier "${[...text].slice(0, maxNameBytes).join("")}…"`;
    throw new SqlError("invalid_parameter_value", `${shown} is too long`, {
      detail: `A name has at most ${maxNameBytes} bytes; this one has ${bytes}.`,
      position,
    });
  }
  return { text, position };
}

function buildUser(syntax: UserSyntax, positionOf: PositionOf): UserReference {
  if (syntax.type === "self") return { self: true, position: positionOf(syntax.offset) };
  return buildName(syntax, positionOf);
}

/** A name that a user is about to get (PostgreSQL's RoleId). */
function buildNewName(syntax: UserSyntax, positionOf: PositionOf): Name {
  const position = positionOf(syntax.offset);
  if (syntax.type === "self") {
    throw new SqlError("reserved_name", `${syntax.word} cannot be used as a role name here`, { position });
  }
  const name = buildName(syntax, positionOf);
  if (name.text === "public" || name.text === "none") {
    throw new SqlError("reserved_name", `role name "${name.text}" is reserved`, { position });
  }
  return name;
}

function buildText(syntax: StringSyntax, positionOf: PositionOf): TextValue {
  const position = positionOf(syntax.offset);
  return { value: decodeString(syntax, position), position };
}

function buildInteger(syntax: IntegerSyntax, max: number, what: string, positionOf: PositionOf): number {
  const value = Number(syntax.digits.replaceAll("_", ""));
  if (value <= max) return value;
  throw new SqlError("invalid_parameter_value", `${what} is out of range`, {
    position: positionOf(syntax.offset),
  });
}

function buildTenant(syntax: IntegerSyntax | NameSyntax, positionOf: PositionOf): TenantReference {
  const position = positionOf(syntax.offset);
  if (syntax.type === "integer") {
    return { id: buildInteger(syntax, Number.MAX_SAFE_INTEGER, "tenant number", positionOf), position };
  }
  return { name: buildName(syntax, positionOf).text, position };
}

function buildConnectionLimit(
  option: Extract<OptionSyntax, { type: "connection_limit" }>,
  positionOf: PositionOf,
): number {
  const limit = buildInteger(option.limit, 0x7fffffff, "connection limit", positionOf);
  if (!option.isNegative || limit === 0) return limit;
  if (limit === 1) return -1;
  throw new SqlError("invalid_parameter_value", `invalid connection limit: -${limit}`, {
    position: positionOf(option.limit.offset),
  });
}

/** What may be given once: LOGIN and NOLOGIN are the same thing. */
function optionKey(option: OptionSyntax): string {
  return option.type === "flag" ? option.word.replace(/^NO/, "") : option.word;
}

function refuseRepeatedOptions(options: readonly OptionSyntax[], positionOf: PositionOf): void {
  const seen = new Set<string>();
  for (const option of options) {
    const key = optionKey(option);
    if (seen.has(key)) {
      const position = positionOf(option.offset);
      throw new SqlError("syntax_error", "conflicting or redundant options", { position });
    }
    seen.add(key);
  }
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
      if (verb === "alter") throw unsupported(option, position, useSetRole);
      if (option.word === "SUPERUSER") roles.push({ text: "superuser", position });
      return;
    default:
      if (option.word in unsupportedOptions) throw unsupported(option, position);
  }
}

function buildOptions(
  options: readonly OptionSyntax[],
  verb: "create" | "alter",
  positionOf: PositionOf,
): UserOptions {
  refuseRepeatedOptions(options, positionOf);
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

/**
 * The statement that the parser's result stands for.
 *
 * @throws SqlError syntax_error, invalid_parameter_value, feature_not_supported, reserved_name or
 *   character_not_in_repertoire, with the position of what is wrong.
 */
export function buildStatement(syntax: StatementSyntax, positionOf: PositionOf): Statement {
  switch (syntax.type) {
    case "show_users":
    case "show_session":
      return { kind: syntax.type };
    case "create": {
      const name = buildNewName(syntax.user, positionOf);
      const options = buildOptions(syntax.options, "create", positionOf);
      const { spelling, ifNotExists } = syntax;
      // PostgreSQL's CREATE ROLE makes a role that cannot log in unless it says LOGIN.
      const canLogin = options.canLogin ?? (spelling === "ROLE" ? false : undefined);
      const complete = canLogin === undefined ? options : { ...options, canLogin };
      return { kind: "create_user", name, ifNotExists, options: complete, spelling };
    }
    case "drop": {
      if (syntax.users.length > maxDroppedUsers) {
        throw new SqlError("program_limit_exceeded", "too many users in one statement", {
          detail: `A statement may name ${maxDroppedUsers} users.`,
        });
      }
      const users = syntax.users.map((user) => buildUser(user, positionOf));
      const { spelling, ifExists } = syntax;
      const statement = { kind: "drop_user", users, ifExists, spelling } as const;
      if (syntax.reassignTo === null) return statement;
      return { ...statement, reassignTo: buildUser(syntax.reassignTo, positionOf) };
    }
    default: {
      const user = buildUser(syntax.user, positionOf);
      return buildAlter(syntax, user, positionOf);
    }
  }
}

type AlterSyntax = Extract<
  StatementSyntax,
  { type: "alter" | "rename" | "set_roles" | "set_default_database" }
>;

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
      const roles = syntax.roles.map((role) => buildName(role, positionOf));
      return { kind: "set_user_roles", user, roles, spelling };
    }
    case "set_default_database": {
      const database = buildName(syntax.database, positionOf);
      return { kind: "set_user_default_database", user, database, spelling };
    }
  }
}
