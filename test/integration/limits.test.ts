/** Limits on clients and sessions, each with its SQLSTATE, and the cancel requests that work beyond them. */

import { connect, type Socket } from "node:net";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { openRawSession } from "../support/raw-session.ts";
import { endOf, openStage, passwordOf, type Stage, stateOf } from "../support/stage.ts";

async function openSocket(stage: Stage): Promise<Socket> {
  const socket = connect({ host: stage.frontEnd.host, port: stage.frontEnd.port });
  socket.on("error", () => {});
  await new Promise<void>((resolve) => socket.once("connect", () => resolve()));
  return socket;
}

function closeOf(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    socket.once("close", () => resolve());
    socket.resume();
  });
}

describe("counts", () => {
  let stage: Stage;
  beforeAll(async () => {
    stage = await openStage({
      users: ["alice", "bob", "carol"],
      configuration: "[server]\nmax_connections = 5\n[auth]\nmax_connections_per_user = 3\n",
    });
    await stage.asAdmin("ALTER USER bob CONNECTION LIMIT 1");
  });
  afterAll(() => stage?.close());

  test("one client too many gets 53300 in PostgreSQL's words, and a cancel request still works", async () => {
    const running = await openRawSession(stage.login("carol"));
    running.query("SELECT pg_sleep(600)");
    const others = await Promise.all(["alice", "alice", "alice", "bob"].map((user) => stage.connect(user)));
    for (const user of ["carol", stage.frontEnd.adminUser]) {
      await expect(stage.connect(user)).rejects.toMatchObject({
        code: "53300",
        severity: "FATAL",
        message: "sorry, too many clients already",
      });
    }
    // Who is refused for the password does not learn that the house is full.
    expect(await stateOf(stage.connect("carol", { password: "wrong" }))).toBe("28P01");
    await vi.waitFor(
      async () =>
        expect(await stage.running("carol")).toContainEqual(expect.objectContaining({ state: "active" })),
      { timeout: 3_000, interval: 10 },
    );
    const socket = await openSocket(stage);
    const isClosed = closeOf(socket);
    const request = Buffer.alloc(16);
    request.writeInt32BE(16, 0);
    request.writeInt32BE(80877102, 4);
    request.writeInt32BE(running.processId, 8);
    request.writeInt32BE(running.secretKey, 12);
    socket.write(request);
    expect(await running.takeError()).toBe("57014");
    await isClosed;
    running.socket.destroy();
    for (const client of others) await client.end();
    await vi.waitFor(async () => (await stage.connect("carol")).end(), { timeout: 3_000, interval: 10 });
  });

  test("CONNECTION LIMIT and max_connections_per_user count the sessions of one user", async () => {
    const bob = await stage.connect("bob");
    await expect(stage.connect("bob")).rejects.toMatchObject({
      code: "53300",
      message: 'too many connections for role "bob"',
    });
    await bob.end();
    await vi.waitFor(async () => (await stage.connect("bob")).end(), { timeout: 3_000, interval: 10 });
    const alices = await Promise.all([1, 2, 3].map(() => stage.connect("alice")));
    await expect(stage.connect("alice")).rejects.toMatchObject({
      code: "53300",
      message: 'too many connections for role "alice"',
    });
    await (await stage.connect("carol")).end();
    for (const client of alices) await client.end();
  });
});

describe("times", () => {
  let stage: Stage;
  beforeAll(async () => {
    stage = await openStage({
      users: ["alice", "bob", "carol"],
      configuration: `
[server]
authentication_timeout = "1s"
[auth]
idle_timeout = "1200ms"
session_absolute_timeout = "4s"
[upstream]
idle_timeout = "1500ms"
max_lifetime = "3s"
`,
    });
  });
  afterAll(() => stage?.close());

  test.concurrent("a client that says nothing, half a packet or half an exchange is closed", async () => {
    const startedAt = Date.now();
    const silent = await openSocket(stage);
    const half = await openSocket(stage);
    half.write(Buffer.from([0, 0, 0, 20, 0, 3]));
    const inExchange = await openSocket(stage);
    inExchange.write(
      Buffer.from("\0\0\0\x14\0\x03\0\0user\0alice\0\0".replace("\x14", String.fromCharCode(20)), "latin1"),
    );
    await Promise.all([silent, half, inExchange].map(closeOf));
    const elapsed = Date.now() - startedAt;
    expect(elapsed).toBeGreaterThanOrEqual(900);
    expect(elapsed).toBeLessThan(2_500);
  });

  test.concurrent("an idle session gets 57P05, one that runs a statement does not", async () => {
    const idle = await stage.connect("alice");
    const idleEnd = endOf(idle);
    const busy = await stage.connect("alice");
    const startedAt = Date.now();
    const statement = busy.query("SELECT pg_sleep(3)");
    expect(await idleEnd).toMatchObject({ code: "57P05", severity: "FATAL" });
    expect(Date.now() - startedAt).toBeGreaterThanOrEqual(1_000);
    expect((await statement).rowCount).toBe(1);
    await busy.end();
  });

  test.concurrent("a session ends when its time is over, after the statement that runs", async () => {
    const client = await stage.connect("bob");
    const end = endOf(client);
    const startedAt = Date.now();
    let finished = 0;
    const work = (async () => {
      for (;;) {
        await client.query("SELECT pg_sleep(0.3)");
        finished += 1;
      }
    })();
    // The error may reach the statement that was just sent, or the connection while it was idle.
    const seen = await Promise.race([end, work.catch((error: Error & { code?: string }) => error)]);
    expect(seen).toMatchObject({ code: "57P01" });
    expect(seen.message).toBe("terminating connection due to session timeout");
    expect(Date.now() - startedAt).toBeGreaterThanOrEqual(3_900);
    expect(finished).toBeGreaterThan(5);
    work.catch(() => {});
  });

  test.concurrent("an upstream connection that nobody uses is closed after its time", async () => {
    await stage.connect("carol").then((client) => client.end());
    expect(await stage.running("carol")).toHaveLength(1);
    await vi.waitFor(async () => expect(await stage.running("carol")).toEqual([]), {
      timeout: 5_000,
      interval: 50,
    });
  });

  test.concurrent("an upstream connection that has reached its age is closed after its use", async () => {
    await stage.asAdmin(`CREATE USER old PASSWORD '${passwordOf("old")}'`);
    const client = await stage.connect("old");
    const { rows } = await client.query("SELECT pg_backend_pid() AS pid, pg_sleep(3.2)");
    await client.end();
    await vi.waitFor(
      async () => expect((await stage.running("old")).map(({ pid }) => pid)).not.toContain(rows[0]?.pid),
      { timeout: 1_000, interval: 10 },
    );
  });
});
