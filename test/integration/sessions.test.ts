/** Sessions of all front-ends: who sees which, who may end which, and when one ends by itself. */

import type pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type FrontEnd, startFrontEnd } from "../support/front-end.ts";
import { startPostgres, type TestPostgres } from "../support/postgres.ts";
import { endOf, openClient, runOnce, stateOf } from "../support/stage.ts";
import { until } from "../support/until.ts";

const password = "right right";

describe("two front-ends on one catalog", () => {
  let postgres: TestPostgres;
  let first: FrontEnd;
  let second: FrontEnd;
  let admin: pg.Client;
  const clients: pg.Client[] = [];

  const connect = async (frontEnd: FrontEnd, user: string) => {
    const client = await openClient({
      host: frontEnd.host,
      port: frontEnd.port,
      database: "postgres",
      user,
      password: user === "nodedb" ? first.adminPassword : password,
    });
    clients.push(client);
    return client;
  };
  const idOf = async (client: pg.Client): Promise<string> =>
    (await client.query("SHOW SESSION")).rows[0].session_id;
  const seenBy = async (client: pg.Client) =>
    (await client.query("SHOW SESSIONS")).rows as Record<string, string | null>[];
  const past = async (sql: string) =>
    (
      await runOnce(
        { host: postgres.socketDir, port: postgres.port, user: "postgres", database: "postgres" },
        sql,
      )
    ).rows;

  beforeAll(async () => {
    postgres = await startPostgres({ tcp: true });
    first = await startFrontEnd({ upstreamUrl: postgres.url });
    admin = await openClient({
      host: first.host,
      port: first.port,
      database: "postgres",
      user: first.adminUser,
      password: first.adminPassword,
    });
    await admin.query(`CREATE USER alice PASSWORD '${password}'`);
    await admin.query(`CREATE USER bob PASSWORD '${password}'`);
    await admin.query(`CREATE USER boss PASSWORD '${password}' ROLE admin`);
    await past("INSERT INTO nodedb.tenant (id, name) VALUES (7, 'seven') ON CONFLICT DO NOTHING");
    await admin.query(`CREATE USER stranger PASSWORD '${password}' ROLE admin TENANT 7`);
    // Only now: to try logins until it has heard of the users would lock them.
    second = await startFrontEnd({ upstreamUrl: postgres.url, besides: first.dataDir });
  });

  afterEach(async () => {
    for (const client of clients.splice(0)) await client.end().catch(() => {});
  });

  afterAll(async () => {
    await admin?.end().catch(() => {});
    await second?.close();
    await first?.close();
    await postgres?.dispose();
  });

  test("everybody sees the own sessions, an admin the tenant's, a superuser all, on both front-ends", async () => {
    const alice = await connect(first, "alice");
    const elsewhere = await connect(second, "alice");
    const stranger = await connect(second, "stranger");
    const boss = await connect(first, "boss");
    const ids = { here: await idOf(alice), there: await idOf(elsewhere), stranger: await idOf(stranger) };
    await until(async () => (await seenBy(admin)).some((row) => row.session_id === ids.stranger), 2_000);
    const namesSeenBy = async (client: pg.Client) =>
      (await seenBy(client)).map((row) => row.username).toSorted();
    expect(await namesSeenBy(alice)).toEqual(["alice", "alice"]);
    expect(await namesSeenBy(boss)).toEqual(["alice", "alice", "boss", "nodedb"]);
    expect(await namesSeenBy(stranger)).toEqual(["stranger"]);
    expect(await namesSeenBy(admin)).toEqual(["alice", "alice", "boss", "nodedb", "stranger"]);
    const row = (await seenBy(admin)).find(({ session_id }) => session_id === ids.here);
    expect(row).toMatchObject({
      database: "postgres",
      tenant_id: "1",
      auth_method: "scram-sha-256",
      client_addr: "127.0.0.1",
      protocol: "pgwire",
      state: "idle",
      expires_at: null,
    });
    await alice.query("BEGIN");
    expect((await seenBy(admin)).find(({ session_id }) => session_id === ids.here)?.state).toBe(
      "idle in transaction",
    );
    await alice.end();
    await until(async () => !(await seenBy(admin)).some(({ session_id }) => session_id === ids.here), 2_000);
  });

  test("KILL SESSION ends a session on the other front-end within a second, also one that runs a statement", async () => {
    const idle = await connect(second, "alice");
    const busy = await connect(second, "bob");
    const ids = [await idOf(idle), await idOf(busy)];
    await until(
      async () => (await seenBy(admin)).filter((row) => ids.includes(row.session_id ?? "")).length === 2,
    );
    const ends = endOf(idle);
    const running = stateOf(busy.query("SELECT pg_sleep(60)"));
    await until(
      async () =>
        (await past("SELECT FROM pg_stat_activity WHERE usename = 'bob' AND state = 'active'")).length === 1,
    );
    const startedAt = performance.now();
    for (const id of ids) expect((await admin.query(`KILL SESSION '${id}'`)).command).toBe("KILL");
    expect(await ends).toMatchObject({ code: "57P01" });
    expect(await running).toBe("57P01");
    expect(performance.now() - startedAt).toBeLessThan(1_000);
    await until(
      async () =>
        (await past("SELECT FROM pg_stat_activity WHERE usename = 'bob' AND state = 'active'")).length === 0,
    );
    expect((await admin.query("SHOW AUDIT LOG WHERE event = 'AdminAction' LIMIT 1")).rows[0].detail).toBe(
      `KILL SESSION ${ids[1]}`,
    );
  });

  test("works by polling when notifications do not come", async () => {
    const idle = await connect(second, "alice");
    const id = await idOf(idle);
    await until(async () => (await seenBy(admin)).some((row) => row.session_id === id));
    const ends = endOf(idle);
    await past(
      `UPDATE nodedb.session SET killed_by = '00000000-0000-4000-8000-000000000000' WHERE id = '${id}'`,
    );
    const startedAt = performance.now();
    expect(await ends).toMatchObject({ code: "57P01" });
    expect(performance.now() - startedAt).toBeLessThan(1_000);
  });

  test("only the owner, an admin of the tenant and a superuser may end a session, and none above the own rank", async () => {
    const alice = await connect(first, "alice");
    const bob = await connect(first, "bob");
    const boss = await connect(first, "boss");
    const stranger = await connect(first, "stranger");
    const [ofAlice, ofAdmin] = [await idOf(alice), await idOf(admin)];
    const kill = (client: pg.Client, id: string) => stateOf(client.query(`KILL SESSION '${id}'`));
    expect(await kill(bob, ofAlice)).toBe("42501");
    expect(await kill(stranger, ofAlice)).toBe("42704");
    expect(await kill(boss, ofAdmin)).toBe("42501");
    expect(await kill(boss, "00000000-0000-4000-8000-000000000000")).toBe("42704");
    expect(await kill(boss, "no id'' at all")).toBe("42704");
    expect((await alice.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    const ends = endOf(alice);
    expect(await kill(boss, ofAlice)).toBeUndefined();
    expect(await ends).toMatchObject({ code: "57P01" });
    const own = endOf(bob);
    expect(await kill(bob, await idOf(bob))).toBeUndefined();
    expect(await own).toMatchObject({ code: "57P01" });
  });

  test("the sessions of a front-end that was killed disappear, and a crash of the table is made good", async () => {
    const third = await startFrontEnd({ upstreamUrl: postgres.url, besides: first.dataDir });
    const lost = await connect(third, "alice");
    const id = await idOf(lost);
    await until(async () => (await seenBy(admin)).some((row) => row.session_id === id));
    third.signal("SIGKILL");
    await third.exited;
    await past(
      "UPDATE nodedb.front_end SET heartbeat_at = now() - '11 s'::interval WHERE id = (SELECT instance_id FROM nodedb.session WHERE id = '" +
        id +
        "')",
    );
    expect((await seenBy(admin)).some((row) => row.session_id === id)).toBe(false);
    await until(async () => (await past(`SELECT FROM nodedb.session WHERE id = '${id}'`)).length === 0);
    const own = await idOf(admin);
    await past("TRUNCATE nodedb.front_end CASCADE");
    await until(async () => (await seenBy(admin)).some((row) => row.session_id === own));
  });

  test("VALID UNTIL ends an idle session when it passes, and a busy one after its statement", async () => {
    await admin.query(`CREATE USER guest PASSWORD '${password}'`);
    const idle = await connect(first, "guest");
    const busy = await connect(first, "guest");
    const ends = endOf(idle);
    const busyEnds = endOf(busy);
    const running = busy.query("SELECT pg_sleep(3.5), 'whole' AS answer");
    const until = new Date(Date.now() + 1_500).toISOString();
    await admin.query(`ALTER USER guest VALID UNTIL '${until}'`);
    expect(await ends).toMatchObject({ code: "57P01" });
    expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(until));
    expect((await running).rows[0].answer).toBe("whole");
    expect(await busyEnds).toMatchObject({ code: "57P01" });
  });
});
