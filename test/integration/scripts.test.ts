/** SQL scripts as an administrator writes them, run by psql; what they leave behind is looked at from all sides. */

import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { isRunnable } from "../support/client-program.ts";
import {
  type Endpoint,
  libpqEnvironment,
  openEndpoint,
  runAsAdmin,
  type Upstream,
} from "../support/endpoint.ts";
import { hasDebianPostgres } from "../support/postgres.ts";
import { type Finished, runProgram } from "../support/run-program.ts";
import { requireClient } from "../support/skips.ts";
import { endOf, openClient, runOnce, stateOf } from "../support/stage.ts";
import { until } from "../support/until.ts";

const scripts = join(import.meta.dirname, "scripts");
/** psql's exit status when a script has failed with ON_ERROR_STOP. */
const scriptFailed = 3;

const isPresent = isRunnable("psql", "--version");

describe("scripts by psql", () => {
  const isThere = requireClient("psql (postgresql-client-15)", isPresent);
  describe("before the embedded PostgreSQL 18", () => describeScripts("embedded", isThere));
  describe("before an external PostgreSQL 15", () => {
    describeScripts("debian", isThere && requireClient("PostgreSQL 15 (postgresql-15)", hasDebianPostgres));
  });
});

function describeScripts(upstream: Upstream, isThere: boolean): void {
  let endpoint: Endpoint;
  let directory: string;
  const passwords = new Map<string, string>();

  const passwordOf = (user: string) => {
    const password = passwords.get(user) ?? `first ${randomBytes(9).toString("hex")}`;
    passwords.set(user, password);
    return password;
  };
  const login = (
    user: string,
    password = passwordOf(user),
    database = endpoint.database,
  ): pg.ClientConfig => ({
    host: endpoint.host,
    port: endpoint.port,
    user,
    password,
    database,
  });

  /** @param as who runs it, the administrator unless named */
  async function script(
    name: string,
    variables: Readonly<Record<string, string>>,
    options: { readonly isSingle?: boolean; readonly as?: pg.ClientConfig } = {},
  ): Promise<Finished> {
    const { as } = options;
    return runProgram(
      "psql",
      [
        "-X",
        "-A",
        "-t",
        "-v",
        "ON_ERROR_STOP=1",
        ...(options.isSingle === true ? ["-1"] : []),
        ...Object.entries(variables).flatMap(([key, value]) => ["-v", `${key}=${value}`]),
        "-f",
        join(scripts, name),
      ],
      {
        ...libpqEnvironment(endpoint, "admin"),
        ...(as === undefined
          ? {}
          : { PGUSER: as.user, PGPASSWORD: String(as.password), PGDATABASE: as.database }),
      },
    );
  }

  const admin = (sql: string) => runAsAdmin(endpoint, sql);

  /** What roles, users, keys and tenants there are. */
  async function everything(): Promise<unknown[]> {
    const rows: unknown[] = [];
    for (const sql of [
      "SELECT rolname, rolcanlogin, rolsuper FROM pg_roles ORDER BY 1",
      "SELECT roleid::regrole::text, member::regrole::text FROM pg_auth_members ORDER BY 1, 2",
      "SELECT relname, relowner::regrole::text FROM pg_class WHERE relkind = 'r' AND relnamespace::regnamespace::text NOT LIKE 'pg\\_%' ORDER BY 1, 2",
      "SHOW ROLES",
      "SHOW API KEYS",
      "SHOW SERVICE ACCOUNTS",
      "SHOW TENANTS",
    ]) {
      rows.push((await admin(sql)).rows);
    }
    const users = (await admin("SHOW USERS")).rows;
    rows.push(users.map(({ last_login_at: _, ...user }) => user));
    return rows;
  }

  const onboarding = () => ({
    ana_password: passwordOf("ana"),
    ben_password: passwordOf("ben"),
    cleo_password: passwordOf("cleo.contractor"),
  });

  beforeAll(async () => {
    if (!isThere) return;
    directory = mkdtempSync(join(tmpdir(), "nodedb-scripts-"));
    endpoint = await openEndpoint(upstream);
  });

  afterAll(async () => {
    await endpoint?.close();
    if (directory !== undefined) rmSync(directory, { recursive: true, force: true });
  });

  test.skipIf(!isThere)("onboarding that fails at its end has made nobody and nothing", async () => {
    await admin("CREATE SCHEMA data_team_work");
    const before = await everything();
    const done = await script("onboard-team.sql", onboarding(), { isSingle: true });
    expect(done.status).toBe(scriptFailed);
    expect(done.stderr).toContain('schema "data_team_work" already exists');
    // psql has left within its transaction; the names that it had reserved are given up behind it.
    await until(async () => (await admin("SELECT FROM nodedb.reserved_role")).rowCount === 0);
    expect(await everything()).toEqual(before);
    expect(await stateOf(openClient(login("ana")))).toBe("28P01");
    await admin("DROP SCHEMA data_team_work");
  });

  test.skipIf(!isThere)("onboarding lets the team in, each with what it was given", async () => {
    const done = await script("onboard-team.sql", onboarding(), { isSingle: true });
    expect(done).toMatchObject({ status: 0, stderr: "" });
    expect(done.stdout).toContain("ben|data_team|\n");
    expect(done.stdout).toContain("ben|readonly|data_team\n");
    expect(done.stdout).toMatch(/^ben\|INSERT\|.*report.*\|direct$/m);

    const { rows: users } = await admin("SHOW USERS");
    const byName = new Map(users.map((user) => [user.username, user]));
    expect(byName.get("ben")).toMatchObject({ roles: "data_team", default_database: endpoint.database });
    expect(byName.get("ana")).toMatchObject({ roles: "admin, data_team", is_superuser: false });
    expect(byName.get("cleo.contractor").valid_until.getUTCFullYear()).toBe(2099);

    const insert = "INSERT INTO data_team_work.report (title) VALUES ('of a member') RETURNING made_by";
    expect((await runOnce(login("ben"), insert)).rows).toEqual([{ made_by: "ben" }]);
    const read = "SELECT title FROM data_team_work.report ORDER BY id";
    const titles = [{ title: "Welcome" }, { title: "of a member" }];
    expect((await runOnce(login("cleo.contractor"), read)).rows).toEqual(titles);
    expect(await stateOf(runOnce(login("cleo.contractor"), insert))).toBe("42501");

    const cleo = login("cleo.contractor");
    const two = [await openClient(cleo), await openClient(cleo)];
    expect(await stateOf(openClient(cleo))).toBe("53300");
    for (const client of two) await client.end();

    // Ana is the one who may go on from here.
    await runOnce(login("ana"), `CREATE USER dan PASSWORD '${passwordOf("dan")}' ROLE readonly`);
    expect(await stateOf(runOnce(login("ben"), "CREATE USER eve PASSWORD 'eve has no password'"))).toBe(
      "42501",
    );
  });

  test.skipIf(!isThere)("onboarding a second time is refused and changes nothing", async () => {
    const before = await everything();
    const done = await script("onboard-team.sql", onboarding(), { isSingle: true });
    expect(done.status).toBe(scriptFailed);
    expect(done.stderr).toContain('role "data_team" already exists');
    expect(await everything()).toEqual(before);
  });

  test.skipIf(!isThere)(
    "rotated keys: the old one lasts the night, the leaked one is dead at once",
    async () => {
      await admin(`CREATE DATABASE elsewhere`);
      await admin(`CREATE SERVICE ACCOUNT 'nightly' FOR DATABASE "${endpoint.database}", elsewhere`);
      const key = async (sql: string) => (await admin(sql)).rows[0] as { api_key: string; key_id: string };
      const old = await key("CREATE API KEY 'nightly-key' FOR 'nightly'");
      const leaked = await key("CREATE API KEY 'leaked' FOR SERVICE ACCOUNT 'nightly'");
      const ofTheThief = await openClient(login("nightly", leaked.api_key));
      const ended = endOf(ofTheThief);
      expect(await stateOf(runOnce(login("nightly", old.api_key, "elsewhere"), "SELECT 1"))).toBeUndefined();

      const keyFile = join(directory, "nightly.key");
      const done = await script("rotate-keys.sql", { leaked_key_id: leaked.key_id, key_file: keyFile });
      expect(done).toMatchObject({ status: 0, stderr: "" });
      expect((await ended).code).toBe("57P01");
      const fresh = readFileSync(keyFile, "utf8").trim();
      expect(fresh).toMatch(/^ndb_/);
      expect(done.stdout).not.toContain(fresh);
      expect(done.stdout).toMatch(/^nightly-key\|/m);
      expect(done.stdout).toMatch(/^nightly-failover\|/m);
      expect(done.stdout).toMatch(/^leaked\|/m);

      for (const good of [old.api_key, fresh]) {
        expect((await runOnce(login("nightly", good), "SELECT current_user AS me")).rows).toEqual([
          { me: "nightly" },
        ]);
        expect(await stateOf(runOnce(login("nightly", good, "elsewhere"), "SELECT 1"))).toBe("42501");
      }
      expect(await stateOf(openClient(login("nightly", leaked.api_key)))).toBe("28P01");
      const { rows } = await admin("SHOW API KEYS FOR 'nightly'");
      expect(new Map(rows.map((row) => [row.name, row.revoked]))).toEqual(
        new Map([
          ["nightly-key", false],
          ["leaked", true],
          ["nightly-failover", false],
        ]),
      );
      const days = (rows.find((row) => row.name === "nightly-failover").expires_at - Date.now()) / 86_400_000;
      expect(days).toBeGreaterThan(89.9);
      expect(days).toBeLessThan(90.1);
    },
  );

  test.skipIf(!isThere)(
    "offboarding somebody who owns tables keeps the tables and shuts every door",
    async () => {
      await admin("GRANT readwrite TO ben");
      await admin("CREATE SCHEMA bens AUTHORIZATION ben");
      const ben = await openClient(login("ben"));
      await ben.query("CREATE TABLE bens.model AS SELECT 42 AS answer");
      const { api_key: key } = (await ben.query("CREATE API KEY 'bens-key' FOR ben")).rows[0];
      const ended = endOf(ben);
      const unsafe = await stateOf(admin("DROP USER ben"));
      expect(unsafe).toBe("2BP01");

      const done = await script("offboard.sql", { leaver: "ben", heir: "ana" });
      expect(done).toMatchObject({ status: 0, stderr: "" });
      expect(done.stdout).toContain("bens.model\n");
      expect(done.stdout).toMatch(/^bens-key\|/m);
      expect(done.stdout).toContain("offboarded ben\n");
      expect((await ended).code).toBe("57P01");

      expect(await stateOf(openClient(login("ben")))).toBe("28P01");
      expect(await stateOf(openClient(login("ben", key)))).toBe("28P01");
      expect((await runOnce(login("ana"), "SELECT answer FROM bens.model")).rows).toEqual([{ answer: 42 }]);
      const { rows: owners } = await admin(
        "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'bens'",
      );
      expect(owners).toEqual([{ tableowner: "ana" }]);
      expect((await admin("SELECT FROM pg_roles WHERE rolname = 'ben'")).rowCount).toBe(0);
      expect((await admin("SHOW API KEYS")).rows.some((row) => row.name === "bens-key")).toBe(false);
      expect((await admin("SHOW USERS")).rows.some((row) => row.username === "ben")).toBe(false);
    },
  );

  test.skipIf(!isThere)(
    "offboarding stops at the first thing that is wrong, with the doors shut",
    async () => {
      await admin(`CREATE USER leaver PASSWORD '${passwordOf("leaver")}' ROLE data_team`);
      const done = await script("offboard.sql", { leaver: "leaver", heir: "nobody_at_all" });
      expect(done.status).toBe(scriptFailed);
      expect(done.stderr).toContain('"nobody_at_all" does not exist');
      expect(done.stdout).not.toContain("offboarded");
      expect(await stateOf(openClient(login("leaver")))).toBe("28P01");
      expect((await admin("SELECT FROM pg_roles WHERE rolname = 'leaver'")).rowCount).toBe(1);
    },
  );

  test.skipIf(!isThere)("a tenant is set up, goes on by itself, and is for nobody else to see", async () => {
    const chief = { chief_password: passwordOf("acme_chief") };
    const done = await script("set-up-tenant.sql", { tenant: "acme", number: "42", ...chief });
    expect(done).toMatchObject({ status: 0, stderr: "" });
    expect(done.stdout).toMatch(/^42\|acme\|20\|/m);

    const asChief = login("acme_chief", undefined, "acme");
    const first = await script(
      "first-steps-of-a-tenant.sql",
      { clerk_password: passwordOf("carla") },
      { isSingle: true, as: asChief },
    );
    expect(first).toMatchObject({ status: 0, stderr: "" });
    expect(first.stdout).toMatch(/^own_orders\|.*orders\|ALL\|PERMISSIVE\|/m);

    const clerk = (user: string) => login(user, passwordOf("carla"), "acme");
    await runOnce(clerk("carla"), "INSERT INTO shop.orders (item) VALUES ('of carla')");
    await runOnce(clerk("carlo"), "INSERT INTO shop.orders (item) VALUES ('of carlo')");
    for (const user of ["carla", "carlo"]) {
      const { rows } = await runOnce(clerk(user), "SELECT user_id, item FROM shop.orders");
      expect(rows).toEqual([{ user_id: user, item: `of ${user}` }]);
    }
    const forged = "INSERT INTO shop.orders (user_id, item) VALUES ('carlo', 'forged')";
    expect(await stateOf(runOnce(clerk("carla"), forged))).toBe("42501");

    const seen = (await runOnce(asChief, "SHOW USERS")).rows.map(({ username }) => username).toSorted();
    expect(seen).toEqual(["acme_chief", "carla", "carlo"]);
    expect(await stateOf(runOnce(asChief, "ALTER USER ana NOLOGIN"))).toBe("42704");
    expect(await stateOf(openClient(login("ana", undefined, "acme")))).toBe("42501");
    // The database is the superuser's, who belongs to Ana's tenant by number and stands above all of them.
    const letIn = "GRANT CONNECT ON DATABASE acme TO ana";
    expect(await stateOf(runOnce(login("ana"), letIn))).toBe("42501");
    expect(await stateOf(openClient(login("ana", undefined, "acme")))).toBe("42501");
    expect(await stateOf(admin("DROP TENANT acme"))).toBe("2BP01");
  });

  test.skipIf(!isThere)("a tenant whose number is taken is not half made", async () => {
    const before = await everything();
    const done = await script("set-up-tenant.sql", {
      tenant: "second",
      number: "42",
      chief_password: passwordOf("second_chief"),
    });
    expect(done.status).toBe(scriptFailed);
    expect(await everything()).toEqual(before);
  });

  test.skipIf(!isThere)("all of it is in the audit log, and the chain holds", async () => {
    const { rows } = await admin("SHOW AUDIT LOG LIMIT 10000");
    const details = rows.map(({ detail }) => String(detail));
    for (const part of ["CREATE USER", "DROP USER", "CREATE TENANT", "ALTER API KEY"]) {
      expect(
        details.some((detail) => detail.includes(part)),
        part,
      ).toBe(true);
    }
    for (const password of passwords.values()) expect(JSON.stringify(rows)).not.toContain(password);
    expect((await admin("VERIFY AUDIT CHAIN")).rows[0]).toMatchObject({ status: "ok" });
  });
}
