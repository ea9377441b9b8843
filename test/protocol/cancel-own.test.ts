/** What a client can cancel while it waits for something: a lock, a connection to the catalog, the upstream. */

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import {
  encodeCancelRequest,
  encodeExecute,
  encodeParse,
  encodeQuery,
  encodeSync,
} from "../../src/wire/frontend-message-encoding.ts";
import { openProtocolStage, type ProtocolStage, type Session } from "../support/protocol-stage.ts";
import {
  type BackendMessage,
  bind,
  describeMessages,
  errorOf,
  type RawClient,
  rowsOf,
  statusOf,
  tagsOf,
} from "../support/raw-client.ts";
import { until } from "../support/until.ts";

/** A statement that has to give up a lock by itself takes 3 seconds; one that is cancelled does not, in ms. */
const soonMs = 2_000;
/** As many as the front-end opens to the catalog. */
const catalogConnections = 4;

let stage: ProtocolStage;
/** PostgreSQL's superuser, past the front-end. */
let past: RawClient;
let session: Session;

beforeAll(async () => {
  stage = await openProtocolStage();
  const { client } = await stage.logIn();
  await client.query("CREATE TABLE public.place (name text)");
  await client.query("CREATE DATABASE elsewhere");
});
beforeEach(async () => {
  ({ client: past } = await stage.logInUpstream({ user: "postgres", database: "postgres" }));
  session = await stage.logIn();
});
afterEach(() => stage.closeClients());
afterAll(() => stage?.close());

/** Nobody can write to the catalog until `release`. */
async function lockCatalog(): Promise<{ release(): Promise<unknown> }> {
  await past.query("BEGIN; SELECT FROM nodedb.instance FOR UPDATE");
  return { release: () => past.query("ROLLBACK") };
}

/** Waits until so many server processes, or more, wait for a lock. */
async function untilWaiting(count = 1): Promise<void> {
  await untilWaiters((waiters) => waiters >= count);
}

/** Sooner than a statement would give up by itself. */
async function untilNothingWaits(): Promise<void> {
  await untilWaiters((waiters) => waiters === 0, soonMs);
}

async function untilWaiters(isEnough: (waiters: number) => boolean, timeoutMs?: number): Promise<void> {
  const { client: observer } = await stage.logInUpstream({ user: "postgres", database: "postgres" });
  await until(async () => {
    const rows = await observer.query("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
    return isEnough(rowsOf(rows).length);
  }, timeoutMs);
  observer.close();
}

async function sendCancel({ greeting }: Session): Promise<void> {
  const client = await stage.connect();
  await client.send(encodeCancelRequest(greeting.processId, greeting.secretKey));
  await client.readToClose();
}

/** Cancels until there is an answer: a cancel that comes too early hits nothing. */
async function cancelUntilReady(whose: Session): Promise<BackendMessage[]> {
  const answer = whose.client.readReady();
  let isAnswered = false;
  void answer.then(() => {
    isAnswered = true;
  });
  await until(async () => {
    if (!isAnswered) await sendCancel(whose);
    return isAnswered;
  });
  return answer;
}

async function expectUsable(): Promise<void> {
  // Of a signal that came late one of these would know.
  for (let times = 0; times < 10; times += 1) {
    const { client } = session;
    expect(describeMessages(await client.query("SHOW USERS"))).toMatch(/^TD+CZ$/);
    expect(rowsOf(await client.query("SELECT 'works'"))).toEqual([["works"]]);
  }
  expect(tagsOf(await session.client.query("CREATE USER later PASSWORD 'long enough'"))).toEqual([
    "CREATE USER",
  ]);
  expect(tagsOf(await session.client.query("DROP USER later"))).toEqual(["DROP USER"]);
}

async function expectNobody(): Promise<void> {
  expect(await stage.userNames()).not.toContain("eve");
  const { client } = await stage.logInUpstream({ user: "postgres", database: "postgres" });
  // A name that was reserved is given up when the catalog can be written again.
  await until(
    async () => rowsOf(await client.query("SELECT FROM pg_roles WHERE rolname = 'eve'")).length === 0,
    5_000,
  );
}

const createEve = "CREATE USER eve PASSWORD 'long enough'";
const extended = (text: string) => [encodeParse("", text), bind(), encodeExecute("")];

describe("a statement of ours that waits for a lock in the catalog", () => {
  test.each([
    ["a Query", [encodeQuery(createEve)], "EZ"],
    ["a Query with others", [encodeQuery(`SELECT 1; ${createEve}; SELECT 2`)], "TDCEZ"],
    ["a pipeline", [...extended(createEve), ...extended("SELECT 1"), encodeSync()], "12EZ"],
  ])("is cancelled in %s", async (_, messages, expected) => {
    const lock = await lockCatalog();
    await session.client.send(...messages);
    await untilWaiting();
    const startedAt = performance.now();
    await sendCancel(session);
    const answer = await session.client.readReady();
    expect(performance.now() - startedAt).toBeLessThan(soonMs);
    expect([describeMessages(answer), errorOf(answer).get("C"), statusOf(answer)]).toEqual([
      expected,
      "57014",
      "I",
    ]);
    expect(errorOf(answer).get("M")).toBe("canceling statement due to user request");
    await lock.release();
    await expectNobody();
    await expectUsable();
  });

  test("is cancelled in a transaction block, which fails", async () => {
    await session.client.query("BEGIN");
    const lock = await lockCatalog();
    await session.client.send(encodeQuery(createEve));
    await untilWaiting();
    await sendCancel(session);
    const answer = await session.client.readReady();
    expect([errorOf(answer).get("C"), statusOf(answer)]).toEqual(["57014", "E"]);
    await lock.release();
    expect(tagsOf(await session.client.query("COMMIT"))).toEqual(["ROLLBACK"]);
    await expectNobody();
    await expectUsable();
  });

  test("is cancelled at COMMIT, of which neither part holds", async () => {
    await session.client.query(`BEGIN; INSERT INTO public.place VALUES ('nowhere'); ${createEve}`);
    const lock = await lockCatalog();
    await session.client.send(encodeQuery("COMMIT"));
    await untilWaiting();
    const startedAt = performance.now();
    await sendCancel(session);
    const answer = await session.client.readReady();
    expect([errorOf(answer).get("C"), statusOf(answer)]).toEqual(["57014", "I"]);
    expect(performance.now() - startedAt).toBeLessThan(soonMs);
    await lock.release();
    expect(rowsOf(await session.client.query("SELECT name FROM public.place"))).toEqual([]);
    await expectNobody();
    await expectUsable();
  });

  test("is not run when its session loses the upstream", async () => {
    const lock = await lockCatalog();
    await session.client.send(encodeQuery(createEve));
    await untilWaiting();
    const { client: observer } = await stage.logInUpstream({ user: "postgres", database: "postgres" });
    await observer.query(`SELECT pg_terminate_backend(${session.greeting.processId})`);
    expect(errorOf(await session.client.readToClose()).get("C")).toBe("57P01");
    await untilNothingWaits();
    await lock.release();
    await expectNobody();
  });

  test("is not run when its session is killed", async () => {
    const [row = []] = rowsOf(await session.client.query("SHOW SESSION"));
    const id = row.find((value) => /^[0-9a-f-]{36}$/.test(value ?? ""));
    const { client: admin } = await stage.logIn();
    const lock = await lockCatalog();
    await session.client.send(encodeQuery(createEve));
    await untilWaiting();
    expect(tagsOf(await admin.query(`KILL SESSION '${id}'`))).toEqual(["KILL SESSION"]);
    expect(errorOf(await session.client.readToClose()).get("C")).toBe("57P01");
    await untilNothingWaits();
    await lock.release();
    await expectNobody();
  });

  test("is not run when its client leaves", async () => {
    const lock = await lockCatalog();
    await session.client.send(encodeQuery(createEve));
    await untilWaiting();
    session.client.close();
    await untilNothingWaits();
    await lock.release();
    await expectNobody();
  });
});

test("a statement of ours that waits for a lock in another database is cancelled", async () => {
  const { client } = session;
  await client.query("CREATE USER owner PASSWORD 'long enough' ROLE admin");
  const { client: there } = await stage.logInUpstream({ user: "postgres", database: "elsewhere" });
  await there.query("CREATE TABLE owned (); ALTER TABLE owned OWNER TO owner; BEGIN; LOCK TABLE owned");
  await client.send(encodeQuery("DROP USER owner REASSIGN OWNED TO nodedb"));
  await untilWaiting();
  const startedAt = performance.now();
  await sendCancel(session);
  const answer = await client.readReady();
  expect(errorOf(answer).get("C")).toBe("57014");
  expect(performance.now() - startedAt).toBeLessThan(soonMs);
  await there.query("ROLLBACK");
  expect(await stage.userNames()).toContain("owner");
  expect(tagsOf(await client.query("DROP USER owner REASSIGN OWNED TO nodedb"))).toEqual(["DROP USER"]);
  await there.query("DROP TABLE owned");
  await expectUsable();
});

test("a statement of ours that waits for another one to write leaves the queue", async () => {
  const { client: other, greeting } = await stage.logIn();
  const lock = await lockCatalog();
  await other.send(encodeQuery(createEve));
  await untilWaiting();
  await expectCancelled([encodeQuery(createEve)]);
  await expectCancelled([...extended("DROP USER nobody"), encodeSync()]);
  await expectCancelledAtOnce({ client: other, greeting });
  await lock.release();
  await expectNobody();
  await expectUsable();
});

test("a statement of ours that waits for a connection to the catalog leaves the queue", async () => {
  const others = await Promise.all(Array.from({ length: catalogConnections }, () => stage.logIn()));
  await past.query("BEGIN; LOCK TABLE nodedb.principal");
  for (const { client } of others) await client.send(encodeQuery("SHOW SESSION"));
  await untilWaiting(catalogConnections);
  await expectCancelled([encodeQuery("SHOW USERS")]);
  await expectCancelled([encodeQuery(createEve)]);
  await expectCancelled([...extended("DROP USER nobody"), encodeSync()]);
  for (const other of others) await expectCancelledAtOnce(other);
  await past.query("ROLLBACK");
  await expectNobody();
  await expectUsable();
});

async function expectCancelled(messages: readonly Buffer[]): Promise<void> {
  await session.client.send(...messages);
  await expectCancelledAtOnce(session);
}

async function expectCancelledAtOnce(whose: Session): Promise<void> {
  const startedAt = performance.now();
  const answer = await cancelUntilReady(whose);
  expect(performance.now() - startedAt).toBeLessThan(soonMs);
  expect(errorOf(answer).get("C")).toBe("57014");
}

test("a statement of PostgreSQL's that waits for a lock is cancelled", async () => {
  await past.query("BEGIN; LOCK TABLE public.place");
  await session.client.send(encodeQuery("SELECT * FROM public.place"));
  await untilWaiting();
  await sendCancel(session);
  const answer = await session.client.readReady();
  expect([describeMessages(answer), errorOf(answer).get("C")]).toEqual(["EZ", "57014"]);
  await past.query("ROLLBACK");
  await expectUsable();
});
