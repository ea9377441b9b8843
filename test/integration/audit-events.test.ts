/** What of a day's work the audit log holds at each level, whichever door it came through. */

import { request } from "node:http";
import { Socket, type TcpNetConnectOpts } from "node:net";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createKey } from "../support/http.ts";
import { openClient, openStage, passwordOf, runOnce, type Stage, stateOf } from "../support/stage.ts";
import { until } from "../support/until.ts";

/** What each level records: docs/configuration.md. */
const always = ["AuthFailure", "LockoutTriggered", "PrivilegeChange", "AdminAction"];
const whoCame = [...always, "AuthSuccess", "AuthzDenied", "KeyUsed"];
const recorded = {
  minimal: always,
  standard: whoCame,
  full: [...whoCame, "SessionConnect", "SessionDisconnect"],
} as const;

const home = "127.0.0.1";
const elsewhere = "127.0.0.2";

const limits = `[auth]
max_failed_logins = 3
login_attempts_per_ip_per_min = 0
login_attempts_per_user_per_min = 0
`;

/** One line of the log; an absent user is one that nobody knows. */
interface Line {
  readonly event: string;
  readonly username: string | null;
  readonly source: string | null;
  readonly detail: string | null;
}

describe.each(["minimal", "standard", "full"] as const)("at level %s", (level) => {
  let stage: Stage;
  let keyIds: Map<string, string>;
  let seen: (Line & { session_id: string | null })[];

  /** A connection from another address of this machine. */
  function from(address: string): Socket {
    const socket = new Socket();
    const connect = socket.connect.bind(socket) as (options: TcpNetConnectOpts) => Socket;
    socket.connect = ((port: number, host: string) =>
      connect({ port, host, localAddress: address })) as Socket["connect"];
    return socket;
  }

  const enter = (user: string, password: string, address = home): Promise<pg.Client> =>
    openClient({ ...stage.login(user, { password }), stream: () => from(address) });

  /** @returns the status of the answer */
  function post(key: string, sql: string, address = home): Promise<number> {
    return new Promise((resolve, reject) => {
      const asked = request(
        {
          host: home,
          port: stage.frontEnd.httpPort,
          path: "/v1/query",
          method: "POST",
          localAddress: address,
          agent: false,
          headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
        },
        (answer) => answer.resume().on("end", () => resolve(answer.statusCode ?? 0)),
      );
      asked.on("error", reject);
      asked.end(JSON.stringify({ sql }));
    });
  }

  async function overPgwire(keyOfPia: string): Promise<void> {
    expect(await stateOf(enter("pia", "wrong wrong"))).toBe("28P01");
    const pia = await enter("pia", passwordOf("pia"));
    expect(await stateOf(pia.query("CREATE USER x PASSWORD 'x x x x x'"))).toBe("42501");
    await pia.end();
    await runOnce(stage.login("boss"), `CREATE USER made_by_pgwire PASSWORD '${passwordOf("made")}'`);
    await runOnce(stage.login("boss"), "GRANT readonly TO made_by_pgwire");
    for (const address of [home, home, elsewhere]) await (await enter("pia", keyOfPia, address)).end();
    for (let guess = 0; guess < 3; guess += 1) {
      expect(await stateOf(enter("lola", "wrong wrong"))).toBe("28P01");
    }
  }

  async function overHttp(keyOfHugo: string, keyOfBoss: string): Promise<void> {
    expect(await post(`${keyOfHugo.slice(0, -1)}!`, "SELECT 1")).toBe(401);
    for (const address of [home, home, elsewhere]) {
      expect(await post(keyOfHugo, "SELECT 1", address)).toBe(200);
    }
    expect(await post(keyOfHugo, "CREATE USER x PASSWORD 'x x x x x'")).toBe(403);
    expect(await post(keyOfBoss, `CREATE USER made_by_http PASSWORD '${passwordOf("made")}'`)).toBe(200);
    expect(await post(keyOfBoss, "GRANT readonly TO made_by_http")).toBe(200);
  }

  function everything(): Line[] {
    const line = (event: string, username: string | null, detail: string | null, source = home) => ({
      event,
      username,
      source,
      detail,
    });
    const session = (user: string, source = home) => [
      line("SessionConnect", user, 'database "postgres"', source),
      line("SessionDisconnect", user, 'database "postgres"', source),
    ];
    const used = (user: string, source: string) => [
      line("AuthSuccess", user, "api-key", source),
      line("KeyUsed", user, `key ${keyIds.get(user)}`, source),
    ];
    const denied = 'CREATE USER "x": permission denied: only an admin may create users';
    const byBoss = (door: string) => [
      line("AdminAction", "boss", `CREATE USER "made_by_${door}"`),
      line("PrivilegeChange", "boss", `GRANT "readonly" TO "made_by_${door}"`),
    ];
    const bossOverPgwire = [line("AuthSuccess", "boss", "scram-sha-256"), ...session("boss")];
    const pgwire = [
      line("AuthFailure", "pia", "wrong_password"),
      line("AuthSuccess", "pia", "scram-sha-256"),
      ...session("pia"),
      line("AuthzDenied", "pia", denied),
      ...bossOverPgwire,
      ...bossOverPgwire,
      ...byBoss("pgwire"),
      ...used("pia", home),
      ...session("pia"),
      line("AuthSuccess", "pia", "api-key"),
      ...session("pia"),
      ...used("pia", elsewhere),
      ...session("pia", elsewhere),
      ...Array.from({ length: 3 }, () => line("AuthFailure", "lola", "wrong_password")),
      { event: "LockoutTriggered", username: "lola", source: null, detail: null },
    ];
    const http = [
      line("AuthFailure", null, "malformed_token"),
      ...used("hugo", home),
      ...session("hugo"),
      ...session("hugo"),
      ...used("hugo", elsewhere),
      ...session("hugo", elsewhere),
      line("AuthzDenied", "hugo", denied),
      ...session("hugo"),
      ...used("boss", home),
      ...session("boss"),
      ...session("boss"),
      ...byBoss("http"),
    ];
    return [...pgwire, ...http];
  }

  const asText = (lines: readonly Line[]) =>
    lines
      .map(({ event, username, source, detail }) => [event, username, source, detail].join(" | "))
      .toSorted();

  beforeAll(async () => {
    stage = await openStage({
      users: ["pia", "hugo", "lola", "boss"],
      configuration: `${limits}[audit]\nlevel = "${level}"\n`,
    });
    await stage.asAdmin("GRANT admin TO boss");
    const keys = new Map<string, string>();
    for (const user of ["pia", "hugo", "boss"])
      keys.set(user, await createKey(stage, `of ${user}`, `FOR ${user}`));
    keyIds = new Map([...keys].map(([user, key]) => [user, key.split("_")[1] ?? ""]));
    const since = (await stage.asAdmin("SHOW AUDIT LOG LIMIT 1")).rows[0]?.seq;
    await overPgwire(keys.get("pia") ?? "");
    await overHttp(keys.get("hugo") ?? "", keys.get("boss") ?? "");
    const read = async () => {
      const { rows } = await stage.asAdmin(`SHOW AUDIT LOG WHERE seq > '${since}' LIMIT 1000`);
      seen = rows.filter(({ username }) => username !== stage.frontEnd.adminUser);
    };
    // The end of a session is noticed when its connection closes, a lock when it is written.
    await until(async () => {
      await read();
      const ends = seen.filter(({ event }) => event === "SessionDisconnect").length;
      const begins = seen.filter(({ event }) => event === "SessionConnect").length;
      return ends === begins && seen.some(({ event }) => event === "LockoutTriggered");
    });
  });
  afterAll(() => stage?.close());

  test("each event of this level is there, with who and from where, and none of another", () => {
    const expected = everything().filter(({ event }) => recorded[level].some((one) => one === event));
    expect(asText(seen)).toEqual(asText(expected));
  });

  test("what belongs to a session says to which", () => {
    const ofSessions = [
      "SessionConnect",
      "SessionDisconnect",
      "AuthzDenied",
      "AdminAction",
      "PrivilegeChange",
    ];
    for (const line of seen) {
      if (ofSessions.includes(line.event)) expect(line.session_id, line.event).toMatch(/^[0-9a-f-]{36}$/);
    }
    const connected = seen.filter(({ event }) => event === "SessionConnect").map((line) => line.session_id);
    const disconnected = seen
      .filter(({ event }) => event === "SessionDisconnect")
      .map((line) => line.session_id);
    expect(new Set(connected).size).toBe(connected.length);
    expect(disconnected.toSorted()).toEqual(connected.toSorted());
  });

  test("and the chain holds", async () => {
    expect((await stage.asAdmin("VERIFY AUDIT CHAIN")).rows[0]).toMatchObject({ status: "ok" });
  });
});
