/** Upstream connections between two sessions: who gets which, and what is left of the one before. */

import type { Client } from "pg";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { openRawSession } from "../support/raw-session.ts";
import { openStage, passwordOf, type Stage, stateOf } from "../support/stage.ts";

const queueTimeoutMs = 700;

let stage: Stage;

beforeAll(async () => {
  stage = await openStage({
    users: ["alice", "bob"],
    configuration: `[upstream]\npool_size = 3\nmax_connections = 4\nqueue_timeout = "${queueTimeoutMs}ms"\n`,
  });
  await stage.asAdmin("CREATE TABLE kept (n int); GRANT INSERT, SELECT ON kept TO alice");
});
afterAll(() => stage?.close());

async function processIdOf(client: Client): Promise<number> {
  return (await client.query<{ pid: number }>("SELECT pg_backend_pid() AS pid")).rows[0]?.pid ?? 0;
}

/** The idle upstream connections of a user, once there are that many. */
async function waitForIdle(user: string, count: number): Promise<number[]> {
  return vi.waitFor(
    async () => {
      const found = await stage.running(user);
      expect(found.filter(({ query }) => query.startsWith("DISCARD ALL"))).toHaveLength(count);
      return found.map(({ pid }) => pid);
    },
    { timeout: 5_000, interval: 10 },
  );
}

/** Closes what is idle, so that a test begins with an empty pool. */
async function emptyPool(): Promise<void> {
  await stage.past(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('alice', 'bob')",
  );
  await vi.waitFor(
    async () => {
      expect(await stage.running("alice")).toEqual([]);
      expect(await stage.running("bob")).toEqual([]);
    },
    { timeout: 5_000, interval: 10 },
  );
}

describe("two sessions after another", () => {
  test("of the same identity use one upstream connection and see nothing of each other", async () => {
    await emptyPool();
    const first = await stage.connect("alice");
    const processId = await processIdOf(first);
    await first.query(`
      CREATE TEMP TABLE left_over AS SELECT 1;
      PREPARE left_over AS SELECT 1;
      SET search_path = pg_catalog;
      SET work_mem = '7MB';
      SET application_name = 'left over';
      LISTEN left_over;
      SELECT pg_advisory_lock(4711);
      DECLARE left_over CURSOR WITH HOLD FOR SELECT 1;
      SELECT set_config('my.left_over', 'x', false);
      SET DateStyle = 'German'`);
    await first.query({ name: "named", text: "SELECT 2" });
    await first.end();
    await waitForIdle("alice", 1);

    const second = await stage.connect("alice");
    expect(await processIdOf(second)).toBe(processId);
    const { rows } = await second.query(`
      SELECT to_regclass('pg_temp.left_over') AS temp, current_setting('search_path') AS search_path,
             current_setting('work_mem') AS work_mem, current_setting('application_name') AS application_name,
             current_setting('DateStyle') AS date_style,
             current_setting('my.left_over', true) AS own,
             (SELECT count(*)::int FROM pg_prepared_statements WHERE name IN ('left_over', 'named')) AS prepared,
             (SELECT count(*)::int FROM pg_cursors WHERE name = 'left_over') AS cursors,
             (SELECT count(*)::int FROM pg_listening_channels()) AS channels,
             (SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory') AS locks`);
    expect(rows[0]).toMatchObject({
      temp: null,
      search_path: '"$user", public',
      work_mem: "4MB",
      application_name: "",
      date_style: "ISO, MDY",
      prepared: 0,
      cursors: 0,
      channels: 0,
      locks: 0,
    });
    // PostgreSQL keeps the name of a setting of no module; what was in it is gone.
    expect(rows[0]?.own ?? "").toBe("");
    await second.end();
  });

  test("of the same identity but other startup parameters use two", async () => {
    await emptyPool();
    const first = await stage.connect("alice");
    const processId = await processIdOf(first);
    await first.end();
    await waitForIdle("alice", 1);
    const second = await stage.connect("alice", { options: "-c work_mem=9MB" });
    expect(await processIdOf(second)).not.toBe(processId);
    await second.query("SET work_mem = '11MB'");
    await second.end();
    await waitForIdle("alice", 2);
    const third = await stage.connect("alice", { options: "-c work_mem=9MB" });
    expect((await third.query("SELECT current_setting('work_mem') AS w")).rows).toEqual([{ w: "9MB" }]);
    await third.end();
  });

  test("of two identities never use one, and the second is not told of the first", async () => {
    await emptyPool();
    const first = await stage.connect("alice");
    const processId = await processIdOf(first);
    await first.end();
    await waitForIdle("alice", 1);
    const second = await stage.connect("bob");
    expect(await processIdOf(second)).not.toBe(processId);
    expect((await second.query("SELECT current_user, session_user")).rows).toEqual([
      { current_user: "bob", session_user: "bob" },
    ]);
    await second.end();
  });

  test("a session that leaves inside a transaction, or in the middle of a message, leaves no connection behind", async () => {
    await emptyPool();
    const inTransaction = await stage.connect("alice");
    await inTransaction.query("BEGIN; INSERT INTO kept VALUES (1)");
    const halfWay = await openRawSession(stage.login("alice"));
    halfWay.socket.write(Buffer.from([0x51, 0, 0, 1, 0, 0x53]));
    const unsynced = await openRawSession(stage.login("alice"));
    unsynced.send("P", Buffer.from("\0SELECT 1\0\0\0"));
    expect(await stage.running("alice")).toHaveLength(3);
    await inTransaction.end();
    halfWay.socket.end();
    unsynced.socket.end();
    await vi.waitFor(async () => expect(await stage.running("alice")).toEqual([]), {
      timeout: 3_000,
      interval: 10,
    });
    expect(await stage.past("SELECT n FROM kept")).toEqual([]);
  });

  test("a user that was dropped and created again never gets the connection of the old one", async () => {
    await stage.asAdmin(`CREATE USER twice PASSWORD '${passwordOf("twice")}'`);
    const first = await stage.connect("twice");
    const processId = await processIdOf(first);
    const oldRole = (await first.query("SELECT current_user::regrole::oid AS oid")).rows[0]?.oid;
    await first.end();
    await waitForIdle("twice", 1);
    await stage.asAdmin("DROP USER twice");
    await stage.asAdmin(`CREATE USER twice PASSWORD '${passwordOf("twice")}'`);
    const second = await stage.connect("twice");
    expect(await processIdOf(second)).not.toBe(processId);
    expect((await second.query("SELECT current_user::regrole::oid AS oid")).rows[0]?.oid).not.toBe(oldRole);
    await second.end();
    await stage.asAdmin("DROP USER twice");
  });

  test("a login that was under way while its user was dropped does not become the new user of that name", async () => {
    await stage.past("CREATE DATABASE entered_slowly");
    await stage.asAdmin(`CREATE USER mallory PASSWORD '${passwordOf("mallory")}'`);
    // The front-end enters a database by itself before the first session does: hold it up there.
    let open = () => {};
    const gate = new Promise<undefined>((resolve) => {
      open = () => resolve(undefined);
    });
    const isHeld = new Promise<void>((resolve) => {
      stage.relay.judge = (_direction, _chunk, link) => {
        if (!link.opening.includes("entered_slowly")) return undefined;
        resolve();
        return gate;
      };
    });
    const login = stateOf(
      openRawSession(stage.login("mallory", { database: "entered_slowly" })).then((session) =>
        session.socket.destroy(),
      ),
    );
    await isHeld;
    await stage.asAdmin("DROP USER mallory");
    await stage.asAdmin("CREATE USER mallory PASSWORD 'of another person'");
    open();
    expect(await login).toBe("28P01");
    stage.relay.judge = undefined;
    await stage.asAdmin("DROP USER mallory");
  });

  test("an idle connection that PostgreSQL closes is not given out", async () => {
    await emptyPool();
    const first = await stage.connect("alice");
    await first.end();
    const [processId] = await waitForIdle("alice", 1);
    await stage.past("SELECT pg_terminate_backend($1)", [processId]);
    const second = await stage.connect("alice");
    expect((await second.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    await second.end();
  });
});

describe("a full pool", () => {
  test("holds up its own identity only, and serves those that wait in their order", async () => {
    await emptyPool();
    const holders = await Promise.all([1, 2, 3].map(() => stage.connect("alice")));
    const order: number[] = [];
    const waiting: Promise<Client>[] = [];
    for (const number of [1, 2, 3]) {
      waiting.push(
        stage.connect("alice").then((client) => {
          order.push(number);
          return client;
        }),
      );
      // The next one asks when this one stands in the queue: logged in, and without a connection.
      await stage.connect("bob").then((client) => client.end());
    }
    expect(order).toEqual([]);
    for (const [index, holder] of holders.entries()) {
      await holder.end();
      await waiting[index];
    }
    expect(order).toEqual([1, 2, 3]);
    for (const client of await Promise.all(waiting)) await client.end();
  });

  test("refuses with 53300 whoever waits longer than the queue timeout", async () => {
    await emptyPool();
    const holders = await Promise.all([1, 2, 3].map(() => stage.connect("alice")));
    const startedAt = Date.now();
    expect(await stateOf(stage.connect("alice"))).toBe("53300");
    expect(Date.now() - startedAt).toBeGreaterThanOrEqual(queueTimeoutMs - 50);
    for (const holder of holders) await holder.end();
    const next = await stage.connect("alice");
    await next.end();
  });

  test("makes room by closing idle connections of others, and never those in use", async () => {
    await emptyPool();
    const clients = await Promise.all([1, 2, 3].map(() => stage.connect("alice")));
    const kept = clients.pop();
    const keptId = kept === undefined ? 0 : await processIdOf(kept);
    for (const client of clients) await client.end();
    await waitForIdle("alice", 2);
    const others = await Promise.all([1, 2, 3].map(() => stage.connect("bob")));
    expect(await stage.running("bob")).toHaveLength(3);
    await vi.waitFor(
      async () => expect((await stage.running("alice")).map(({ pid }) => pid)).toEqual([keptId]),
      { timeout: 3_000, interval: 10 },
    );
    expect(await stateOf(stage.connect("alice"))).toBe("53300");
    for (const client of [kept, ...others]) await client?.end();
  });
});
