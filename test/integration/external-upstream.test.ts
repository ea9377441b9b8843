/** In front of a PostgreSQL of somebody else: logins with derived keys, roles that change behind our back, servers that are none. */

import { spawn } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { type LoginOptions, openUpstreamConnection } from "../../src/upstream/login.ts";
import { deriveRoleCredential } from "../../src/upstream/role-credential.ts";
import { chooseTransports } from "../../src/wire/choose-transport.ts";
import { hasDebianPostgres } from "../support/postgres.ts";
import { message } from "../support/raw-session.ts";
import { requireClient } from "../support/skips.ts";
import { openClient, openStage, passwordOf, runOnce, type Stage, stateOf } from "../support/stage.ts";

describe("PostgreSQL 18 over TCP", () => describeUpstream("embedded", true));
describe("PostgreSQL 15 over TCP", () => {
  describeUpstream("debian", requireClient("PostgreSQL 15 (postgresql-15)", hasDebianPostgres));
});

function describeUpstream(version: "embedded" | "debian", isThere: boolean): void {
  let stage: Stage;

  beforeAll(async () => {
    // With a login that cannot read passwords: it learns of a wrong one when PostgreSQL asks for it.
    const upstreamLogin = "creator of roles";
    if (isThere) stage = await openStage({ postgres: { version }, upstreamLogin, users: ["alice", "bob"] });
  });
  afterEach(() => {
    if (isThere) stage.relay.judge = undefined;
  });
  afterAll(() => stage?.close());

  async function hidden(user: string, statement: string): Promise<void> {
    await runOnce(stage.login(user), `DO $do$ BEGIN EXECUTE '${statement.replaceAll("'", "''")}'; END $do$`);
  }

  async function emptyPoolOf(user: string): Promise<void> {
    await stage.past("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", [user]);
    await vi.waitFor(async () => expect(await stage.running(user)).toEqual([]), {
      timeout: 3_000,
      interval: 10,
    });
  }

  async function expectLogin(user: string): Promise<void> {
    await emptyPoolOf(user);
    const { rows } = await runOnce(stage.login(user), "SELECT session_user AS s, current_user AS c");
    expect(rows).toEqual([{ s: user, c: user }]);
  }

  async function verifierOf(user: string): Promise<unknown> {
    return (await stage.past("SELECT rolpassword FROM pg_authid WHERE rolname = $1", [user]))[0]?.rolpassword;
  }

  /** What is said from now on in each new login as a user, one text per connection. */
  function listenToLogins(user: string): Map<object, string> {
    const said = new Map<object, string>();
    stage.relay.judge = (direction, chunk, link) => {
      if (direction === "to_server" && link.opening.includes(`user\0${user}\0`)) {
        said.set(link, (said.get(link) ?? "") + chunk.toString("latin1"));
      }
      return undefined;
    };
    return said;
  }

  test.skipIf(!isThere)(
    "users act as their own role, and no password opens that role past the front-end",
    async () => {
      for (const user of ["alice", "bob"]) {
        await expectLogin(user);
        expect(await verifierOf(user)).toMatch(/^SCRAM-SHA-256\$4096:/);
        const direct = { host: "127.0.0.1", port: stage.postgres.port, database: "postgres", user };
        for (const password of [passwordOf(user), "", String(await verifierOf(user))]) {
          expect(await stateOf(openClient({ ...direct, password })), password).not.toBeUndefined();
        }
      }
      expect(String(await verifierOf("alice")).split("$")[1]).not.toBe(
        String(await verifierOf("bob")).split("$")[1],
      );
    },
  );

  test.skipIf(!isThere)(
    "a password that a role gave itself is noticed before a proof is sent, and taken back",
    async () => {
      await expectLogin("alice");
      const ours = await verifierOf("alice");
      await hidden("alice", "ALTER ROLE current_user PASSWORD 'mine now'");
      const direct = {
        host: "127.0.0.1",
        port: stage.postgres.port,
        database: "postgres",
        user: "alice",
        password: "mine now",
      };
      expect(await stateOf(runOnce(direct, "SELECT 1"))).toBeUndefined();
      await emptyPoolOf("alice");
      const said = listenToLogins("alice");
      expect((await runOnce(stage.login("alice"), "SELECT current_user AS me")).rows).toEqual([
        { me: "alice" },
      ]);
      const conversations = [...said.values()].filter((text) => text.includes("SCRAM-SHA-256"));
      expect(conversations).toHaveLength(2);
      expect(conversations[0]).not.toContain("p=");
      expect(conversations[1]).toContain(",p=");
      expect(await verifierOf("alice")).toBe(ours);
      expect(await stateOf(openClient(direct))).toBe("28P01");
      expect(stage.frontEnd.output()).toContain("the role's verifier is not ours");
    },
  );

  test.skipIf(!isThere).each([
    ["lost its password", "ALTER ROLE alice PASSWORD NULL"],
    ["was made NOLOGIN", "ALTER ROLE alice NOLOGIN"],
    ["was given an end", "ALTER ROLE alice VALID UNTIL '2001-01-01'"],
    ["was dropped", "DROP OWNED BY alice; DROP ROLE alice"],
    [
      "lost its groups",
      "DO $$ DECLARE g text; BEGIN FOR g IN SELECT roleid::regrole::text FROM pg_auth_members WHERE member = 'alice'::regrole LOOP EXECUTE format('REVOKE %s FROM alice', g); END LOOP; ALTER ROLE alice NOLOGIN; END $$",
    ],
  ])("a role that %s behind our back is repaired at the next login", async (_name, damage) => {
    await emptyPoolOf("alice");
    await stage.past(damage);
    await expectLogin("alice");
    const [row] = await stage.past(
      "SELECT rolcanlogin, (SELECT count(*)::int FROM pg_auth_members WHERE member = r.oid) AS groups FROM pg_roles r WHERE rolname = 'alice'",
    );
    expect(row).toEqual({ rolcanlogin: true, groups: 1 });
  });

  test.skipIf(!isThere)(
    "what a role sets for itself neither keeps it out nor makes it somebody else",
    async () => {
      // Every one of these PostgreSQL lets a role set, and reads it at the role's next login.
      for (const setting of [
        "local_preload_libraries = 'no_such_library'",
        "role = 'bob'",
        "role = 'no_such_role'",
        "session_authorization = 'bob'",
        "default_transaction_read_only = on",
        "search_path = 'no_such_schema'",
        "client_encoding = 'LATIN1'",
        "DateStyle = 'German'",
        "standard_conforming_strings = off",
      ]) {
        // PostgreSQL refuses some itself; that is as good.
        await hidden("alice", `ALTER ROLE alice SET ${setting}`).catch(() => undefined);
        await emptyPoolOf("alice");
        const { rows } = await runOnce(stage.login("alice"), "SELECT session_user AS s, current_user AS c");
        expect(rows, setting).toEqual([{ s: "alice", c: "alice" }]);
        await stage.past("ALTER ROLE alice RESET ALL");
      }
    },
  );

  test.skipIf(!isThere)("a statement that still runs when the front-end stops is cancelled", async () => {
    const again = await openStage({
      postgres: { version },
      configuration: '[server]\nshutdown_timeout = "0s"\n',
    });
    const client = await again.connect("alice");
    const statement = stateOf(client.query("SELECT pg_sleep(600)"));
    await vi.waitFor(
      async () =>
        expect(await again.running("alice")).toContainEqual(expect.objectContaining({ state: "active" })),
      { timeout: 3_000, interval: 10 },
    );
    again.frontEnd.signal("SIGTERM");
    expect(await statement).toBe("57P01");
    expect(await again.frontEnd.exited).toBe(0);
    await vi.waitFor(async () => expect(await again.running("alice")).toEqual([]), {
      timeout: 2_000,
      interval: 10,
    });
    await again.close();
  });
}

test("through a Unix socket, where logins need SCRAM as well", async () => {
  const directory = mkdtempSync(join(tmpdir(), "nodedb-hba-"));
  chmodSync(directory, 0o755);
  const hba = join(directory, "pg_hba.conf");
  writeFileSync(
    hba,
    "local all postgres trust\nlocal all all scram-sha-256\nhost all all 127.0.0.1/32 reject\n",
  );
  const stage = await openStage({ viaSocket: true, postgres: { settings: { hba_file: hba } } });
  try {
    const { rows } = await runOnce(
      stage.login("alice"),
      "SELECT session_user AS me, inet_client_addr() AS address",
    );
    expect(rows).toEqual([{ me: "alice", address: null }]);
    const direct = {
      host: stage.postgres.socketDir,
      port: stage.postgres.port,
      database: "postgres",
      user: "alice",
    };
    expect(await stateOf(openClient({ ...direct, password: passwordOf("alice") }))).toBe("28P01");
  } finally {
    await stage.close();
    rmSync(directory, { recursive: true, force: true });
  }
});

test("a server that lets everybody in is not trusted with users", async () => {
  // The test's own server trusts everybody on its socket.
  const stage = await openStage({ viaSocket: true, users: [] });
  try {
    expect(await stateOf(runOnce(stage.login(stage.frontEnd.adminUser), "SELECT 1"))).toBe("08006");
  } finally {
    await stage.close();
  }
});

type SecretOfLogin = Pick<LoginOptions, "credential" | "password">;

describe("a server that is not the one it should be", () => {
  let server: Server;
  let heard: string;
  let answer: (socket: Socket, said: string) => void;

  beforeAll(async () => {
    server = createServer((socket) => {
      socket.on("error", () => {});
      socket.on("data", (chunk) => {
        const said = chunk.toString("latin1");
        heard += said;
        if (said.length === 8) socket.write("N");
        else answer(socket, said);
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  });
  afterAll(() => server.close());

  const authentication = (code: number, rest = Buffer.alloc(0)) => {
    const head = Buffer.alloc(4);
    head.writeInt32BE(code);
    return message("R", Buffer.concat([head, rest]));
  };
  const clearText = authentication(3);
  const md5 = authentication(5, Buffer.from("salt"));
  const trust = Buffer.concat([
    authentication(0),
    message("K", Buffer.from([0, 0, 0, 1, 0, 0, 0, 1])),
    message("Z", Buffer.from("I")),
  ]);
  const sasl = (mechanism: string) => authentication(10, Buffer.from(`${mechanism}\0\0`));

  const credential = deriveRoleCredential(Buffer.alloc(32, 7), "alice", 1);

  const ownPassword = "of the front-end's own login";

  async function logIn(secret: SecretOfLogin = { credential }): Promise<string | undefined> {
    heard = "";
    const { port } = server.address() as { port: number };
    const transports = await chooseTransports();
    return openUpstreamConnection({
      endpoint: { kind: "tcp", host: "127.0.0.1", port, tls: "prefer" },
      transports,
      database: "postgres",
      role: "alice",
      ...secret,
      parameters: new Map(),
      timeoutMs: 2_000,
      nonce: () => "a-nonce",
    }).then(
      (connection) => {
        connection.transport.close();
        return undefined;
      },
      (error: Error & { condition?: string }) => error.condition ?? error.name,
    );
  }

  test.each([
    ["asks for the password in clear text", clearText],
    ["asks for MD5", md5],
    ["lets everybody in", trust],
    ["knows another mechanism only", sasl("SCRAM-MD5")],
    ["goes on with SASL that was not begun", authentication(11, Buffer.from("r=x,s=c2FsdA==,i=1"))],
    ["says that the proof was right before there was one", authentication(12, Buffer.from("v=AAAA"))],
  ])("is refused as a user's server when it %s, and is told nothing", async (_name, reply) => {
    answer = (socket) => socket.write(reply);
    expect(await logIn()).toBe("connection_failure");
    // SSLRequest and startup packet are all that it has heard.
    expect(heard).toMatch(/user\0alice\0[\s\S]*\0\0$/);
    expect(heard).not.toMatch(/p=|n,,/);
  });

  test.each([
    ["another salt", "r=a-noncexyz,s=c2FsdHNhbHRzYWx0c2FsdA==,i=4096"],
    ["another count", `r=a-noncexyz,s=${credential.salt.toString("base64")},i=1`],
    ["a nonce that is not a continuation", `r=b-noncexyz,s=${credential.salt.toString("base64")},i=4096`],
  ])("gets no proof when it names %s", async (_name, serverFirst) => {
    answer = (socket, said) => {
      if (said.includes("user\0")) socket.write(sasl("SCRAM-SHA-256"));
      else socket.write(authentication(11, Buffer.from(serverFirst)));
    };
    expect(await logIn()).toMatch(/^(connection_failure|ForeignVerifierError)$/);
    expect(heard).not.toContain("p=");
  });

  test.each<[string, SecretOfLogin, Buffer]>([
    ["a role", { credential }, authentication(12, Buffer.from(`v=${Buffer.alloc(32).toString("base64")}`))],
    [
      "a password",
      { password: ownPassword },
      authentication(12, Buffer.from(`v=${Buffer.alloc(32).toString("base64")}`)),
    ],
    ["a password, and does not even try", { password: ownPassword }, Buffer.alloc(0)],
  ])("is refused when it cannot prove that it knows %s", async (_name, secret, proof) => {
    answer = (socket, said) => {
      if (said.includes("user\0")) socket.write(sasl("SCRAM-SHA-256"));
      else if (said.includes(",p=")) {
        socket.write(Buffer.concat([proof, trust]));
      } else {
        const salt = credential.salt.toString("base64");
        socket.write(authentication(11, Buffer.from(`r=a-noncexyz,s=${salt},i=4096`)));
      }
    };
    expect(await logIn(secret)).toBe("connection_failure");
  });

  test.each([
    ["clear text", clearText],
    ["MD5", md5],
  ])("does not get the password of the front-end's own login when it asks for %s", async (_name, reply) => {
    answer = (socket) => socket.write(reply);
    expect(await logIn({ password: ownPassword })).toBe("connection_failure");
    expect(heard).toMatch(/user\0alice\0[\s\S]*\0\0$/);
  });

  test.each([
    ["clear text", "check", clearText],
    ["clear text", "start", clearText],
    ["MD5", "check", md5],
    ["MD5", "start", md5],
  ])(
    "does not get the administrator's password either when it asks for %s (%s)",
    async (_name, command, reply) => {
      heard = "";
      answer = (socket, said) => {
        if (said.includes("user\0")) socket.write(reply);
        else socket.destroy();
      };
      const { port } = server.address() as { port: number };
      const directory = mkdtempSync(join(tmpdir(), "nodedb-test-"));
      const child = spawn(process.execPath, [join(import.meta.dirname, "../../dist/main.js"), command], {
        cwd: directory,
        env: {
          PATH: process.env.PATH,
          NODEDB_DATA_DIR: directory,
          NODEDB_UPSTREAM_URL: `postgres://admin:hunter2@127.0.0.1:${port}/x`,
        },
        stdio: ["ignore", "ignore", "pipe"],
      });
      let stderr = "";
      child.stderr.on("data", (chunk) => {
        stderr += chunk;
      });
      const status = await new Promise((resolve) => child.on("close", resolve));
      rmSync(directory, { recursive: true, force: true });
      expect(status).toBe(1);
      expect(heard).toContain("user\0admin");
      expect(heard).not.toContain("hunter2");
      expect(heard).not.toMatch(/md5[0-9a-f]{32}/);
      expect(stderr).toContain("SCRAM");
    },
  );
});
