/** Tests of clients that may not be installed: skipped visibly, or failing where all of them must be there. */

import { expect, test } from "vitest";

/**
 * Call at the top of a `describe`; pass the answer to `test.skipIf(!…)`.
 * With NODEDB_TEST_REQUIRE_CLIENTS=1 a missing client is a failing test instead of a skipped one.
 *
 * @param name as a reader knows it: `psql`, `PostgreSQL 15 (Debian)`
 * @returns whether it is there
 */
export function requireClient(name: string, isPresent: boolean): boolean {
  if (isPresent) {
    return true;
  }
  if (process.env.NODEDB_TEST_REQUIRE_CLIENTS === "1") {
    test(`needs ${name}`, () => {
      expect.fail(`${name} is not installed, and NODEDB_TEST_REQUIRE_CLIENTS=1 asks for it`);
    });
  } else {
    test.skip(`needs ${name}, which is not installed`, () => {});
  }
  return false;
}
