/** What row-level security of PostgreSQL does not hide, and docs/security.md says so: shown, so that it stays true. */

import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { noticesOf, valuesOf, workAs } from "../support/client-answers.ts";
import { hasDebianPostgres } from "../support/postgres.ts";
import { requireClient } from "../support/skips.ts";
import { openStage, passwordOf, type Stage, stateOf } from "../support/stage.ts";

describe("before PostgreSQL 18", () => describeLimits("embedded", true));
describe("before PostgreSQL 15", () => {
  describeLimits("debian", requireClient("PostgreSQL 15 (postgresql-15)", hasDebianPostgres));
});

function describeLimits(version: "embedded" | "debian", isThere: boolean): void {
  const it = test.skipIf(!isThere);
  let stage: Stage;

  beforeAll(async () => {
    if (!isThere) return;
    stage = await openStage({ postgres: { version }, users: ["alice", "bob"] });
    await stage.asAdmin(`CREATE USER boss PASSWORD '${passwordOf("boss")}' ROLE admin`);
    await stage.asAdmin("CREATE TABLE note (id int PRIMARY KEY, user_id text, body text)");
    await stage.asAdmin(
      "INSERT INTO note SELECT n, CASE n % 2 WHEN 0 THEN 'alice' ELSE 'bob' END, 'x' FROM generate_series(1, 2000) AS n",
    );
    await stage.asAdmin("CREATE RLS POLICY own ON note FOR ALL USING (user_id = $auth.id)");
  });
  afterAll(() => stage?.close());

  const as = <T>(user: string, work: (client: pg.Client) => Promise<T>): Promise<T> =>
    workAs(stage, user, work);

  it("a key that is unique tells that a hidden row has it", async () => {
    await as("alice", async (client) => {
      expect(await stateOf(client.query("INSERT INTO note VALUES (1, 'alice', '')"))).toBe("23505");
      expect(await stateOf(client.query("INSERT INTO note VALUES (-1, 'alice', '')"))).toBeUndefined();
      await client.query("DELETE FROM note WHERE id = -1");
    });
  });

  it("a plan that is run tells how many rows were hidden", async () => {
    await as("alice", async (client) => {
      const { rows } = await client.query("EXPLAIN (ANALYZE) SELECT * FROM note");
      expect(JSON.stringify(rows)).toContain("Rows Removed by Filter: 1000");
    });
  });

  it("what is notified is heard by every session of the database", async () => {
    await as("bob", async (listener) => {
      const heard = new Promise((resolve) =>
        listener.once("notification", ({ payload }) => resolve(payload)),
      );
      await listener.query("LISTEN news");
      await as("alice", (client) => client.query("NOTIFY news, 'of alice'"));
      expect(await heard).toBe("of alice");
    });
  });

  it("a view shows what its owner may see, unless it is one of the invoker", async () => {
    await stage.asAdmin(`
      CREATE VIEW of_superuser AS SELECT * FROM note;
      CREATE VIEW of_invoker WITH (security_invoker) AS SELECT * FROM note`);
    await as("alice", async (client) => {
      const seen = (view: string) => valuesOf(client, `SELECT DISTINCT user_id FROM ${view} ORDER BY 1`);
      expect(await seen("of_superuser")).toEqual(["alice", "bob"]);
      expect(await seen("of_invoker")).toEqual(["alice"]);
    });
  });

  it("a partition is a table of its own, which CREATE RLS POLICY tells", async () => {
    await stage.asAdmin(`
      CREATE TABLE entry (user_id text) PARTITION BY LIST (user_id);
      CREATE TABLE entry_a PARTITION OF entry FOR VALUES IN ('alice');
      CREATE TABLE entry_rest PARTITION OF entry DEFAULT PARTITION BY LIST (user_id);
      CREATE TABLE entry_b PARTITION OF entry_rest FOR VALUES IN ('bob');
      ALTER TABLE entry_a ENABLE ROW LEVEL SECURITY;
      INSERT INTO entry VALUES ('alice'), ('bob')`);
    const admin = await stage.connect(stage.frontEnd.adminUser);
    const told = await noticesOf(admin, "CREATE RLS POLICY own ON entry FOR ALL USING (user_id = $auth.id)");
    await admin.end();
    expect([...told].join()).toMatch(/closes public\.entry_b, public\.entry_rest$/);
    await as("alice", async (client) => {
      const seen = (table: string) => valuesOf(client, `SELECT user_id FROM ${table}`);
      expect(await seen("entry")).toEqual(["alice"]);
      expect([await seen("entry_a"), await seen("entry_b")]).toEqual([[], ["bob"]]);
      await stage.asAdmin("ALTER TABLE entry_b ENABLE ROW LEVEL SECURITY");
      expect([await seen("entry"), await seen("entry_b")]).toEqual([["alice"], []]);
    });
  });

  it("who owns a function or a trigger that runs for you, runs it as you", async () => {
    await as("boss", (client) =>
      client.query(`
        CREATE SCHEMA lure; GRANT USAGE ON SCHEMA lure TO PUBLIC;
        CREATE FUNCTION lure.useful() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM public.note'`),
    );
    expect(await as("boss", (client) => valuesOf(client, "SELECT lure.useful()::int"))).toEqual([0]);
    expect(await as("alice", (client) => valuesOf(client, "SELECT lure.useful()::int"))).toEqual([1000]);
  });
}
