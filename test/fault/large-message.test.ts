/** One message of one client must not take the time and the memory of all. */

import { existsSync, readFileSync } from "node:fs";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type FrontEnd, startFrontEnd } from "../support/front-end.ts";

/** Almost 8 million statements of two bytes each: what makes most of a text that is split. */
const manyStatements = `x ${"a;".repeat(7_900_000)}`;
/** Far below what a list of them would take (over 1 GB), far above what holding the text does. */
const mostGrowthBytes = 400 * 1024 * 1024;

let frontEnd: FrontEnd;
const clients: pg.Client[] = [];

async function connect(): Promise<pg.Client> {
  const client = new pg.Client({
    host: frontEnd.host,
    port: frontEnd.port,
    user: frontEnd.adminUser,
    password: frontEnd.adminPassword,
    database: frontEnd.database,
  });
  await client.connect();
  clients.push(client);
  return client;
}

function peakBytes(): number {
  const status = readFileSync(`/proc/${frontEnd.processId}/status`, "utf8");
  return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
}

beforeAll(async () => {
  frontEnd = await startFrontEnd();
});
afterAll(async () => {
  await Promise.all(clients.map((client) => client.end()));
  await frontEnd?.close();
});

test.skipIf(!existsSync("/proc/self/status"))(
  "16 MB of statements are PostgreSQL's to refuse, cost little memory, and others go on",
  async () => {
    const [sender, other] = [await connect(), await connect()];
    const before = peakBytes();
    await expect(sender.query(manyStatements)).rejects.toMatchObject({ code: "42601" });
    expect(peakBytes() - before).toBeLessThan(mostGrowthBytes);
    expect((await other.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    expect((await sender.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
  },
);
