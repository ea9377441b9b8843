/** The pool's bookkeeping where timing decides: what is opened, given up and closed while something else is under way. */

import { Socket } from "node:net";
import { expect, test } from "vitest";
import { SqlError } from "../../../src/errors/sql-error.ts";
import { createLog } from "../../../src/observe/log.ts";
import { type PoolSettings, UpstreamPool } from "../../../src/upstream/pool.ts";
import type { UpstreamConnection } from "../../../src/upstream/upstream-connection.ts";
import type { UpstreamTarget } from "../../../src/upstream/upstream-target.ts";
import type { Transport } from "../../../src/wire/transport.ts";

const settings: PoolSettings = {
  poolSize: 1,
  maxConnections: 2,
  queueTimeoutMs: 1_000,
  idleTimeoutMs: 0,
  maxLifetimeMs: 0,
};

function targetOf(role: string): UpstreamTarget {
  return {
    database: "db",
    principalId: role.length,
    role,
    roleVersion: 1,
    parameters: new Map(),
    claims: {},
    expiresAt: undefined,
  };
}

/** A transport that answers each reset, and remembers whether it was closed. */
class AnsweringTransport implements Transport {
  handler: Transport["handler"] = { onData() {}, onDrain() {}, onEnd() {} };
  readonly socket = new Socket();
  isClosed = false;
  isLent = false;
  start(): void {}
  stop(): void {}
  write(): boolean {
    const answer = Buffer.from("C\0\0\0\x10DISCARD ALL\0Z\0\0\0\x05I", "latin1");
    queueMicrotask(() => this.handler.onData(answer, 0, answer.length));
    return true;
  }
  forward(): never {
    throw new Error("not used");
  }
  end(): void {
    this.close();
  }
  close(): void {
    this.isClosed = true;
  }
  abort(): void {
    this.close();
    this.handler.onEnd();
  }
  detach(): never {
    throw new Error("not used");
  }
}

interface Opening {
  readonly target: UpstreamTarget;
  readonly transport: AnsweringTransport;
  finish(): void;
  fail(error: Error): void;
}

/** A pool whose logins end when the test says so. */
function openPool(more: Partial<PoolSettings> = {}) {
  const openings: Opening[] = [];
  const pool = new UpstreamPool(
    (target) =>
      new Promise<UpstreamConnection>((resolve, reject) => {
        const transport = new AnsweringTransport();
        openings.push({
          target,
          transport,
          fail: reject,
          finish: () =>
            resolve({
              transport,
              processId: openings.length,
              secretKey: Buffer.alloc(4),
              clientPort: null,
              claimsDueAtMs: 0,
              claimsWithdrawnMs: 0,
              parameters: new Map(),
              openedAtMs: Date.now(),
              cancels: new Set(),
              isReusable: true,
            }),
        });
      }),
    async () => undefined,
    { ...settings, ...more },
    createLog({ level: "silent", format: "json" }),
  );
  return { pool, openings };
}

const gone = new SqlError("connection_failure", "gone");

test("a login that fails gives its place to the next in the queue", async () => {
  const { pool, openings } = openPool();
  const first = pool.acquire(targetOf("alice"));
  const second = pool.acquire(targetOf("alice"));
  expect(openings).toHaveLength(1);
  openings[0]?.fail(gone);
  await expect(first.lease).rejects.toBe(gone);
  expect(openings).toHaveLength(2);
  openings[1]?.finish();
  (await second.lease).discard();
  expect(pool.counts()).toEqual({ open: 0, idle: 0, waiting: 0 });
  pool.close();
});

test("a place in the queue that is given up is nobody's, and is told so", async () => {
  const { pool, openings } = openPool();
  const holder = pool.acquire(targetOf("alice"));
  openings[0]?.finish();
  const lease = await holder.lease;
  const waiting = pool.acquire(targetOf("alice"));
  expect(pool.counts()).toMatchObject({ waiting: 1 });
  waiting.cancel(gone);
  await expect(waiting.lease).rejects.toBe(gone);
  expect(pool.counts()).toMatchObject({ waiting: 0 });
  lease.discard();
  expect(openings).toHaveLength(1);
  pool.close();
});

test("what a dropped user's login opens is closed when it comes back, however late", async () => {
  const { pool, openings } = openPool();
  const ticket = pool.acquire(targetOf("alice"));
  pool.closePrincipal(targetOf("alice").principalId);
  openings[0]?.finish();
  const lease = await ticket.lease;
  lease.release();
  await expect.poll(() => openings[0]?.transport.isClosed).toBe(true);
  expect(pool.counts()).toEqual({ open: 0, idle: 0, waiting: 0 });
  pool.close();
});

test("a connection with a cancel on its way waits for it before it is given on, and twice returned is once returned", async () => {
  const { pool, openings } = openPool();
  const ticket = pool.acquire(targetOf("alice"));
  openings[0]?.finish();
  const lease = await ticket.lease;
  let finishCancel = () => {};
  lease.connection.cancels.add(
    new Promise((resolve) => {
      finishCancel = resolve;
    }),
  );
  const next = pool.acquire(targetOf("alice"));
  lease.release();
  lease.release();
  lease.discard();
  await new Promise((resume) => setImmediate(resume));
  expect(pool.counts()).toEqual({ open: 1, idle: 0, waiting: 1 });
  finishCancel();
  expect((await next.lease).connection).toBe(lease.connection);
  pool.close();
});

test("what is opened while the pool closes is closed when it comes back", async () => {
  const { pool, openings } = openPool();
  const under = pool.acquire(targetOf("alice"));
  const waiting = pool.acquire(targetOf("alice"));
  const refused = expect(waiting.lease).rejects.toMatchObject({ condition: "admin_shutdown" });
  pool.close();
  await refused;
  openings[0]?.finish();
  (await under.lease).release();
  await expect.poll(() => openings[0]?.transport.isClosed).toBe(true);
  expect(pool.counts().open).toBe(0);
});

test("a waiter whose own pool is full does not hold up one behind it", async () => {
  const { pool, openings } = openPool();
  pool.acquire(targetOf("alice")).lease.catch(() => {});
  const stuck = pool.acquire(targetOf("alice"));
  stuck.lease.catch(() => {});
  pool.acquire(targetOf("bob")).lease.catch(() => {});
  expect(openings.map(({ target }) => target.role)).toEqual(["alice", "bob"]);
  pool.close();
});

test("with no time to queue, whoever finds the pool full is refused at once", async () => {
  const { pool, openings } = openPool({ queueTimeoutMs: 0 });
  const first = pool.acquire(targetOf("alice"));
  await expect(pool.acquire(targetOf("alice")).lease).rejects.toMatchObject({
    condition: "too_many_connections",
  });
  openings[0]?.finish();
  (await first.lease).discard();
  pool.close();
});

test("a database that is to be free is left by what is idle at once, and by what is in use when it comes back", async () => {
  const { pool, openings } = openPool({ poolSize: 3, maxConnections: 4 });
  const other = pool.acquire({ ...targetOf("alice"), database: "other" });
  const idle = pool.acquire(targetOf("alice"));
  const used = pool.acquire(targetOf("alice"));
  const late = pool.acquire(targetOf("alice"));
  for (const opening of openings.slice(0, 3)) opening.finish();
  (await other.lease).release();
  (await idle.lease).release();
  await expect.poll(() => pool.counts().idle).toBe(2);
  pool.freeDatabases(["db"]);
  expect(openings.map(({ transport }) => transport.isClosed)).toEqual([false, true, false, false]);
  (await used.lease).release();
  // This one was asked for before, too.
  openings[3]?.finish();
  (await late.lease).release();
  await expect.poll(() => pool.counts()).toEqual({ open: 1, idle: 1, waiting: 0 });
  expect(openings.map(({ transport }) => transport.isClosed)).toEqual([false, true, true, true]);

  const next = pool.acquire(targetOf("alice"));
  openings[4]?.finish();
  (await next.lease).release();
  await expect.poll(() => pool.counts().idle).toBe(2);
  pool.close();
});

test("no connection to a template database is kept", async () => {
  const { pool, openings } = openPool();
  const ticket = pool.acquire({ ...targetOf("alice"), database: "template1" });
  openings[0]?.finish();
  (await ticket.lease).release();
  await expect.poll(() => pool.counts()).toEqual({ open: 0, idle: 0, waiting: 0 });
  expect(openings[0]?.transport.isClosed).toBe(true);
  pool.close();
});
