/** Clients that go away without a word, at every moment: what ran for them ends, and their place is free. */

import type { Socket } from "node:net";
import pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { openRawSession, type RawSession } from "../support/raw-session.ts";
import { openStage, type Stage } from "../support/stage.ts";

let stage: Stage;

beforeAll(async () => {
  // One connection in all: who comes next gets in only when the place has become free.
  stage = await openStage({
    configuration: `[upstream]\npool_size = 1\nqueue_timeout = "20s"\n[server]\nmax_connections = 3\n`,
  });
  await stage.asAdmin("CREATE TABLE target (t text); GRANT SELECT, INSERT ON target TO alice");
});
// What one test has left behind is not to fail the next one.
afterEach(() =>
  stage.past(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'alice' AND state <> 'idle'",
  ),
);
afterAll(() => stage?.close());

const ways = [
  ["closes", (session: RawSession) => void session.socket.end()],
  ["resets", (session: RawSession) => void session.socket.resetAndDestroy()],
] as const;

/** Longest time from a client's end to the next one's first answer, in ms; statements would run for minutes. */
const patienceMs = 4_000;

async function expectRoom(): Promise<void> {
  const startedAt = Date.now();
  const next = await stage.connect("alice");
  expect(Date.now() - startedAt).toBeLessThan(patienceMs);
  // The place is free when the connection is closed; its process ends a moment later.
  await vi.waitFor(
    async () => {
      const { rows } = await next.query(
        "SELECT count(*)::int AS n FROM pg_stat_activity WHERE usename = 'alice' AND pid <> pg_backend_pid()",
      );
      expect(rows).toEqual([{ n: 0 }]);
    },
    { timeout: patienceMs, interval: 10 },
  );
  await next.end();
}

async function waitUntilRunning(text: string): Promise<void> {
  await vi.waitFor(
    async () => {
      const found = await stage.running("alice");
      expect(found.some(({ state, query }) => state === "active" && query.includes(text))).toBe(true);
    },
    { timeout: patienceMs, interval: 10 },
  );
}

const copyData = (text: string) => Buffer.from(text);

describe.each(ways)("a client that %s", (_name, leave) => {
  test("while it is idle", async () => {
    leave(await openRawSession(stage.login("alice")));
    await expectRoom();
  });

  test("in a transaction, which is rolled back", async () => {
    const session = await openRawSession(stage.login("alice"));
    session.query("BEGIN; INSERT INTO target VALUES ('uncommitted')");
    await session.take("Z");
    leave(session);
    await expectRoom();
    expect(await stage.past("SELECT * FROM target")).toEqual([]);
  });

  test("while its statement runs, which is cancelled", async () => {
    const session = await openRawSession(stage.login("alice"));
    session.query("SELECT pg_sleep(600)");
    await waitUntilRunning("pg_sleep(600)");
    leave(session);
    await expectRoom();
    expect(await stage.running("alice")).not.toContainEqual(expect.objectContaining({ state: "active" }));
  });

  test("while a statement runs that stands behind one of ours in a Query", async () => {
    const session = await openRawSession(stage.login("alice"));
    session.query("SHOW SESSION; SELECT pg_sleep(600)");
    await waitUntilRunning("pg_sleep(600)");
    leave(session);
    await expectRoom();
  });

  test("while a prepared statement runs, without Sync and with more behind it", async () => {
    const session = await openRawSession(stage.login("alice"));
    session.send("P", Buffer.from("\0SELECT pg_sleep(600)\0\0\0"));
    session.send("B", Buffer.alloc(8));
    session.send("E", Buffer.alloc(5));
    session.send("S");
    session.query("SELECT 1");
    await waitUntilRunning("pg_sleep(600)");
    leave(session);
    await expectRoom();
  });

  test("while it copies in, of which nothing is kept", async () => {
    const session = await openRawSession(stage.login("alice"));
    session.query("COPY target FROM STDIN");
    await session.take("G");
    session.send("d", copyData("half\n"));
    session.socket.write(Buffer.from([0x64, 0, 0, 1, 0, 0x61]));
    await waitUntilRunning("COPY");
    leave(session);
    await expectRoom();
    expect(await stage.past("SELECT * FROM target")).toEqual([]);
  });

  test("while rows come that it does not read", async () => {
    const session = await openRawSession(stage.login("alice"));
    session.socket.pause();
    session.query("SELECT repeat('x', 1000) FROM generate_series(1, 10000000)");
    await waitUntilRunning("generate_series");
    leave(session);
    await expectRoom();
  });

  test("with half a message sent", async () => {
    const session = await openRawSession(stage.login("alice"));
    session.socket.write(Buffer.from([0x51, 0, 0, 1, 0, 0x53, 0x45]));
    leave(session);
    await expectRoom();
  });

  test("while it waits for a connection, and its place in the queue is free at once", async () => {
    const holder = await stage.connect("alice");
    const waiting = new pg.Client(stage.login("alice"));
    waiting.on("error", () => {});
    const login = waiting.connect();
    login.catch(() => {});
    await untilWaiting(1);
    const { stream } = (waiting as unknown as { connection: { stream: Socket } }).connection;
    leave({ socket: stream } as RawSession);
    await untilWaiting(0);
    await expect(login).rejects.toThrow();
    await holder.end();
    await expectRoom();
  });
});

/** Waits until so many sessions of alice have logged in and have no upstream connection. */
async function untilWaiting(count: number): Promise<void> {
  await vi.waitFor(
    async () => {
      const { rows } = await stage.asAdmin("SHOW SESSIONS");
      expect(rows.filter(({ state }) => state === "waiting")).toHaveLength(count);
    },
    { timeout: patienceMs, interval: 10 },
  );
}
