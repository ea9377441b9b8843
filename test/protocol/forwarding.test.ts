/** Everything that is PostgreSQL's: what comes back through the front-end is what PostgreSQL itself answers. */

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
  int16,
  int32,
  message,
  type RawClient,
  rowsOf,
  statusOf,
} from "../support/raw-client.ts";

const sync = encodeSync();
const execute = encodeExecute("");

let stage: ProtocolStage;
let client: RawClient;
let direct: RawClient;

beforeAll(async () => {
  stage = await openProtocolStage();
  const { client: setUp } = await stage.logIn();
  for (const text of [
    "CREATE TABLE public.place (name text NOT NULL, height int CONSTRAINT not_below CHECK (height >= 0))",
    "CREATE FUNCTION public.warn(text) RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''%'', $1 USING DETAIL = ''d'', HINT = ''h''; RETURN 1; END'",
  ]) {
    expect(describeMessages(await setUp.query(text))).toBe("CZ");
  }
});
afterEach(() => stage.closeClients());
afterAll(() => stage?.close());

function wire(messages: readonly BackendMessage[]): string[] {
  return messages.map(({ type, body }) => type + body.toString("latin1"));
}

/** A script: each step is sent, and everything up to this many ReadyForQuery is read. */
type Script = readonly (readonly [sent: Buffer, readyCount: number])[];

async function play(player: RawClient, script: Script): Promise<string[]> {
  const seen: string[] = [];
  for (const [sent, readyCount] of script) {
    await player.send(sent);
    for (let left = readyCount; left > 0; left -= 1) seen.push(...wire(await player.readReady()));
  }
  return seen;
}

const query = (text: string): Script => [[encodeQuery(text), 1]];
const extended = (...messages: Buffer[]): Script => [[Buffer.concat([...messages, sync]), 1]];

const parameterOids = Buffer.concat([Buffer.from("typed\0SELECT $1 + $2\0"), int16(2), int32(23), int32(20)]);

const scripts: readonly (readonly [name: string, script: Script])[] = [
  ["a query", query("SELECT 1 AS one, 'ä' AS text, NULL AS nothing")],
  ["a query without rows", query("SELECT WHERE false")],
  ["several statements in one string", query("SELECT 1; SELECT 2; SET extra_float_digits = 1")],
  ["an empty query", query("")],
  ["a string of semicolons", query(" ;; -- nothing\n")],
  ["an empty Parse", extended(encodeParse("", ""), bind(), encodeDescribe("portal", ""), execute)],
  ["a syntax error", query("SELECT 'ä' FRM x")],
  ["an error with every field", query("INSERT INTO public.place VALUES ('hole', -1)")],
  [
    "an error in a function",
    query(
      "DO $$BEGIN RAISE EXCEPTION 'm' USING ERRCODE = 'P0042', DETAIL = 'd', HINT = 'h', COLUMN = 'c', TABLE = 't', SCHEMA = 's', DATATYPE = 'y', CONSTRAINT = 'k'; END$$",
    ),
  ],
  ["an error inside a statement of a string", query("SELECT 1; SELECT nonsense; SELECT 2")],
  ["a notice", query("SELECT public.warn('careful')")],
  [
    "a transaction block, its failure and its end",
    [...query("BEGIN"), ...query("SELECT 1/0"), ...query("SELECT 1"), ...query("ROLLBACK")],
  ],
  [
    "savepoints",
    [...query("BEGIN; SAVEPOINT a"), ...query("nonsense"), ...query("ROLLBACK TO a"), ...query("COMMIT")],
  ],
  [
    "an unnamed statement",
    extended(
      encodeParse("", "SELECT $1::int + 1"),
      bind({ values: ["41"] }),
      encodeDescribe("portal", ""),
      execute,
    ),
  ],
  [
    "typed parameters and binary results",
    extended(
      message("P", parameterOids),
      encodeDescribe("statement", "typed"),
      bind({ statement: "typed", values: ["1", "2"], resultFormats: [1] }),
      execute,
      encodeClose("statement", "typed"),
    ),
  ],
  [
    "a statement used twice",
    [
      ...extended(encodeParse("twice", "SELECT $1::text")),
      ...extended(
        bind({ statement: "twice", values: ["a"] }),
        execute,
        bind({ statement: "twice", values: [null] }),
        execute,
      ),
      ...extended(encodeClose("statement", "twice")),
    ],
  ],
  ["a statement that does not exist", extended(bind({ statement: "missing" }), execute)],
  ["a portal that does not exist", extended(encodeExecute("missing"))],
  [
    "a row limit",
    extended(
      encodeParse("", "SELECT generate_series(1, 5)"),
      bind({ portal: "p" }),
      encodeExecute("p", 2),
      encodeExecute("p", 2),
      encodeExecute("p", 2),
    ),
  ],
  [
    "an error in a pipeline",
    extended(
      encodeParse("", "SELECT 1"),
      bind(),
      execute,
      encodeParse("", "SELECT nonsense"),
      bind(),
      execute,
      encodeParse("", "SELECT 3"),
      bind(),
      execute,
    ),
  ],
  [
    "three Syncs in flight",
    [
      [
        Buffer.concat([
          encodeParse("", "SELECT 1"),
          bind(),
          execute,
          sync,
          encodeParse("", "nonsense"),
          sync,
          bind(),
          execute,
          sync,
        ]),
        3,
      ],
    ],
  ],
  ["Syncs alone", [[Buffer.concat([sync, sync, sync]), 3]]],
  [
    "queries and pipelines in flight together",
    [
      [
        Buffer.concat([
          encodeQuery("SELECT 1"),
          encodeParse("", "SELECT 2"),
          bind(),
          execute,
          sync,
          encodeQuery("SELECT 3"),
        ]),
        3,
      ],
    ],
  ],
  ["a function call", [[functionCall("abs", ["-5"]), 1]]],
  ["a function call with too few arguments", [[functionCall("abs", []), 1]]],
  ["a copy out", query("COPY (SELECT generate_series(1, 100)) TO STDOUT")],
  [
    "a binary copy out in the extended protocol",
    extended(encodeParse("", "COPY (SELECT 1::int) TO STDOUT (FORMAT binary)"), bind(), execute),
  ],
  [
    "a copy in",
    [...copyIn(encodeQuery("COPY public.place FROM STDIN"), "Rome\t20\nOslo\t5\n", message("c"))],
  ],
  [
    "a copy in that the client gives up",
    [...copyIn(encodeQuery("COPY public.place FROM STDIN"), "Rome\t20\n", message("f", "enough\0"))],
  ],
  [
    "a copy in of bad data",
    [...copyIn(encodeQuery("COPY public.place FROM STDIN"), "Rome\tvery high\n", message("c"))],
  ],
  [
    "a copy in of a string with more behind it",
    [...copyIn(encodeQuery("COPY public.place FROM STDIN; SELECT 'after'"), "Bern\t540\n", message("c"))],
  ],
  ["a copy in in the extended protocol", [...extendedCopyIn("Paris\t35\n", message("c"))]],
  ["a copy in in the extended protocol of bad data", [...extendedCopyIn("Paris\tvery high\n", message("c"))]],
  [
    "a copy in in the extended protocol that the client gives up",
    [...extendedCopyIn("", message("f", "no\0"))],
  ],
  ["a Query without its NUL", [[message("Q", "SELECT 1"), 1]]],
  ["an empty Query message", [[message("Q", ""), 1]]],
  ["a Describe of something unknown", extended(message("D", "X\0"))],
  ["a Bind that is too short", extended(encodeParse("", "SELECT 1"), message("B", "\0\0"))],
  [
    "SQL that only looks like one of ours",
    [
      ...query("CREATE USER MAPPING FOR CURRENT_USER SERVER nowhere"),
      ...query("SHOW work_mem"),
      ...query("SHOW session_authorization_x"),
      ...query("ALTER ROLE CURRENT_USER SET work_mem = '4MB'"),
      ...query("SELECT 'CREATE USER x; SHOW USERS'"),
      ...query("/* SHOW USERS */ SELECT 1 -- ; DROP USER x"),
    ],
  ],
];

function functionCall(name: "abs", args: readonly string[]): Buffer {
  const oid = { abs: 1397 }[name];
  const values = args.map((value) => Buffer.concat([int32(value.length), Buffer.from(value)]));
  return message("F", Buffer.concat([int32(oid), int16(0), int16(args.length), ...values, int16(0)]));
}

function copyIn(start: Buffer, data: string, end: Buffer): Script {
  return [[Buffer.concat([start, message("d", data.slice(0, 7)), message("d", data.slice(7)), end]), 1]];
}

/** With the Sync that libpq sends right behind Execute, which the server ignores while it copies. */
function extendedCopyIn(data: string, end: Buffer): Script {
  const start = Buffer.concat([encodeParse("", "COPY public.place FROM STDIN"), bind(), execute, sync]);
  return [[Buffer.concat([start, message("d", data), end, sync]), 1], ...query("SELECT 'goes on'")];
}

describe.each(["whole", "bytes"] as const)("through the front-end, sent %s,", (cutting) => {
  beforeEach(async () => {
    ({ client } = await stage.logIn({}, cutting));
    ({ client: direct } = await stage.logInUpstream({
      user: stage.admin.user,
      database: stage.admin.database,
    }));
  });

  test.each(scripts)("%s gets the bytes that PostgreSQL answers", async (_, script) => {
    const expected = await play(direct, script);
    expect(await play(client, script)).toEqual(expected);
    // And the session is still in step.
    expect(rowsOf(await client.query("SELECT 'still here'"))).toEqual([["still here"]]);
    expect(rowsOf(await client.query("SHOW SESSION"))[0]?.[0]).toBe(stage.admin.user);
  });

  test("results come before Sync when the client asks for them with Flush", async () => {
    await client.send(encodeParse("", "SELECT 1"), bind(), execute, encodeFlush());
    expect(describeMessages(await client.readUntil("C"))).toBe("12DC");
    await client.send(sync);
    expect(describeMessages(await client.readReady())).toBe("Z");
  });

  test("a notification arrives while the session is idle", async () => {
    expect(describeMessages(await client.query("LISTEN news"))).toBe("CZ");
    await direct.query("NOTIFY news, 'fresh'");
    const { type, body } = await client.read();
    expect(type).toBe("A");
    expect(body.subarray(4).toString()).toBe("news\0fresh\0");
    expect(statusOf(await client.query("SELECT 1"))).toBe("I");
  });

  test("data are copied out of the way while the other direction is busy", async () => {
    await client.send(encodeQuery("COPY public.place FROM STDIN"));
    await client.readUntil("G");
    for (let index = 0; index < 20; index += 1) await client.send(message("d", `place ${index}\t${index}\n`));
    await client.send(
      message("c"),
      encodeQuery("SELECT count(*) FROM public.place WHERE name LIKE 'place %'"),
    );
    await client.readReady();
    expect(Number(rowsOf(await client.readReady())[0]?.[0])).toBeGreaterThanOrEqual(20);
    await client.query("DELETE FROM public.place");
  });
});

test("values of 20 MB pass in both directions, simple, extended and as a copy", async () => {
  const { client } = await stage.logIn();
  const megabytes20 = 20 * 1024 * 1024;
  const [[returned] = []] = rowsOf(await client.query(`SELECT repeat('x', ${megabytes20})`));
  expect(returned?.length).toBe(megabytes20);
  const value = Buffer.alloc(megabytes20, "y");
  await client.send(encodeParse("", "SELECT $1::text, length($1)"), bind({ values: [value] }), execute, sync);
  const [[sent, length] = []] = rowsOf(await client.readReady());
  expect(length).toBe(String(megabytes20));
  expect(sent === value.toString()).toBe(true);
  await client.send(encodeQuery(`SELECT length('${"z".repeat(megabytes20)}')`));
  expect(rowsOf(await client.readReady())).toEqual([[String(megabytes20)]]);
  await client.query("CREATE TEMP TABLE big (v text)");
  await client.send(
    encodeQuery("COPY big FROM STDIN"),
    message("d", value),
    message("d", "\n"),
    message("c"),
  );
  expect(describeMessages(await client.readReady())).toBe("GCZ");
  const copied = await client.query("COPY big TO STDOUT");
  expect(Buffer.concat(copied.filter(({ type }) => type === "d").map(({ body }) => body)).length).toBe(
    megabytes20 + 1,
  );
});

test("an error of the upstream has the fields that PostgreSQL gave it", async () => {
  const { client } = await stage.logIn();
  const error = errorOf(await client.query("INSERT INTO public.place VALUES ('hole', -1)"));
  expect([...error.keys()].join("")).toBe("SVCMDstnFLR");
  expect(error.get("n")).toBe("not_below");
});
