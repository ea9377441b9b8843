/** Statements of the front-end's own in the simple protocol, alone and among others (PostgreSQL 18 manual 54.2.2). */

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { encodeQuery } from "../../src/wire/frontend-message-encoding.ts";
import { openProtocolStage, type ProtocolStage } from "../support/protocol-stage.ts";
import {
  describeMessages,
  errorOf,
  message,
  type RawClient,
  rowsOf,
  statusOf,
  tagsOf,
} from "../support/raw-client.ts";

let stage: ProtocolStage;
let client: RawClient;

beforeAll(async () => {
  stage = await openProtocolStage();
  const setUp = await stage.logIn();
  for (const text of [
    "CREATE TABLE public.place (name text)",
    "CREATE USER alice PASSWORD 'correct horse'",
  ]) {
    expect(describeMessages(await setUp.client.query(text))).toBe("CZ");
  }
});
afterEach(() => stage.closeClients());
afterAll(() => stage?.close());

function query(text: string | Buffer): Buffer {
  return message("Q", Buffer.concat([Buffer.from(text), Buffer.from([0])]));
}

describe.each(["whole", "bytes"] as const)("a Query sent %s", (cutting) => {
  beforeEach(async () => {
    ({ client } = await stage.logIn({}, cutting));
  });

  const ask = async (text: string | Buffer) => {
    await client.send(query(text));
    return client.readReady();
  };

  test("returns the rows of SHOW USERS as text", async () => {
    const messages = await ask("SHOW USERS");
    expect(describeMessages(messages)).toMatch(/^TD+CZ$/);
    expect(tagsOf(messages)).toEqual(["SHOW"]);
    expect(
      rowsOf(messages)
        .find(([name]) => name === "alice")
        ?.slice(0, 4),
    ).toEqual(["alice", "1", "readwrite", "f"]);
  });

  test("sends a notice before the result of a statement that had nothing to do", async () => {
    const messages = await ask("DROP USER IF EXISTS nobody_here");
    expect(describeMessages(messages)).toBe("NCZ");
    expect(tagsOf(messages)).toEqual(["DROP USER"]);
  });

  test.each([
    ["a NUL byte", Buffer.from("CREATE USER mallory PASSWORD 'long\0enough'"), "22021"],
    [
      "bytes that are not UTF-8",
      Buffer.from("CREATE USER mallory PASSWORD 'long\xffenough'", "latin1"),
      "22021",
    ],
    [
      "a truncated character",
      Buffer.from("CREATE USER mallory PASSWORD 'long enough\xc3", "latin1"),
      "22021",
    ],
    ["a syntax error", "CREATE USER mallory PASWORD 'long enough'", "42601"],
    ["an end that comes too early", "CREATE USER mallory PASSWORD", "42601"],
    ["a short password", "CREATE USER mallory PASSWORD 'short'", "22023"],
    ["a name that is taken", "CREATE USER alice PASSWORD 'long enough'", "42710"],
    ["a role that is not there", "CREATE USER mallory PASSWORD 'long enough' ROLE emperor", "42704"],
    ["an impossible date", "CREATE USER mallory PASSWORD 'long enough' VALID UNTIL 'someday'", "22007"],
    ["a user that is not there", "ALTER USER mallory PASSWORD 'long enough'", "42704"],
    ["dropping oneself", "DROP USER nodedb", "42501"],
    [
      "more than 1 MB",
      `CREATE USER mallory PASSWORD 'long enough' /* ${"x".repeat(1024 * 1024)} */`,
      "54000",
    ],
  ])("is refused for %s, and the users stay what they were", async (_, text, sqlstate) => {
    const before = rowsOf(await ask("SHOW USERS"));
    const messages = await ask(text);
    expect(describeMessages(messages)).toBe("EZ");
    expect([errorOf(messages).get("S"), errorOf(messages).get("C")]).toEqual(["ERROR", sqlstate]);
    expect(statusOf(messages)).toBe("I");
    expect(rowsOf(await ask("SHOW USERS"))).toEqual(before);
  });

  test("keeps its error's position when others stand before it, counted in characters", async () => {
    const text = "SELECT 'ä€😀'; CREATE USER mallory PASWORD 'long enough'";
    const messages = await ask(text);
    expect(describeMessages(messages)).toBe("TDCEZ");
    expect(errorOf(messages).get("P")).toBe(String([...text.slice(0, text.indexOf("PASWORD"))].length + 1));
  });

  test("keeps the position of PostgreSQL's error when one of ours stands before it", async () => {
    const text = "/* ä */ SHOW USERS; SELECT 'ä', nonsense_column";
    const messages = await ask(text);
    expect(describeMessages(messages)).toMatch(/^TD+CEZ$/);
    expect(errorOf(messages).get("C")).toBe("42703");
    expect(errorOf(messages).get("P")).toBe(String(text.indexOf("nonsense_column") + 1));
  });

  test("is told an error whose position was moved behind what came before it", async () => {
    const messages = await ask(
      "SHOW USERS; DO 'BEGIN RAISE NOTICE ''told''; END'; SELECT 1; SELECT nonsense_column",
    );
    expect(describeMessages(messages)).toMatch(/^TD+CNCTDCEZ$/);
  });

  test("runs ours and theirs in their order under one ReadyForQuery", async () => {
    const messages = await ask(
      "SELECT 'first'; CREATE USER dora PASSWORD 'long enough'; SELECT 'second', count(*) FROM pg_roles WHERE rolname = 'dora'; ; DROP USER dora; SELECT 'third';",
    );
    expect(describeMessages(messages)).toBe("TDCCTDCCTDCZ");
    expect(tagsOf(messages)).toEqual(["SELECT 1", "CREATE USER", "SELECT 1", "DROP USER", "SELECT 1"]);
    expect(rowsOf(messages)).toEqual([["first"], ["second", "1"], ["third"]]);
  });

  test("stops at the first error, ours or theirs", async () => {
    const ours = await ask(
      "SELECT 1; CREATE USER alice PASSWORD 'long enough'; CREATE USER eve PASSWORD 'long enough'",
    );
    expect(describeMessages(ours)).toBe("TDCEZ");
    const theirs = await ask("SELECT 1; SELECT 1/0; CREATE USER eve PASSWORD 'long enough'");
    expect(describeMessages(theirs)).toBe("TDCEZ");
    expect(await stage.userNames()).not.toContain("eve");
  });

  test("copies the client's data in between statements of ours, and twice", async () => {
    await client.send(
      query("SHOW SESSION; COPY place FROM STDIN; SHOW SESSION; COPY place FROM STDIN; SELECT 'end'"),
    );
    await client.readUntil("G");
    await client.send(message("d", "Paris\nRome\n"), message("c"));
    expect(describeMessages(await client.readUntil("G"))).toBe("CTDCG");
    await client.send(message("d", "Oslo\n"), message("d", "Bern\n"), message("c"));
    const messages = await client.readReady();
    expect(describeMessages(messages)).toBe("CTDCZ");
    expect(tagsOf(messages)).toEqual(["COPY 2", "SELECT 1"]);
  });

  test("copies data that were all sent ahead", async () => {
    await client.send(
      query("COPY place FROM STDIN; SHOW SESSION; COPY place FROM STDIN"),
      message("d", "Paris\n"),
      message("c"),
      message("d", "Rome\n"),
      message("c"),
      query("SELECT 'after'"),
    );
    expect(describeMessages(await client.readReady())).toBe("GCTDCGCZ");
    expect(rowsOf(await client.readReady())).toEqual([["after"]]);
    const copy = [query("COPY place FROM STDIN"), message("d", "Bern\n"), message("c")];
    await client.send(...copy, ...copy, query("SELECT 'between'"), query("SHOW SESSION"), ...copy);
    const answers: string[] = [];
    for (let index = 0; index < 5; index += 1) answers.push(describeMessages(await client.readReady()));
    expect(answers).toEqual(["GCZ", "GCZ", "TDCZ", "TDCZ", "GCZ"]);
  });

  test("goes on after a copy in its middle has failed, and skips what stood behind it", async () => {
    for (const end of [message("f", "I do not want to\0"), message("c")]) {
      await client.send(query("SHOW SESSION; COPY place FROM STDIN; CREATE USER eve PASSWORD 'long enough'"));
      await client.readUntil("G");
      await client.send(message("d", "one\ttoo many\n"), end);
      const messages = await client.readReady();
      expect(describeMessages(messages)).toBe("EZ");
      expect(rowsOf(await ask("SELECT 'works'"))).toEqual([["works"]]);
    }
    expect(await stage.userNames()).not.toContain("eve");
  });

  test("copies out between statements of ours", async () => {
    const messages = await ask("SHOW SESSION; COPY (SELECT generate_series(1, 3)) TO STDOUT; SHOW SESSION");
    expect(describeMessages(messages)).toBe("TDCHdddcCTDCZ");
  });

  test("that holds nothing but blanks, comments and semicolons is empty", async () => {
    for (const text of ["", " ", ";", "-- SHOW USERS", "/* CREATE USER x */ ;"]) {
      expect(describeMessages(await ask(text)), text).toBe("IZ");
    }
  });

  test("that is refused inside a transaction block fails the block", async () => {
    expect(statusOf(await ask("BEGIN"))).toBe("T");
    const messages = await ask("DROP USER nodedb");
    expect(errorOf(messages).get("C")).toBe("42501");
    expect(statusOf(messages)).toBe("E");
    expect(errorOf(await ask("SELECT 1")).get("C")).toBe("25P02");
    expect(errorOf(await ask("SHOW USERS")).get("C")).toBe("25P02");
    expect(errorOf(await ask("CREATE USER eve PASSWORD 'long enough'")).get("C")).toBe("25P02");
    const end = await ask("COMMIT");
    expect([tagsOf(end), statusOf(end)]).toEqual([["ROLLBACK"], "I"]);
    expect(await stage.userNames()).toContain("alice");
  });

  test("may read in a transaction block, which an error of ours fails until its savepoint", async () => {
    await ask("BEGIN; SAVEPOINT here");
    const shown = await ask("SHOW USERS");
    expect([describeMessages(shown).replace(/D+/, "D"), statusOf(shown)]).toEqual(["TDCZ", "T"]);
    expect(statusOf(await ask("ALTER USER alice PASWORD 'x'"))).toBe("E");
    expect(statusOf(await ask("ROLLBACK TO here"))).toBe("T");
    expect(statusOf(await ask("COMMIT; SHOW SESSION"))).toBe("I");
  });

  test("is part of the block that begins in the same string", async () => {
    const refused = await ask("BEGIN; CREATE USER eve PASSWORD 'long enough'; DROP USER nodedb; COMMIT");
    expect(describeMessages(refused)).toBe("CCEZ");
    expect([errorOf(refused).get("C"), statusOf(refused)]).toEqual(["42501", "E"]);
    expect(tagsOf(await ask("COMMIT"))).toEqual(["ROLLBACK"]);
    const dropped = await ask("BEGIN; CREATE USER eve PASSWORD 'long enough'; DROP USER eve; COMMIT");
    expect(tagsOf(dropped)).toEqual(["BEGIN", "CREATE USER", "DROP USER", "COMMIT"]);
    expect(await stage.userNames()).not.toContain("eve");
    const taken = await ask("BEGIN; CREATE USER finn PASSWORD 'long enough'; COMMIT");
    expect([tagsOf(taken), statusOf(taken)]).toEqual([["BEGIN", "CREATE USER", "COMMIT"], "I"]);
    expect(await stage.userNames()).toContain("finn");
    expect(tagsOf(await ask("DROP USER finn"))).toEqual(["DROP USER"]);
  });

  test("gets its answers in order when several are sent before any is read", async () => {
    await client.send(
      encodeQuery("SELECT 1"),
      encodeQuery("SHOW SESSION"),
      encodeQuery("SELECT 2"),
      encodeQuery("CREATE USER alice PASSWORD 'long enough'"),
      encodeQuery("SELECT 3; SHOW SESSION"),
    );
    const answers: string[] = [];
    for (let index = 0; index < 5; index += 1) answers.push(describeMessages(await client.readReady()));
    expect(answers).toEqual(["TDCZ", "TDCZ", "TDCZ", "EZ", "TDCTDCZ"]);
  });
});

describe.each(["whole", "bytes"] as const)("a hostile client that sends %s", (cutting) => {
  beforeEach(async () => {
    ({ client } = await stage.logIn({}, cutting));
  });

  test.each([
    [
      "nested comments",
      `CREATE USER eve ${"/*".repeat(200_000)}${"*/".repeat(200_000)} PASSWORD 'long enough'`,
    ],
    ["parentheses", `CREATE USER eve PASSWORD ${"(".repeat(500_000)}`],
    ["quotes", `CREATE USER ${'"'.repeat(900_001)}`],
    ["names", `DROP USER ${"a,".repeat(400_000)}a`],
  ])("cannot exhaust the parser with %s", async (_, text) => {
    const before = await stage.userNames();
    const messages = await client.query(text);
    expect(describeMessages(messages)).toBe("EZ");
    expect(errorOf(messages).get("C")).toMatch(/^(54000|54001|42601)$/);
    expect(await stage.userNames()).toEqual(before);
    expect(rowsOf(await client.query("SELECT 1"))).toEqual([["1"]]);
  });

  test("gets 54001 for comments that are nested too deeply", async () => {
    const text = `CREATE USER eve ${"/*".repeat(200_000)}${"*/".repeat(200_000)} PASSWORD 'long enough'`;
    expect(errorOf(await client.query(text)).get("C")).toBe("54001");
  });

  test("is refused by PostgreSQL for a Query that does not end with NUL, and nothing is cut off from it", async () => {
    await client.send(message("Q", "CREATE USER eve PASSWORD 'long enough'X"));
    const messages = await client.readReady();
    expect(errorOf(messages).get("C")).toBe("08P01");
    expect(await stage.userNames()).not.toContain("eve");
    await client.send(message("Q", ""));
    expect(errorOf(await client.readReady()).get("C")).toBe("08P01");
  });

  test.each([
    ["of ours", "SHOW USERS"],
    ["of PostgreSQL's", "SELECT 1"],
  ])("gets FATAL 08P01 for a Query %s where the data of a copy belong", async (_, text) => {
    await client.send(encodeQuery("COPY place FROM STDIN"));
    await client.readUntil("G");
    await client.send(encodeQuery(text));
    const messages = await client.readToClose();
    expect(messages.filter(({ type }) => type === "E").length).toBeGreaterThan(0);
    const last = errorOf(messages.filter(({ type }) => type === "E").slice(-1));
    expect([last.get("V"), last.get("C")]).toEqual(["FATAL", "08P01"]);
  });

  test("gets FATAL 08P01 for a Query of ours sent ahead where the data of a copy belong", async () => {
    await client.send(encodeQuery("COPY place FROM STDIN"), encodeQuery("SHOW USERS"));
    const messages = await client.readToClose();
    const last = errorOf(messages.filter(({ type }) => type === "E").slice(-1));
    expect([last.get("V"), last.get("C")]).toEqual(["FATAL", "08P01"]);
  });

  test("gets FATAL 08P01 for a Query inside a copy that stands between statements of ours", async () => {
    await client.send(encodeQuery("SHOW SESSION; COPY place FROM STDIN"));
    await client.readUntil("G");
    await client.send(encodeQuery("SELECT 1"));
    const last = errorOf((await client.readToClose()).filter(({ type }) => type === "E").slice(-1));
    expect([last.get("V"), last.get("C")]).toEqual(["FATAL", "08P01"]);
  });
});
