/** No secret is to be read anywhere but in the one row that shows it: everything is made to log, and then searched. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type FrontEnd, startFrontEnd } from "../support/front-end.ts";
import { hasDebianPostgres, startPostgres, type TestPostgres } from "../support/postgres.ts";
import { SecretHunt } from "../support/secret-hunt.ts";
import { requireClient } from "../support/skips.ts";
import { openClient } from "../support/stage.ts";
import { until } from "../support/until.ts";

/** A PostgreSQL that writes down all that it is told; whole transactions too, which is decided when they begin. */
const talkative = {
  log_statement: "all",
  log_min_duration_statement: "0",
  log_duration: "on",
  log_transaction_sample_rate: "1",
  log_parameter_max_length: "-1",
  log_parameter_max_length_on_error: "-1",
  log_min_error_statement: "debug5",
  log_error_verbosity: "verbose",
  log_connections: "on",
  track_activity_query_size: "65536",
};

const frontEndConfiguration = '[log]\nlevel = "trace"\n[audit]\nlevel = "full"\n';

interface Arrangement {
  readonly title: string;
  readonly version: "embedded" | "debian";
  /** Settings of its PostgreSQL beside the talkative ones. */
  readonly settings: Readonly<Record<string, string>>;
  /** What the front-end logs in as. */
  readonly login: "superuser" | "creator of roles";
}

const withStatistics = { shared_preload_libraries: "pg_stat_statements" };
const arrangements: readonly Arrangement[] = [
  {
    title: "PostgreSQL 18, where the front-end is a superuser",
    version: "embedded",
    settings: { ...withStatistics, "pg_stat_statements.track": "all" },
    login: "superuser",
  },
  {
    title: "PostgreSQL 18, where the front-end may set no superuser's parameter",
    version: "embedded",
    settings: withStatistics,
    login: "creator of roles",
  },
  {
    title: "PostgreSQL 15, where the front-end is a superuser",
    version: "debian",
    settings: { ...withStatistics, "pg_stat_statements.track": "all" },
    login: "superuser",
  },
  {
    title: "PostgreSQL 15, where the front-end may set no superuser's parameter",
    version: "debian",
    settings: withStatistics,
    login: "creator of roles",
  },
];

const protocols = [
  ["simple", (text: string): pg.QueryConfig => ({ text })],
  ["extended", (text: string): pg.QueryConfig => ({ text, ...{ queryMode: "extended" } })],
] as const;

for (const arrangement of arrangements) {
  describe(arrangement.title, () => {
    const isThere =
      arrangement.version === "embedded" || requireClient("PostgreSQL 15 (postgresql-15)", hasDebianPostgres);
    describeHunt(arrangement, isThere);
  });
}

function describeHunt(arrangement: Arrangement, isThere: boolean): void {
  const hunt = new SecretHunt();
  /** Each error and notice that a client got, with all of its fields, and each row that is not there to show a secret. */
  const told: string[] = [];
  const activity = new Set<string>();
  let postgres: TestPostgres;
  let frontEnd: FrontEnd;
  let admin: pg.Client;
  let watcher: pg.Client;
  let isSampling = true;
  let sampling: Promise<void> | undefined;

  const testIfThere = test.skipIf(!isThere);

  function tell(error: unknown): void {
    told.push(JSON.stringify(error instanceof Error ? { ...error, message: error.message } : error));
  }

  async function run(client: pg.Client, query: pg.QueryConfig): Promise<pg.QueryResult | undefined> {
    try {
      const result = await client.query(query);
      for (const { api_key: _, ...row } of result.rows ?? []) told.push(JSON.stringify(row));
      return result;
    } catch (error) {
      tell(error);
      return undefined;
    }
  }

  async function makeKey(what: string, query: pg.QueryConfig): Promise<string> {
    const result = await run(admin, query);
    expect(result, `${what}: ${told.slice(-3).join("\n")}`).toBeDefined();
    return hunt.rememberApiKey(what, result?.rows[0]?.api_key);
  }

  async function login(user: string, password: string): Promise<pg.Client> {
    const { host, port, database } = frontEnd;
    const client = await openClient({ host, port, database, user, password });
    client.on("notice", tell);
    return client;
  }

  /** Past the front-end, and not logged itself: it reads the secrets. */
  async function openQuietly(): Promise<pg.Client> {
    const { socketDir: host, port } = postgres;
    return openClient({
      host,
      port,
      user: "postgres",
      database: frontEnd?.database ?? "postgres",
      options:
        "-c log_statement=none -c log_min_duration_statement=-1 -c log_duration=off -c log_transaction_sample_rate=0 -c pg_stat_statements.track=none",
    });
  }

  /** What the catalog and PostgreSQL keep at this moment. */
  async function rememberStored(when: string): Promise<void> {
    const roles = await watcher.query(
      "SELECT rolname, rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL AND rolname NOT IN ('postgres', 'front')",
    );
    for (const { rolname, rolpassword } of roles.rows) {
      hunt.rememberVerifier(`PostgreSQL role ${rolname}, ${when}`, rolpassword);
    }
    const users = await watcher.query(
      "SELECT name, scram_verifier FROM nodedb.principal WHERE scram_verifier IS NOT NULL",
    );
    for (const { name, scram_verifier } of users.rows)
      hunt.rememberVerifier(`user ${name}, ${when}`, scram_verifier);
    const keys = await watcher.query("SELECT * FROM nodedb.api_key");
    for (const key of keys.rows) {
      hunt.rememberVerifier(`key ${key.name}, ${when}`, key.scram_verifier);
      hunt.rememberBytes(`hash: of key ${key.name}, ${when}`, key.secret_hash);
    }
  }

  beforeAll(async () => {
    if (!isThere) return;
    postgres = await startPostgres({
      version: arrangement.version,
      tcp: true,
      settings: { ...talkative, ...arrangement.settings },
    });
    const url = new URL(postgres.url);
    const setUp = await openQuietly();
    await setUp.query("CREATE EXTENSION pg_stat_statements");
    url.username = "front";
    url.password = hunt.makePassword("of the front-end's own login");
    url.pathname = "/catalog";
    const attribute = arrangement.login === "superuser" ? "SUPERUSER" : "CREATEROLE";
    await setUp.query(`CREATE ROLE front LOGIN ${attribute} PASSWORD '${url.password}'`);
    await setUp.query("CREATE DATABASE catalog OWNER front");
    await setUp.end();
    frontEnd = await startFrontEnd({ upstreamUrl: url.href, configuration: frontEndConfiguration });
    hunt.remember("password: the first superuser's", frontEnd.adminPassword);
    hunt.remember("master secret", readFileSync(join(frontEnd.dataDir, "master.secret"), "utf8").trim());
    watcher = await openQuietly();
    const sampler = await openQuietly();
    await rememberStored("at the start");
    sampling = (async () => {
      while (isSampling) {
        const seen = await sampler.query("SELECT DISTINCT query FROM pg_stat_activity WHERE query <> ''");
        for (const { query } of seen.rows) activity.add(String(query));
      }
      await sampler.end();
    })();
    admin = await login(frontEnd.adminUser, frontEnd.adminPassword);
  });

  afterAll(async () => {
    isSampling = false;
    await sampling;
    await admin?.end();
    await watcher?.end();
    await frontEnd?.close();
    await postgres?.dispose();
  });

  describe("while statements with secrets run", () => {
    test.skipIf(!isThere).each(protocols)(
      "those that succeed, in the %s protocol",
      async (protocol, query) => {
        const go = (sql: string) => run(admin, query(sql));
        const user = `u_${protocol}`;
        const database = frontEnd.database;
        await go(`CREATE USER ${user} PASSWORD '${hunt.makePassword("create user")}'`);
        await go(`CREATE ROLE ${user}_r LOGIN ENCRYPTED PASSWORD '${hunt.makePassword("create role")}'`);
        await go(`CREATE USER ${user}_v PASSWORD '${hunt.makeVerifier("create user")}'`);
        await rememberStored(`${protocol}, made`);
        await go(`ALTER USER ${user} PASSWORD '${hunt.makePassword("alter user")}'`);
        await go(`ALTER ROLE ${user} SET PASSWORD $$${hunt.makePassword("dollar quotes")}$$`);
        // What psql's \password sends.
        await go(`ALTER USER ${user}_v PASSWORD '${hunt.makeVerifier("alter user")}'`);
        const keyOf = async (what: string, sql: string) =>
          hunt.rememberApiKey(what, (await go(sql))?.rows[0]?.api_key);
        await keyOf("stand-alone", `CREATE API KEY 'alone_${protocol}' ROLE readonly`);
        await keyOf("of a user", `CREATE API KEY 'key_${protocol}' FOR ${user}`);
        await keyOf("without a name", `CREATE API KEY FOR ${user} EXPIRES IN '1 day'`);
        await go(`CREATE SERVICE ACCOUNT 'account_${protocol}' FOR DATABASE ${database}`);
        const key = await keyOf(
          "of a service account",
          `CREATE API KEY 'sa_${protocol}' FOR SERVICE ACCOUNT 'account_${protocol}'`,
        );
        await rememberStored(`${protocol}, changed`);
        await keyOf("rotated", `ALTER API KEY 'sa_${protocol}' ROTATE OVERLAP '1h'`);
        await keyOf("rotated, alone", `ALTER API KEY 'alone_${protocol}' ROTATE`);
        await rememberStored(`${protocol}, rotated`);
        for (const shown of ["USERS", "API KEYS", "SERVICE ACCOUNTS", "SESSIONS"]) await go(`SHOW ${shown}`);
        // The key before is still good, and wrong ones are as secret.
        await (await login(`account_${protocol}`, key)).end();
        for (const password of [hunt.makePassword("wrong at login"), `${key.slice(0, -1)}!`]) {
          await login(user, password).catch(tell);
          await login(`account_${protocol}`, password).catch(tell);
        }
      },
    );

    test.skipIf(!isThere).each(protocols)("those that fail, in the %s protocol", async (protocol, query) => {
      const fail = async (what: string, write: (secret: string) => string) => {
        const before = told.length;
        expect(await run(admin, query(write(hunt.makePassword(what)))), what).toBeUndefined();
        expect(told.length, what).toBe(before + 1);
      };
      await fail("a syntax error behind it", (secret) => `CREATE USER f PASSWORD '${secret}' NONSENSE`);
      await fail("a syntax error before it", (secret) => `CREATE USER f NONSENSE PASSWORD '${secret}'`);
      await fail("a misspelt keyword", (secret) => `ALTER USER f PASSWROD '${secret}'`);
      await fail("an equals sign", (secret) => `ALTER USER f SET PASSWORD = '${secret}'`);
      await fail("another statement's keyword", (secret) => `ALTER USER f RESET PASSWORD '${secret}'`);
      await fail("double quotes", (secret) => `CREATE USER f PASSWORD "${secret}"`);
      await fail("an open quote", (secret) => `CREATE USER f PASSWORD '${secret}`);
      await fail("an open dollar quote", (secret) => `ALTER USER f PASSWORD $x$${secret}`);
      await fail("a comment", (secret) => `CREATE USER f NONSENSE -- '${secret}'`);
      await fail("twice", (secret) => `CREATE USER f PASSWORD '${secret}' PASSWORD '${secret}'`);
      await fail("a name that is taken", (secret) => `CREATE USER u_${protocol} PASSWORD '${secret}'`);
      await fail("no such user", (secret) => `ALTER USER nobody PASSWORD '${secret}'`);
      await fail("a bad timestamp", (secret) => `CREATE USER f PASSWORD '${secret}' VALID UNTIL 'soon'`);
      await fail("a bad role", (secret) => `CREATE USER f PASSWORD '${secret}' ROLE nothing`);
      await fail(
        "an attribute that is not supported",
        (secret) => `CREATE USER f CREATEDB PASSWORD '${secret}'`,
      );
      await fail("a service account", (secret) => `ALTER USER "account_${protocol}" PASSWORD '${secret}'`);
      await fail("a verifier that is none", (secret) => `CREATE USER f PASSWORD 'SCRAM-SHA-256$${secret}'`);
      await fail("a reserved name", (secret) => `CREATE USER readonly PASSWORD '${secret}'`);
    });

    test.skipIf(!isThere).each(protocols)("in transactions, in the %s protocol", async (protocol, query) => {
      const go = (sql: string) => run(admin, query(sql));
      const user = `t_${protocol}`;
      const keyOf = (what: string, sql: string) => makeKey(what, query(sql));
      for (const end of ["ROLLBACK", "COMMIT"]) {
        await go("BEGIN");
        await go(`CREATE USER ${user} PASSWORD '${hunt.makePassword(`before ${end}`)}'`);
        await go("SAVEPOINT s");
        await go(`ALTER USER ${user} PASSWORD '${hunt.makePassword("before ROLLBACK TO")}'`);
        await go("ROLLBACK TO s");
        await keyOf(`before ${end}`, `CREATE API KEY 'k_${protocol}' FOR ${user}`);
        await keyOf(`rotated before ${end}`, `ALTER API KEY 'k_${protocol}' ROTATE`);
        await keyOf(`without a name before ${end}`, `CREATE API KEY FOR USER ${user}`);
        await go(end);
        await rememberStored(`${protocol}, after ${end}`);
      }
      await go("BEGIN");
      await go(`ALTER USER ${user} PASSWORD '${hunt.makePassword("in a block that fails")}'`);
      await go("SELECT 1/0");
      await go(`ALTER USER ${user} PASSWORD '${hunt.makePassword("in a block that has failed")}'`);
      await go(`ALTER USER ${user} PASSWORD '${hunt.makePassword("and is open")}`);
      await go("COMMIT");
      await go(`DROP USER ${user}`);
    });

    testIfThere("in a string of several statements, and where parameters would be", async () => {
      const password = (what: string) => hunt.makePassword(what);
      await run(admin, {
        text: `CREATE TABLE IF NOT EXISTS several (id int); CREATE USER m PASSWORD '${password("a string that fails")}'; SELECT 1/0`,
      });
      await run(admin, {
        text: `SELECT 1; ALTER USER u_simple PASSWORD '${password("a string")}'; SELECT 2`,
      });
      await run(admin, {
        text: `SELECT 1; ALTER USER u_simple PASSWORD '${password("an open quote in a string")}; SELECT 2`,
      });
      await run(admin, { text: "CREATE USER m PASSWORD $1", values: [password("a parameter")] });
      const prepared = `ALTER USER u_simple PASSWORD '${password("a prepared statement")}'`;
      await run(admin, { name: "prepared", text: prepared });
      await run(admin, { name: "prepared", text: prepared });
    });

    testIfThere.each(["ROLLBACK", "pg_cancel_backend", "pg_terminate_backend"])(
      "a verifier that is put right at a login and waits for a lock until %s",
      async (end) => {
        const name = `drifted_${end.toLowerCase()}`;
        const password = hunt.makePassword("of the user who was changed");
        await admin.query(`CREATE USER ${name} PASSWORD '${password}'`);
        await rememberStored("before it is put right");
        await watcher.query(`ALTER ROLE ${name} PASSWORD 'changed behind the back'`);
        await watcher.query("BEGIN");
        await watcher.query(`ALTER ROLE ${name} CONNECTION LIMIT 7`);
        const loggedIn = login(name, password).then((client) => client.end().then(() => true), tell);
        const waiters = async () =>
          (
            await watcher.query(
              "SELECT a.pid, a.query FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted",
            )
          ).rows;
        await until(async () => (await waiters()).length > 0);
        const [waiter] = await waiters();
        activity.add(String(waiter?.query));
        expect(waiter?.query).toContain("role_credentials");
        if (end !== "ROLLBACK") {
          await watcher.query(`SELECT ${end}($1)`, [waiter?.pid]);
          expect(await loggedIn).toBeUndefined();
        }
        await watcher.query("ROLLBACK");
        if (end === "ROLLBACK") expect(await loggedIn).toBe(true);
        await rememberStored("put right");
      },
    );
  });

  describe("afterwards no secret is", () => {
    beforeAll(async () => {
      if (!isThere) return;
      await rememberStored("at the end");
      isSampling = false;
      await sampling;
    });

    testIfThere("forgotten by this test", () => {
      expect(hunt.kinds).toEqual(
        new Set(["password", "StoredKey", "ServerKey", "API key", "hash", "master secret"]),
      );
      expect(hunt.size).toBeGreaterThan(150);
    });

    testIfThere("in the front-end's output", () => {
      const output = frontEnd.output();
      expect(output).toContain('"level":');
      expect(hunt.findIn(output)).toEqual([]);
    });

    testIfThere("in PostgreSQL's log", () => {
      const log = postgres.readLog();
      // What would show them is there: statements, their parameters and those of sampled transactions.
      for (const part of [
        "INSERT INTO nodedb.principal",
        "SELECT 1/0",
        "nodedb.scram_verifier",
        "COPY nodedb",
      ]) {
        expect(log).toContain(part);
      }
      expect(log).toMatch(/duration: .*nodedb\.role_credentials/s);
      expect(hunt.findIn(log)).toEqual([]);
    });

    testIfThere("in pg_stat_activity", () => {
      const seen = [...activity].join("\n");
      expect(seen).toContain("nodedb.");
      expect(hunt.findIn(seen)).toEqual([]);
    });

    testIfThere("in pg_stat_statements", async () => {
      const reader = await openClient({
        host: postgres.socketDir,
        port: postgres.port,
        user: "postgres",
        database: "postgres",
      });
      const seen = (await reader.query("SELECT query FROM pg_stat_statements")).rows.map(
        ({ query }) => query,
      );
      await reader.end();
      expect(seen.some((query) => /nodedb\./.test(query))).toBe(true);
      expect(hunt.findIn(seen.join("\n"))).toEqual([]);
    });

    testIfThere("in the audit log", async () => {
      const shown = await admin.query("SHOW AUDIT LOG LIMIT 10000");
      const events = new Set(shown.rows.map(({ event }) => event));
      for (const event of ["AuthFailure", "PrivilegeChange", "AdminAction"]) expect(events).toContain(event);
      const stored = await watcher.query(
        "SELECT a::text FROM nodedb.audit_log a UNION ALL SELECT o::text FROM nodedb.audit_outbox o",
      );
      expect(hunt.findIn(JSON.stringify([shown.rows, stored.rows]))).toEqual([]);
    });

    testIfThere("in what clients were told", () => {
      expect(told.length).toBeGreaterThan(60);
      expect(hunt.findIn(told.join("\n"))).toEqual([]);
    });
  });
}
