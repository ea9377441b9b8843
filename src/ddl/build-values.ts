/** Names, texts and numbers of a statement: folded, decoded, and checked for length and range. */

import { SqlError } from "../errors/sql-error.ts";
import { foldIdentifier } from "./reserved-words.ts";
import type { Name, QualifiedName, TenantReference, TextValue, UserReference } from "./statement.ts";
import type {
  IntegerSyntax,
  NameSyntax,
  StringSyntax,
  TableSyntax,
  TenantSyntax,
  UserSyntax,
} from "./statement-syntax.ts";
import { decodeString } from "./string-literal.ts";

/** Turns an offset of the parser into a character position for the client. */
export type PositionOf = (offset: number) => number;

/** Longest name in bytes (PostgreSQL's NAMEDATALEN - 1). */
const maxNameBytes = 63;

/** Most entries of a list in one statement: each is looked up while the catalog waits; more is program_limit_exceeded. */
const maxListLength = 1000;

export function nameText(syntax: NameSyntax, position: number): string {
  if (syntax.type === "bare") return foldIdentifier(syntax.text);
  if (syntax.type === "quoted") return syntax.text.replaceAll('""', '"');
  return decodeString(syntax.string, position);
}

export function buildName(syntax: NameSyntax, positionOf: PositionOf): Name {
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

export function buildUser(syntax: UserSyntax, positionOf: PositionOf): UserReference {
  if (syntax.type === "self") return { self: true, position: positionOf(syntax.offset) };
  return buildName(syntax, positionOf);
}

/** A name that a user is about to get (PostgreSQL's RoleId). */
export function buildNewName(syntax: UserSyntax, positionOf: PositionOf): Name {
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

export function buildText(syntax: StringSyntax, positionOf: PositionOf): TextValue {
  const position = positionOf(syntax.offset);
  return { value: decodeString(syntax, position), position };
}

export function buildInteger(
  syntax: IntegerSyntax,
  max: number,
  what: string,
  positionOf: PositionOf,
): number {
  const value = Number(syntax.digits.replaceAll("_", ""));
  if (value <= max) return value;
  throw new SqlError("invalid_parameter_value", `${what} is out of range`, {
    position: positionOf(syntax.offset),
  });
}

export function buildTenant(syntax: TenantSyntax, positionOf: PositionOf): TenantReference {
  const position = positionOf(syntax.offset);
  if (syntax.type === "integer") {
    return { id: buildInteger(syntax, Number.MAX_SAFE_INTEGER, "tenant number", positionOf), position };
  }
  return { name: buildName(syntax, positionOf).text, position };
}

/** @throws SqlError program_limit_exceeded for a list that would hold up everybody else. */
export function refuseLongList(list: readonly unknown[], what: string): void {
  if (list.length <= maxListLength) return;
  throw new SqlError("program_limit_exceeded", `too many ${what} in one statement`, {
    detail: `A statement may name ${maxListLength} ${what}.`,
  });
}

export function buildNames(names: readonly NameSyntax[], what: string, positionOf: PositionOf): Name[] {
  refuseLongList(names, what);
  return names.map((name) => buildName(name, positionOf));
}

export function buildTable(table: TableSyntax, positionOf: PositionOf): QualifiedName {
  const name = buildName(table.name, positionOf);
  if (table.schema === null) return { name: name.text, position: name.position };
  const schema = buildName(table.schema, positionOf);
  return { schema: schema.text, name: name.text, position: schema.position };
}

/** @throws SqlError syntax_error when two options have the same key. */
export function refuseRepeated<Option extends { readonly offset: number }>(
  options: readonly Option[],
  keyOf: (option: Option) => string,
  positionOf: PositionOf,
): void {
  const seen = new Set<string>();
  for (const option of options) {
    const key = keyOf(option);
    if (seen.has(key)) {
      const position = positionOf(option.offset);
      throw new SqlError("syntax_error", "conflicting or redundant options", { position });
    }
    seen.add(key);
  }
}
