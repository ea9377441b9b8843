/**
 * Rewrites `$auth.…` to calls of the verified functions, in the form that PostgreSQL evaluates once a statement (auth SQL:
 * row-level security).
 *
 * For a session: on each Query and Parse that `mayHoldAuthReference` (src/ddl/auth-references.ts) does not rule out, forward
 * what `rewriteAuth` gives instead of the text. It is a text to text function of no state; it gives back the same buffer when
 * there was nothing to rewrite.
 */

import { escapeLiteral } from "pg";
import { type AuthReference, rewriteAuthReferences } from "../ddl/auth-references.ts";
import type { LexerOptions } from "../ddl/lexer.ts";
import { isReservedWord } from "../ddl/reserved-words.ts";
import { SqlError } from "../errors/sql-error.ts";

/** Where the functions are, and which claims there are beside those that every identity has. */
export interface AuthFunctions {
  /** `auth.schema` of the configuration. */
  readonly schema: string;
  /** Further names behind `$auth.`: the claims that a provider's tokens are mapped to. */
  readonly claims: ReadonlySet<string>;
}

/** What every identity has: a function of the same name, without arguments. */
const functionNames: readonly string[] = ["id", "role", "roles", "org_id", "tenant_id", "scopes", "email"];

/** Those that are lists: behind ANY a bare sub-select would be read as rows, and not as an array. */
const listNames: readonly string[] = ["roles", "scopes"];

/** A name in SQL text, quoted only where it has to be: the text shows up in errors and in pg_policies. */
function quoteName(name: string): string {
  if (/^[a-z_][a-z0-9_]*$/.test(name) && !isReservedWord(name)) return name;
  return `"${name.replaceAll('"', '""')}"`;
}

/** PostgreSQL counts positions in characters: neither a byte that continues one nor its second half is counted. */
function characterPosition(text: Buffer, byte: number): number {
  let position = 1;
  for (let index = 0; index < byte; index += 1) {
    if (((text[index] ?? 0) & 0xc0) !== 0x80) position += 1;
  }
  return position;
}

/** The SQL that stands for a reference; undefined for a name that there is not. */
function callOf({ name, contains }: AuthReference, functions: AuthFunctions): string | undefined {
  const schema = quoteName(functions.schema);
  // A function without arguments that stands alone runs for each row; a sub-select that refers to no row runs once.
  if (contains !== undefined) return `(SELECT ${schema}.has_scope(${contains}))`;
  if (listNames.includes(name)) return `((SELECT ${schema}.${name}())::pg_catalog.text[])`;
  if (functionNames.includes(name)) return `(SELECT ${schema}.${name}())`;
  if (functions.claims.has(name)) return `(SELECT ${schema}.claim(${escapeLiteral(name).trimStart()}))`;
  return undefined;
}

/**
 * The text with each reference replaced; all other bytes stay what they are.
 *
 * @param text one or more statements, in an encoding that keeps ASCII bytes to ASCII
 * @returns the same buffer when it holds no reference
 * @throws SqlError syntax_error with the position, in characters of `text`, of a name that there is not
 */
export function rewriteAuth(text: Buffer, functions: AuthFunctions, options: LexerOptions): Buffer {
  return rewriteAuthReferences(
    text,
    (reference) => {
      const call = callOf(reference, functions);
      if (call !== undefined) return call;
      const known = [...new Set([...functionNames, ...functions.claims])].sort();
      throw new SqlError("syntax_error", `$auth.${reference.name} does not exist`, {
        position: characterPosition(text, reference.start),
        hint: `There are ${known.map((name) => `$auth.${name}`).join(", ")}.`,
      });
    },
    options,
  );
}

/** Turns SQL of PostgreSQL's (pg_get_expr) back to how it was written: `( SELECT auth.id() AS id)` is `$auth.id`. */
export function showAuthReferences(expression: string, { schema }: Pick<AuthFunctions, "schema">): string {
  const prefix = quoteName(schema).replaceAll(/[^\w]/g, "\\$&");
  const calls = new RegExp(
    `\\( SELECT ${prefix}\\.(\\w+)\\((?:'((?:[^'\\\\]|'')*)'::text)?\\) AS \\1\\)(?:::text\\[\\])?`,
    "g",
  );
  return expression.replaceAll(calls, (call, name: string, argument: string | undefined) => {
    if (argument === undefined) return functionNames.includes(name) ? `$auth.${name}` : call;
    if (name === "has_scope") return `$auth.scopes CONTAINS '${argument}'`;
    return name === "claim" && /^[a-z_][a-z0-9_]*$/.test(argument) ? `$auth.${argument}` : call;
  });
}
