/** Transactions that begin, end or go on inside a pipeline (PostgreSQL 18 manual 54.2.4), with statements of ours in them. */

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import {
  encodeExecute,
  encodeFlush,
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
  message,
  type RawClient,
  rowsOf,
  statusOf,
  tagsOf,
} from "../support/raw-client.ts";

const sync = encodeSync();
const execute = encodeExecute("");

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

function run(...texts: readonly string[]): Buffer {
  return Buffer.concat(texts.flatMap((text) => [encodeParse("", text), bind(), execute]));
}

const create = (user = name) => `CREATE USER ${user} PASSWORD 'long enough to be taken'`;
const write = (text = name) => `INSERT INTO written VALUES ('${text}')`;

async function ask(...texts: readonly string[]): Promise<BackendMessage[]> {
  await client.send(run(...texts), sync);
  return client.readReady();
}

/** What of the names is there, as somebody else sees it: rows, and users. */
async function found(): Promise<{ rows: string[]; users: string[] }> {
  const { client: other } = await stage.logIn();
  const [rows, users] = [await other.query("SELECT name FROM written"), await other.query("SHOW USERS")];
  other.close();
  const mine = (messages: readonly BackendMessage[]) =>
    rowsOf(messages)
      .map(([text]) => text ?? "")
      .filter((text) => text === name || text.startsWith(`${name}_`))
      .sort();
  return { rows: mine(rows), users: mine(users) };
}

describe("a block that begins in a pipeline", () => {
  test("stays open over its Sync, and is committed with COMMIT", async () => {
    expect(statusOf(await ask("BEGIN", write(), create()))).toBe("T");
    expect(await found()).toEqual({ rows: [], users: [] });
    const end = await ask("COMMIT");
    expect([tagsOf(end), statusOf(end)]).toEqual([["COMMIT"], "I"]);
    expect(await found()).toEqual({ rows: [name], users: [name] });
  });

  test("stays open over its Sync, and is undone with ROLLBACK", async () => {
    expect(statusOf(await ask("START TRANSACTION", create(), write()))).toBe("T");
    expect(tagsOf(await ask("ROLLBACK"))).toEqual(["ROLLBACK"]);
    expect(await found()).toEqual({ rows: [], users: [] });
  });

  test("may end in it, and the next one begin", async () => {
    const messages = await ask(
      "BEGIN",
      write(),
      create(),
      "COMMIT",
      "BEGIN",
      create(`${name}_b`),
      "ROLLBACK",
      create(`${name}_c`),
      write(`${name}_c`),
    );
    expect(tagsOf(messages)).toEqual([
      "BEGIN",
      "INSERT 0 1",
      "CREATE USER",
      "COMMIT",
      "BEGIN",
      "CREATE USER",
      "ROLLBACK",
      "CREATE USER",
      "INSERT 0 1",
    ]);
    expect(await found()).toEqual({ rows: [name, `${name}_c`], users: [name, `${name}_c`] });
  });

  test("is followed by what fails, which takes nothing of it back", async () => {
    const messages = await ask("BEGIN", write(), create(), "COMMIT", create(`${name}_b`), "SELECT 1/0");
    expect(errorOf(messages).get("C")).toBe("22012");
    expect(await found()).toEqual({ rows: [name], users: [name] });
  });

  test("goes on after AND CHAIN", async () => {
    expect(statusOf(await ask("BEGIN", create(), "COMMIT AND CHAIN", create(`${name}_b`)))).toBe("T");
    expect(await found()).toEqual({ rows: [], users: [name] });
    expect(statusOf(await ask("ROLLBACK AND CHAIN", create(`${name}_c`)))).toBe("T");
    expect(tagsOf(await ask("COMMIT"))).toEqual(["COMMIT"]);
    expect(await found()).toEqual({ rows: [], users: [name, `${name}_c`] });
  });

  test("that has failed is healed and committed in one pipeline", async () => {
    await ask("BEGIN", write(), create(), "SAVEPOINT s", create(`${name}_b`));
    expect(statusOf(await ask("SELECT 1/0"))).toBe("E");
    const messages = await ask("ROLLBACK TO s", create(`${name}_c`), "COMMIT");
    expect([tagsOf(messages), statusOf(messages)]).toEqual([["ROLLBACK", "CREATE USER", "COMMIT"], "I"]);
    expect(await found()).toEqual({ rows: [name], users: [name, `${name}_c`] });
  });

  test("that has failed is rolled back by its COMMIT", async () => {
    await ask("BEGIN", write(), create());
    expect(statusOf(await ask("SELECT 1/0"))).toBe("E");
    const messages = await ask("COMMIT");
    expect([tagsOf(messages), statusOf(messages)]).toEqual([["ROLLBACK"], "I"]);
    expect(await found()).toEqual({ rows: [], users: [] });
  });
});

test("a savepoint that is rolled back to in a pipeline leaves the block open for statements of ours", async () => {
  const messages = await ask("BEGIN", write(), "SAVEPOINT s", "ROLLBACK TO s", create());
  expect([describeMessages(messages), statusOf(messages)]).toEqual(["12C12C12C12C12CZ", "T"]);
  expect(await found()).toEqual({ rows: [], users: [] });
  expect(tagsOf(await ask("ROLLBACK AND CHAIN", create(), "COMMIT"))).toEqual([
    "ROLLBACK",
    "CREATE USER",
    "COMMIT",
  ]);
  expect(await found()).toEqual({ rows: [], users: [name] });
});

describe("a portal that was made before the first statement of ours", () => {
  const prepareEarly = async (portal: string, end: string) => {
    await client.send(encodeParse("early", end), encodeParse("mine", create()), sync);
    await client.readReady();
    await client.send(
      run("BEGIN", write()),
      bind({ portal, statement: "early" }),
      bind({ portal: "of mine", statement: "mine" }),
      encodeExecute("of mine"),
      encodeExecute(portal),
      sync,
    );
    return client.readReady();
  };

  test.each([
    ["named", "COMMIT"],
    ["", "commit work"],
    ["it's a portal", "END"],
  ])("%j commits both parts", async (portal, end) => {
    const messages = await prepareEarly(portal, end);
    expect([tagsOf(messages).at(-1), statusOf(messages)]).toEqual(["COMMIT", "I"]);
    expect(await found()).toEqual({ rows: [name], users: [name] });
  });

  test("undoes both parts", async () => {
    expect(tagsOf(await prepareEarly("named", "ROLLBACK")).at(-1)).toBe("ROLLBACK");
    expect(await found()).toEqual({ rows: [], users: [] });
  });

  test("is run as it is when it is something else", async () => {
    const messages = await prepareEarly("rows", "SELECT generate_series(1, 3)");
    expect([rowsOf(messages), statusOf(messages)]).toEqual([[["1"], ["2"], ["3"]], "T"]);
    expect(tagsOf(await ask("COMMIT"))).toEqual(["COMMIT"]);
    expect(await found()).toEqual({ rows: [name], users: [name] });
  });
});

test("what cannot be part of a transaction is refused behind a statement of ours in a pipeline", async () => {
  const messages = await ask(create(), "DISCARD ALL", write());
  expect([describeMessages(messages), errorOf(messages).get("C")]).toEqual(["12C12EZ", "25001"]);
  expect(await found()).toEqual({ rows: [], users: [] });
});

describe("a statement that is PostgreSQL's in the end, in a pipeline", () => {
  const policies = async () => {
    const { client: other } = await stage.logIn();
    const rows = rowsOf(await other.query(`SELECT policyname FROM pg_policies WHERE policyname = '${name}'`));
    other.close();
    return rows.flat();
  };
  const policy = () => `CREATE RLS POLICY ${name} ON written FOR READ USING (name IS NOT NULL)`;

  test("leaves those before it to the Sync", async () => {
    const messages = await ask(write(), create(), "SHOW RLS POLICIES", policy(), write(`${name}_b`));
    expect(tagsOf(messages)).toEqual([
      "INSERT 0 1",
      "CREATE USER",
      "SHOW",
      "CREATE RLS POLICY",
      "INSERT 0 1",
    ]);
    expect(await policies()).toEqual([name]);
    expect(await found()).toEqual({ rows: [name, `${name}_b`], users: [name] });
    expect(tagsOf(await ask(`DROP RLS POLICY ${name} ON written`))).toEqual(["DROP RLS POLICY"]);
    expect(await policies()).toEqual([]);
  });

  test("is undone with it", async () => {
    const messages = await ask(write(), create(), policy(), "SELECT 1/0");
    expect(errorOf(messages).get("C")).toBe("22012");
    expect(await policies()).toEqual([]);
    expect(await found()).toEqual({ rows: [], users: [] });
  });

  test("undoes the rest when it fails, and says where", async () => {
    const text = `CREATE RLS POLICY ${name} ON written FOR WRITE USING ('ä' = % name)`;
    const messages = await ask(write(), create(), text);
    expect([errorOf(messages).get("C"), errorOf(messages).get("P")]).toEqual([
      "42601",
      String(text.indexOf("%") + 1),
    ]);
    expect(await found()).toEqual({ rows: [], users: [] });
  });

  test("leaves the client's unnamed statement and portal alone", async () => {
    await client.send(
      run("BEGIN"),
      encodeParse("own", "SHOW RLS POLICIES"),
      encodeParse("", "SELECT 7"),
      bind(),
    );
    await client.send(
      bind({ portal: "p", statement: "own" }),
      encodeExecute("p"),
      execute,
      bind(),
      execute,
      sync,
    );
    const messages = await client.readReady();
    expect(rowsOf(messages)).toEqual([["7"], ["7"]]);
    expect(statusOf(messages)).toBe("T");
  });
});

describe("a pipeline that a Query ends", () => {
  const behind = async (text: string): Promise<BackendMessage[]> => {
    await client.send(run(write(), create()), encodeQuery(text));
    return client.readReady();
  };

  test("is committed with it", async () => {
    const messages = await behind(write(`${name}_b`));
    expect([tagsOf(messages), statusOf(messages)]).toEqual([
      ["INSERT 0 1", "CREATE USER", "INSERT 0 1"],
      "I",
    ]);
    expect(await found()).toEqual({ rows: [name, `${name}_b`], users: [name] });
  });

  test("is undone with it", async () => {
    const messages = await behind("SELECT 1/0");
    expect([errorOf(messages).get("C"), statusOf(messages)]).toEqual(["22012", "I"]);
    expect(await found()).toEqual({ rows: [], users: [] });
  });

  test("is taken into the block that it begins", async () => {
    const messages = await behind("BEGIN");
    expect([tagsOf(messages), statusOf(messages)]).toEqual([["INSERT 0 1", "CREATE USER", "BEGIN"], "T"]);
    expect(await found()).toEqual({ rows: [], users: [] });
    expect(statusOf(await client.query("COMMIT"))).toBe("I");
    expect(await found()).toEqual({ rows: [name], users: [name] });
  });

  test("is undone with ROLLBACK, and committed with COMMIT", async () => {
    expect(statusOf(await behind("ROLLBACK"))).toBe("I");
    expect(await found()).toEqual({ rows: [], users: [] });
    expect(statusOf(await behind("COMMIT"))).toBe("I");
    expect(await found()).toEqual({ rows: [name], users: [name] });
  });

  test("is committed with an empty one", async () => {
    expect(describeMessages(await behind(""))).toBe("12C12CIZ");
    expect(await found()).toEqual({ rows: [name], users: [name] });
  });
});

test("a pipeline with a statement of ours cannot end in a FunctionCall", async () => {
  const call = Buffer.concat([Buffer.from([0, 0, 0x06, 0x4e]), Buffer.alloc(6)]);
  await client.send(run(write(), create()), encodeFlush(), message("F", call));
  const messages = await client.readToClose();
  expect([errorOf(messages).get("C"), errorOf(messages).get("V")]).toEqual(["0A000", "FATAL"]);
  expect(await found()).toEqual({ rows: [], users: [] });
});

test("a prepared statement of ours that is bound ahead, behind the Sync of an earlier pipeline, is run", async () => {
  await client.send(encodeParse("made", create()), sync);
  await client.readReady();
  await client.send(bind({ statement: "made" }), execute, sync, bind({ statement: "made" }), execute, sync);
  expect(tagsOf(await client.readReady())).toEqual(["CREATE USER"]);
  expect(errorOf(await client.readReady()).get("C")).toBe("42710");
});

test("rows of a statement of ours that is bound ahead come as often as it is bound", async () => {
  await client.query(create());
  await client.send(encodeParse("shown", "SHOW USERS"), sync);
  await client.readReady();
  const shown = [bind({ statement: "shown" }), execute, sync];
  await client.send(...shown, ...shown, ...shown);
  for (let answers = 0; answers < 3; answers += 1) {
    expect(rowsOf(await client.readReady()).map(([user]) => user)).toContain(name);
  }
});
