/** Statements about API keys and service accounts. */

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
  refuseRepeated,
} from "./build-values.ts";
import type { Expiry, Name, Statement, TenantReference } from "./statement.ts";
import type { KeyAndAccountSyntax, KeyHolderSyntax, KeyOptionSyntax } from "./statement-syntax.ts";

type CreateKeySyntax = Extract<KeyAndAccountSyntax, { type: "create_api_key" }>;
type CreateAccountSyntax = Extract<KeyAndAccountSyntax, { type: "create_service_account" }>;
type CreateKey = Extract<Statement, { kind: "create_api_key" }>;

/** Longest life of a key that is given in seconds: 68 years. */
const maxExpirySeconds = 0x7fffffff;

function buildHolder(syntax: KeyHolderSyntax, positionOf: PositionOf): CreateKey["holder"] {
  if (syntax.type === "roles") return { roles: buildNames(syntax.roles, "roles", positionOf) };
  return { ownerKind: syntax.type, owner: buildUser(syntax.owner, positionOf) };
}

function buildExpiry(option: Extract<KeyOptionSyntax, { type: "expires" }>, positionOf: PositionOf): Expiry {
  if (option.interval !== undefined) {
    const { value, position } = buildText(option.interval, positionOf);
    return { interval: value, position };
  }
  const seconds = buildInteger(option.seconds, maxExpirySeconds, "expiry", positionOf);
  return { seconds, position: positionOf(option.seconds.offset) };
}

function buildCreateKey(syntax: CreateKeySyntax, positionOf: PositionOf): Statement {
  refuseRepeated(syntax.options, (option) => option.word, positionOf);
  const name = syntax.name === null ? undefined : buildName(syntax.name, positionOf);
  if (name === undefined && syntax.holder.type === "roles") {
    throw new SqlError("syntax_error", "an API key of its own needs a name", {
      position: positionOf(syntax.holder.offset),
      hint: "Use CREATE API KEY 'name' ROLE …, or FOR to name the owner.",
    });
  }
  const holder = buildHolder(syntax.holder, positionOf);
  let databases: readonly Name[] | undefined;
  let expires: Expiry | undefined;
  for (const option of syntax.options) {
    if (option.type === "databases") databases = buildNames(option.databases, "databases", positionOf);
    else expires = buildExpiry(option, positionOf);
  }
  return {
    kind: "create_api_key",
    ...(name === undefined ? {} : { name }),
    holder,
    ...(databases === undefined ? {} : { databases }),
    ...(expires === undefined ? {} : { expires }),
  };
}

function buildCreateAccount(syntax: CreateAccountSyntax, positionOf: PositionOf): Statement {
  refuseRepeated(syntax.options, (option) => option.word, positionOf);
  const name = buildNewName(syntax.name, positionOf);
  const databases = buildNames(syntax.databases, "databases", positionOf);
  let roles: readonly Name[] | undefined;
  let tenant: TenantReference | undefined;
  for (const option of syntax.options) {
    if (option.type === "roles") roles = buildNames(option.names, "roles", positionOf);
    else tenant = buildTenant(option.tenant, positionOf);
  }
  return {
    kind: "create_service_account",
    name,
    ifNotExists: syntax.ifNotExists,
    databases,
    ...(roles === undefined ? {} : { roles }),
    ...(tenant === undefined ? {} : { tenant }),
  };
}

/** @throws SqlError as buildStatement does */
export function buildKeyAndAccountStatement(syntax: KeyAndAccountSyntax, positionOf: PositionOf): Statement {
  switch (syntax.type) {
    case "create_api_key":
      return buildCreateKey(syntax, positionOf);
    case "create_service_account":
      return buildCreateAccount(syntax, positionOf);
    case "revoke_api_key":
      return { kind: syntax.type, keyId: buildName(syntax.keyId, positionOf) };
    case "show_api_keys":
      if (syntax.user === null) return { kind: syntax.type };
      return { kind: syntax.type, owner: buildUser(syntax.user, positionOf) };
    case "alter_api_key_databases":
    case "alter_service_account_databases": {
      const name = buildName(syntax.name, positionOf);
      return { kind: syntax.type, name, databases: buildNames(syntax.databases, "databases", positionOf) };
    }
    case "alter_service_account_roles": {
      const name = buildName(syntax.name, positionOf);
      return { kind: syntax.type, name, roles: buildNames(syntax.roles, "roles", positionOf) };
    }
    case "rotate_api_key": {
      const name = buildName(syntax.name, positionOf);
      if (syntax.overlap === null) return { kind: syntax.type, name };
      const { value, position } = buildText(syntax.overlap, positionOf);
      return { kind: syntax.type, name, overlap: { interval: value, position } };
    }
    case "drop_api_key":
      return { kind: syntax.type, name: buildName(syntax.name, positionOf), ifExists: syntax.ifExists };
    case "drop_service_account": {
      const name = buildName(syntax.name, positionOf);
      const statement = { kind: syntax.type, name, ifExists: syntax.ifExists } as const;
      if (syntax.reassignTo === null) return statement;
      return { ...statement, reassignTo: buildUser(syntax.reassignTo, positionOf) };
    }
  }
}
