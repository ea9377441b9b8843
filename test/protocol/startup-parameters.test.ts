/** Settings of the StartupMessage: what holds, what is refused, and that ParameterStatus tells the truth (PostgreSQL 18 manual 54.2.7). */

import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { openProtocolStage, type ProtocolStage } from "../support/protocol-stage.ts";
import {
  describeMessages,
  errorOf,
  message,
  type RawClient,
  rowsOf,
  startupMessage,
} from "../support/raw-client.ts";

let stage: ProtocolStage;

beforeAll(async () => {
  // One connection only: each session gets the one that the session before it gave back.
  stage = await openProtocolStage({ configuration: "[upstream]\npool_size = 1\n" });
});
afterEach(() => stage.closeClients());
afterAll(() => stage?.close());

async function setting(client: RawClient, name: string): Promise<string | null | undefined> {
  return rowsOf(await client.query(`SELECT current_setting('${name}')`))[0]?.[0];
}

/** Ends a session in peace and waits until the server has let go of it. */
async function leave(client: RawClient): Promise<void> {
  await client.send(Buffer.from("X\0\0\0\x04", "latin1"));
  await client.isClosed();
}

const settings: readonly (readonly [name: string, value: string, other: string])[] = [
  ["application_name", "a test with 'marks', = and \\", "other"],
  ["client_encoding", "LATIN1", "UTF8"],
  ["DateStyle", "German, DMY", "ISO, MDY"],
  ["TimeZone", "Pacific/Auckland", "UTC"],
  ["IntervalStyle", "iso_8601", "postgres"],
  ["search_path", "pg_catalog, public", "public"],
  ["statement_timeout", "12345ms", "0"],
  ["extra_float_digits", "2", "0"],
];

const refused: readonly (readonly [name: string, parameters: Record<string, string>, sqlstate: string])[] = [
  ["role", { role: "postgres" }, "42501"],
  ["Role in another spelling", { RoLe: "postgres" }, "42501"],
  ["session_authorization", { session_authorization: "postgres" }, "42501"],
  ["row_security", { row_security: "off" }, "42501"],
  ["a claim", { "nodedb.session": "x" }, "42501"],
  ["a claim in capitals", { "NODEDB.sub": "x" }, "42501"],
  ["local_preload_libraries", { local_preload_libraries: "x" }, "42501"],
  ["role by -c", { options: "-c role=postgres" }, "42501"],
  ["role by -c without a space", { options: "-cROLE=postgres" }, "42501"],
  ["row_security by --name with a dash", { options: "--row-security=off" }, "42501"],
  ["a claim by --name behind another", { options: "-c work_mem=5MB --nodedb.session=x" }, "42501"],
  ["an escaped role", { options: "-c r\\ole=postgres" }, "42501"],
  ["user by -c", { options: "-c user=postgres" }, "42501"],
  ["replication by -c", { options: "-c replication=true" }, "42501"],
  ["replication", { replication: "true" }, "0A000"],
  ["replication of a database", { replication: "database" }, "0A000"],
  ["Replication in another spelling", { Replication: "true" }, "42501"],
  ["a switch that is no setting", { options: "-f i" }, "42601"],
  ["a switch without a value", { options: "--work_mem" }, "42601"],
  ["a setting that PostgreSQL does not know", { no_such_setting: "1" }, "42704"],
  ["a value that PostgreSQL refuses", { work_mem: "plenty" }, "22023"],
  ["a setting that only a restart changes", { options: "-c shared_buffers=1GB" }, "55P02"],
];

describe.each(["whole", "bytes"] as const)("a StartupMessage sent %s", (cutting) => {
  test.each(settings)("makes %s hold, and RESET and DISCARD ALL return to it", async (name, value, other) => {
    const { client, greeting } = await stage.logIn({ parameters: { [name]: value } }, cutting);
    const held = await setting(client, name);
    expect(held?.replaceAll("ms", "")).toBe(name === "statement_timeout" ? "12345" : value);
    if (greeting.parameters.has(name)) expect(greeting.parameters.get(name)).toBe(value);
    for (const reset of [`RESET "${name}"`, "RESET ALL", "DISCARD ALL"]) {
      await client.query(`SET "${name}" TO ${name === "search_path" ? other : `'${other}'`}`);
      expect(await setting(client, name)).not.toBe(held);
      await client.query(reset);
      expect(await setting(client, name), reset).toBe(held);
      if (client.parameters.has(name)) expect(client.parameters.get(name)).toBe(value);
    }
    await leave(client);
  });

  test("may hold settings in options, in each of their forms, which its own parameters override", async () => {
    const parameters = {
      options:
        "-c geqo=off -cwork_mem=5MB --statement-timeout=77s -c search_path=a,\\ b -c application_name=options",
      application_name: "own",
    };
    const { client } = await stage.logIn({ parameters }, cutting);
    const expected = {
      geqo: "off",
      work_mem: "5MB",
      statement_timeout: "77s",
      search_path: "a, b",
      application_name: "own",
    };
    for (const [name, value] of Object.entries(expected)) {
      expect(await setting(client, name), name).toBe(value);
      await client.query(`SET ${name} TO DEFAULT`);
      expect(await setting(client, name), name).toBe(value);
    }
    await leave(client);
  });

  test.each(refused)("is refused for %s", async (_, parameters, sqlstate) => {
    const client = await stage.connect(cutting);
    await client.send(startupMessage({ ...stage.admin, parameters }));
    const messages = await client.authenticate(stage.admin.password);
    if (!messages.some(({ type }) => type === "E")) messages.push(...(await client.readToClose()));
    expect([errorOf(messages).get("S"), errorOf(messages).get("C")]).toEqual(["FATAL", sqlstate]);
    expect(await client.isClosed()).toBe(true);
  });

  test("may ask for no replication", async () => {
    const { client } = await stage.logIn({ parameters: { replication: "false" } }, cutting);
    await leave(client);
  });
});

test("ParameterStatus follows SET, ROLLBACK and RESET, in both protocols and in strings with statements of ours", async () => {
  const { client } = await stage.logIn();
  await client.query("SET client_encoding TO 'LATIN1'");
  expect(client.parameters.get("client_encoding")).toBe("LATIN1");
  await client.query("BEGIN; SET TimeZone TO 'Asia/Tokyo'");
  expect(client.parameters.get("TimeZone")).toBe("Asia/Tokyo");
  await client.query("ROLLBACK");
  expect(client.parameters.get("TimeZone")).not.toBe("Asia/Tokyo");
  await client.query("SHOW SESSION; SET application_name TO 'between'; SHOW SESSION");
  expect(client.parameters.get("application_name")).toBe("between");
  await client.query("RESET client_encoding");
  expect(client.parameters.get("client_encoding")).toBe("UTF8");
});

test("the next client of a connection is told the truth, whatever the one before has set", async () => {
  const first = await stage.logIn();
  await first.client.query(
    "SET client_encoding TO 'LATIN1'; SET application_name TO 'left behind'; SET DateStyle TO 'German'",
  );
  await first.client.query(
    "CREATE TEMP TABLE leftover (); PREPARE leftover AS SELECT 1; LISTEN leftover; SELECT pg_advisory_lock(42)",
  );
  await leave(first.client);
  const second = await stage.logIn();
  expect(second.greeting.processId).toBe(first.greeting.processId);
  expect(new Map([...second.greeting.parameters].sort())).toEqual(
    new Map([...first.greeting.parameters].sort()),
  );
  expect(await setting(second.client, "client_encoding")).toBe("UTF8");
  expect(await setting(second.client, "application_name")).toBe("");
  expect(
    rowsOf(
      await second.client.query(
        "SELECT to_regclass('pg_temp.leftover'), (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')",
      ),
    ),
  ).toEqual([[null, "0", "0", "0"]]);
});

test("a statement of ours is read in the client's own encoding", async () => {
  const { client } = await stage.logIn({ parameters: { client_encoding: "LATIN1" } });
  await client.send(
    message("Q", Buffer.from("CREATE USER \"j\xfcrgen\" PASSWORD 'a long password'\0", "latin1")),
  );
  expect(describeMessages(await client.readReady())).toBe("CZ");
  await leave(client);
  expect(await stage.userNames()).toContain("jürgen");
});
