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

test("a statement behind a failed copy is cancelled when its session leaves, and the place is free at once", async () => {
  const first = await stage.logIn(app);
  const waiting = stage.logIn(app);
  await first.client.send(
    encodeQuery("COPY numbers FROM STDIN"),
    badRow,
    copyDone,
    parse("SELECT pg_sleep(60), 'rows of another session'"),
    bind(),
    execute(),
    sync,
  );
  await first.client.readReady();
  const leftAt = performance.now();
  await first.client.send(terminate);
  const second = await waiting;
  // A connection that was taken for clean would be found out by its reset, and only when that gives up.
  expect(performance.now() - leftAt).toBeLessThan(3_000);
  expect(rowsOf(await second.client.query("SELECT 'mine'"))).toEqual([["mine"]]);
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

describe("a statement of ours behind an error of more than 1 MB does not run", () => {
  const bigError = "DO $$ BEGIN RAISE EXCEPTION '%', repeat('x', 2000000); END $$";

  test("in a Query", async () => {
    const { client } = await stage.logIn();
    await client.query("CREATE USER stays PASSWORD 'stays stays'");
    // DROP USER is no part of a transaction, so that nothing but the error itself can stop it.
    for (const own of ["CREATE USER after_big PASSWORD 'after after'", "DROP USER stays"]) {
      expect(describeMessages(await client.query(`${bigError}; ${own}`)), own).toBe("EZ");
    }
    client.close();
    const names = await stage.userNames();
    expect([names.includes("stays"), names.includes("after_big")]).toEqual([true, false]);
  });

  test("in a pipeline", async () => {
    const { client } = await stage.logIn();
    await client.send(parse(bigError), bind(), execute());
    await client.send(parse("CREATE USER after_big PASSWORD 'after after'"), bind(), execute(), sync);
    expect(describeMessages(await client.readReady())).toBe("12EZ");
    expect(tagsOf(await client.query("SELECT 1"))).toEqual(["SELECT 1"]);
    client.close();
    expect(await stage.userNames()).not.toContain("after_big");
  });
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

describe("a statement of ours behind a copy, without a Sync between them", () => {
  const begin = [parse("COPY numbers FROM STDIN"), bind(), execute()];
  const data = [message("d", "1\n"), copyDone];
  const own = (name: string) => [parse(`CREATE USER ${name} PASSWORD 'behind behind'`), bind(), execute()];

  test("is run by us when the data were sent ahead", async () => {
    const { client } = await stage.logIn();
    await client.send(...begin, ...data, flush);
    expect(describeMessages(await client.readUntil("C"))).toBe("12GC");
    await client.send(...own("behind_early"), flush);
    expect(describeMessages(await client.readUntil("C"))).toBe("12C");
    await client.send(sync);
    expect(describeMessages(await client.readReady())).toBe("Z");
    client.close();
    expect(await stage.userNames()).toContain("behind_early");
  });

  test("is run by us when the data were sent as they were asked for", async () => {
    const { client } = await stage.logIn();
    await client.send(...begin, flush);
    expect(describeMessages(await client.readUntil("G"))).toBe("12G");
    await client.send(...data, flush);
    expect(describeMessages(await client.readUntil("C"))).toBe("C");
    await client.send(...own("behind_late"), flush);
    expect(describeMessages(await client.readUntil("C"))).toBe("12C");
    await client.send(sync);
    expect(describeMessages(await client.readReady())).toBe("Z");
    client.close();
    expect(await stage.userNames()).toContain("behind_late");
  });

  test("is refused by PostgreSQL in place of the data, and run by nobody", async () => {
    const { client } = await stage.logIn();
    const { client: direct } = await stage.logInUpstream({ user: "postgres", database: "postgres" });
    const seen: string[][] = [];
    for (const player of [client, direct]) {
      await player.send(...begin, flush);
      expect(describeMessages(await player.readUntil("G"))).toBe("12G");
      await player.send(...own("instead_of_data"), sync);
      seen.push((await player.readToClose()).map(({ type, body }) => type + body.toString("latin1")));
    }
    expect(seen[0]).toEqual(seen[1]);
    expect(seen[0]?.join()).toContain("C08P01");
    expect(await asAdmin("SELECT rolname FROM pg_roles WHERE rolname = 'instead_of_data'")).toEqual([]);
    expect(await stage.userNames()).not.toContain("instead_of_data");
  });
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
