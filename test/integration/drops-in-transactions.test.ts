/** DROP of users, accounts, keys and roles inside the client's transaction: all of it with COMMIT, and nothing before. */

import type pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { openStage, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

const password = "PASSWORD 'long enough to be taken'";

let stage: Stage;
let admin: pg.Client;
const clients: pg.Client[] = [];

async function connect(database = "postgres"): Promise<pg.Client> {
  const client = await stage.connect(stage.frontEnd.adminUser, { database });
  clients.push(client);
  return client;
}

async function logIn(user: string, database = "postgres"): Promise<pg.Client> {
  const client = await stage.connect(user, { database, password: "long enough to be taken" });
  clients.push(client);
  return client;
}

async function userNames(): Promise<string[]> {
  return (await admin.query("SHOW USERS")).rows.map((row) => row.username);
}

async function roleNames(): Promise<string[]> {
  const rows = await stage.past(
    "SELECT rolname::text AS name FROM pg_roles WHERE rolname NOT LIKE 'pg\\_%' ORDER BY 1",
  );
  return rows.map((row) => String(row.name));
}

/** Roles that are set aside or reserved, and the rows that say so. */
async function leftovers(): Promise<unknown[]> {
  return stage.past(
    `SELECT rolname::text AS name FROM pg_roles WHERE rolname LIKE 'nodedb\\_dropped\\_%' OR rolname LIKE 'nodedb\\_reserved\\_%'
      UNION ALL SELECT former_name FROM nodedb.dropped_role UNION ALL SELECT name FROM nodedb.reserved_role`,
  );
}

/** The last word of the run: simple or extended. */
const protocols = [
  ["simple", (client: pg.Client, sql: string) => client.query(sql)],
  [
    "extended",
    (client: pg.Client, sql: string) => client.query({ text: sql, values: [], ...{ queryMode: "extended" } }),
  ],
] as const;

beforeAll(async () => {
  stage = await openStage();
  await stage.asAdmin("CREATE DATABASE other");
  admin = await stage.connect(stage.frontEnd.adminUser);
});
afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.end().catch(() => undefined)));
});
afterAll(async () => {
  await admin?.end();
  await stage?.close();
});

describe.each(protocols)("in a block, by the %s protocol", (protocol, run) => {
  const bob = `bob_${protocol}`;

  test("DROP USER holds with COMMIT: user, role, keys, grants in all databases and sessions are gone", async () => {
    await admin.query(`CREATE USER ${bob} ${password} ROLE admin`);
    await admin.query(`CREATE API KEY 'key_of_${bob}' FOR ${bob}`);
    await stage.past(`CREATE TABLE IF NOT EXISTS granted (id int)`);
    await admin.query(`GRANT SELECT ON granted TO ${bob}`);
    const elsewhere = await connect("other");
    await elsewhere.query(`CREATE TABLE t_${bob} (id int)`);
    await elsewhere.query(`GRANT SELECT ON t_${bob} TO ${bob}`);
    const session = await logIn(bob);
    const client = await connect();
    await run(client, "BEGIN");
    expect((await run(client, `DROP USER ${bob}`)).command).toBe("DROP");
    expect((await run(client, "SHOW USERS")).rows.map((row) => row.username)).not.toContain(bob);
    expect(await userNames()).toContain(bob);
    expect((await session.query("SELECT current_user AS me")).rows).toEqual([{ me: bob }]);
    expect((await run(client, "COMMIT")).command).toBe("COMMIT");
    expect(await userNames()).not.toContain(bob);
    expect(await roleNames()).not.toContain(bob);
    expect(await leftovers()).toEqual([]);
    expect((await admin.query("SHOW API KEYS")).rows).toEqual([]);
    await expect(session.query("SELECT 1")).rejects.toThrow();
    await expect(logIn(bob)).rejects.toMatchObject({ code: "28P01" });
    await elsewhere.query(`DROP TABLE t_${bob}`);
  });

  test("ROLLBACK and ROLLBACK TO leave the user as it was", async () => {
    await admin.query(`CREATE USER ${bob} ${password}`);
    const session = await logIn(bob);
    const before = await roleNames();
    const client = await connect();
    await run(client, "BEGIN");
    await run(client, `DROP USER ${bob}`);
    await run(client, "ROLLBACK");
    await run(client, "BEGIN");
    await run(client, "SAVEPOINT a");
    await run(client, `DROP USER ${bob}`);
    await run(client, "ROLLBACK TO a");
    await run(client, "COMMIT");
    expect(await roleNames()).toEqual(before);
    expect(await userNames()).toContain(bob);
    expect((await session.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    await admin.query(`DROP USER ${bob}`);
  });

  test("what it owns is listed, in every database, unless it is reassigned", async () => {
    await admin.query(`CREATE USER ${bob} ${password} ROLE admin`);
    await admin.query(`GRANT CONNECT ON DATABASE other TO ${bob}`);
    for (const database of ["postgres", "other"]) {
      const session = await logIn(bob, database);
      await session.query(`CREATE TABLE owned_by_${bob} (id int)`);
    }
    const client = await connect();
    await run(client, "BEGIN");
    await expect(run(client, `DROP USER ${bob}`)).rejects.toMatchObject({
      code: "2BP01",
      detail: `owner of table public.owned_by_${bob} in database other\nowner of table public.owned_by_${bob}`,
    });
    await expect(run(client, "SELECT 1")).rejects.toMatchObject({ code: "25P02" });
    await run(client, "ROLLBACK");
    await run(client, "BEGIN");
    await run(client, `CREATE USER heir_of_${bob} ${password} ROLE admin`);
    await run(client, `DROP USER ${bob} REASSIGN OWNED TO heir_of_${bob}`);
    await run(client, "COMMIT");
    expect(await leftovers()).toEqual([]);
    for (const database of ["postgres", "other"]) {
      const session = await connect(database);
      const owner = await session.query("SELECT tableowner FROM pg_tables WHERE tablename = $1", [
        `owned_by_${bob}`,
      ]);
      expect(owner.rows).toEqual([{ tableowner: `heir_of_${bob}` }]);
      await session.query(`DROP TABLE owned_by_${bob}`);
    }
    await admin.query(`DROP USER heir_of_${bob}`);
  });

  test("the transaction's own DROP TABLE and OWNER TO count", async () => {
    await admin.query(`CREATE USER ${bob} ${password} ROLE admin`);
    const session = await logIn(bob);
    await session.query(`CREATE TABLE dropped_${bob} (id int)`);
    await session.query(`CREATE TABLE given_${bob} (id int)`);
    const client = await connect();
    await run(client, "BEGIN");
    await run(client, `DROP TABLE dropped_${bob}`);
    await run(client, "SAVEPOINT a");
    await expect(run(client, `DROP USER ${bob}`)).rejects.toMatchObject({
      code: "2BP01",
      detail: `owner of table public.given_${bob}`,
    });
    await run(client, "ROLLBACK TO a");
    await run(client, `ALTER TABLE given_${bob} OWNER TO nodedb`);
    await run(client, `DROP USER ${bob}`);
    await run(client, "COMMIT");
    expect(await roleNames()).not.toContain(bob);
    expect(await leftovers()).toEqual([]);
    await admin.query(`DROP TABLE given_${bob}`);
  });

  test("what the user makes between its DROP and COMMIT fails the COMMIT, all of it", async () => {
    await admin.query(`CREATE USER ${bob} ${password} ROLE admin`);
    const session = await logIn(bob);
    const client = await connect();
    await run(client, "BEGIN");
    await run(client, `CREATE TABLE with_${bob} (id int)`);
    await run(client, `DROP USER ${bob}`);
    await session.query(`CREATE TABLE late_${bob} (id int)`);
    await expect(run(client, "COMMIT")).rejects.toMatchObject({ code: "2BP01" });
    await run(client, "ROLLBACK");
    expect(await userNames()).toContain(bob);
    expect(await roleNames()).toContain(bob);
    expect(await leftovers()).toEqual([]);
    expect((await admin.query("SELECT to_regclass($1) AS found", [`with_${bob}`])).rows).toEqual([
      { found: null },
    ]);
    await admin.query(`DROP USER ${bob} REASSIGN OWNED TO nodedb`);
    await admin.query(`DROP TABLE late_${bob}`);
  });

  test("DROP and CREATE of one name make a new user, with the grants of the transaction alone", async () => {
    await admin.query(`CREATE USER ${bob} ${password} ROLE admin`);
    const [before] = await stage.past("SELECT oid FROM pg_roles WHERE rolname = $1", [bob]);
    const client = await connect();
    await run(client, "BEGIN");
    await run(client, `DROP USER ${bob}`);
    await run(client, `CREATE USER ${bob} PASSWORD 'another long password' ROLE readonly`);
    await run(client, `DROP USER ${bob}`);
    await run(client, `CREATE USER ${bob} ${password} ROLE readonly`);
    await run(client, "COMMIT");
    const [after] = await stage.past("SELECT oid FROM pg_roles WHERE rolname = $1", [bob]);
    expect(after?.oid).not.toBe(before?.oid);
    expect(await leftovers()).toEqual([]);
    const session = await logIn(bob);
    expect((await session.query("SHOW SESSION")).rows[0]).toMatchObject({ roles: "readonly" });
    await admin.query(`DROP USER ${bob}`);
  });

  test("service accounts, stand-alone keys and roles go the same way, several in one transaction", async () => {
    await admin.query(`CREATE ROLE role_${bob}`);
    await admin.query(`CREATE SERVICE ACCOUNT account_${bob} FOR DATABASE other`);
    await admin.query(`CREATE API KEY 'key_${bob}' ROLE readonly`);
    await admin.query(`CREATE USER ${bob} ${password}`);
    await admin.query(`GRANT role_${bob} TO ${bob}`);
    const client = await connect();
    await run(client, "BEGIN");
    await run(client, "SAVEPOINT a");
    await expect(run(client, `DROP ROLE role_${bob}`)).rejects.toMatchObject({ code: "2BP01" });
    await run(client, "ROLLBACK TO a");
    await run(client, `DROP USER ${bob}`);
    await run(client, `DROP ROLE role_${bob}`);
    await run(client, `DROP SERVICE ACCOUNT account_${bob}`);
    await run(client, `DROP API KEY 'key_${bob}'`);
    await run(client, `CREATE USER brief_${bob} ${password}`);
    await run(client, `DROP USER brief_${bob}`);
    expect(await userNames()).toContain(bob);
    await run(client, "COMMIT");
    expect((await roleNames()).filter((name) => name.includes(bob))).toEqual([]);
    expect(await leftovers()).toEqual([]);
  });

  test("objects that are left to somebody who is dropped as well are nobody's", async () => {
    await admin.query(`CREATE USER ${bob} ${password} ROLE admin`);
    await admin.query(`CREATE USER next_${bob} ${password} ROLE admin`);
    await (await logIn(bob)).query(`CREATE TABLE chain_${bob} (id int)`);
    const client = await connect();
    await run(client, "BEGIN");
    await run(client, `DROP USER ${bob} REASSIGN OWNED TO next_${bob}`);
    await run(client, "SAVEPOINT a");
    await expect(run(client, `DROP USER next_${bob}`)).rejects.toMatchObject({
      code: "2BP01",
      message: expect.stringContaining(`"next_${bob}"`),
      detail: `owner of table public.chain_${bob}`,
    });
    await run(client, "ROLLBACK TO a");
    await run(client, `DROP USER next_${bob} REASSIGN OWNED TO nodedb`);
    await run(client, "COMMIT");
    expect(await leftovers()).toEqual([]);
    const owner = await admin.query("SELECT tableowner FROM pg_tables WHERE tablename = $1", [
      `chain_${bob}`,
    ]);
    expect(owner.rows).toEqual([{ tableowner: "nodedb" }]);
    await admin.query(`DROP TABLE chain_${bob}`);
  });
});

test("a string with a DROP in it is one transaction", async () => {
  await admin.query(`CREATE USER in_string ${password}`);
  await expect(
    admin.query("CREATE TABLE half (id int); DROP USER in_string; SELECT 1/0"),
  ).rejects.toMatchObject({ code: "22012" });
  expect(await userNames()).toContain("in_string");
  expect((await admin.query("SELECT to_regclass('half') AS found")).rows).toEqual([{ found: null }]);
  await admin.query(`DROP USER in_string; CREATE USER in_string ${password}; DROP USER in_string`);
  expect(await roleNames()).not.toContain("in_string");
  expect(await leftovers()).toEqual([]);
});

test("an old snapshot hides nothing that the user owns", async () => {
  await admin.query(`CREATE USER hidden ${password} ROLE admin`);
  const session = await logIn("hidden");
  const client = await connect();
  await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ");
  await client.query("SELECT 1");
  await session.query("CREATE TABLE not_in_snapshot (id int)");
  await expect(client.query("DROP USER hidden")).rejects.toMatchObject({ code: "2BP01" });
  await client.query("ROLLBACK");
  await admin.query("DROP USER hidden REASSIGN OWNED TO nodedb");
  await admin.query("DROP TABLE not_in_snapshot");
});

test("locks of the client's own transaction, and of others, never make it hang; the reaper ends what they hold up", async () => {
  await admin.query(`CREATE USER locked ${password}`);
  await admin.query("CREATE TABLE of_locked (id int)");
  await admin.query("GRANT SELECT ON of_locked TO locked");
  const blocker = await connect();
  await blocker.query("BEGIN");
  await blocker.query("GRANT INSERT ON of_locked TO locked");
  const client = await connect();
  await client.query("CREATE TABLE of_own (id int)");
  await client.query("BEGIN");
  await client.query("GRANT INSERT ON of_own TO locked");
  await client.query("DROP USER locked");
  const startedAt = performance.now();
  await client.query("COMMIT");
  expect(performance.now() - startedAt).toBeLessThan(8_000);
  expect(await userNames()).not.toContain("locked");
  expect(await roleNames()).not.toContain("locked");
  // What is left of it can do nothing.
  const rights = await stage.past(
    `SELECT rolcanlogin OR rolsuper AS may, EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid) AS belongs
       FROM pg_roles r WHERE rolname LIKE 'nodedb\\_dropped\\_%'`,
  );
  expect(rights).toEqual([{ may: false, belongs: false }]);
  await admin.query(`CREATE USER locked ${password}`);
  await blocker.query("ROLLBACK");
  await until(async () => (await leftovers()).length === 0, 30_000);
  const [table] = await stage.past("SELECT relacl::text AS acl FROM pg_class WHERE relname = 'of_locked'");
  expect(table?.acl).not.toContain("locked=");
  await admin.query("DROP USER locked");
  await admin.query("DROP TABLE of_locked, of_own");
}, 60_000);
