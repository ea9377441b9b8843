/** Messages that PostgreSQL skips, ignores or answers late: the front-end counts as it does, on the real server. */

import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { encodeQuery } from "../../src/wire/frontend-message-encoding.ts";
import { openProtocolStage, type ProtocolStage } from "../support/protocol-stage.ts";
import {
  bind,
  ConnectionClosed,
  describeMessages,
  errorOf,
  int32,
  message,
  rowsOf,
  tagsOf,
} from "../support/raw-client.ts";

const sync = message("S");
const flush = message("H");
const copyDone = message("c");
const terminate = message("X");
const badRow = message("d", "not a number\n");

function parse(text: string, name = ""): Buffer {
  return message("P", Buffer.concat([Buffer.from(`${name}\0${text}\0`), Buffer.from([0, 0])]));
}

function execute(portal = ""): Buffer {
  return message("E", Buffer.concat([Buffer.from(`${portal}\0`), int32(0)]));
}

let stage: ProtocolStage;
const app = { user: "app", password: "app app app" };

beforeAll(async () => {
  stage = await openProtocolStage({ configuration: "[upstream]\npool_size = 1\n" });
  const { client } = await stage.logIn();
  await client.query(`CREATE USER app PASSWORD '${app.password}' ROLE admin`);
  await client.query("CREATE TABLE public.numbers (n int)");
  await client.query("GRANT ALL ON public.numbers TO app");
  client.close();
});
afterEach(() => stage.closeClients());
afterAll(() => stage?.close());

/** Runs SQL as the administrator, when the one connection of his pool is free. */
async function asAdmin(sql: string): Promise<(string | null)[][]> {
  const { client } = await stage.logIn();
  const rows = rowsOf(await client.query(sql));
  await client.send(terminate);
  client.close();
  return rows;
}

test("a session that leaves with a statement behind a failed copy leaves its connection to nobody", async () => {
  const first = await stage.logIn(app);
  const waiting = stage.logIn(app);
  await first.client.send(
    encodeQuery("COPY numbers FROM STDIN"),
    badRow,
    copyDone,
    parse("SELECT pg_sleep(1), 'rows of another session'"),
    bind(),
    execute(),
    sync,
  );
  await first.client.readReady();
  await first.client.send(terminate);
  const second = await waiting;
  expect(rowsOf(await second.client.query("SELECT 'mine'"))).toEqual([["mine"]]);
  expect(rowsOf(await second.client.query("SELECT 'mine again'"))).toEqual([["mine again"]]);
});

test("a statement of ours is skipped where PostgreSQL skips one of its own", async () => {
  const { client } = await stage.logIn();
  await client.send(
    parse("syntax error here"),
    encodeQuery("CREATE USER ghost PASSWORD 'ghost ghost'"),
    sync,
  );
  expect(describeMessages(await client.readReady())).toBe("EZ");
  expect(tagsOf(await client.query("SELECT 1"))).toEqual(["SELECT 1"]);
  client.close();
  expect(await stage.userNames()).not.toContain("ghost");
});

test("a statement of ours behind an error of more than 1 MB does not run", async () => {
  const { client } = await stage.logIn();
  const messages = await client.query(
    "DO $$ BEGIN RAISE EXCEPTION '%', repeat('x', 2000000); END $$; CREATE USER after_big PASSWORD 'after after'",
  );
  expect(describeMessages(messages)).toBe("EZ");
  client.close();
  expect(await stage.userNames()).not.toContain("after_big");
});

test("Execute of a portal of ours after its Sync gets 34000, as one of PostgreSQL's does", async () => {
  const { client } = await stage.logIn();
  for (const text of ["SELECT 1", "SHOW SESSION"]) {
    await client.send(parse(text, "s"), sync);
    await client.readReady();
    await client.send(bind({ statement: "s" }), sync, execute(), sync);
    expect(describeMessages(await client.readReady()), text).toBe("2Z");
    const messages = await client.readReady();
    expect(errorOf(messages).get("C"), text).toBe("34000");
    await client.send(message("C", "Ss\0"), sync);
    await client.readReady();
  }
});

test("a statement of ours behind a copy in the extended protocol is refused or run by us, never forwarded", async () => {
  const { client } = await stage.logIn();
  await client.send(
    parse("COPY numbers FROM STDIN"),
    bind(),
    execute(),
    message("d", "1\n"),
    copyDone,
    parse("SELECT 1"),
    bind(),
    execute(),
    sync,
  );
  await client.readReady();
  await client.query("CREATE USER behind_copy PASSWORD 'behind behind'");
  client.close();
  expect(await stage.userNames()).toContain("behind_copy");
});

describe("a user who may not log in any more is sent away", () => {
  afterEach(async () => void (await asAdmin("ALTER USER app LOGIN")));

  test.each([
    ["never sends Sync", [parse("SELECT current_user"), bind(), execute(), flush]],
    ["ended a copy that there was not", [parse("SELECT 1"), bind(), execute(), copyDone, flush]],
    ["had a Query skipped", [parse("syntax error here"), encodeQuery("SELECT 1"), sync]],
  ])("who %s", async (_, messages) => {
    const { client } = await stage.logIn(app);
    await client.send(...messages);
    await client.read();
    await asAdmin("ALTER USER app NOLOGIN");
    const rest = await client.readToClose();
    expect(
      rest
        .filter(({ type }) => type === "E")
        .at(-1)
        ?.body.toString(),
    ).toContain("57P01");
  });

  test("who pipelines without end", async () => {
    const { client } = await stage.logIn(app);
    const one = Buffer.concat([parse("SELECT pg_sleep(0.002)"), bind(), execute(), sync]);
    await client.send(...Array.from({ length: 40 }, () => one));
    await client.readReady();
    const revoked = asAdmin("ALTER USER app NOLOGIN");
    // For each answer another question, so that there is never a moment without one.
    await expect(
      (async () => {
        for (;;) if ((await client.read()).type === "Z") await client.send(one);
      })(),
    ).rejects.toBeInstanceOf(ConnectionClosed);
    await revoked;
  });
});
