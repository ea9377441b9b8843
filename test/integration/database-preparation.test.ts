/** What a login waits for while a database is prepared for it: never for what another user keeps locked there. */

import type pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openStage, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

let stage: Stage;
let alice: pg.Client;

beforeAll(async () => {
  stage = await openStage({ users: ["alice", "bob"] });
  await stage.asAdmin("CREATE SCHEMA hers AUTHORIZATION alice");
  alice = await stage.connect("alice");
  await alice.query("CREATE TABLE hers.one (id int)");
});

afterAll(async () => {
  await alice?.end();
  await stage?.close();
});

async function isReadable(): Promise<boolean> {
  const [row] = await stage.past(
    "SELECT has_table_privilege('nodedb_readonly', 'hers.one', 'SELECT') AS readable",
  );
  return row?.readable === true;
}

test("an open GRANT keeps nobody from logging in, and what it held up is granted when it has ended", async () => {
  expect(await isReadable()).toBe(false);
  await alice.query("BEGIN");
  await alice.query("GRANT SELECT ON hers.one TO bob");
  // A role that is put right has every database prepared again.
  await stage.past("ALTER ROLE bob CREATEDB");
  const startedAt = performance.now();
  for (const user of ["bob", stage.frontEnd.adminUser, "bob"]) {
    const client = await stage.connect(user);
    expect((await client.query("SELECT 'in' AS place")).rows).toEqual([{ place: "in" }]);
    await client.end();
  }
  expect(performance.now() - startedAt).toBeLessThan(10_000);
  expect(await isReadable()).toBe(false);

  await alice.query("ROLLBACK");
  await until(async () => {
    const client = await stage.connect("bob");
    await client.end();
    return isReadable();
  }, 25_000);
}, 60_000);
