/** Connections that PostgreSQL cannot tell from an earlier one: the claims from before must not come back in them. */

import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { SqlError } from "../../src/errors/sql-error.ts";
import type { ClaimsBinding } from "../../src/upstream/claims-envelope.ts";
import { ClaimsPublisher } from "../../src/upstream/claims-publisher.ts";
import { callFunctions } from "../../src/upstream/function-calls.ts";
import { openUpstreamConnection } from "../../src/upstream/login.ts";
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

/** `current_setting('nodedb.session', true)`, by its OID in pg_proc.dat. */
async function envelopeIn(connection: UpstreamConnection): Promise<string | null | undefined> {
  const [envelope] = await callFunctions(connection, [encodeFunctionCall(3294, ["nodedb.session", "t"])]);
  return envelope;
}

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
