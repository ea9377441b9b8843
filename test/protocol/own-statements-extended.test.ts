/** Statements of the front-end's own in the extended protocol (PostgreSQL 18 manual 54.2.3). */

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import {
  encodeClose,
  encodeDescribe,
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
  valuesOf,
} from "../support/raw-client.ts";

const sync = encodeSync();
const execute = encodeExecute("");

let stage: ProtocolStage;
let client: RawClient;

beforeAll(async () => {
  stage = await openProtocolStage();
  const setUp = await stage.logIn();
  for (const name of ["alice", "berta", "clara"]) {
    expect(describeMessages(await setUp.client.query(`CREATE USER ${name} PASSWORD 'correct horse'`))).toBe(
      "CZ",
    );
  }
  await setUp.client.query("CREATE TABLE public.place (name text)");
});
afterEach(() => stage.closeClients());
afterAll(() => stage?.close());

/** Types of the messages up to ReadyForQuery, a run of DataRow as one. */
function shape(messages: readonly BackendMessage[]): string {
  return describeMessages(messages).replaceAll(/D+/g, "D");
}

/** Columns of a RowDescription: name, type, format. */
function columnsOf(messages: readonly BackendMessage[]): [name: string, type: number, format: number][] {
  const body = messages.find(({ type }) => type === "T")?.body ?? Buffer.alloc(2);
  const columns: [string, number, number][] = [];
  let offset = 2;
  for (let left = body.readUInt16BE(0); left > 0; left -= 1) {
    const end = body.indexOf(0, offset);
    columns.push([
      body.toString("utf8", offset, end),
      body.readUInt32BE(end + 7),
      body.readUInt16BE(end + 17),
    ]);
    offset = end + 19;
  }
  return columns;
}

describe.each(["whole", "bytes"] as const)("messages sent %s", (cutting) => {
  beforeEach(async () => {
    ({ client } = await stage.logIn({}, cutting));
  });

  const ask = async (...messages: readonly Buffer[]) => {
    await client.send(...messages, sync);
    return client.readReady();
  };

  test("run an unnamed statement of ours once", async () => {
    const create = await ask(
      encodeParse("", "CREATE USER dora PASSWORD 'long enough'"),
      bind(),
      encodeDescribe("portal", ""),
      execute,
    );
    expect([shape(create), tagsOf(create), statusOf(create)]).toEqual(["12nCZ", ["CREATE USER"], "I"]);
    const drop = await ask(encodeParse("", "DROP USER dora"), bind(), execute);
    expect([shape(drop), tagsOf(drop)]).toEqual(["12CZ", ["DROP USER"]]);
  });

  test("run a named statement several times, described before and after it is bound", async () => {
    const described = await ask(encodeParse("users", "SHOW USERS"), encodeDescribe("statement", "users"));
    expect(shape(described)).toBe("1tTZ");
    expect(described.find(({ type }) => type === "t")?.body).toEqual(Buffer.from([0, 0]));
    expect(columnsOf(described).slice(0, 4)).toEqual([
      ["username", 25, 0],
      ["tenant_id", 20, 0],
      ["roles", 25, 0],
      ["is_superuser", 16, 0],
    ]);
    for (let times = 0; times < 3; times += 1) {
      const messages = await ask(bind({ statement: "users" }), encodeDescribe("portal", ""), execute);
      expect(shape(messages)).toBe("2TDCZ");
      expect(rowsOf(messages).map(([name]) => name)).toEqual(["alice", "berta", "clara", "nodedb"]);
    }
  });

  test("describe a command of ours as one without rows", async () => {
    const messages = await ask(
      encodeParse("drop", "DROP USER nobody_here"),
      encodeDescribe("statement", "drop"),
      bind({ portal: "p", statement: "drop" }),
      encodeDescribe("portal", "p"),
    );
    expect(shape(messages)).toBe("1tn2nZ");
  });

  test("get binary values where they ask for them, for all columns or for each", async () => {
    const all = await ask(
      encodeParse("", "SHOW USERS"),
      bind({ resultFormats: [1] }),
      encodeDescribe("portal", ""),
      execute,
    );
    expect(columnsOf(all).map(([, , format]) => format)).toEqual(Array(9).fill(1));
    const [alice] = all.filter(({ type }) => type === "D").map(({ body }) => valuesOf(body));
    expect(alice?.slice(0, 4)).toEqual([
      Buffer.from("alice"),
      Buffer.from([0, 0, 0, 0, 0, 0, 0, 1]),
      Buffer.from("readwrite"),
      Buffer.from([0]),
    ]);
    const createdAt = Number((alice?.[8] ?? Buffer.alloc(8)).readBigInt64BE(0)) / 1000 + Date.UTC(2000, 0, 1);
    expect(Math.abs(createdAt - Date.now())).toBeLessThan(600_000);
    const each = await ask(bind({ resultFormats: [0, 1, 0, 0, 0, 0, 0, 0, 0] }), execute);
    expect(valuesOf(each.find(({ type }) => type === "D")?.body ?? Buffer.alloc(2)).slice(0, 4)).toEqual([
      Buffer.from("alice"),
      Buffer.from([0, 0, 0, 0, 0, 0, 0, 1]),
      Buffer.from("readwrite"),
      Buffer.from("f"),
    ]);
  });

  test("are refused for result formats that do not fit", async () => {
    const number = await ask(encodeParse("", "SHOW USERS"), bind({ resultFormats: [0, 1] }), execute);
    expect([shape(number), errorOf(number).get("C")]).toEqual(["1EZ", "08P01"]);
    const code = await ask(encodeParse("", "SHOW USERS"), bind({ resultFormats: [7] }), execute);
    expect(errorOf(code).get("C")).toBe("22023");
  });

  test("fetch rows in portions, and are told when a portal is suspended and when it is done", async () => {
    await client.send(
      encodeParse("", "SHOW USERS"),
      bind({ portal: "p" }),
      encodeExecute("p", 3),
      encodeFlush(),
    );
    const first = await client.readUntil("s");
    expect(describeMessages(first)).toBe("12DDDs");
    await client.send(encodeExecute("p", 1), encodeFlush());
    expect(describeMessages(await client.readUntil("s"))).toBe("Ds");
    const rest = await ask(encodeExecute("p", 5), encodeExecute("p", 0));
    expect([describeMessages(rest), tagsOf(rest)]).toEqual(["CCZ", ["SHOW", "SHOW"]]);
  });

  test("keep a portal over several Syncs in a transaction block, and lose it at its end", async () => {
    await client.query("BEGIN");
    expect(
      shape(await ask(encodeParse("", "SHOW USERS"), bind({ portal: "p" }), encodeExecute("p", 2))),
    ).toBe("12DsZ");
    expect(describeMessages(await ask(encodeExecute("p", 2)))).toBe("DDsZ");
    await client.query("COMMIT");
    expect(errorOf(await ask(encodeExecute("p", 2))).get("C")).toBe("34000");
  });

  test("lose a portal at Sync outside of a block", async () => {
    await ask(encodeParse("", "SHOW USERS"), bind({ portal: "p" }), encodeExecute("p", 1));
    expect(errorOf(await ask(encodeExecute("p", 1))).get("C")).toBe("34000");
  });

  test("cannot run a command of ours twice with one portal", async () => {
    const messages = await ask(encodeParse("", "DROP USER IF EXISTS nobody_here"), bind(), execute, execute);
    expect([shape(messages), errorOf(messages).get("C")]).toEqual(["12NCEZ", "55000"]);
  });

  test.each([
    ["a syntax error", "CREATE USER eve PASWORD 'long enough'", "42601", "17"],
    [
      "bytes that are not UTF-8",
      Buffer.from("CREATE USER eve PASSWORD 'long \xff enough'", "latin1"),
      "22021",
      undefined,
    ],
    ["two statements", "DROP USER alice; DROP USER berta", "42601", undefined],
    ["a length over 1 MB", `DROP USER alice /* ${"x".repeat(1024 * 1024)} */`, "54000", undefined],
    ["nesting", `DROP USER ${"/*".repeat(100_000)}${"*/".repeat(100_000)} alice`, "54001", undefined],
  ])(
    "are refused at Parse for %s, and the rest is skipped up to Sync",
    async (_, text, sqlstate, position) => {
      const before = await stage.userNames();
      const messages = await ask(
        encodeParse("", text),
        bind(),
        encodeDescribe("portal", ""),
        execute,
        encodeParse("", "CREATE USER eve PASSWORD 'long enough'"),
        bind(),
        execute,
      );
      expect(shape(messages)).toBe("EZ");
      expect([errorOf(messages).get("C"), errorOf(messages).get("P")]).toEqual([sqlstate, position]);
      expect(await stage.userNames()).toEqual(before);
      expect(shape(await ask(encodeParse("", "SHOW USERS"), bind(), execute))).toBe("12DCZ");
    },
  );

  test("are refused at Execute for what only the catalog knows, and the rest is skipped", async () => {
    const messages = await ask(
      encodeParse("", "CREATE USER alice PASSWORD 'long enough'"),
      bind(),
      encodeDescribe("portal", ""),
      execute,
      encodeParse("", "SELECT 1"),
      bind(),
      execute,
    );
    expect([shape(messages), errorOf(messages).get("C"), statusOf(messages)]).toEqual([
      "12nEZ",
      "42710",
      "I",
    ]);
  });

  test("are refused by PostgreSQL for parameters that the statement does not have", async () => {
    const messages = await ask(encodeParse("", "SHOW USERS"), bind({ values: ["1"] }), execute);
    expect([shape(messages), errorOf(messages).get("C")]).toEqual(["1EZ", "08P01"]);
  });

  test("keep the session for a malformed Bind while a statement of ours is prepared", async () => {
    await ask(encodeParse("users", "SHOW USERS"));
    const messages = await ask(message("B", Buffer.from("\0users\0\0\x02\0\x01\0\x01\0\0\0\0", "latin1")));
    expect(errorOf(messages).get("C")).toBe("08P01");
    expect(shape(await ask(bind({ statement: "users" }), execute))).toBe("2DCZ");
  });

  test("mix ours and theirs before one Sync, answered in their order", async () => {
    const messages = await ask(
      encodeParse("", "SELECT 'first'"),
      bind(),
      execute,
      encodeParse("u", "SHOW USERS"),
      bind({ statement: "u" }),
      encodeDescribe("portal", ""),
      execute,
      encodeParse("", "SELECT 'second'"),
      bind(),
      execute,
      encodeClose("statement", "u"),
      encodeParse("", "CREATE USER dora PASSWORD 'long enough'"),
      bind(),
      execute,
      encodeParse("", "SELECT 'third'"),
      bind(),
      execute,
    );
    expect(shape(messages)).toBe("12DC12TDC12DC312C12DCZ");
    expect(tagsOf(messages)).toEqual(["SELECT 1", "SHOW", "SELECT 1", "CREATE USER", "SELECT 1"]);
    const dropped = await ask(
      encodeParse("", "SELECT 'before'"),
      bind(),
      execute,
      encodeParse("", "DROP USER dora"),
      bind(),
      execute,
    );
    expect(tagsOf(dropped)).toEqual(["SELECT 1", "DROP USER"]);
  });

  test("in a pipeline are undone with it, ours and theirs", async () => {
    const messages = await ask(
      encodeParse("", "CREATE USER eve PASSWORD 'long enough'"),
      bind(),
      execute,
      encodeParse("", "SELECT 1/0"),
      bind(),
      execute,
    );
    expect([shape(messages), errorOf(messages).get("C")]).toEqual(["12C1EZ", "22012"]);
    expect(await stage.userNames()).not.toContain("eve");
  });

  test("skip ours after an error of theirs, and theirs after an error of ours, up to Sync", async () => {
    const theirs = await ask(
      encodeParse("", "SELECT 1/0"),
      bind(),
      execute,
      encodeParse("", "CREATE USER eve PASSWORD 'long enough'"),
      bind(),
      execute,
    );
    expect([shape(theirs), errorOf(theirs).get("C")]).toEqual(["1EZ", "22012"]);
    const ours = await ask(
      encodeParse("", "DROP USER nobody_here"),
      bind(),
      execute,
      encodeParse("", "CREATE TABLE public.never (id int)"),
      bind(),
      execute,
    );
    expect([shape(ours), errorOf(ours).get("C")]).toEqual(["12EZ", "42704"]);
    expect(rowsOf(await client.query("SELECT to_regclass('public.never')"))).toEqual([[null]]);
    expect(await stage.userNames()).not.toContain("eve");
  });

  test("get several Syncs in flight answered one by one", async () => {
    const good = [encodeParse("", "SHOW SESSION"), bind(), execute, sync];
    const bad = [encodeParse("", "DROP USER nobody_here"), bind(), execute, execute, sync];
    const theirs = [encodeParse("", "SELECT 1"), bind(), execute, sync];
    await client.send(...good, ...bad, ...theirs, ...good, encodeQuery("SHOW SESSION"), ...theirs);
    const shapes: string[] = [];
    for (let index = 0; index < 6; index += 1) shapes.push(shape(await client.readReady()));
    expect(shapes).toEqual(["12DCZ", "12EZ", "12DCZ", "12DCZ", "TDCZ", "12DCZ"]);
  });

  test("that are refused in a transaction block fail the block", async () => {
    await client.query("BEGIN");
    const messages = await ask(encodeParse("", "DROP USER nodedb"), bind(), execute);
    expect([shape(messages), errorOf(messages).get("C"), statusOf(messages)]).toEqual(["12EZ", "42501", "E"]);
    expect(errorOf(await ask(encodeParse("", "SELECT 1"), bind(), execute)).get("C")).toBe("25P02");
    expect(errorOf(await ask(encodeParse("", "SHOW USERS"), bind(), execute)).get("C")).toBe("25P02");
    expect(statusOf(await client.query("ROLLBACK"))).toBe("I");
    expect(await stage.userNames()).toContain("alice");
  });

  test("keep a name that is taken, whoever's statement has it", async () => {
    await ask(encodeParse("a", "SELECT 'theirs'"), encodeParse("b", "SHOW SESSION"));
    for (const [name, text] of [
      ["a", "SHOW USERS"],
      ["b", "SELECT 'other'"],
      ["b", "SHOW USERS"],
    ] as const) {
      expect(errorOf(await ask(encodeParse(name, text))).get("C")).toBe("42P05");
    }
    expect(rowsOf(await ask(bind({ statement: "a" }), execute))).toEqual([["theirs"]]);
    expect(rowsOf(await ask(bind({ statement: "b" }), execute))[0]?.[0]).toBe("nodedb");
  });

  test("may use a name again after Close, and the unnamed statement at any time", async () => {
    for (const [text, value] of [
      ["SHOW SESSION", "nodedb"],
      ["SELECT 'theirs'", "theirs"],
      ["SHOW SESSION", "nodedb"],
    ] as const) {
      const named = await ask(
        encodeParse("n", text),
        bind({ statement: "n" }),
        execute,
        encodeClose("statement", "n"),
      );
      expect([shape(named), rowsOf(named)[0]?.[0]]).toEqual(["12DC3Z", value]);
      const unnamed = await ask(encodeParse("", text), bind(), execute);
      expect([shape(unnamed), rowsOf(unnamed)[0]?.[0]]).toEqual(["12DCZ", value]);
    }
    expect(errorOf(await ask(bind({ statement: "n" }))).get("C")).toBe("26000");
  });

  test("keep a statement of ours whose Close was skipped after an error", async () => {
    await ask(encodeParse("users", "SHOW USERS"));
    const messages = await ask(encodeParse("", "nonsense"), encodeClose("statement", "users"));
    expect(shape(messages)).toBe("EZ");
    expect(shape(await ask(bind({ statement: "users" }), execute))).toBe("2DCZ");
  });

  test("may close a portal of ours before its end", async () => {
    const messages = await ask(
      encodeParse("", "SHOW USERS"),
      bind({ portal: "p" }),
      encodeExecute("p", 1),
      encodeClose("portal", "p"),
      encodeExecute("p", 1),
    );
    expect([shape(messages), errorOf(messages).get("C")]).toEqual(["12Ds3EZ", "34000"]);
  });

  test.each(["DEALLOCATE ALL", "DEALLOCATE users", "DISCARD ALL"])(
    "lose a statement of ours by %s and may prepare another under its name",
    async (text) => {
      await ask(encodeParse("users", "SHOW USERS"));
      await client.query(text);
      expect(errorOf(await ask(bind({ statement: "users" }), execute)).get("C")).toBe("26000");
      expect(shape(await ask(encodeParse("users", "SELECT 1"), bind({ statement: "users" }), execute))).toBe(
        "12DCZ",
      );
      expect(shape(await ask(encodeClose("statement", "users"), encodeParse("users", "SHOW SESSION")))).toBe(
        "31Z",
      );
      expect(rowsOf(await ask(bind({ statement: "users" }), execute))[0]?.[0]).toBe("nodedb");
    },
  );

  test("go on after a copy that failed in the extended protocol", async () => {
    for (const end of [message("c"), message("f", "no\0")]) {
      await client.send(encodeParse("", "COPY place FROM STDIN"), bind(), execute, sync);
      await client.readUntil("G");
      // libpq sends a second Sync when the copy is over: the first one was ignored.
      await client.send(message("d", "one\ttoo many\n"), end, sync);
      expect(shape(await client.readReady())).toBe("EZ");
      expect(shape(await ask(encodeParse("", "SHOW SESSION"), bind(), execute))).toBe("12DCZ");
      expect(shape(await client.query("SHOW SESSION"))).toBe("TDCZ");
    }
  });

  test("go on after a copy whose data and Syncs were all sent ahead", async () => {
    const copy = [encodeParse("", "COPY place FROM STDIN"), bind(), execute, sync];
    const show = [encodeParse("", "SHOW SESSION"), bind(), execute, sync];
    await client.send(...copy, message("d", "Rome\n"), message("c"), sync, ...show);
    expect(shape(await client.readReady())).toBe("12GCZ");
    expect(shape(await client.readReady())).toBe("12DCZ");
    const query = encodeQuery("SELECT 1");
    await client.send(...copy, message("d", "Oslo\n"), message("c"), sync, query, ...show, query, ...show);
    const shapes: string[] = [];
    for (let index = 0; index < 5; index += 1) shapes.push(shape(await client.readReady()));
    expect(shapes).toEqual(["12GCZ", "TDCZ", "12DCZ", "TDCZ", "12DCZ"]);
    await client.send(...copy, message("d", "one\ttoo many\n"), message("c"), sync, ...show);
    expect(shape(await client.readReady())).toBe("12GEZ");
    expect(shape(await client.readReady())).toBe("12DCZ");
  });
});

test.each(["whole", "bytes"] as const)(
  "a Parse of ours sent %s where a copy waits for data ends the session with 08P01",
  async (cutting) => {
    ({ client } = await stage.logIn({}, cutting));
    await client.send(encodeParse("", "COPY place FROM STDIN"), bind(), execute, encodeFlush());
    await client.readUntil("G");
    await client.send(encodeParse("", "SHOW USERS"), sync);
    const errors = (await client.readToClose()).filter(({ type }) => type === "E");
    const last = errorOf(errors.slice(-1));
    expect([last.get("V"), last.get("C")]).toEqual(["FATAL", "08P01"]);
  },
);
