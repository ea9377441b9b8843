/** CONNECTION LIMIT, max_connections_per_user and the quotas of tenants, over two front-ends on one PostgreSQL. */

import type pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type FrontEnd, startFrontEnd } from "../support/front-end.ts";
import { createKey, httpClient } from "../support/http.ts";
import { openClient, openStage, passwordOf, type Stage, stateOf } from "../support/stage.ts";
import { until } from "../support/until.ts";

const configuration =
  "[auth]\nmax_connections_per_user = 5\nlogin_attempts_per_user_per_min = 0\nlogin_attempts_per_ip_per_min = 0\n";

describe("two front-ends on one PostgreSQL together keep", () => {
  let stage: Stage;
  let second: FrontEnd;
  const clients: pg.Client[] = [];

  const at = async (frontEnd: FrontEnd, user: string) => {
    const { host, port } = frontEnd;
    const client = await openClient(stage.login(user, { host, port }));
    clients.push(client);
    return client;
  };
  const here = (user: string) => at(stage.frontEnd, user);
  const there = (user: string) => at(second, user);
  const besides = () =>
    startFrontEnd({ upstreamUrl: stage.postgres.url, besides: stage.frontEnd.dataDir, configuration });
  const openBlocker = () => {
    const { socketDir: host, port } = stage.postgres;
    return openClient({ host, port, user: "postgres", database: "postgres" });
  };
  const rowsOf = (user: string) => stage.past("SELECT FROM nodedb.session WHERE username = $1", [user]);

  beforeAll(async () => {
    stage = await openStage({ users: ["alice", "bob", "carol", "dave", "erin"], configuration });
    await stage.asAdmin("ALTER USER alice CONNECTION LIMIT 1");
    await stage.asAdmin("ALTER USER bob CONNECTION LIMIT 3");
    await stage.asAdmin("ALTER USER dave CONNECTION LIMIT 2");
    await stage.asAdmin("CREATE TENANT acme ID 7");
    await stage.asAdmin("ALTER TENANT acme SET QUOTA max_connections = 2");
    for (const user of ["ann", "ben"]) {
      await stage.asAdmin(`CREATE USER ${user} PASSWORD '${passwordOf(user)}' TENANT acme`);
    }
    second = await besides();
  });
  afterEach(async () => {
    for (const client of clients.splice(0)) await client.end().catch(() => {});
    await until(async () => (await stage.past("SELECT FROM nodedb.session")).length === 0);
  });
  afterAll(async () => {
    await second?.close();
    await stage?.close();
  });

  test("a user's own limit, and give its place to the next one within a second", async () => {
    const first = await here("alice");
    await expect(there("alice")).rejects.toMatchObject({
      code: "53300",
      severity: "FATAL",
      message: 'too many connections for role "alice"',
    });
    await first.end();
    const endedAt = performance.now();
    await until(async () => (await stateOf(there("alice"))) === undefined);
    expect(performance.now() - endedAt).toBeLessThan(1_000);
    expect(await stateOf(here("alice"))).toBe("53300");
  });

  test("it also when many come at once, and let as many in as there are places", async () => {
    for (let round = 0; round < 6; round += 1) {
      const outcomes = await Promise.all(
        Array.from({ length: 16 }, (_, index) => stateOf((index % 2 === 0 ? here : there)("bob"))),
      );
      expect(outcomes.filter((state) => state === undefined)).toHaveLength(3);
      expect(outcomes.filter((state) => state === "53300")).toHaveLength(13);
      expect(await rowsOf("bob")).toHaveLength(3);
      for (const client of clients.splice(0)) await client.end();
      await until(async () => (await rowsOf("bob")).length === 0);
    }
  });

  test("it when both count at the same moment", async () => {
    const blocker = await openBlocker();
    // Both may count, and neither may write what the other would have to count.
    await blocker.query("BEGIN; LOCK TABLE nodedb.session IN SHARE MODE");
    const outcomes = [stateOf(here("alice")), stateOf(there("alice"))];
    await until(
      async () =>
        (
          await stage.past(
            "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%nodedb.take_place(%'",
          )
        ).length === 2,
    );
    await blocker.query("ROLLBACK");
    await blocker.end();
    expect((await Promise.all(outcomes)).toSorted()).toEqual(["53300", undefined]);
  });

  test("a limit of one for clients that come one after the other to the same front-end", async () => {
    for (let index = 0; index < 10; index += 1) await (await here("alice")).end();
  });

  test("the configured limit of every user, superusers included", async () => {
    for (const connect of [here, there, here, there, here]) await connect("carol");
    expect([await stateOf(here("carol")), await stateOf(there("carol"))]).toEqual(["53300", "53300"]);
    for (const connect of [here, there, here, there, here]) await connect("nodedb");
    expect(await stateOf(there("nodedb"))).toBe("53300");
  });

  test("a tenant's quota, for HTTP requests as for sessions", async () => {
    const key = await createKey(stage, "ben-key", "FOR ben");
    const ask = async (frontEnd: FrontEnd) =>
      (await httpClient(`http://127.0.0.1:${frontEnd.httpPort}`).query(key, { sql: "SELECT 1" })).status;
    await until(async () => (await ask(second)) === 200);
    await here("ann");
    for (let index = 0; index < 5; index += 1) expect(await ask(second)).toBe(200);
    await until(async () => (await rowsOf("ben")).length === 0);
    await there("ben");
    await expect(here("ben")).rejects.toMatchObject({
      code: "53300",
      message: "too many connections for this tenant",
    });
    expect([await ask(stage.frontEnd), await ask(second)]).toEqual([503, 503]);
  });

  test("no place for the sessions of a front-end that has crashed, once it has been silent for long enough", async () => {
    const third = await besides();
    await at(third, "alice");
    third.signal("SIGKILL");
    await third.exited;
    expect(await stateOf(here("alice"))).toBe("53300");
    await stage.past(
      "UPDATE nodedb.front_end SET heartbeat_at = now() - '11 s'::interval WHERE id = (SELECT instance_id FROM nodedb.session WHERE username = 'alice')",
    );
    await here("alice");
    await third.close();
  });

  test("the places that are taken when another front-end has thought this one dead", async () => {
    await here("dave");
    await stage.past("DELETE FROM nodedb.front_end");
    await here("dave");
    await until(async () => (await rowsOf("dave")).length === 2);
    expect(await stateOf(there("dave"))).toBe("53300");
  });

  test("who has a limit out as long as the others cannot be counted, and nobody else", async () => {
    const blocker = await openBlocker();
    await blocker.query("BEGIN; LOCK TABLE nodedb.session_count_lock");
    expect(await stateOf(here("alice"))).toBe("57P03");
    await blocker.query("ROLLBACK");
    await blocker.end();
    await (await here("alice")).end();
    expect(stage.frontEnd.output()).toContain("cannot count the sessions of other front-ends");
  });
});
