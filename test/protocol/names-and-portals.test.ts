/** What the names of statements and portals mean is decided by what the server has accepted (PostgreSQL 18 manual 54.2.3). */

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import {
  encodeClose,
  encodeExecute,
  encodeParse,
  encodeQuery,
  encodeSync,
} from "../../src/wire/frontend-message-encoding.ts";
import { openProtocolStage, type ProtocolStage } from "../support/protocol-stage.ts";
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

const sync = encodeSync();
const execute = encodeExecute("");
/** More than is looked at of one message. */
const large = "x".repeat(2 * 1024 * 1024);

let stage: ProtocolStage;
let client: RawClient;
let count = 0;
let name: string;

beforeAll(async () => {
  stage = await openProtocolStage();
  const { client: setUp } = await stage.logIn();
  await setUp.query("CREATE TABLE public.written (name text)");
});
beforeEach(async () => {
  ({ client } = await stage.logIn());
  count += 1;
  name = `user_${count}`;
});
afterEach(() => stage.closeClients());
afterAll(() => stage?.close());

const create = () => `CREATE USER ${name} PASSWORD 'long enough to be taken'`;

async function ask(...messages: readonly Buffer[]): Promise<BackendMessage[]> {
  await client.send(...messages, sync);
  return client.readReady();
}

const run = (text: string) => [encodeParse("", text), bind(), execute];

async function written(): Promise<string[]> {
  const { client: other } = await stage.logIn();
  const rows = rowsOf(await other.query(`SELECT name FROM written WHERE name LIKE '${name}%'`));
  other.close();
  return rows.map(([text]) => text ?? "");
}

describe("a Query of ours", () => {
  test("ends the unnamed statement and portal", async () => {
    await client.query("BEGIN");
    await ask(encodeParse("", "SELECT 7"), bind(), bind({ portal: "stays" }));
    await client.query("SAVEPOINT s; SHOW USERS");
    for (const [message, sqlstate] of [
      [bind(), "26000"],
      [execute, "34000"],
    ] as const) {
      await client.query("SAVEPOINT s");
      expect(errorOf(await ask(message)).get("C")).toBe(sqlstate);
      await client.query("ROLLBACK TO s");
    }
    expect(rowsOf(await ask(encodeExecute("stays")))).toEqual([["7"]]);
  });

  test("alone ends the unnamed statement and portal", async () => {
    await client.query("BEGIN");
    await ask(encodeParse("", "SELECT 7"), bind());
    await client.query("SHOW USERS");
    expect(errorOf(await ask(bind())).get("C")).toBe("26000");
  });

  test("commits what a pipeline without a Sync did before it", async () => {
    await client.send(...run(`INSERT INTO written VALUES ('${name}')`), encodeQuery(create()));
    const messages = await client.readReady();
    expect([tagsOf(messages), statusOf(messages)]).toEqual([["INSERT 0 1", "CREATE USER"], "I"]);
    expect(await written()).toEqual([name]);
    expect(await stage.userNames()).toContain(name);
  });

  test("that fails takes back what a pipeline without a Sync did before it", async () => {
    await client.query(create());
    await client.send(...run(`INSERT INTO written VALUES ('${name}')`), encodeQuery(create()));
    expect(describeMessages(await client.readReady())).toBe("12CEZ");
    await ask();
    expect(await written()).toEqual([]);
  });
});

test("a statement of ours without rows takes any result formats, as PostgreSQL's does", async () => {
  const messages = await ask(encodeParse("", create()), bind({ resultFormats: [0, 1] }), execute);
  expect(describeMessages(messages)).toBe("12CZ");
  expect(await stage.userNames()).toContain(name);
});
