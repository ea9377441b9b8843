/** What front-ends write of logins in batches, a moment later, means what had happened in which order. */

import type { Pool } from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createAdminPool } from "../../src/catalog/connection.ts";
import { Lockout } from "../../src/catalog/lockout.ts";
import { createLog } from "../../src/observe/log.ts";
import { type CatalogStack, openCatalogStack } from "../support/catalog-stack.ts";
import { startPostgres, type TestPostgres } from "../support/postgres.ts";
import { until } from "../support/until.ts";

/** Nothing is written but when a test says so. */
const never = 3_600_000;

describe("of two front-ends that write when they are told to", () => {
  let postgres: TestPostgres;
  let stack: CatalogStack;
  let pool: Pool;
  let locked: string[];
  let one: Lockout;
  let other: Lockout;
  let clockMs = 0;

  const openLockout = () =>
    new Lockout({
      pool,
      changes: stack.catalog.changes,
      limits: { maxFailures: 3, durationMs: 600_000 },
      log: createLog({ level: "silent", format: "json" }),
      onLocked: (name) => locked.push(name),
      flushDelayMs: never,
      clock: () => clockMs,
    });
  const fail = (lockout: Lockout, name: string, times: number) => {
    for (let index = 0; index < times; index += 1) lockout.recordFailure(name);
  };
  /** Ten seconds, for both the front-ends and what is stored. */
  const pass = async () => {
    clockMs += 10_000;
    await stack.sql("UPDATE nodedb.login_failure SET last_failed_at = last_failed_at - interval '10 s'");
  };
  const stored = async (name: string) =>
    (
      await stack.sql(
        "SELECT failures, locked_until > now() AS is_locked FROM nodedb.login_failure WHERE name = $1",
        [name],
      )
    )[0];

  beforeAll(async () => {
    postgres = await startPostgres();
    stack = await openCatalogStack(postgres, { isEmbedded: true });
    pool = createAdminPool(
      { host: postgres.socketDir, port: postgres.port, user: "postgres", database: "nodedb" },
      2,
    );
    locked = [];
    one = openLockout();
    other = openLockout();
  });

  afterAll(async () => {
    await pool?.end();
    await stack?.close();
    await postgres?.dispose();
  });

  test("a success forgets the failures before it, and not those that came after it elsewhere", async () => {
    fail(one, "alice", 1);
    await one.flush();
    await pass();
    one.recordSuccess("alice");
    await pass();
    fail(other, "alice", 1);
    await other.flush();
    await pass();
    await one.flush();
    expect(await stored("alice")).toMatchObject({ failures: 2 });
    fail(other, "alice", 1);
    expect(other.isLocked("alice")).toBe(true);
    await other.flush();
    expect(other.isLocked("alice")).toBe(true);
    expect(await stored("alice")).toMatchObject({ is_locked: true });
    expect(locked).toEqual(["alice"]);
  });

  test("a failure that is written only after a later success elsewhere is forgotten with it", async () => {
    fail(other, "bob", 1);
    await pass();
    fail(one, "bob", 1);
    await one.flush();
    await pass();
    one.recordSuccess("bob");
    await other.flush();
    await one.flush();
    expect(await stored("bob")).toMatchObject({ failures: 0, is_locked: null });
  });

  test("a success while an earlier one is being written is not lost", async () => {
    fail(one, "carol", 2);
    await one.flush();
    await pass();
    one.recordSuccess("carol");
    await pass();
    fail(one, "carol", 1);
    const holder = await stack.connectAs("postgres");
    await holder.query("BEGIN");
    await holder.query("SELECT FROM nodedb.login_failure WHERE name = 'carol' FOR UPDATE");
    const writing = one.flush();
    await until(async () => (await stack.sql("SELECT FROM pg_locks WHERE NOT granted")).length > 0);
    clockMs += 10_000;
    one.recordSuccess("carol");
    await holder.query("COMMIT");
    await holder.end();
    await writing;
    await one.flush();
    expect(await stored("carol")).toMatchObject({ failures: 0 });
  });
});
