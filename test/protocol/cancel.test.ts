/** CancelRequest: whom it hits and whom it must not (PostgreSQL 18 manual 54.2.9). */

import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import {
  encodeCancelRequest,
  encodeExecute,
  encodeParse,
  encodeQuery,
  encodeSync,
} from "../../src/wire/frontend-message-encoding.ts";
import { openProtocolStage, type ProtocolStage } from "../support/protocol-stage.ts";
import {
  bind,
  type Cutting,
  describeMessages,
  errorOf,
  type RawClient,
  rowsOf,
} from "../support/raw-client.ts";

let stage: ProtocolStage;

beforeAll(async () => {
  stage = await openProtocolStage({ configuration: "[upstream]\npool_size = 2\n" });
});
afterEach(() => stage.closeClients());
afterAll(() => stage?.close());

/** Sends a CancelRequest and waits until the server has closed its connection: then it has been acted on. */
async function cancel(processId: number, secretKey: Buffer, cutting?: Cutting): Promise<void> {
  const client = await stage.connect(cutting);
  await client.send(encodeCancelRequest(processId, secretKey));
  expect(await client.readToClose()).toEqual([]);
}

/** Waits until a statement of that server process runs, so that a cancel has something to hit. */
async function untilRunning(observer: RawClient, processId: number): Promise<void> {
  const deadline = Date.now() + 10_000;
  for (;;) {
    const [[state] = []] = rowsOf(
      await observer.query(
        `SELECT state || ' ' || coalesce(wait_event, '') FROM pg_stat_activity WHERE pid = ${processId}`,
      ),
    );
    if (state === "active PgSleep") return;
    if (Date.now() > deadline) throw new Error(`not running but ${state}`);
  }
}

/** Keeps one of the pool's two connections, so that sessions one after the other have to reuse the other one. */
async function leaveOneConnection(minor: 0 | 2): Promise<void> {
  await stage.logIn({ minor });
}

async function observer(): Promise<RawClient> {
  const { client } = await stage.logInUpstream({ user: "postgres", database: "postgres" });
  return client;
}

describe.each([
  ["whole", 0],
  ["whole", 2],
  ["bytes", 0],
  ["bytes", 2],
] as const)("a CancelRequest sent %s in protocol 3.%i", (cutting, minor) => {
  test("cancels the statement of the session whose key it carries", async () => {
    const { client, greeting } = await stage.logIn({ minor });
    await client.send(encodeQuery("SELECT pg_sleep(60)"));
    await untilRunning(await observer(), greeting.processId);
    await cancel(greeting.processId, greeting.secretKey, cutting);
    const messages = await client.readReady();
    expect([describeMessages(messages), errorOf(messages).get("C")]).toEqual(["TEZ", "57014"]);
    expect(rowsOf(await client.query("SELECT 'goes on'"))).toEqual([["goes on"]]);
  });

  test("is ignored with a wrong key, a key that is too short and a wrong process id", async () => {
    const { client, greeting } = await stage.logIn({ minor });
    await client.send(encodeQuery("SELECT pg_sleep(0.3)"));
    await untilRunning(await observer(), greeting.processId);
    const wrong = Buffer.from(greeting.secretKey);
    wrong[wrong.length - 1] = (wrong.at(-1) ?? 0) ^ 1;
    await cancel(greeting.processId, wrong, cutting);
    await cancel(greeting.processId, Buffer.concat([greeting.secretKey, Buffer.alloc(4)]), cutting);
    if (minor === 2) await cancel(greeting.processId, greeting.secretKey.subarray(0, 4), cutting);
    await cancel(greeting.processId + 1, greeting.secretKey, cutting);
    expect(describeMessages(await client.readReady())).toBe("TDCZ");
  });
});

test("BackendKeyData names the process that pg_backend_pid() names", async () => {
  const { client, greeting } = await stage.logIn();
  expect(rowsOf(await client.query("SELECT pg_backend_pid()"))).toEqual([[String(greeting.processId)]]);
});

test("the key is the front-end's own, and each session has another, also on the same connection", async () => {
  await leaveOneConnection(2);
  const first = await stage.logIn({ minor: 2 });
  await first.client.send(Buffer.from("X\0\0\0\x04", "latin1"));
  await first.client.isClosed();
  const second = await stage.logIn({ minor: 2 });
  expect(second.greeting.processId).toBe(first.greeting.processId);
  expect(second.greeting.secretKey.equals(first.greeting.secretKey)).toBe(false);
});

test("the key of a session that has ended hits nobody who has its connection now", async () => {
  await leaveOneConnection(0);
  const first = await stage.logIn();
  await first.client.send(Buffer.from("X\0\0\0\x04", "latin1"));
  await first.client.isClosed();
  const second = await stage.logIn();
  expect(second.greeting.processId).toBe(first.greeting.processId);
  await second.client.send(encodeQuery("SELECT pg_sleep(0.3)"));
  await untilRunning(await observer(), second.greeting.processId);
  await cancel(first.greeting.processId, first.greeting.secretKey);
  expect(describeMessages(await second.client.readReady())).toBe("TDCZ");
});

test("a cancel of an idle session hits nothing that comes later", async () => {
  const { client, greeting } = await stage.logIn();
  for (let times = 0; times < 20; times += 1) {
    await cancel(greeting.processId, greeting.secretKey);
    expect(describeMessages(await client.query("SELECT pg_sleep(0.002)"))).toBe("TDCZ");
  }
});

test("a cancel that crosses the end of a session does not hit the next one on its connection", async () => {
  for (let times = 0; times < 10; times += 1) {
    const first = await stage.logIn();
    const canceller = await stage.connect();
    await first.client.send(encodeQuery("SELECT pg_sleep(0.005)"));
    await canceller.send(encodeCancelRequest(first.greeting.processId, first.greeting.secretKey));
    await first.client.readReady();
    await first.client.send(Buffer.from("X\0\0\0\x04", "latin1"));
    const second = await stage.logIn();
    expect(describeMessages(await second.client.query("SELECT pg_sleep(0.02)"))).toBe("TDCZ");
    await canceller.readToClose();
    await second.client.send(Buffer.from("X\0\0\0\x04", "latin1"));
    await second.client.isClosed();
  }
});

test("a cancelled pipeline skips the rest up to Sync, statements of ours included", async () => {
  const { client, greeting } = await stage.logIn();
  const run = (text: string) => [encodeParse("", text), bind(), encodeExecute("")];
  await client.send(
    ...run("SELECT pg_sleep(60)"),
    ...run("CREATE USER eve PASSWORD 'long enough'"),
    encodeSync(),
    ...run("SHOW SESSION"),
    encodeSync(),
  );
  await untilRunning(await observer(), greeting.processId);
  await cancel(greeting.processId, greeting.secretKey);
  const messages = await client.readReady();
  expect([describeMessages(messages), errorOf(messages).get("C")]).toEqual(["12EZ", "57014"]);
  expect(describeMessages(await client.readReady())).toBe("12DCZ");
  expect(await stage.userNames()).not.toContain("eve");
});

test("a cancel reaches PostgreSQL's part of a string with statements of ours", async () => {
  const { client, greeting } = await stage.logIn();
  await client.send(encodeQuery("SHOW SESSION; SELECT pg_sleep(60); CREATE USER eve PASSWORD 'long enough'"));
  await untilRunning(await observer(), greeting.processId);
  await cancel(greeting.processId, greeting.secretKey);
  const messages = await client.readReady();
  expect([describeMessages(messages), errorOf(messages).get("C")]).toEqual(["TDCTEZ", "57014"]);
  expect(await stage.userNames()).not.toContain("eve");
});
