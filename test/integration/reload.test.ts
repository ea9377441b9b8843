/** The limits that a reload changes under a running front-end. */

import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { SignJWT } from "jose";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { createKey, httpClient } from "../support/http.ts";
import { endOf, openStage, passwordOf, type Stage, stateOf } from "../support/stage.ts";

const soon = { timeout: 5_000, interval: 10 };

describe("after a reload hold", () => {
  let stage: Stage;
  beforeAll(async () => {
    stage = await openStage({
      users: ["alice", "bob", "carol", "dave"],
      configuration:
        '[auth]\nlogin_attempts_per_user_per_min = 0\nlogin_attempts_per_ip_per_min = 0\n[upstream]\nqueue_timeout = "20s"\n',
    });
  });
  afterAll(() => stage?.close());

  async function reload(configuration: string): Promise<void> {
    const before = stage.frontEnd.output().length;
    writeFileSync(join(stage.frontEnd.dataDir, "test.toml"), configuration, { mode: 0o600 });
    stage.frontEnd.signal("SIGHUP");
    await vi.waitFor(
      () => expect(stage.frontEnd.output().slice(before)).toContain("configuration reloaded"),
      soon,
    );
  }

  const unlimited = "login_attempts_per_user_per_min = 0\nlogin_attempts_per_ip_per_min = 0\n";

  test("the numbers of connections, for the next login and for nobody who is there", async () => {
    const [one, two] = [await stage.connect("alice"), await stage.connect("alice")];
    await reload(`[auth]\n${unlimited}max_connections_per_user = 1\n`);
    await expect(stage.connect("alice")).rejects.toMatchObject({
      code: "53300",
      message: 'too many connections for role "alice"',
    });
    expect((await two.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    await reload(`[server]\nmax_connections = 2\n[auth]\n${unlimited}`);
    await expect(stage.connect("bob")).rejects.toMatchObject({ message: "sorry, too many clients already" });
    await reload(`[auth]\n${unlimited}`);
    const three = await stage.connect("alice");
    for (const client of [one, two, three]) await client.end();
  });

  test("the size of a pool: who waits is let in, and what is idle beyond it is closed", async () => {
    await reload(`[auth]\n${unlimited}[upstream]\npool_size = 1\n`);
    const first = await stage.connect("bob");
    const waiting = stage.connect("bob");
    await vi.waitFor(async () => {
      const sessions = await stage.asAdmin("SHOW SESSIONS");
      expect(sessions.rows.map((row) => row.state)).toContain("waiting");
    }, soon);
    await reload(`[auth]\n${unlimited}[upstream]\npool_size = 2\n`);
    const second = await waiting;
    await first.end();
    await second.end();
    await vi.waitFor(async () => expect(await stage.running("bob")).toHaveLength(2), soon);
    await reload(`[auth]\n${unlimited}[upstream]\npool_size = 1\n`);
    await vi.waitFor(async () => expect(await stage.running("bob")).toHaveLength(1), soon);
  });

  test("the time that a client waits for an upstream connection", async () => {
    await reload(`[auth]\n${unlimited}[upstream]\npool_size = 1\nqueue_timeout = "0"\n`);
    const first = await stage.connect("bob");
    expect(await stateOf(stage.connect("bob"))).toBe("53300");
    await first.end();
  });

  test("the time that a session may be idle, switched on while it was", async () => {
    const idle = await stage.connect("carol");
    const end = endOf(idle);
    await reload(`[auth]\n${unlimited}idle_timeout = "1s"\n`);
    expect((await end).code).toBe("57P05");
    await reload(`[auth]\n${unlimited}`);
    const other = await stage.connect("carol");
    expect((await other.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    await other.end();
  });

  test("the rows of an HTTP answer", async () => {
    const http = httpClient(`http://127.0.0.1:${stage.frontEnd.httpPort}`);
    const key = await createKey(stage, "alice-key", "FOR alice");
    const status = async () => (await http.query(key, { sql: "SELECT generate_series(1, 3)" })).status;
    expect(await status()).toBe(200);
    await reload(`[auth]\n${unlimited}[http]\nmax_rows = 2\n`);
    expect(await status()).toBe(413);
  });

  test("the issuers of tokens: a new one is believed, and one that is gone is not", async () => {
    const http = httpClient(`http://127.0.0.1:${stage.frontEnd.httpPort}`);
    const secret = Buffer.from(randomBytes(48).toString("hex"));
    const file = join(stage.frontEnd.dataDir, "token.secret");
    writeFileSync(file, secret, { mode: 0o600 });
    const token = await new SignJWT({ sub: "somebody" })
      .setProtectedHeader({ alg: "HS256" })
      .setIssuer("shop")
      .setAudience("api")
      .setExpirationTime("5m")
      .sign(secret);
    const status = async () => (await http.query(token, { sql: "SELECT 1" })).status;
    expect(await status()).toBe(401);
    const providers = `jwks.providers = [{ issuer = "shop", audience = "api", jwt_secret_file = "${file}" }]`;
    await reload(`[auth]\n${unlimited}${providers}\n`);
    expect(await status()).toBe(200);
    await reload(`[auth]\n${unlimited}`);
    expect(await status()).toBe(401);
  });

  test("the length of new passwords", async () => {
    await reload(`[auth]\n${unlimited}min_password_length = 12\n`);
    await expect(stage.asAdmin("CREATE USER shorty PASSWORD 'elevenchars'")).rejects.toMatchObject({
      code: "22023",
      message: "password must have at least 12 characters",
    });
    await reload(`[auth]\n${unlimited}`);
    await stage.asAdmin("CREATE USER shorty PASSWORD 'elevenchars'; DROP USER shorty");
  });

  test("the failures that lock a name, also where no failure did at the start", async () => {
    const fail = () => stateOf(stage.connect("dave", { password: "wrong" }));
    await reload(`[auth]\n${unlimited}max_failed_logins = 0\n`);
    for (let index = 0; index < 7; index += 1) expect(await fail()).toBe("28P01");
    await (await stage.connect("dave")).end();
    await reload(`[auth]\n${unlimited}max_failed_logins = 2\nlockout_duration = "1h"\n`);
    await fail();
    await fail();
    expect(await stateOf(stage.connect("dave"))).toBe("28P01");
    const locked = "SELECT FROM nodedb.login_failure WHERE name = 'dave' AND locked_until > now()";
    await vi.waitFor(async () => expect(await stage.past(locked)).toHaveLength(1), soon);
    await stage.asAdmin(`ALTER USER dave PASSWORD '${passwordOf("dave")}'`);
    await vi.waitFor(async () => (await stage.connect("dave")).end(), soon);
  });

  test("the failed logins of a minute", async () => {
    await reload(
      "[auth]\nmax_failed_logins = 0\nlogin_attempts_per_user_per_min = 1\nlogin_attempts_per_ip_per_min = 0\n",
    );
    await stateOf(stage.connect("carol", { password: "wrong" }));
    expect(await stateOf(stage.connect("carol"))).toBe("28P01");
    await reload(`[auth]\n${unlimited}max_failed_logins = 0\n`);
    await (await stage.connect("carol")).end();
  });
});
