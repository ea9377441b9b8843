/** The reset of an upstream connection, by itself: the second barrier, should the session's own count ever be wrong. */

import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { callFunctions, encodeSetting } from "../../src/upstream/function-calls.ts";
import { openUpstreamConnection } from "../../src/upstream/login.ts";
import { resetConnection } from "../../src/upstream/reset.ts";
import type { UpstreamConnection } from "../../src/upstream/upstream-connection.ts";
import { chooseTransports } from "../../src/wire/choose-transport.ts";
import {
  encodeExecute,
  encodeFlush,
  encodeFunctionCall,
  encodeParse,
  encodeQuery,
  encodeSync,
} from "../../src/wire/frontend-message-encoding.ts";
import type { TransportFactory } from "../../src/wire/transport-factory.ts";
import { startPostgres, type TestPostgres } from "../support/postgres.ts";
import { bind } from "../support/raw-client.ts";

let postgres: TestPostgres;
let transports: TransportFactory;
const connections: UpstreamConnection[] = [];

beforeAll(async () => {
  [postgres, transports] = await Promise.all([startPostgres(), chooseTransports()]);
});
afterEach(() => {
  for (const { transport } of connections.splice(0)) transport.close();
});
afterAll(() => postgres?.dispose());

async function open(): Promise<UpstreamConnection> {
  const connection = await openUpstreamConnection({
    endpoint: { kind: "socket", path: `${postgres.socketDir}/.s.PGSQL.${postgres.port}` },
    transports,
    database: "postgres",
    role: "postgres",
    parameters: new Map(),
    timeoutMs: 10_000,
    nonce: () => "unused",
  });
  connections.push(connection);
  return connection;
}

const run = (text: string) => [encodeParse("", text), bind(), encodeExecute("")];

test("succeeds on a connection that waits for a command", async () => {
  const connection = await open();
  expect(await resetConnection(connection)).toBe(true);
  expect(await resetConnection(connection)).toBe(true);
});

test("gives the connection back what it is to carry", async () => {
  const connection = await open();
  const settings = [encodeSetting("nodedb.one", "1"), encodeSetting("nodedb.two", "2")];
  expect(await resetConnection(connection, settings)).toBe(true);
  const question = (name: string) => encodeFunctionCall(3294, [name, "t"]);
  expect(await callFunctions(connection, [question("nodedb.one"), question("nodedb.two")])).toEqual([
    "1",
    "2",
  ]);
  expect(await resetConnection(connection, settings.slice(1))).toBe(true);
  expect(await callFunctions(connection, [question("nodedb.one"), question("nodedb.two")])).toEqual([
    "",
    "2",
  ]);
});

test.each([
  ["a call is refused", [encodeSetting("no such/setting", "1"), encodeSetting("nodedb.one", "1")]],
  ["the answer to a call is something else", [encodeQuery("SELECT 1")]],
])("fails when %s", async (_, calls) => {
  expect(await resetConnection(await open(), calls)).toBe(false);
});

test.each([
  ["rows of an earlier statement are on their way", [encodeQuery("SELECT 'of another session'")]],
  ["an earlier statement runs", [encodeQuery("SELECT pg_sleep(0.3), 'of another session'")]],
  ["only the end of an earlier statement is missing", [encodeQuery("SET work_mem = '5MB'")]],
  ["earlier answers are none but ReadyForQuery", [encodeSync(), encodeSync()]],
  ["a transaction is open", [encodeQuery("BEGIN")]],
  ["a transaction has failed", [encodeQuery("BEGIN; SELECT 1/0")]],
  ["a pipeline has no Sync", [...run("SELECT 1"), encodeFlush()]],
  ["a pipeline is being skipped", [...run("SELECT 1/0"), encodeFlush()]],
  ["a copy waits for its data", [encodeQuery("CREATE TEMP TABLE x (n int); COPY x FROM STDIN")]],
])("fails when %s", async (_, earlier) => {
  const connection = await open();
  connection.transport.write(Buffer.concat(earlier));
  expect(await resetConnection(connection)).toBe(false);
});
