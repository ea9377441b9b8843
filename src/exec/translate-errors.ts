/** The errors that our own SQL in the catalog may end in, in words for the client. */

import { catalogUnavailable, isConnectionError, sqlstateOf } from "../catalog/connection.ts";
import { SqlError } from "../errors/sql-error.ts";

/** Words PostgreSQL's expected refusals for the client; everything else stays a bug. */
export async function translateErrors<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw translate(error);
  }
}

function translate(error: unknown): unknown {
  if (error instanceof SqlError) return error;
  if (isConnectionError(error)) return catalogUnavailable(error);
  const state = sqlstateOf(error);
  if (state === undefined || !(error instanceof Error)) return error;
  const cause = { cause: error };
  switch (state) {
    case "40001":
    case "40P01":
      return new SqlError(
        "serialization_failure",
        "could not serialize access due to concurrent update",
        cause,
      );
    case "XX000":
      if (!/^tuple concurrently (updated|deleted)$/.test(error.message)) return error;
      return new SqlError(
        "serialization_failure",
        "could not serialize access due to concurrent update",
        cause,
      );
    case "42710":
    case "23505":
      return new SqlError("duplicate_object", "a role of that name already exists", cause);
    case "2BP01":
      return new SqlError("dependent_objects_still_exist", error.message, {
        ...cause,
        detail: detailOf(error),
      });
    case "22021":
    case "22P05":
      return new SqlError("character_not_in_repertoire", error.message, cause);
    case "55P03":
      return new SqlError(
        "object_not_in_prerequisite_state",
        "what this changes is locked by another transaction",
        {
          ...cause,
          hint: "Try again when it has ended; it may be your own.",
        },
      );
    case "42501":
      // The front-end's own login lacks a right: its name and reason are for the log.
      return new SqlError("insufficient_privilege", "permission denied: the upstream login may not do this", {
        ...cause,
        hint: "The administrator finds what is missing in the log.",
      });
    default:
      return error;
  }
}

function detailOf(error: Error): string | undefined {
  return "detail" in error && typeof error.detail === "string" ? error.detail : undefined;
}
