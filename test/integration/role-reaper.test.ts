/** Roles that transactions leave behind: of names that were reserved, and of users that were dropped. */

import type pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type FrontEnd, startFrontEnd } from "../support/front-end.ts";
import { openClient, openStage, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

const password = "PASSWORD 'long enough to be taken'";

let stage: Stage;
let admin: pg.Client;
const clients: pg.Client[] = [];

async function connect(): Promise<pg.Client> {
  const client = await stage.connect(stage.frontEnd.adminUser);
  clients.push(client);
  return client;
}

async function leftovers(): Promise<unknown[]> {
  return stage.past(
    `SELECT rolname::text AS name FROM pg_roles WHERE rolname LIKE 'nodedb\\_dropped\\_%' OR rolname LIKE 'nodedb\\_reserved\\_%'
      UNION ALL SELECT former_name FROM nodedb.dropped_role UNION ALL SELECT name FROM nodedb.reserved_role`,
  );
}

async function isRole(name: string): Promise<boolean> {
  return (await stage.past("SELECT FROM pg_roles WHERE rolname = $1", [name])).length !== 0;
}

beforeAll(async () => {
  stage = await openStage();
  admin = await stage.connect(stage.frontEnd.adminUser);
  await admin.query("CREATE TABLE granted (id int)");
  await admin.query("CREATE TABLE elsewhere (id int)");
});
afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.end().catch(() => undefined)));
});
afterAll(async () => {
  await admin?.end();
  await stage?.close();
});

describe("a reserved name", () => {
  test("that somebody else has granted something is free after ROLLBACK all the same", async () => {
    const client = await connect();
    await client.query("BEGIN");
    await client.query(`CREATE USER granted_to ${password}`);
    await admin.query("GRANT SELECT ON granted TO granted_to");
    await client.query("ROLLBACK");
    await admin.query(`CREATE USER granted_to ${password} ROLE readonly`);
    await until(async () => (await leftovers()).length === 0);
    const [table] = await stage.past("SELECT relacl::text AS acl FROM pg_class WHERE relname = 'granted'");
    expect(table?.acl ?? "").not.toContain("granted_to");
    await admin.query("DROP USER granted_to");
  });

  test("that somebody's open transaction has granted something is free, too, and the rest follows", async () => {
    const [client, granter] = [await connect(), await connect()];
    await client.query("BEGIN");
    await client.query(`CREATE USER half_granted ${password}`);
    await granter.query("BEGIN");
    await granter.query("GRANT SELECT ON granted TO half_granted");
    await client.query("ROLLBACK");
    await admin.query(`CREATE USER half_granted ${password} ROLE readonly`);
    await granter.query("COMMIT");
    await until(async () => (await leftovers()).length === 0, 30_000);
    const [table] = await stage.past("SELECT relacl::text AS acl FROM pg_class WHERE relname = 'granted'");
    expect(table?.acl ?? "").not.toMatch(/half_granted|nodedb_dropped/);
    await admin.query("DROP USER half_granted");
  }, 60_000);

  test("is free at once after ROLLBACK TO, in the open transaction and elsewhere", async () => {
    const client = await connect();
    await client.query("BEGIN");
    await client.query(`CREATE USER kept ${password}`);
    await client.query("SAVEPOINT a");
    await client.query(`CREATE USER given_up ${password}`);
    await client.query("GRANT SELECT ON granted TO given_up");
    await client.query("ROLLBACK TO a");
    expect([await isRole("kept"), await isRole("given_up")]).toEqual([true, false]);
    await admin.query(`CREATE USER given_up ${password}`);
    await expect(client.query(`CREATE USER given_up ${password}`)).rejects.toMatchObject({ code: "42710" });
    await client.query("ROLLBACK TO a");
    await client.query(`CREATE USER another ${password}`);
    await client.query("ROLLBACK TO a");
    await client.query(`CREATE USER another ${password}`);
    await client.query("GRANT SELECT ON granted TO another");
    await client.query("COMMIT");
    const [may] = await stage.past("SELECT relacl::text AS acl FROM pg_class WHERE relname = 'granted'");
    expect(may?.acl).toContain("another=r");
    expect(await leftovers()).toEqual([]);
    await admin.query("DROP USER kept, given_up, another");
  });
});

describe("with a second front-end on the same PostgreSQL", () => {
  let second: FrontEnd;

  beforeAll(async () => {
    second = await startFrontEnd({ upstreamUrl: stage.postgres.url, besides: stage.frontEnd.dataDir });
  });
  afterAll(() => second?.close());

  async function connectSecond(): Promise<pg.Client> {
    const client = await openClient(stage.login(stage.frontEnd.adminUser, { port: second.port }));
    clients.push(client);
    return client;
  }

  test("what the first one leaves when it is killed is finished by the other", async () => {
    await admin.query(`CREATE USER dropped_late ${password}`);
    await admin.query("GRANT SELECT ON granted TO dropped_late");
    const third = await startFrontEnd({ upstreamUrl: stage.postgres.url, besides: stage.frontEnd.dataDir });
    const login = stage.login(stage.frontEnd.adminUser, { port: third.port });
    const [dropping, reserving] = [await openClient(login), await openClient(login)];
    const blocker = await connect();
    await blocker.query("BEGIN");
    await blocker.query("GRANT INSERT ON granted TO dropped_late");
    await reserving.query("BEGIN");
    await reserving.query(`CREATE USER never ${password}`);
    await reserving.query("GRANT SELECT ON elsewhere TO never");
    await dropping.query("BEGIN");
    await dropping.query("DROP USER dropped_late");
    const committed = dropping.query("COMMIT").catch(() => undefined);
    await until(async () => (await stage.past("SELECT FROM nodedb.dropped_role")).length === 1);
    third.signal("SIGKILL");
    await third.exited;
    await committed;
    await blocker.query("ROLLBACK");
    await until(async () => (await leftovers()).length === 0, 40_000);
    expect([await isRole("never"), await isRole("dropped_late")]).toEqual([false, false]);
    await third.close();
  }, 90_000);

  test("both finish the same drops, and neither stumbles over the other", async () => {
    const others = await connectSecond();
    const names = Array.from({ length: 8 }, (_, index) => `both_${index}`);
    for (const name of names) await admin.query(`CREATE USER ${name} ${password}`);
    const blocker = await connect();
    await blocker.query("BEGIN");
    await blocker.query(`GRANT SELECT ON granted TO ${names.join(", ")}`);
    await Promise.all(
      [admin, others].map(async (client, index) => {
        await client.query("BEGIN");
        for (const name of names.filter((_, position) => position % 2 === index)) {
          await client.query(`DROP USER ${name}`);
        }
        await client.query("COMMIT");
      }),
    );
    await blocker.query("ROLLBACK");
    await until(async () => (await leftovers()).length === 0, 40_000);
    for (const name of names) expect(await isRole(name)).toBe(false);
  }, 90_000);
});

test("what a front-end has left is finished when it starts again", async () => {
  await admin.query(`CREATE USER left_over ${password}`);
  await stage.past("INSERT INTO nodedb.reserved_role VALUES ('gone', 1, '2000-01-01')");
  await stage.past("CREATE ROLE gone");
  await stage.past("GRANT SELECT ON granted TO gone");
  const [role] = await stage.past("SELECT oid::text FROM pg_roles WHERE rolname = 'left_over'");
  await stage.past("DELETE FROM nodedb.principal WHERE name = 'left_over'");
  await stage.past("INSERT INTO nodedb.dropped_role (role_oid, former_name) VALUES ($1, 'left_over')", [
    role?.oid,
  ]);
  await stage.past(`ALTER ROLE left_over RENAME TO nodedb_dropped_${role?.oid}`);
  const fresh = await startFrontEnd({ upstreamUrl: stage.postgres.url, besides: stage.frontEnd.dataDir });
  expect(await leftovers()).toEqual([]);
  expect(await isRole("gone")).toBe(false);
  await fresh.close();
});
