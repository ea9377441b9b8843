/** Statements about OIDC providers: options and claim mappings, in the form of a list or of clauses. */

import { SqlError } from "../errors/sql-error.ts";
import {
  buildName,
  buildNames,
  buildTenant,
  buildText,
  nameText,
  type PositionOf,
  refuseLongList,
  refuseRepeated,
} from "./build-values.ts";
import type { ClaimRule, Name, OidcProviderOptions, Statement } from "./statement.ts";
import type {
  ClaimEffectSyntax,
  ClaimFieldSyntax,
  ClaimRuleSyntax,
  NameSyntax,
  OidcOptionSyntax,
  OidcProviderSyntax,
  StringSyntax,
} from "./statement-syntax.ts";

interface RuleParts {
  readonly path: readonly NameSyntax[];
  readonly value: StringSyntax | null;
  readonly effects: readonly ClaimEffectSyntax[];
}

function requireField<Type extends ClaimFieldSyntax["type"]>(
  fields: readonly ClaimFieldSyntax[],
  type: Type,
  position: number,
): Extract<ClaimFieldSyntax, { type: Type }> {
  const isWanted = (field: ClaimFieldSyntax): field is Extract<ClaimFieldSyntax, { type: Type }> =>
    field.type === type;
  const field = fields.find(isWanted);
  if (field !== undefined) return field;
  throw new SqlError("syntax_error", "a rule of a claim mapping is incomplete", {
    position,
    detail: "A rule has a claim, a value (null or '*' for any) and an effect.",
  });
}

function partsOf(syntax: ClaimRuleSyntax, positionOf: PositionOf): RuleParts {
  if (syntax.type === "clause") return syntax;
  refuseRepeated(syntax.fields, (field) => field.type, positionOf);
  const position = positionOf(syntax.offset);
  return {
    path: requireField(syntax.fields, "claim", position).path,
    value: requireField(syntax.fields, "value", position).value,
    effects: requireField(syntax.fields, "effects", position).effects,
  };
}

/** Claims are not identifiers of PostgreSQL's: their names may be long (`https://example.com/claims/groups`). */
function claimName(path: readonly NameSyntax[], positionOf: PositionOf): string {
  return path
    .map((part) => {
      const position = positionOf(part.offset);
      const text = nameText(part, position);
      if (text === "") throw new SqlError("syntax_error", "zero-length claim name", { position });
      return text;
    })
    .join(".");
}

function buildRule(syntax: ClaimRuleSyntax, positionOf: PositionOf): ClaimRule {
  const { path, value, effects } = partsOf(syntax, positionOf);
  const defaults = effects.filter((effect) => effect.type === "default_database");
  refuseRepeated(defaults, (effect) => effect.type, positionOf);
  let defaultDatabase: Name | undefined;
  const addDatabases: Name[] = [];
  const addRoles: Name[] = [];
  for (const effect of effects) {
    if (effect.type === "default_database") defaultDatabase = buildName(effect.database, positionOf);
    else if (effect.type === "add_roles") addRoles.push(...buildNames(effect.names, "roles", positionOf));
    else addDatabases.push(...buildNames(effect.names, "databases", positionOf));
  }
  return {
    claim: claimName(path, positionOf),
    value: value === null ? null : buildText(value, positionOf).value,
    ...(defaultDatabase === undefined ? {} : { defaultDatabase }),
    addDatabases,
    addRoles,
    position: positionOf(syntax.offset),
  };
}

type Building = { -readonly [Key in keyof OidcProviderOptions]: OidcProviderOptions[Key] };

function buildOptions(options: readonly OidcOptionSyntax[], positionOf: PositionOf): OidcProviderOptions {
  refuseRepeated(options, (option) => option.type, positionOf);
  const building: Building = {};
  for (const option of options) {
    switch (option.type) {
      case "issuer":
        building.issuer = buildText(option.text, positionOf);
        break;
      case "jwks_url":
        building.jwksUrl = buildText(option.text, positionOf);
        break;
      case "audience":
        building.audience = buildText(option.text, positionOf);
        break;
      case "tenant":
        building.tenant = buildTenant(option.tenant, positionOf);
        break;
      case "algorithms":
        refuseLongList(option.texts, "algorithms");
        building.algorithms = option.texts.map((text) => buildText(text, positionOf));
        break;
      case "claim_mapping":
        refuseLongList(option.rules, "rules of a claim mapping");
        building.claimMapping = option.rules.map((rule) => buildRule(rule, positionOf));
        break;
    }
  }
  return building;
}

/** @throws SqlError as buildStatement does */
export function buildOidcProviderStatement(syntax: OidcProviderSyntax, positionOf: PositionOf): Statement {
  const name = buildName(syntax.name, positionOf);
  switch (syntax.type) {
    case "create_oidc_provider": {
      const options = buildOptions(syntax.options, positionOf);
      if (options.issuer === undefined) {
        throw new SqlError("syntax_error", "an OIDC provider needs an issuer", {
          position: name.position,
          hint: "Use CREATE OIDC PROVIDER name WITH (issuer = '…', audience = '…').",
        });
      }
      return { kind: syntax.type, name, ifNotExists: syntax.ifNotExists, options };
    }
    case "alter_oidc_provider":
      return { kind: syntax.type, name, options: buildOptions(syntax.options, positionOf) };
    case "refresh_oidc_provider":
      return { kind: syntax.type, name };
    case "drop_oidc_provider":
      return { kind: syntax.type, name, ifExists: syntax.ifExists };
  }
}
