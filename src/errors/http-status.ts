/** The one table from SQLSTATE (PostgreSQL manual, appendix A) to the status of an HTTP answer (RFC 9110 section 15). */

/** Whole codes before their class, the first two characters. docs/http.md has the same table. */
const statuses: Readonly<Record<string, number>> = {
  "02": 404,
  "03": 503,
  "08": 503,
  "0A": 501,
  "0L": 403,
  "0P": 403,
  "21": 400,
  "22": 400,
  "23": 409,
  "23502": 400,
  "23514": 400,
  "24": 400,
  "25": 409,
  "26": 400,
  "28": 401,
  "2B": 409,
  "2D": 400,
  "34": 400,
  "3B": 400,
  "3D": 404,
  "3F": 404,
  "40": 409,
  "42": 400,
  "42501": 403,
  "42701": 400,
  "42704": 404,
  "42710": 409,
  "42723": 409,
  "42809": 409,
  "42883": 404,
  "42P01": 404,
  "42P04": 409,
  "42P06": 409,
  "42P07": 409,
  "42P16": 409,
  "44": 409,
  "53": 503,
  "54": 413,
  "54001": 400,
  "55": 409,
  "57": 503,
  "57014": 408,
  "57P05": 408,
  P0: 400,
};

/** What is nobody's fault but the server's. */
const otherwise = 500;

export function httpStatusOf(sqlstate: string): number {
  return statuses[sqlstate] ?? statuses[sqlstate.slice(0, 2)] ?? otherwise;
}

/** The table itself, for the reference page. */
export const httpStatuses: ReadonlyMap<string, number> = new Map(Object.entries(statuses));
