/** What a change at one front-end does to the sessions and requests of another on the same PostgreSQL, and how soon. */

import type pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { logInWithToken } from "../support/bearer-client.ts";
import { type FrontEnd, startFrontEnd } from "../support/front-end.ts";
import { type HttpClient, httpClient } from "../support/http.ts";
import { type Issuer, type IssuerKey, makeKey, startIssuer } from "../support/issuer.ts";
import { errorOf } from "../support/raw-client.ts";
import { endOf, openClient, openStage, passwordOf, type Stage, stateOf } from "../support/stage.ts";
import { until } from "../support/until.ts";

const configuration = `[auth]
login_attempts_per_user_per_min = 0
login_attempts_per_ip_per_min = 0
[auth.pgwire]
bearer = true
`;

/** Longest that a change may take to reach another front-end, in ms. */
const withinMs = 1_000;
/** Of the advisory lock that a session waits for while it is to be busy. */
const lockKey = 715;

/** A session at the second front-end. */
interface Live {
  /** @returns "ok" or the SQLSTATE */
  run(sql: string): Promise<string>;
  /** The SQLSTATE that ends it while it is idle. */
  readonly ended: Promise<string | undefined>;
}

/** How somebody logs in, on pgwire and over HTTP. */
interface Credential {
  readonly user: string;
  readonly password?: string;
  /** For HTTP; on pgwire too where there is no password. */
  readonly token: string;
  readonly database?: string;
}

let stage: Stage;
let second: FrontEnd;
let http: HttpClient;
let admin: pg.Client;
let issuer: Issuer;
let issuerKey: IssuerKey;
const open: { end(): unknown }[] = [];

const keyOf = async (statement: string): Promise<string> =>
  String((await admin.query(statement)).rows[0].api_key);

/** A user of whom there is a key besides. */
async function makeUser(user: string, clause = ""): Promise<Credential> {
  await admin.query(`CREATE USER ${user} PASSWORD '${passwordOf(user)}' ${clause}`);
  const token = await keyOf(`CREATE API KEY FOR ${user}`);
  return { user, password: passwordOf(user), token };
}

/** Logs in at the second front-end. */
async function logIn({ user, password, token, database = "postgres" }: Credential): Promise<Live> {
  if (password === undefined && user.startsWith("oidc:")) {
    const login = await logInWithToken(second.port, user, token, database);
    if (!login.ok) throw Object.assign(new Error("refused"), { code: login.error.get("C") });
    const { client } = login;
    open.push({ end: () => client.close() });
    let last: Promise<unknown> = Promise.resolve();
    return {
      run: (sql) => {
        const answer = client.query(sql);
        last = answer;
        return answer.then((messages) =>
          messages.some(({ type }) => type === "E") ? (errorOf(messages).get("C") ?? "") : "ok",
        );
      },
      get ended() {
        return last.then(() => client.readToClose()).then((messages) => errorOf(messages).get("C"));
      },
    };
  }
  const client = await openClient(
    stage.login(user, { host: second.host, port: second.port, password: password ?? token, database }),
  );
  open.push(client);
  const ended = endOf(client).then(({ code }) => code);
  return { run: async (sql) => (await stateOf(client.query(sql))) ?? "ok", ended };
}

const request = async ({ token, database = "postgres" }: Credential, sql = "SELECT 1") =>
  (await http.query(token, { sql, database })).status;

/** Makes whoever asks for it wait. @returns what lets it go on */
async function holdLock(database = "postgres"): Promise<() => Promise<void>> {
  const { socketDir: host, port } = stage.postgres;
  const holder = await openClient({ host, port, user: "postgres", database });
  open.push(holder);
  await holder.query(`SELECT pg_advisory_lock(${lockKey})`);
  return () => holder.end();
}

beforeAll(async () => {
  issuerKey = await makeKey("ES256", "one");
  issuer = await startIssuer([issuerKey]);
  stage = await openStage({ users: [], configuration });
  admin = await stage.connect(stage.frontEnd.adminUser);
  for (const database of ["ours", "theirs"]) await admin.query(`CREATE DATABASE ${database}`);
  for (const table of ["item", "other"]) await admin.query(`CREATE TABLE ${table} (n int)`);
  second = await startFrontEnd({
    upstreamUrl: stage.postgres.url,
    besides: stage.frontEnd.dataDir,
    configuration,
  });
  http = httpClient(`http://127.0.0.1:${second.httpPort}`);
});
afterEach(async () => {
  for (const client of open.splice(0)) await client.end();
});
afterAll(async () => {
  await admin?.end().catch(() => {});
  await second?.close();
  await stage?.close();
  await issuer?.close();
});

interface End {
  readonly title: string;
  readonly prepare: () => Promise<Credential>;
  /** Runs at the first front-end. @returns when the end is due; absent: at once */
  readonly change: (credential: Credential) => Promise<Date | undefined>;
  /** What the next request gets; 401 by default. */
  readonly status?: number;
}

const run = (sql: string) => async () => {
  await admin.query(sql);
  return undefined;
};
const account = async (name: string, databases: string): Promise<Credential> => {
  await admin.query(`CREATE SERVICE ACCOUNT ${name} FOR DATABASE ${databases}`);
  return { user: name, token: await keyOf(`CREATE API KEY '${name} key' FOR ${name}`), database: "ours" };
};
const inMs = (ms: number) => new Date(Date.now() + ms);

const ends: readonly End[] = [
  { title: "DROP USER", prepare: () => makeUser("u1"), change: run("DROP USER u1") },
  { title: "NOLOGIN", prepare: () => makeUser("u2"), change: run("ALTER USER u2 NOLOGIN") },
  {
    title: "a VALID UNTIL that has passed",
    prepare: () => makeUser("u3"),
    change: run("ALTER USER u3 VALID UNTIL '2020-01-01'"),
  },
  {
    title: "a VALID UNTIL that passes",
    prepare: () => makeUser("u4"),
    change: async () => {
      const due = inMs(800);
      await admin.query(`ALTER USER u4 VALID UNTIL '${due.toISOString()}'`);
      return due;
    },
  },
  {
    title: "REVOKE API KEY",
    prepare: () => account("s1", "ours"),
    change: ({ token }) => run(`REVOKE API KEY '${token.split("_")[1]}'`)(),
  },
  {
    title: "DROP API KEY",
    prepare: () => account("s2", "ours"),
    change: run("DROP API KEY 's2 key'"),
  },
  {
    title: "DROP API KEY of a key that stands alone",
    prepare: async () => ({ user: "k1", token: await keyOf("CREATE API KEY 'k1' ROLE readonly") }),
    change: run("DROP API KEY 'k1'"),
  },
  {
    title: "the end of a key that EXPIRES",
    prepare: async () => ({ user: "k2", token: await keyOf("CREATE API KEY 'k2' ROLE readonly EXPIRES 2") }),
    change: async () => {
      const { rows } = await admin.query("SHOW API KEYS");
      return rows.find(({ name }) => name === "k2").expires_at;
    },
  },
  {
    title: "DROP SERVICE ACCOUNT",
    prepare: () => account("s3", "ours"),
    change: run("DROP SERVICE ACCOUNT s3"),
  },
  {
    title: "SET DATABASES of a service account, of its session in one that it loses",
    prepare: () => account("s4", "ours, theirs"),
    change: run("ALTER SERVICE ACCOUNT s4 SET DATABASES (theirs)"),
    status: 403,
  },
  {
    title: "SET DATABASES of a key, of its session in one that it loses",
    prepare: () => account("s5", "ours, theirs"),
    change: run("ALTER API KEY 's5 key' SET DATABASES (theirs)"),
    status: 403,
  },
  {
    title: "DROP OIDC PROVIDER",
    prepare: async () => {
      await admin.query(`CREATE OIDC PROVIDER gone WITH (issuer = '${issuer.issuer}', audience = 'api',
        claim_mapping = [{ claim = 'sub', value = null, effect = { add_roles = ['readonly'] } }])`);
      return { user: "oidc:gone", token: await issuer.sign(issuerKey) };
    },
    change: run("DROP OIDC PROVIDER gone"),
  },
];

describe("an end that another front-end is told of within a second", () => {
  test.each(ends)("$title: closes idle sessions at once, busy ones after their statement", async (end) => {
    const credential = await end.prepare();
    await until(async () => (await request(credential)) === 200);
    const [idle, busy] = [await logIn(credential), await logIn(credential)];
    const release = await holdLock(credential.database);
    const answer = busy.run(`SELECT pg_advisory_lock_shared(${lockKey})`);
    await until(
      async () =>
        (await stage.past("SELECT FROM pg_stat_activity WHERE wait_event = 'advisory'")).length === 1,
    );
    const due = (await end.change(credential)) ?? new Date();
    expect(await idle.ended).toBe("57P01");
    expect(Date.now() - due.getTime()).toBeLessThan(withinMs);
    await release();
    expect(await answer).toBe("ok");
    expect(await busy.ended).toBe("57P01");
    expect(await request(credential)).toBe(end.status ?? 401);
    expect(await stateOf(logIn(credential))).toMatch(/^(28P01|28000|42501)$/);
  });
});

/** Waits until it is so at the second front-end. */
const soon = (isTrue: () => Promise<boolean>) => until(isTrue, withinMs);
const may = "ok";
const mayNot = "42501";

describe("roles hold from the next statement of a session at another front-end", () => {
  const write = "INSERT INTO item VALUES (1)";
  const makeReader = () => makeUser("reader", "ROLE readonly");

  afterEach(async () => {
    await admin.query("DROP USER IF EXISTS reader");
  });

  test("granted and taken away, in a transaction and with a prepared statement as well", async () => {
    const credential = await makeReader();
    await until(async () => (await request(credential)) === 200);
    const [plain, block] = [await logIn(credential), await logIn(credential)];
    expect(await plain.run(write)).toBe(mayNot);
    await admin.query("GRANT ROLE readwrite TO reader");
    expect(await plain.run(write)).toBe(may);
    expect(await request(credential, write)).toBe(200);
    for (const sql of [`PREPARE write AS ${write}`, "BEGIN", "EXECUTE write"]) {
      expect(await block.run(sql)).toBe(may);
    }
    await admin.query("REVOKE ROLE readwrite FROM reader");
    expect(await plain.run(write)).toBe(mayNot);
    // PostgreSQL looks up rights anew when it locks a table, and this transaction holds its lock already.
    expect(await block.run("INSERT INTO other VALUES (1)")).toBe(mayNot);
    expect(await block.run("ROLLBACK")).toBe(may);
    expect(await block.run("EXECUTE write")).toBe(mayNot);
    expect(await request(credential, write)).toBe(403);
  });

  test("replaced, for statements of the front-end's own too", async () => {
    const credential = await makeReader();
    await until(async () => (await request(credential)) === 200);
    const session = await logIn(credential);
    const administer = "CREATE USER made_by_reader PASSWORD 'long enough'";
    expect(await session.run(administer)).toBe(mayNot);
    await admin.query("ALTER USER reader SET ROLE admin");
    expect(await session.run(administer)).toBe(may);
    expect(await session.run("DROP USER made_by_reader")).toBe(may);
    await admin.query("ALTER USER reader SET ROLE readwrite");
    expect(await session.run(administer)).toBe(mayNot);
    expect(await request(credential, administer)).toBe(403);
    expect(await session.run(write)).toBe(may);
  });

  test("through what a custom role inherits", async () => {
    await admin.query("CREATE ROLE clerk INHERIT readonly");
    const credential = await makeUser("temp", "ROLE clerk");
    await until(async () => (await request(credential)) === 200);
    const session = await logIn(credential);
    expect(await session.run(write)).toBe(mayNot);
    await admin.query("ALTER ROLE clerk SET INHERIT readwrite");
    expect(await session.run(write)).toBe(may);
    await admin.query("ALTER ROLE clerk SET INHERIT readonly");
    expect(await session.run(write)).toBe(mayNot);
  });

  test("of a service account, and what it says of itself follows within a second", async () => {
    const credential = await account("robot", "ours, postgres");
    await until(async () => (await request(credential)) === 200);
    const session = await logIn({ ...credential, database: "postgres" });
    const isNow = (role: string) =>
      session.run(`SELECT 1 / (($auth.role = '${role}')::int)`).then((outcome) => outcome === may);
    expect([await session.run(write), await isNow("readwrite")]).toEqual([may, true]);
    await admin.query("ALTER SERVICE ACCOUNT robot SET ROLE readonly");
    expect(await session.run(write)).toBe(mayNot);
    await soon(() => isNow("readonly"));
  });
});

describe("sessions at another front-end stay, and its next login is by the change, within a second", () => {
  /** Logs in at the second front-end once more. @returns whether it was let in, or how it was refused */
  const next = (credential: Credential) =>
    logIn(credential).then(
      () => may,
      (error: { code?: string }) => error.code ?? String(error),
    );

  test("when the password changes", async () => {
    const credential = await makeUser("ada");
    await until(async () => (await request(credential)) === 200);
    const session = await logIn(credential);
    const password = "another password";
    await admin.query(`ALTER USER ada PASSWORD '${password}'`);
    await soon(async () => (await next(credential)) === "28P01");
    expect(await next({ ...credential, password })).toBe(may);
    expect(await session.run("SELECT 1")).toBe(may);
    expect(await request(credential)).toBe(200);
  });

  test("when a key gets a new secret", async () => {
    const credential = await account("cron", "ours");
    await until(async () => (await request(credential)) === 200);
    const session = await logIn(credential);
    const token = await keyOf("ALTER API KEY 'cron key' ROTATE");
    await soon(async () => (await request(credential)) === 401);
    expect(await next(credential)).toBe("28P01");
    expect([await request({ ...credential, token }), await next({ ...credential, token })]).toEqual([
      200,
      may,
    ]);
    expect(await session.run("SELECT 1")).toBe(may);
  });

  test("when the user gets another name", async () => {
    const credential = await makeUser("eva");
    await until(async () => (await request(credential)) === 200);
    const session = await logIn(credential);
    await admin.query("ALTER USER eva RENAME TO evelyn");
    // Not by trying to log in: that would lock the name.
    await soon(async () => {
      const { body } = await http.query(credential.token, { sql: "SELECT $auth.id AS name" });
      return body.rows?.[0].name === "evelyn";
    });
    expect(await next({ ...credential, user: "evelyn" })).toBe(may);
    expect(await next(credential)).toBe("28P01");
    expect(await session.run("SELECT 1 / (($auth.id = 'evelyn')::int)")).toBe(may);
    expect(await request(credential)).toBe(200);
  });

  test("when an account gets one more database", async () => {
    const credential = await account("wide", "ours");
    await until(async () => (await request(credential)) === 200);
    const session = await logIn(credential);
    const there = { ...credential, database: "theirs" };
    expect([await request(there), await next(there)]).toEqual([403, mayNot]);
    await admin.query("ALTER SERVICE ACCOUNT wide SET DATABASES (ours, theirs)");
    await soon(async () => (await request(there)) === 200);
    expect(await next(there)).toBe(may);
    expect(await session.run("SELECT 1")).toBe(may);
  });

  test.each([
    ["a user's CONNECTION LIMIT", "", "ALTER USER cap CONNECTION LIMIT 1"],
    ["a tenant's quota", "TENANT small", "ALTER TENANT small SET QUOTA max_connections = 1"],
  ])("when %s is less than there are", async (_, clause, change) => {
    if (clause !== "") await admin.query("CREATE TENANT small");
    const credential = await makeUser("cap", clause);
    await until(async () => (await request(credential)) === 200);
    const sessions = [await logIn(credential), await logIn(credential)];
    await admin.query(change);
    await soon(async () => (await next(credential)) === "53300");
    expect(await request(credential)).toBe(503);
    for (const session of sessions) expect(await session.run("SELECT 1")).toBe(may);
    await admin.query("DROP USER cap");
  });

  test("when what a provider's tokens say is read otherwise", async () => {
    const mapping = (role: string) =>
      `claim_mapping = [{ claim = 'sub', value = null, effect = { add_roles = ['${role}'] } }]`;
    await admin.query(`CREATE OIDC PROVIDER corp WITH
      (issuer = '${issuer.issuer}', audience = 'api', ${mapping("readwrite")})`);
    const credential = { user: "oidc:corp", token: await issuer.sign(issuerKey) };
    const write = "INSERT INTO item VALUES (1)";
    await until(async () => (await request(credential, write)) === 200);
    const session = await logIn(credential);
    await admin.query(`ALTER OIDC PROVIDER corp SET (${mapping("readonly")})`);
    expect(await session.run(write)).toBe(may);
    await soon(async () => (await request(credential, write)) === 403);
    await admin.query("ALTER OIDC PROVIDER corp SET (audience = 'another')");
    await soon(async () => (await request(credential)) === 401);
    expect(await next(credential)).toBe("28000");
    expect(await session.run("SELECT 1")).toBe(may);
    await admin.query("DROP OIDC PROVIDER corp");
    expect(await session.ended).toBe("57P01");
  });
});

test("KILL SESSION ends a request at another front-end, within a second", async () => {
  const credential = await makeUser("slow");
  await until(async () => (await request(credential)) === 200);
  await holdLock();
  const asked = http.query(credential.token, { sql: `SELECT pg_advisory_lock_shared(${lockKey})` });
  let id: string | undefined;
  await until(async () => {
    const { rows } = await admin.query("SHOW SESSIONS");
    id = rows.find(({ username, protocol }) => username === "slow" && protocol === "http")?.session_id;
    return id !== undefined;
  });
  await admin.query(`KILL SESSION '${id}'`);
  const killedAt = performance.now();
  const { status, body } = await asked;
  expect([status, body.error.code]).toEqual([503, "57P01"]);
  expect(performance.now() - killedAt).toBeLessThan(withinMs);
});
