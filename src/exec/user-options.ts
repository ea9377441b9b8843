/** The values that CREATE USER and ALTER USER share, checked: password, expiry, connection limit. */

import { makeVerifier } from "../auth/new-password.ts";
import type { ScramParameters } from "../auth/scram-parameters.ts";
import { sqlstateOf } from "../catalog/connection.ts";
import type { Queryable } from "../catalog/users.ts";
import type { TextValue, UserOptions } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";
import type { ExecutionContext, ExecutorDependencies } from "./context.ts";

/**
 * Hashes the password of a statement; done before the transaction, which holds the catalog's lock.
 *
 * @param ofKeys what the user's API keys are hashed with
 * @returns undefined when it is not mentioned, null for PASSWORD NULL
 * @throws SqlError invalid_parameter_value
 */
export async function verifierFor(
  deps: Pick<ExecutorDependencies, "minPasswordLength" | "scramIterations">,
  password: UserOptions["password"],
  ofKeys?: ScramParameters,
): Promise<string | null | undefined> {
  if (password === undefined || password.value === null) return password?.value;
  const made = await makeVerifier(password.value, deps, ofKeys);
  if (made.ok) return made.verifier;
  const { position } = password;
  switch (made.reason) {
    case "empty":
      throw new SqlError("invalid_parameter_value", "password must not be empty", { position });
    case "too_short":
      throw new SqlError(
        "invalid_parameter_value",
        `password must have at least ${deps.minPasswordLength} characters`,
        { position },
      );
    case "md5_hash":
      throw new SqlError("invalid_parameter_value", "MD5 password hashes are not supported", {
        position,
        hint: "Give the password itself or a SCRAM-SHA-256 verifier.",
      });
    case "malformed_verifier":
      throw new SqlError("invalid_parameter_value", "malformed SCRAM-SHA-256 verifier", { position });
  }
}

/** Makes timestamps of this transaction read and written as in the caller's session. */
export async function useSessionFormat(client: Queryable, context: ExecutionContext): Promise<void> {
  await client.query(
    "SELECT pg_catalog.set_config('DateStyle', $1, true), pg_catalog.set_config('TimeZone', $2, true)",
    [context.dateStyle, context.timeZone],
  );
}

/**
 * Has PostgreSQL read a VALID UNTIL as the caller's session would.
 *
 * @returns the moment in ISO form, the same in every DateStyle
 * @throws SqlError invalid_datetime_format
 */
export async function parseTimestamp(
  client: Queryable,
  value: TextValue,
  context: ExecutionContext,
): Promise<string> {
  await useSessionFormat(client, context);
  try {
    const result = await client.query<{ iso: string }>(
      "SELECT pg_catalog.to_jsonb($1::pg_catalog.text::pg_catalog.timestamptz) #>> '{}' AS iso",
      [value.value],
    );
    return result.rows[0]?.iso ?? "";
  } catch (error) {
    const state = sqlstateOf(error);
    if (!(error instanceof Error) || state === undefined || !/^22/.test(state)) throw error;
    throw new SqlError("invalid_datetime_format", error.message, { position: value.position });
  }
}
