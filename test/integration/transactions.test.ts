/** Statements of ours inside the client's own transaction: what it commits holds, what it rolls back never was. */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { isRunnable } from "../support/client-program.ts";
import { type FrontEnd, startFrontEnd } from "../support/front-end.ts";
import { runProgram } from "../support/run-program.ts";
import { requireClient } from "../support/skips.ts";

const password = "PASSWORD 'long enough to be taken'";

describe("statements of ours in the client's transaction", () => {
  let frontEnd: FrontEnd;
  let admin: pg.Client;
  const clients: pg.Client[] = [];

  async function connect(): Promise<pg.Client> {
    const client = new pg.Client({
      host: frontEnd.host,
      port: frontEnd.port,
      user: frontEnd.adminUser,
      password: frontEnd.adminPassword,
      database: frontEnd.database,
    });
    client.on("error", () => undefined);
    await client.connect();
    clients.push(client);
    return client;
  }

  /** Users and PostgreSQL roles of that name, as another session sees them. */
  async function find(name: string): Promise<{ user: boolean; role: boolean }> {
    const users = await admin.query("SHOW USERS");
    const roles = await admin.query("SELECT FROM pg_roles WHERE rolname = $1", [name]);
    return { user: users.rows.some((row) => row.username === name), role: roles.rowCount !== 0 };
  }

  /** Waits until the role is gone: it is dropped right after the client has its answer. */
  async function waitForNoRole(name: string): Promise<void> {
    const deadline = Date.now() + 5_000;
    while ((await find(name)).role) {
      if (Date.now() > deadline) throw new Error(`role ${name} is still there`);
      await new Promise((resume) => setTimeout(resume, 10));
    }
  }

  beforeAll(async () => {
    frontEnd = await startFrontEnd();
    admin = await connect();
    clients.length = 0;
    await admin.query("CREATE TABLE t (id int)");
  });
  // Sessions keep their upstream connections, of which a user has only so many.
  afterEach(async () => {
    await Promise.all(clients.splice(0).map((client) => client.end().catch(() => undefined)));
  });
  afterAll(async () => {
    await admin?.end();
    await frontEnd?.close();
  });

  for (const [protocol, run] of [
    ["simple", (client: pg.Client, sql: string) => client.query(sql)],
    [
      "extended",
      (client: pg.Client, sql: string) => client.query({ text: sql, values: [], name: `s${sql}` }),
    ],
  ] as const) {
    describe(`by the ${protocol} protocol`, () => {
      const bob = `bob_${protocol}`;

      test("COMMIT makes the user, with what was granted to it", async () => {
        const client = await connect();
        await run(client, "BEGIN");
        expect((await run(client, `CREATE USER ${bob} ${password}`)).command).toBe("CREATE");
        await run(client, `GRANT SELECT ON t TO ${bob}`);
        expect((await run(client, "SHOW USERS")).rows.map((row) => row.username)).toContain(bob);
        expect((await find(bob)).user).toBe(false);
        expect((await run(client, "COMMIT")).command).toBe("COMMIT");
        expect(await find(bob)).toEqual({ user: true, role: true });
        const granted = await admin.query("SELECT has_table_privilege($1, 't', 'SELECT') AS may", [bob]);
        expect(granted.rows).toEqual([{ may: true }]);
        const login = new pg.Client({
          host: frontEnd.host,
          port: frontEnd.port,
          user: bob,
          password: "long enough to be taken",
          database: frontEnd.database,
        });
        await login.connect();
        await login.end();
        await admin.query(`REVOKE SELECT ON t FROM ${bob}`);
        await admin.query(`DROP USER ${bob}`);
      });

      test("ROLLBACK leaves nothing", async () => {
        const client = await connect();
        await run(client, "BEGIN");
        await run(client, `CREATE USER ${bob} ${password}`);
        await run(client, `GRANT SELECT ON t TO ${bob}`);
        await run(client, "ROLLBACK");
        await waitForNoRole(bob);
        expect(await find(bob)).toEqual({ user: false, role: false });
      });

      test("ROLLBACK TO takes back what came after the savepoint, RELEASE keeps it", async () => {
        const client = await connect();
        await run(client, "BEGIN");
        await run(client, `CREATE USER ${bob}_1 ${password}`);
        await run(client, "SAVEPOINT a");
        await run(client, `CREATE USER ${bob}_2 ${password}`);
        await run(client, "ROLLBACK TO a");
        await run(client, "SAVEPOINT b");
        await run(client, `CREATE USER ${bob}_3 ${password}`);
        await run(client, "RELEASE SAVEPOINT b");
        await run(client, "COMMIT");
        expect((await find(`${bob}_1`)).user).toBe(true);
        await waitForNoRole(`${bob}_2`);
        expect((await find(`${bob}_2`)).user).toBe(false);
        expect((await find(`${bob}_3`)).user).toBe(true);
        await admin.query(`DROP USER ${bob}_1, ${bob}_3`);
      });

      test("a savepoint that was set before the first statement of ours takes all of them back", async () => {
        const client = await connect();
        await run(client, "BEGIN");
        await run(client, "SAVEPOINT early");
        await run(client, `CREATE USER ${bob} ${password}`);
        await run(client, "ROLLBACK TO SAVEPOINT early");
        await run(client, "COMMIT");
        await waitForNoRole(bob);
        expect((await find(bob)).user).toBe(false);
      });

      test("an error fails the block, and its COMMIT is a ROLLBACK", async () => {
        const client = await connect();
        await run(client, "BEGIN");
        await run(client, `CREATE USER ${bob} ${password}`);
        await expect(run(client, "SELECT 1/0")).rejects.toMatchObject({ code: "22012" });
        await expect(run(client, "SHOW USERS")).rejects.toMatchObject({ code: "25P02" });
        expect((await run(client, "COMMIT")).command).toBe("ROLLBACK");
        await waitForNoRole(bob);
        expect((await find(bob)).user).toBe(false);
      });

      test("an error of a statement of ours fails the block as well", async () => {
        const client = await connect();
        await run(client, "BEGIN");
        await run(client, "INSERT INTO t VALUES (1)");
        await expect(run(client, `CREATE USER nodedb ${password}`)).rejects.toMatchObject({ code: "42710" });
        await expect(run(client, "SELECT 1")).rejects.toMatchObject({ code: "25P02" });
        await run(client, "ROLLBACK");
        expect((await admin.query("SELECT FROM t")).rowCount).toBe(0);
      });

      test("COMMIT AND CHAIN commits and goes on", async () => {
        const client = await connect();
        await run(client, "BEGIN");
        await run(client, `CREATE USER ${bob} ${password}`);
        await run(client, "COMMIT AND CHAIN");
        expect((await find(bob)).user).toBe(true);
        await run(client, `CREATE USER ${bob}_chained ${password}`);
        await run(client, "ROLLBACK");
        await waitForNoRole(`${bob}_chained`);
        await admin.query(`DROP USER ${bob}`);
      });
    });
  }

  test("a commit that PostgreSQL refuses takes the statements of ours with it", async () => {
    const client = await connect();
    await admin.query(
      "CREATE TABLE IF NOT EXISTS late (id int, CONSTRAINT late_key UNIQUE (id) DEFERRABLE INITIALLY DEFERRED)",
    );
    await client.query("BEGIN");
    await client.query("INSERT INTO late VALUES (1), (1)");
    await client.query(`CREATE USER deferred_user ${password}`);
    await expect(client.query("COMMIT")).rejects.toMatchObject({ code: "23505" });
    await waitForNoRole("deferred_user");
    expect((await find("deferred_user")).user).toBe(false);
    expect((await client.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
  });

  test("an open transaction holds up no other administrator, and one of two with the same name loses cleanly", async () => {
    const [first, second] = [await connect(), await connect()];
    await first.query("BEGIN");
    await first.query(`CREATE USER contested ${password}`);
    await second.query(`CREATE USER uncontested ${password}`);
    await expect(second.query(`CREATE USER contested ${password}`)).rejects.toMatchObject({ code: "40001" });
    await first.query("COMMIT");
    await expect(second.query(`CREATE USER contested ${password}`)).rejects.toMatchObject({ code: "42710" });
    await admin.query("DROP USER contested, uncontested");
  });

  test("what another administrator has changed meanwhile fails the commit, and with it the client's own part", async () => {
    const [first, second] = [await connect(), await connect()];
    await second.query(`CREATE USER fleeting ${password}`);
    await first.query("BEGIN");
    await first.query("INSERT INTO t VALUES (2)");
    await first.query("ALTER USER fleeting CONNECTION LIMIT 3");
    await second.query("DROP USER fleeting");
    await expect(first.query("COMMIT")).rejects.toMatchObject({ code: "42704" });
    expect((await admin.query("SELECT FROM t WHERE id = 2")).rowCount).toBe(0);
    expect((await first.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
  });

  test("a client that vanishes leaves nothing", async () => {
    const client = await connect();
    await client.query("BEGIN");
    await client.query(`CREATE USER orphan ${password}`);
    expect((await find("orphan")).role).toBe(true);
    (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
    await waitForNoRole("orphan");
    expect((await find("orphan")).user).toBe(false);
  });

  test("several statements in one string are one transaction", async () => {
    await expect(
      admin.query(`CREATE TABLE half (id int); CREATE USER half_user ${password}; SELECT 1/0`),
    ).rejects.toMatchObject({ code: "22012" });
    await waitForNoRole("half_user");
    expect((await find("half_user")).user).toBe(false);
    expect((await admin.query("SELECT to_regclass('half') AS found")).rows).toEqual([{ found: null }]);
    const results = await admin.query(
      `CREATE TABLE whole (id int); CREATE USER whole_user ${password}; GRANT SELECT ON whole TO whole_user`,
    );
    expect((results as unknown as pg.QueryResult[]).map(({ command }) => command)).toEqual([
      "CREATE",
      "CREATE",
      "GRANT",
    ]);
    expect((await find("whole_user")).user).toBe(true);
    await admin.query("DROP TABLE whole");
    await admin.query("DROP USER whole_user");
  });

  test("a string may begin and end transactions itself", async () => {
    await admin.query(
      `CREATE USER s_one ${password}; BEGIN; CREATE USER s_two ${password}; COMMIT; BEGIN; CREATE USER s_three ${password}; ROLLBACK`,
    );
    expect((await find("s_one")).user).toBe(true);
    expect((await find("s_two")).user).toBe(true);
    await waitForNoRole("s_three");
    expect((await find("s_three")).user).toBe(false);
    await admin.query("DROP USER s_one, s_two");
  });

  test("psql -1 -f is all or nothing", async () => {
    const isThere = requireClient("psql (postgresql-client-15)", isRunnable("psql", "--version"));
    if (!isThere) return;
    const environment = {
      PATH: process.env.PATH,
      PGHOST: frontEnd.host,
      PGPORT: String(frontEnd.port),
      PGUSER: frontEnd.adminUser,
      PGPASSWORD: frontEnd.adminPassword,
      PGDATABASE: frontEnd.database,
    };
    const script = join(frontEnd.dataDir, "setup.sql");
    const setup = `CREATE TABLE app (id int);\nCREATE USER app_user ${password};\nGRANT SELECT ON app TO app_user;\n`;
    const run = () => runProgram("psql", ["-X", "-v", "ON_ERROR_STOP=1", "-1", "-f", script], environment);
    writeFileSync(script, `${setup}SELECT 1/0;\n`);
    expect((await run()).status).not.toBe(0);
    await waitForNoRole("app_user");
    expect((await admin.query("SELECT to_regclass('app') AS found")).rows).toEqual([{ found: null }]);
    writeFileSync(script, setup);
    const done = await run();
    expect(done.status, done.stderr).toBe(0);
    expect((await find("app_user")).user).toBe(true);
    expect((await admin.query("SELECT to_regclass('app') AS found")).rows).toEqual([{ found: "app" }]);
  });
});
