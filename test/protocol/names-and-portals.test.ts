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

describe("a Bind that is skipped, or refused, leaves the portal of its name to what it was", () => {
  const behind = async (portal: string, ...messages: readonly Buffer[]) => {
    await ask(encodeParse("mine", "SHOW USERS"), encodeParse("theirs", "SELECT 'theirs'"));
    await client.query("BEGIN");
    await ask(
      encodeParse("back", "ROLLBACK TO s"),
      ...[encodeParse("save", "SAVEPOINT s"), bind({ portal: "saved", statement: "save" })],
      bind({ portal, statement: "mine" }),
      encodeExecute("saved"),
    );
    expect(statusOf(await ask(...messages))).toBe("E");
    expect(tagsOf(await ask(bind({ portal: "back", statement: "back" }), encodeExecute("back")))).toEqual([
      "ROLLBACK",
    ]);
    return ask(encodeExecute(portal));
  };

  test.each(["named", ""])("behind an error, %j", async (portal) => {
    const messages = await behind(portal, encodeParse("", "no SQL"), bind({ portal, statement: "theirs" }));
    expect(tagsOf(messages)).toEqual(["SHOW"]);
  });

  test("because the portal is there", async () => {
    expect(tagsOf(await behind("named", bind({ portal: "named", statement: "theirs" })))).toEqual(["SHOW"]);
  });

  test("because there is no such statement", async () => {
    expect(tagsOf(await behind("", bind({ statement: "missing" })))).toEqual(["SHOW"]);
  });
});

describe("a message too large to be looked at takes a name from a statement of ours", () => {
  test("Bind", async () => {
    await client.query("BEGIN");
    await ask(...run(create()));
    expect(
      tagsOf(await ask(encodeParse("", "SELECT length($1)"), bind({ values: [large] }), execute)),
    ).toEqual(["SELECT 1"]);
    expect(tagsOf(await client.query("COMMIT"))).toEqual(["COMMIT"]);
    expect(await stage.userNames()).toContain(name);
  });

  test("Parse", async () => {
    await ask(encodeParse("", create()));
    expect(rowsOf(await ask(encodeParse("", `SELECT 7 -- ${large}`), bind(), execute))).toEqual([["7"]]);
    expect(await stage.userNames()).not.toContain(name);
  });

  test("Parse in place of a COMMIT", async () => {
    await ask(...run("BEGIN"), ...run(create()), encodeParse("", "COMMIT"));
    expect(rowsOf(await ask(encodeParse("", `SELECT 7 -- ${large}`), bind(), execute))).toEqual([["7"]]);
    expect(tagsOf(await ask(...run("COMMIT")))).toEqual(["COMMIT"]);
    expect(await stage.userNames()).toContain(name);
  });
});

describe("a name of ours that SQL gives to something else", () => {
  test("PREPARE", async () => {
    await ask(encodeParse("mine", create()));
    await client.query("DEALLOCATE mine; PREPARE mine AS SELECT 7");
    expect(rowsOf(await ask(bind({ statement: "mine" }), execute))).toEqual([["7"]]);
    expect(await stage.userNames()).not.toContain(name);
  });

  test("PREPARE in the pipeline in which it is bound", async () => {
    await ask(encodeParse("mine", create()));
    const messages = await ask(
      ...run("DEALLOCATE mine"),
      ...run("PREPARE mine AS SELECT 7"),
      bind({ statement: "mine" }),
      execute,
    );
    expect(rowsOf(messages)).toEqual([["7"]]);
    expect(await stage.userNames()).not.toContain(name);
  });

  test("DECLARE", async () => {
    await client.query("BEGIN");
    await ask(encodeParse("mine", create()), bind({ portal: "p", statement: "mine" }));
    await client.query("CLOSE p; DECLARE p CURSOR FOR SELECT 7");
    expect(rowsOf(await ask(encodeExecute("p")))).toEqual([["7"]]);
    expect(await stage.userNames()).not.toContain(name);
  });

  test("is still ours where it was given to nothing else", async () => {
    await client.query("PREPARE other AS SELECT 7");
    await ask(encodeParse("mine", create()));
    expect(tagsOf(await ask(bind({ statement: "mine" }), execute))).toEqual(["CREATE USER"]);
    expect(errorOf(await ask(bind({ statement: "mine" }), execute)).get("C")).toBe("42710");
    expect(errorOf(await ask(bind({ statement: "mine" }), encodeClose("portal", ""), execute)).get("C")).toBe(
      "34000",
    );
  });
});

test("a Parse of ours that is refused ends the unnamed statement, and no other", async () => {
  await ask(encodeParse("", create()), encodeParse("stays", "SELECT 7"));
  expect(errorOf(await ask(encodeParse("", "CREATE USER eve PASWORD"))).get("C")).toBe("42601");
  expect(errorOf(await ask(encodeParse("stays", "CREATE USER eve PASWORD"))).get("C")).toBe("42601");
  expect(errorOf(await ask(bind(), execute)).get("C")).toBe("26000");
  expect(rowsOf(await ask(bind({ statement: "stays" }), execute))).toEqual([["7"]]);
  expect(await stage.userNames()).not.toContain(name);
});

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
