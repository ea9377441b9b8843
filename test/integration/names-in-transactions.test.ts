/** Names that come to mean something else while a transaction is open: of prepared statements, and of roles. */

import type pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { openStage, type Stage } from "../support/stage.ts";
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

function outcomeOf(query: Promise<unknown>): Promise<string> {
  return query.then(
    (result) => (result as { command?: string }).command ?? "done",
    (error: unknown) => (error as { code?: string }).code ?? String(error),
  );
}

/** Whether there is a row with the number, a principal and a PostgreSQL role of the name. */
async function parts(id: number, name: string): Promise<Record<string, unknown> | undefined> {
  const [row] = await stage.past(
    `SELECT EXISTS (SELECT FROM written WHERE id = $1) AS theirs,
            EXISTS (SELECT FROM nodedb.principal WHERE name = $2) AS ours,
            EXISTS (SELECT FROM pg_roles WHERE rolname = $2) AS role`,
    [id, name],
  );
  return row;
}

async function waitForNoRole(name: string): Promise<void> {
  await until(async () => (await stage.past("SELECT FROM pg_roles WHERE rolname = $1", [name])).length === 0);
}

const all = { theirs: true, ours: true, role: true };
const nothing = { theirs: false, ours: false, role: false };

beforeAll(async () => {
  stage = await openStage();
  admin = await stage.connect(stage.frontEnd.adminUser);
  await admin.query("CREATE TABLE written (id int)");
});
afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.end().catch(() => undefined)));
});
afterAll(async () => {
  await admin?.end();
  await stage?.close();
});

/** node-postgres prepares a name once; this makes it forget, or believe, that it has. */
function parsedStatements(client: pg.Client): Record<string, string> {
  return (client as unknown as { connection: { parsedStatements: Record<string, string> } }).connection
    .parsedStatements;
}

describe("a prepared statement", () => {
  test.each([
    ["COMMIT", all, 1],
    ["ROLLBACK", nothing, 2],
  ])("%s keeps its meaning when another Parse of its name was refused", async (end, expected, id) => {
    const client = await connect();
    const name = `twice_${id}`;
    await client.query({ name: "c", text: end, values: [] });
    delete parsedStatements(client).c;
    expect(await outcomeOf(client.query({ name: "c", text: "SELECT 1", values: [] }))).toBe("42P05");
    parsedStatements(client).c = end;
    await client.query("BEGIN");
    await client.query(`INSERT INTO written VALUES (${id})`);
    await client.query(`CREATE USER ${name} ${password}`);
    expect(await outcomeOf(client.query({ name: "c", text: end, values: [] }))).toBe(end);
    expect(await parts(id, name)).toEqual(expected);
  });

  test("COMMIT that was replaced in SQL commits nothing of ours, and fails the block", async () => {
    const client = await connect();
    await client.query({ name: "d", text: "COMMIT", values: [] });
    await client.query("DEALLOCATE d");
    await client.query("PREPARE d AS INSERT INTO written VALUES (3)");
    await client.query("BEGIN");
    await client.query(`CREATE USER replaced ${password}`);
    expect(await outcomeOf(client.query({ name: "d", text: "COMMIT", values: [] }))).toBe("40001");
    expect(await outcomeOf(client.query("SELECT 1"))).toBe("25P02");
    expect(await outcomeOf(client.query("COMMIT"))).toBe("ROLLBACK");
    await waitForNoRole("replaced");
    expect(await parts(3, "replaced")).toEqual(nothing);
  });

  test("that became COMMIT in SQL takes what is ours with it, or leaves it all", async () => {
    const client = await connect();
    await client.query({ name: "e", text: "SELECT 1", values: [] });
    await client.query("DEALLOCATE e");
    delete parsedStatements(client).e;
    await client.query({ name: "e", text: "COMMIT", values: [] });
    await client.query("BEGIN");
    await client.query("INSERT INTO written VALUES (4)");
    await client.query(`CREATE USER became ${password}`);
    expect(await outcomeOf(client.query({ name: "e", text: "COMMIT", values: [] }))).toBe("COMMIT");
    expect(await parts(4, "became")).toEqual(all);
  });

  test("with a name of the front-end's own questions is no obstacle", async () => {
    const client = await connect();
    const name = "nodedb: a question of the front-end";
    await client.query({ name, text: "SELECT 1", values: [] });
    const run = (text: string) => client.query({ text, values: [], ...{ queryMode: "extended" } });
    await run("BEGIN");
    await run("INSERT INTO written VALUES (5)");
    await run(`CREATE USER asked ${password}`);
    expect(await outcomeOf(run("COMMIT"))).toBe("COMMIT");
    expect(await parts(5, "asked")).toEqual(all);
  });
});

describe("the name of a role that a transaction is creating", () => {
  test("is nobody else's to drop, alter or create", async () => {
    const client = await connect();
    await client.query("BEGIN");
    await client.query(`CREATE USER claimed ${password}`);
    for (const sql of [
      "DROP USER claimed",
      "DROP ROLE claimed",
      "ALTER USER claimed NOLOGIN",
      `CREATE USER claimed ${password}`,
      "CREATE ROLE claimed",
    ]) {
      expect(await outcomeOf(admin.query(sql)), sql).toMatch(/^(40001|42710|42704)$/);
    }
    await client.query("COMMIT");
    expect((await stage.past("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'claimed'")).length).toBe(1);
    await admin.query("DROP USER claimed");
  });

  test("that has ended with its connection is nobody's to drop or alter, though its role is still there", async () => {
    await stage.past("INSERT INTO nodedb.reserved_role VALUES ('abandoned', 1, '2000-01-01')");
    await stage.past("CREATE ROLE abandoned");
    for (const sql of [
      "DROP USER abandoned",
      "ALTER USER abandoned NOLOGIN",
      "GRANT readonly TO abandoned",
    ]) {
      expect(await outcomeOf(admin.query(sql)), sql).toBe("42704");
    }
    expect(await outcomeOf(admin.query("DROP USER IF EXISTS abandoned"))).toBe("DROP");
    expect(await outcomeOf(admin.query(`CREATE USER abandoned ${password}`))).toBe("CREATE");
    await admin.query("DROP USER abandoned");
  });

  test("that somebody got behind its back stays with that one when the transaction is rolled back", async () => {
    await admin.query(`CREATE USER patient ${password}`);
    const client = await connect();
    await client.query("BEGIN");
    await client.query(`CREATE USER wanted ${password}`);
    await stage.past("DROP ROLE wanted");
    await admin.query("ALTER USER patient RENAME TO wanted");
    const before = await stage.past("SELECT oid FROM pg_roles WHERE rolname = 'wanted'");
    await client.query("ROLLBACK");
    expect(await stage.past("SELECT oid FROM pg_roles WHERE rolname = 'wanted'")).toEqual(before);
    const session = await stage.connect("wanted", { password: "long enough to be taken" });
    await session.end();
    expect((await stage.past("SELECT FROM nodedb.reserved_role")).length).toBe(0);
    await admin.query("DROP USER wanted");
  });

  test("that somebody got behind its back is refused to the transaction, with all of it", async () => {
    await admin.query(`CREATE USER quick ${password}`);
    const client = await connect();
    await client.query("BEGIN");
    await client.query("INSERT INTO written VALUES (6)");
    await client.query(`CREATE USER fought_over PASSWORD 'the other long password'`);
    await stage.past("DROP ROLE fought_over");
    await admin.query("ALTER USER quick RENAME TO fought_over");
    expect(await outcomeOf(client.query("COMMIT"))).toMatch(/^(42710|40001)$/);
    expect((await admin.query("SELECT FROM written WHERE id = 6")).rowCount).toBe(0);
    const session = await stage.connect("fought_over", { password: "long enough to be taken" });
    await session.end();
    await admin.query("DROP USER fought_over");
  });

  test("is free again when the connection that held its transaction's part is lost at COMMIT", async () => {
    const client = await connect();
    for (const sql of [
      "BEGIN",
      "CREATE TEMP TABLE x (i int)",
      `CREATE FUNCTION pg_temp.f() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN
         PERFORM pg_terminate_backend(pid, 5000) FROM pg_locks WHERE relation = 'nodedb.instance'::regclass;
         RETURN NULL;
       END $f$`,
      `CREATE CONSTRAINT TRIGGER z AFTER INSERT ON x DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION pg_temp.f()`,
      "INSERT INTO x VALUES (1)",
      `CREATE USER shot ${password}`,
    ]) {
      await client.query(sql);
    }
    expect(await outcomeOf(client.query("COMMIT"))).toBe("08007");
    await waitForNoRole("shot");
    expect(await outcomeOf(admin.query(`CREATE USER shot ${password}`))).toBe("CREATE");
    await admin.query("DROP USER shot");
  });
});
