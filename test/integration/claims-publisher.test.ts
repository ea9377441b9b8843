/** Connections that PostgreSQL cannot tell from an earlier one: the claims from before must not come back in them. */

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { SqlError } from "../../src/errors/sql-error.ts";
import { createLog } from "../../src/observe/log.ts";
import type { ClaimsBinding } from "../../src/upstream/claims-envelope.ts";
import { ClaimsPublisher } from "../../src/upstream/claims-publisher.ts";
import { callFunctions, encodeSetting } from "../../src/upstream/function-calls.ts";
import type { Lease } from "../../src/upstream/lease.ts";
import { openUpstreamConnection } from "../../src/upstream/login.ts";
import { UpstreamPool } from "../../src/upstream/pool.ts";
import { SealedConnections } from "../../src/upstream/sealed-connections.ts";
import type { UpstreamConnection } from "../../src/upstream/upstream-connection.ts";
import { chooseTransports } from "../../src/wire/choose-transport.ts";
import { encodeFunctionCall } from "../../src/wire/frontend-message-encoding.ts";
import type { TransportFactory } from "../../src/wire/transport-factory.ts";
import { startPostgres, type TestPostgres } from "../support/postgres.ts";

const lifetimeMs = 60_000;
let postgres: TestPostgres;
let transports: TransportFactory;
let nowMs = Date.now();
let publisher: ClaimsPublisher;
const connections: UpstreamConnection[] = [];

beforeAll(async () => {
  [postgres, transports] = await Promise.all([startPostgres(), chooseTransports()]);
  publisher = new ClaimsPublisher({
    masterSecret: Buffer.alloc(32, 7),
    lifetimeMs,
    now: () => nowMs,
    withdraw: () => Promise.reject(new Error("nothing is withdrawn here")),
  });
});
afterEach(() => {
  for (const { transport } of connections.splice(0)) transport.close();
});
afterAll(() => postgres?.dispose());

/** @param processId of an earlier connection, as if the operating system had given it again */
async function open(processId?: number): Promise<UpstreamConnection> {
  const connection = await openUpstreamConnection({
    endpoint: { kind: "socket", path: `${postgres.socketDir}/.s.PGSQL.${postgres.port}` },
    transports,
    database: "postgres",
    role: "postgres",
    parameters: new Map(),
    timeoutMs: 10_000,
    nonce: () => "unused",
  });
  connections.push(connection);
  return processId === undefined ? connection : { ...connection, processId };
}

const targetWith = (scope: string) => ({
  database: "postgres",
  role: "postgres",
  claims: { id: "ada", scopes: [scope] },
  expiresAt: undefined,
});

/** `current_setting(name, true)`, by its OID in pg_proc.dat. */
async function settingIn(connection: UpstreamConnection, name: string): Promise<string | null | undefined> {
  const [value] = await callFunctions(connection, [encodeFunctionCall(3294, [name, "t"])]);
  return value;
}

const envelopeIn = (connection: UpstreamConnection) => settingIn(connection, "nodedb.session");

async function outcomeOf(work: Promise<void>): Promise<string> {
  try {
    await work;
    return "open";
  } catch (error) {
    return error instanceof SqlError ? error.condition : String(error);
  }
}

test("a new connection with the process id of an earlier one is not opened with other claims while those may be good", async () => {
  const first = await open();
  await publisher.publish(first, targetWith("admin"));
  expect(await envelopeIn(first)).toContain("admin");
  first.transport.close();

  const second = await open(first.processId);
  expect(await outcomeOf(publisher.publish(second, targetWith("read")))).toBe("cannot_connect_now");
  expect(await envelopeIn(second)).toBeNull();
  const other = await open();
  expect(await outcomeOf(publisher.publish(other, targetWith("read")))).toBe("open");
  const same = await open(first.processId);
  expect(await outcomeOf(publisher.publish(same, targetWith("admin")))).toBe("open");

  nowMs += 2 * lifetimeMs;
  const later = await open(first.processId);
  expect(await outcomeOf(publisher.publish(later, targetWith("read")))).toBe("open");
});

test("nor with any of the claims that it has had, when they changed while it was open", async () => {
  const first = await open();
  await publisher.publish(first, targetWith("admin"));
  publisher.messagesFor(first, targetWith("read"));
  // The same connection goes on with whatever its session's claims are.
  expect(await outcomeOf(publisher.publish(first, targetWith("read")))).toBe("open");
  for (const scope of ["admin", "read"]) {
    const second = await open(first.processId);
    expect(await outcomeOf(publisher.publish(second, targetWith(scope))), scope).toBe("cannot_connect_now");
  }
});

test("connections differ by port, user and database, and are forgotten when their envelopes are worth nothing", () => {
  const sealed = new SealedConnections(1_000);
  const binding: ClaimsBinding = { processId: 1, clientPort: 5, sessionUser: "a", database: "d" };
  sealed.note(binding, "x", 0);
  expect(sealed.mayOpen(binding, "y", 1_999)).toBe(false);
  for (const change of [{ clientPort: null }, { clientPort: 6 }, { sessionUser: "b" }, { database: "e" }]) {
    expect(sealed.mayOpen({ ...binding, ...change }, "y", 1_999)).toBe(true);
  }
  expect(sealed.mayOpen(binding, "y", 2_000)).toBe(true);
  for (let processId = 2; processId < 100; processId += 1) sealed.note({ ...binding, processId }, "x", 100);
  expect(sealed.size).toBe(99);
  sealed.note({ ...binding, processId: 100 }, "x", 2_100);
  expect(sealed.size).toBe(1);
});

describe("a connection that comes back to the pool", () => {
  const told: Date[] = [];
  let pool: UpstreamPool;
  const lend = async (scope: string, expiresAt?: Date) => {
    const target = { ...targetWith(scope), principalId: 1, roleVersion: 1, parameters: new Map(), expiresAt };
    return await pool.acquire(target).lease;
  };
  const giveBack = async (lease: Lease) => {
    const { idle } = pool.counts();
    lease.release();
    await expect.poll(() => pool.counts().idle).toBe(idle + 1);
  };

  beforeEach(() => {
    told.length = 0;
    const atWork = new ClaimsPublisher({
      masterSecret: Buffer.alloc(32, 7),
      lifetimeMs,
      withdraw: async () => undefined,
    });
    pool = new UpstreamPool(
      () => open(),
      (connection, target) => {
        told.push(new Date());
        return atWork.publish(connection, target);
      },
      { poolSize: 5, maxConnections: 5, queueTimeoutMs: 1_000, idleTimeoutMs: 0, maxLifetimeMs: 0 },
      createLog({ level: "silent", format: "json" }),
    );
    withdraw = (connection) => atWork.withdraw(connection, "postgres");
  });
  afterEach(() => {
    vi.useRealTimers();
    pool.close();
  });
  let withdraw: (connection: UpstreamConnection) => Promise<void>;

  test("carries the same claims again, whatever its session has made of them, and is lent at once", async () => {
    const first = await lend("read");
    const envelope = await envelopeIn(first.connection);
    expect(envelope).toContain('"scopes":["read"]');
    await callFunctions(first.connection, [
      encodeSetting("nodedb.session", "forged"),
      encodeSetting("request.jwt.claims", '{"sub":"bob"}'),
    ]);
    await giveBack(first);
    const second = await lend("read");
    expect(second.connection).toBe(first.connection);
    expect(await envelopeIn(second.connection)).toBe(envelope);
    expect(await settingIn(second.connection, "request.jwt.claims")).toContain('"sub":"ada"');
    expect(told).toHaveLength(1);
    second.release();
  });

  test("is told anew whose credential ends at another time", async () => {
    const first = await lend("read");
    const envelope = await envelopeIn(first.connection);
    await giveBack(first);
    const soon = new Date(Date.now() + 5_000);
    const second = await lend("read", soon);
    expect(second.connection).toBe(first.connection);
    expect(await envelopeIn(second.connection)).toContain(`"exp":${soon.getTime() / 1000}`);
    await giveBack(second);
    const third = await lend("read");
    expect(await envelopeIn(third.connection)).not.toBe(envelope);
    expect(await envelopeIn(third.connection)).not.toContain(`"exp":${soon.getTime() / 1000}`);
    expect(told).toHaveLength(3);
    third.release();
  });

  test("is told anew when it has been idle for a while", async () => {
    vi.useFakeTimers({ toFake: ["Date"] });
    const first = await lend("read");
    await giveBack(first);
    vi.setSystemTime(Date.now() + 1_001);
    const second = await lend("read");
    expect(second.connection).toBe(first.connection);
    expect(told).toHaveLength(2);
    second.release();
  });

  test("carries nothing when its claims are due, or were taken back, until it is told anew", async () => {
    vi.useFakeTimers({ toFake: ["Date"] });
    const first = await lend("read");
    vi.setSystemTime(Date.now() + lifetimeMs / 2);
    await giveBack(first);
    expect(await envelopeIn(first.connection)).toBe("");
    const second = await lend("read");
    expect(second.connection).toBe(first.connection);
    const envelope = await envelopeIn(second.connection);
    expect(envelope).toContain('"scopes":["read"]');
    await withdraw(second.connection);
    await giveBack(second);
    expect(await envelopeIn(second.connection)).toBe("");
    const third = await lend("read");
    expect(third.connection).toBe(first.connection);
    expect(await envelopeIn(third.connection)).not.toBe(envelope);
    expect(told).toHaveLength(3);
    third.release();
  });
});
