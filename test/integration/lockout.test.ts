/** Failed logins lock a name: on every front-end, over a restart, and without telling anybody. */

import pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { addressKey, FailureWindows } from "../../src/auth/login-limits.ts";
import { type FrontEnd, startFrontEnd } from "../support/front-end.ts";
import { startPostgres, type TestPostgres } from "../support/postgres.ts";
import { openClient, runOnce, stateOf } from "../support/stage.ts";
import { until } from "../support/until.ts";

/** Other limits than the lockout's are out of the way. */
const configuration = `[auth]
max_failed_logins = 3
lockout_duration = "1h"
login_attempts_per_ip_per_min = 0
login_attempts_per_user_per_min = 0
`;

describe("with two front-ends on one catalog", () => {
  let postgres: TestPostgres;
  let first: FrontEnd;
  let second: FrontEnd;
  const started: FrontEnd[] = [];

  const start = async (besides?: string, more = configuration) => {
    const frontEnd = await startFrontEnd({
      upstreamUrl: postgres.url,
      configuration: more,
      ...(besides === undefined ? {} : { besides }),
    });
    started.push(frontEnd);
    return frontEnd;
  };
  const login = (frontEnd: FrontEnd, user: string, password: string): pg.ClientConfig => ({
    host: frontEnd.host,
    port: frontEnd.port,
    database: "postgres",
    user,
    password,
  });
  const attempt = async (frontEnd: FrontEnd, user: string, password: string) => {
    try {
      await runOnce(login(frontEnd, user, password), "SELECT 1");
      return "in";
    } catch (error) {
      if (error instanceof pg.DatabaseError) return `${error.severity} ${error.code} ${error.message}`;
      throw error;
    }
  };
  const refusal = (user: string) => `FATAL 28P01 password authentication failed for user "${user}"`;
  const fail = async (frontEnd: FrontEnd, user: string, times: number) => {
    for (let index = 0; index < times; index += 1) {
      expect(await attempt(frontEnd, user, "wrong")).toBe(refusal(user));
    }
  };
  const asAdmin = (sql: string) => runOnce(login(first, first.adminUser, first.adminPassword), sql);
  const past = async (sql: string) =>
    (
      await runOnce(
        { host: postgres.socketDir, port: postgres.port, user: "postgres", database: "postgres" },
        sql,
      )
    ).rows;
  const isLockedInCatalog = async (user: string) =>
    (await past(`SELECT FROM nodedb.login_failure WHERE name = '${user}' AND locked_until > now()`))
      .length === 1;

  beforeAll(async () => {
    postgres = await startPostgres({ tcp: true });
    first = await start();
    for (const user of ["alice", "bob", "carol", "dana", "dirk", "dora", "emil"]) {
      await asAdmin(`CREATE USER ${user} PASSWORD 'right right'`);
    }
    await asAdmin("CREATE USER other_root PASSWORD 'right right' ROLE superuser");
    // Only now: to try logins until it has heard of the users would lock them.
    second = await start(first.dataDir);
  });

  afterAll(async () => {
    for (const frontEnd of started.toReversed()) await frontEnd.close();
    await postgres?.dispose();
  });

  test("the right password of a locked name is refused as a wrong one, at the other front-end within a second", async () => {
    await fail(first, "alice", 3);
    const lockedAt = performance.now();
    expect(await attempt(first, "alice", "right right")).toBe(refusal("alice"));
    await until(async () => (await attempt(second, "alice", "right right")) === refusal("alice"), 1_000);
    expect(performance.now() - lockedAt).toBeLessThan(1_000);
    expect(await attempt(first, "bob", "right right")).toBe("in");
  });

  test("failures at different front-ends add up", async () => {
    await fail(first, "bob", 1);
    await fail(second, "bob", 1);
    await until(
      async () =>
        (await past("SELECT FROM nodedb.login_failure WHERE name = 'bob' AND failures = 2")).length === 1,
    );
    await fail(second, "bob", 1);
    await until(() => isLockedInCatalog("bob"));
    expect(await attempt(second, "bob", "right right")).toBe(refusal("bob"));
    await until(async () => (await attempt(first, "bob", "right right")) === refusal("bob"), 1_000);
  });

  test("a successful login forgets the failures before it", async () => {
    for (let round = 0; round < 3; round += 1) {
      await fail(first, "carol", 2);
      expect(await attempt(first, "carol", "right right")).toBe("in");
    }
  });

  test("names that nobody has, and superusers, are locked as well, and it is audited once each", async () => {
    await fail(first, "nobody_at_all", 5);
    await fail(first, "other_root", 4);
    expect(await attempt(first, "other_root", "right right")).toBe(refusal("other_root"));
    await until(() => isLockedInCatalog("other_root"));
    await until(
      async () => (await asAdmin("SHOW AUDIT LOG WHERE event = 'LockoutTriggered'")).rows.length === 4,
    );
    const { rows } = await asAdmin("SHOW AUDIT LOG WHERE event = 'LockoutTriggered'");
    expect(rows.map((row) => row.username).toSorted()).toEqual([
      "alice",
      "bob",
      "nobody_at_all",
      "other_root",
    ]);
    const { rows: failures } = await asAdmin(
      "SHOW AUDIT LOG WHERE event = 'AuthFailure' AND username = 'other_root'",
    );
    expect(failures.map((row) => row.detail)).toEqual([
      "locked",
      "locked",
      "wrong_password",
      "wrong_password",
      "wrong_password",
    ]);
  });

  // Users of their own: a front-end that has not heard of it yet counts no failures of a name that it takes to be locked.
  test.each([
    ["dana", "LOGIN", "right right"],
    ["dora", "PASSWORD 'a new password'", "a new password"],
  ])("an admin frees a name with ALTER USER %s %s", async (user, change, password) => {
    await fail(second, user, 3);
    await until(() => isLockedInCatalog(user));
    await until(async () => (await attempt(first, user, "right right")) === refusal(user));
    expect(await isLockedInCatalog(user)).toBe(true);
    await asAdmin(`ALTER USER ${user} ${change}`);
    expect(await isLockedInCatalog(user)).toBe(false);
    await until(async () => (await attempt(first, user, password)) === "in", 1_000);
  });

  test("a name that is freed at one front-end is free at the other within a second", async () => {
    await fail(second, "dirk", 3);
    await until(() => isLockedInCatalog("dirk"));
    expect(await attempt(second, "dirk", "right right")).toBe(refusal("dirk"));
    await asAdmin("ALTER USER dirk LOGIN");
    await until(async () => (await attempt(second, "dirk", "right right")) === "in", 1_000);
  });

  test("a restart forgets nothing", async () => {
    await fail(second, "emil", 3);
    await until(() => isLockedInCatalog("emil"));
    const third = await start(first.dataDir);
    expect(await attempt(third, "emil", "right right")).toBe(refusal("emil"));
    expect(await attempt(third, "carol", "right right")).toBe("in");
  });

  test("a lock ends by itself", async () => {
    await past(
      "UPDATE nodedb.login_failure SET locked_until = now() + '300 ms', changed_at = clock_timestamp() WHERE name = 'emil'",
    );
    await until(async () => (await attempt(first, "emil", "right right")) === "in", 5_000);
  });
});

describe("login limits", () => {
  let postgres: TestPostgres;
  let frontEnd: FrontEnd;

  beforeAll(async () => {
    postgres = await startPostgres({ tcp: true });
  });

  afterEach(async () => {
    await frontEnd?.close();
  });

  afterAll(async () => {
    await postgres?.dispose();
  });

  test("count failures per address only, and refuse without another word", async () => {
    frontEnd = await startFrontEnd({
      upstreamUrl: postgres.url,
      configuration:
        "[auth]\nmax_failed_logins = 0\nlogin_attempts_per_ip_per_min = 4\nlogin_attempts_per_user_per_min = 0\n",
    });
    const { host, port, adminUser: user, adminPassword: password } = frontEnd;
    const admin = { host, port, user, password, database: "postgres" };
    for (let index = 0; index < 12; index += 1) await runOnce(admin, "SELECT 1");
    const inside = await openClient(admin);
    for (let index = 0; index < 4; index += 1) {
      expect(await stateOf(openClient({ ...admin, user: `ghost${index}`, password: "wrong" }))).toBe("28P01");
    }
    await expect(openClient(admin)).rejects.toMatchObject({
      code: "28P01",
      message: `password authentication failed for user "${user}"`,
    });
    expect(
      (await inside.query("SHOW AUDIT LOG WHERE event = 'AuthFailure'")).rows.map((row) => row.detail),
    ).toEqual(
      [
        "too_many_failures for this address: further ones within the minute are not recorded",
        "wrong_password",
        "wrong_password",
        "wrong_password",
        "wrong_password",
      ].map((detail) => (detail === "wrong_password" ? "unknown_user" : detail)),
    );
    await inside.end();
  });
});

describe("failure windows", () => {
  test("end a minute after their first failure", () => {
    let now = 0;
    const windows = new FailureWindows(
      () => 2,
      () => now,
    );
    expect([windows.add("a"), windows.isOver("a")]).toEqual([false, false]);
    now = 59_000;
    expect([windows.add("a"), windows.isOver("a"), windows.isOver("b")]).toEqual([true, true, false]);
    now = 60_000;
    expect(windows.isOver("a")).toBe(false);
  });

  test("stay within their memory whatever is counted", () => {
    let now = 0;
    const windows = new FailureWindows(
      () => 2,
      () => now,
    );
    for (let index = 0; index < 50_000; index += 1) windows.add(`key ${index}`);
    expect(windows.size).toBeLessThanOrEqual(20_000);
    now = 120_000;
    windows.add("later");
    expect(windows.size).toBe(1);
  });

  test.each([
    ["10.1.2.3", "10.1.2.3"],
    ["::ffff:10.1.2.3", "10.1.2.3"],
    ["2001:db8:0:1:aaaa::1", "2001:db8:0:1::/64"],
    ["2001:db8:0:1:bbbb:cccc:dddd:eeee", "2001:db8:0:1::/64"],
    ["fe80::1%eth0", "fe80:0:0:0::/64"],
    ["::1", "0:0:0:0::/64"],
  ])("%s is counted as %s", (address, key) => {
    expect(addressKey(address)).toBe(key);
  });
});
