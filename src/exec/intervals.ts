/** Moments that a statement names by their distance from now: EXPIRES IN '90 days', EXPIRES 3600, OVERLAP '24h'. */

import { sqlstateOf } from "../catalog/connection.ts";
import type { Queryable } from "../catalog/users.ts";
import type { Expiry } from "../ddl/statement.ts";
import { SqlError } from "../errors/sql-error.ts";

/**
 * Has PostgreSQL add the interval to the present.
 *
 * @returns the moment in ISO form
 * @throws SqlError invalid_datetime_format, or invalid_parameter_value when it does not lie ahead
 */
export async function momentAfter(client: Queryable, expiry: Expiry): Promise<string> {
  const { position } = expiry;
  const [expression, value] =
    "interval" in expiry
      ? ["$1::pg_catalog.text::pg_catalog.interval", expiry.interval]
      : ["pg_catalog.make_interval(secs => $1::pg_catalog.float8)", expiry.seconds];
  let row: { iso: string; is_ahead: boolean } | undefined;
  try {
    const result = await client.query<{ iso: string; is_ahead: boolean }>(
      `SELECT pg_catalog.to_jsonb(m.at) #>> '{}' AS iso, m.at > pg_catalog.now() AND pg_catalog.isfinite(m.at) AS is_ahead
         FROM (SELECT pg_catalog.now() + ${expression} AS at) m`,
      [value],
    );
    row = result.rows[0];
  } catch (error) {
    const state = sqlstateOf(error);
    if (!(error instanceof Error) || state === undefined || !/^22/.test(state)) throw error;
    const condition = state === "22007" ? "invalid_datetime_format" : "invalid_parameter_value";
    throw new SqlError(condition, error.message, { position });
  }
  if (row?.is_ahead === true) return row.iso;
  throw new SqlError("invalid_parameter_value", "the interval must be positive and finite", { position });
}
