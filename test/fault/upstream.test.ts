import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { openRawSession } from "../support/raw-session.ts";
import type { Direction, Judge, Link } from "../support/relay.ts";
import { endOf, openClient, openStage, runOnce, type Stage, stateOf } from "../support/stage.ts";

let stage: Stage;

beforeAll(async () => {
  stage = await openStage({ users: ["alice", "bob"] });
  await stage.asAdmin("CREATE TABLE target (t text); GRANT SELECT, INSERT ON target TO alice");
});
afterEach(() => {
  stage.relay.judge = undefined;
  stage.relay.fragmentBytes = undefined;
  stage.relay.resume("to_client");
  stage.relay.resume("to_server");
});
afterAll(() => stage?.close());

/** Fails instead of hanging. */
async function soon<T>(work: Promise<T>, withinMs = 3_000): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing happened within ${withinMs} ms`)), withinMs);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function expectService(): Promise<void> {
  const { rows } = await soon(runOnce(stage.login("alice"), "SELECT current_user AS me"), 10_000);
  expect(rows).toEqual([{ me: "alice" }]);
}

function isAlices(link: Link): boolean {
  return link.opening.includes("user\0alice\0");
}

/** Cuts alice's link once, at `offset` bytes behind where the pattern begins in a chunk. */
function cutAt(direction: Direction, pattern: string, offset: number): Judge {
  let isDone = false;
  return (at, chunk, link) => {
    if (isDone || at !== direction || !isAlices(link)) return undefined;
    const index = chunk.indexOf(pattern, 0, "latin1");
    if (index === -1) return undefined;
    isDone = true;
    return index + offset;
  };
}

describe("a PostgreSQL that is restarted", () => {
  test.each([
    ["fast", "in one piece", undefined],
    ["immediate", "in one piece", undefined],
    ["fast", "in single bytes", 1],
    ["immediate", "in single bytes", 1],
  ] as const)(
    "(%s, its last words %s) ends idle and running sessions, refuses logins with 57P03, and is used again",
    async (mode, _pieces, fragmentBytes) => {
      stage.relay.fragmentBytes = fragmentBytes;
      const idle = await stage.connect("alice");
      const running = await stage.connect("alice");
      const inTransaction = await stage.connect("bob");
      await inTransaction.query("BEGIN");
      const ends = [idle, running, inTransaction].map(endOf);
      const statement = stateOf(running.query("SELECT pg_sleep(600)"));
      await vi.waitFor(
        async () =>
          expect(await stage.running("alice")).toContainEqual(expect.objectContaining({ state: "active" })),
        { timeout: 3_000, interval: 10 },
      );
      await stage.postgres.stop(mode);
      for (const end of await soon(Promise.all(ends))) {
        // A client of node-postgres is told of a close before the message when a statement was running.
        expect(end.code ?? end.message).toMatch(/^(57P01|08006|Connection terminated unexpectedly)$/);
      }
      expect(await soon(statement)).toMatch(/^(57P01|08006)$/);
      for (const user of ["alice", stage.frontEnd.adminUser]) {
        expect(await soon(stateOf(stage.connect(user)))).toBe("57P03");
      }
      // libpq names the user's own name when it was given no database.
      expect(await soon(stateOf(openClient(stage.login("bob", { database: "bob" }))))).toBe("57P03");
      await stage.postgres.start();
      await expectService();
      await stage.asAdmin("ALTER USER bob CONNECTION LIMIT -1");
    },
    20_000,
  );

  test("says 57P03 itself while it starts and stops, and that is passed on unchanged", async () => {
    await expectService();
    const holder = await stage.connect("alice");
    const end = endOf(holder);
    // A smart shutdown waits for the session, and refuses everybody else.
    const stopped = stage.postgres.stop("smart");
    const error = await vi.waitFor(
      async () => {
        const found = await openClient(stage.login("bob")).then(
          (client) => client.end().then(() => undefined),
          (reason: Error & { code?: string }) => reason,
        );
        expect(found?.code).toBe("57P03");
        return found;
      },
      { timeout: 3_000, interval: 10 },
    );
    expect(error?.message).toMatch(
      /^the database system is (shutting down|not available)$|^the catalog is not available$/,
    );
    expect((await holder.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    end.catch(() => {});
    await stage.postgres.stop("fast");
    await stopped;
    await stage.postgres.start();
    await expectService();
  });
});

describe("a connection to PostgreSQL that breaks", () => {
  test.each([
    ["in the middle of a row", "marker-of-a-row", 9, undefined],
    ["in the middle of a header", "marker-of-a-row", -9, undefined],
    ["in the middle of a row that comes in single bytes", "marker-of-a-row", 9, 1],
    ["in the middle of a header that comes in single bytes", "marker-of-a-row", -9, 1],
  ])("%s ends the session and nothing else", async (_name, marker, offset, fragmentBytes) => {
    stage.relay.fragmentBytes = fragmentBytes;
    const other = await stage.connect("bob");
    const client = await stage.connect("alice");
    stage.relay.judge = cutAt("to_client", marker, offset);
    const startedAt = Date.now();
    // Split in two, so that the statement that is echoed in no message is not what is found.
    const [head, tail] = [marker.slice(0, 6), marker.slice(6)];
    const state = await soon(stateOf(client.query(`SELECT '${head}' || '${tail}' || repeat('x', 1000)`)));
    // In the middle of a message an error cannot be told: the connection just ends.
    expect(state).toMatch(/^08006$|Connection terminated/);
    expect(Date.now() - startedAt).toBeLessThan(3_000);
    expect((await other.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    await other.end();
    await expectService();
  });

  test.each([
    ["before the first answer", "R", 0, undefined],
    ["in the middle of the SCRAM exchange", "r=", 10, undefined],
    ["before ReadyForQuery", "server_version", 4, undefined],
    ["in the middle of the SCRAM exchange in single bytes", "r=", 10, 1],
    ["before ReadyForQuery in single bytes", "server_version", 4, 1],
  ])("during the login, %s, refuses with 57P03", async (_name, pattern, offset, fragmentBytes) => {
    stage.relay.fragmentBytes = fragmentBytes;
    await emptyPoolOf("alice");
    stage.relay.judge = cutAt("to_client", pattern, offset);
    expect(await soon(stateOf(stage.connect("alice")))).toBe("57P03");
    stage.relay.judge = undefined;
    await expectService();
  });

  test("during the reset between two sessions, is not given out again", async () => {
    await emptyPoolOf("alice");
    const first = await stage.connect("alice");
    let hasCut = false;
    stage.relay.judge = (direction, chunk, link) => {
      if (hasCut || direction !== "to_server" || !isAlices(link) || !chunk.includes("DISCARD ALL"))
        return undefined;
      hasCut = true;
      return 5;
    };
    await first.end();
    await expectService();
    expect(hasCut).toBe(true);
  });

  test("during COPY in, of which nothing is kept, and during COPY out", async () => {
    const copyIn = await openRawSession(stage.login("alice"));
    copyIn.query("COPY target FROM STDIN");
    await copyIn.take("G");
    stage.relay.judge = cutAt("to_server", "cut here", 3);
    copyIn.send("d", Buffer.from("some\ncut here\nmore\n"));
    expect(await soon(copyIn.takeError())).toBe("08006");
    await soon(copyIn.closed);
    expect(await stage.past("SELECT * FROM target")).toEqual([]);

    const copyOut = await openRawSession(stage.login("alice"));
    stage.relay.judge = cutAt("to_client", "\n50000", 3);
    copyOut.query("COPY (SELECT * FROM generate_series(1, 1000000)) TO STDOUT");
    await soon(copyOut.closed);
    expect(copyOut.received).toBeGreaterThan(100_000);
    await expectService();
  });

  test("reaches a client whole when it comes in single bytes", async () => {
    await emptyPoolOf("alice");
    stage.relay.fragmentBytes = 1;
    const client = await soon(stage.connect("alice"));
    const { rows } = await soon(client.query("SELECT n, repeat('ä', n) AS t FROM generate_series(1, 20) n"));
    expect(rows).toHaveLength(20);
    expect(rows[19]).toEqual({ n: 20, t: "ä".repeat(20) });
    expect(
      (
        (await client.query("SHOW SESSION; SELECT 1 AS one; SELECT 2 AS two")) as unknown as {
          rows: unknown[];
        }[]
      )[2]?.rows,
    ).toEqual([{ two: 2 }]);
    await client.end();
  });
});

describe("an upstream that falls silent", () => {
  test("makes a login fail within its time, and serves again when it speaks", async () => {
    await expectService();
    await emptyPoolOf("alice");
    stage.relay.pause("to_server");
    const startedAt = Date.now();
    expect(await soon(stateOf(stage.connect("alice")), 14_000)).toBe("57P03");
    expect(Date.now() - startedAt).toBeLessThan(12_000);
    stage.relay.resume("to_server");
    await expectService();
  }, 20_000);

  test("holds up a client, which may leave at any time and gets no place in the queue", async () => {
    const client = await stage.connect("alice");
    stage.relay.pause("to_client");
    const answer = stateOf(client.query("SELECT 1"));
    (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
    expect(await soon(answer)).toMatch(/Connection terminated/);
    stage.relay.resume("to_client");
    await vi.waitFor(
      async () =>
        expect(await stage.running("alice")).not.toContainEqual(expect.objectContaining({ state: "active" })),
      { timeout: 3_000, interval: 10 },
    );
    await expectService();
  });
});

async function emptyPoolOf(user: string): Promise<void> {
  await stage.past("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", [user]);
  await vi.waitFor(async () => expect(await stage.running(user)).toEqual([]), {
    timeout: 3_000,
    interval: 10,
  });
}
