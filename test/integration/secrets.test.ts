/** No secret is to be read anywhere but in the one row that shows it: everything is made to log, and then searched. */

import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SecretHunt } from "../support/secret-hunt.ts";
import {
  type Arrangement,
  arrangements,
  describeNoSecret,
  isArrangementThere,
  openSecretStage,
  type SecretStage,
} from "../support/secret-stage.ts";
import { until } from "../support/until.ts";

const protocols = [
  ["simple", (text: string): pg.QueryConfig => ({ text })],
  ["extended", (text: string): pg.QueryConfig => ({ text, ...{ queryMode: "extended" } })],
] as const;

for (const arrangement of arrangements) {
  describe(arrangement.title, () => describeHunt(arrangement, isArrangementThere(arrangement)));
}

function describeHunt(arrangement: Arrangement, isThere: boolean): void {
  const hunt = new SecretHunt();
  let stage: SecretStage;
  let admin: pg.Client;
  let watcher: pg.Client;
  let told: string[];
  const testIfThere = test.skipIf(!isThere);
  const run = (client: pg.Client, query: pg.QueryConfig) => stage.run(client, query);
  const makeKey = (what: string, query: pg.QueryConfig) => stage.makeKey(what, query);
  const login = (user: string, password: string) => stage.login(user, password);
  const rememberStored = (when: string) => stage.rememberStored(when);
  const tell = (error: unknown) => stage.tell(error);

  beforeAll(async () => {
    if (!isThere) return;
    stage = await openSecretStage(arrangement, hunt);
    ({ admin, watcher, told } = stage);
  });
  afterAll(() => stage?.close());

  describe("while statements with secrets run", () => {
    test.skipIf(!isThere).each(protocols)(
      "those that succeed, in the %s protocol",
      async (protocol, query) => {
        const go = (sql: string) => run(admin, query(sql));
        const user = `u_${protocol}`;
        const database = stage.frontEnd.database;
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
        stage.activity.add(String(waiter?.query));
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

  describeNoSecret(isThere, () => stage, {
    kinds: ["password", "StoredKey", "ServerKey", "API key", "hash", "master secret", "claims key"],
    secrets: 150,
    output: ['"level":'],
    // What would show them is there: statements, their parameters and those of sampled transactions.
    postgresLog: [
      "INSERT INTO nodedb.principal",
      "SELECT 1/0",
      "nodedb.scram_verifier",
      "COPY nodedb",
      /duration: .*nodedb\.role_credentials/s,
    ],
    auditEvents: ["AuthFailure", "PrivilegeChange", "AdminAction"],
    told: 60,
  });
}
