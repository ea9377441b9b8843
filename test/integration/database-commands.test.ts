/** CREATE, ALTER and DROP DATABASE want a database to themselves: the front-end's pooled connections must not be in their way. */

import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { openClient, openStage, runOnce, type Stage, stateOf } from "../support/stage.ts";

let stage: Stage;

beforeAll(async () => {
  stage = await openStage({ users: ["alice"] });
});
afterAll(() => stage?.close());

/** Enters a database and leaves it again; its upstream connection is idle in the pool then. */
async function use(database: string): Promise<void> {
  const login = stage.login(stage.frontEnd.adminUser, { database });
  await runOnce(login, "SELECT 1");
  await vi.waitFor(async () => expect(await idleIn(database)).toBe(1), { timeout: 3_000, interval: 10 });
}

async function idleIn(database: string): Promise<unknown> {
  const [row] = await stage.past(
    "SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = $1 AND query = 'DISCARD ALL' AND state = 'idle'",
    [database],
  );
  return row?.n;
}

async function processesIn(database: string): Promise<unknown[]> {
  return stage.past("SELECT pid FROM pg_stat_activity WHERE datname = $1", [database]);
}

async function databases(): Promise<unknown[]> {
  const rows = await stage.past("SELECT datname FROM pg_database WHERE datname LIKE 'sales%' ORDER BY 1");
  return rows.map(({ datname }) => datname);
}

describe.each([
  ["the simple protocol", (sql: string) => stage.asAdmin(sql)],
  [
    "the extended protocol",
    async (sql: string) => {
      const client = await openClient(stage.login(stage.frontEnd.adminUser));
      try {
        return await client.query({ name: "command", text: sql });
      } finally {
        await client.end();
      }
    },
  ],
])("in %s", (_, run) => {
  test("a database that was used is renamed, copied and dropped", async () => {
    await run("CREATE DATABASE sales");
    await use("sales");
    await run("ALTER DATABASE sales RENAME TO sales_2020");
    await use("sales_2020");
    await run('CREATE DATABASE "sales Copy" TEMPLATE sales_2020');
    await use("sales Copy");
    expect(await databases()).toEqual(["sales Copy", "sales_2020"]);
    await run("DROP DATABASE SALES_2020");
    await run('/* and */ DROP DATABASE IF EXISTS "sales Copy"');
    expect(await databases()).toEqual([]);
  });

  test("a connection to template1 is in nobody's way", async () => {
    await runOnce(stage.login(stage.frontEnd.adminUser, { database: "template1" }), "SELECT 1");
    await run("CREATE DATABASE sales");
    await run("DROP DATABASE sales");
  });
});

test("sessions that are in use stay, and PostgreSQL waits for them as ever", async () => {
  await stage.asAdmin("CREATE DATABASE sales");
  const user = await openClient(stage.login(stage.frontEnd.adminUser, { database: "sales" }));
  await use("sales");
  const impatient = stage.login(stage.frontEnd.adminUser, { options: "-c statement_timeout=300ms" });
  expect(await stateOf(runOnce(impatient, "DROP DATABASE sales"))).toBe("57014");
  expect((await user.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
  await user.end();
  await stage.asAdmin("DROP DATABASE sales");
});

describe("a user that may not drop a database", () => {
  const attacks = [
    "DROP DATABASE sales",
    "ALTER DATABASE sales RENAME TO mine",
    "CREATE DATABASE mine TEMPLATE sales",
  ];

  test.each(["simple", "extended"])("closes nobody's connections by trying (%s)", async (protocol) => {
    await stage.asAdmin("CREATE DATABASE sales");
    await use("sales");
    const before = await processesIn("sales");
    const client = await openClient(stage.login("alice"));
    for (let attempt = 0; attempt < 10; attempt += 1) {
      for (const text of attacks) {
        const answer = client.query(protocol === "simple" ? { text } : { name: `a${attempt}${text}`, text });
        expect(await stateOf(answer)).toBe("42501");
      }
    }
    await client.end();
    expect(before).toHaveLength(1);
    expect(await processesIn("sales")).toEqual(before);
    await stage.asAdmin("DROP DATABASE sales");
  });

  test("may do it as a member of the owner's role, with that role set", async () => {
    await stage.past("CREATE DATABASE team");
    await stage.past("CREATE ROLE team_owner");
    await stage.past("ALTER DATABASE team OWNER TO team_owner");
    await stage.past("GRANT team_owner TO alice");
    await use("team");
    const client = await openClient(stage.login("alice"));
    await client.query("SET ROLE team_owner");
    await client.query("DROP DATABASE team");
    await client.end();
    expect(await stage.past("SELECT FROM pg_database WHERE datname = 'team'")).toEqual([]);
  });
});
