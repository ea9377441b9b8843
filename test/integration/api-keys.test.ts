/** The API keys section of the auth SQL contract, on the embedded PostgreSQL 18 and an external 15. */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { isKeySecret, keySalt, parseApiKey } from "../../src/auth/api-key.ts";
import { identityOf } from "../../src/auth/password.ts";
import { acceptedVerifiers } from "../../src/catalog/api-keys.ts";
import { parseStatement } from "../../src/ddl/parse-statement.ts";
import { SqlError } from "../../src/errors/sql-error.ts";
import type { ExecutionContext } from "../../src/exec/context.ts";
import type { StatementResult, Value } from "../../src/exec/result.ts";
import {
  createScramVerifierSync,
  formatScramVerifier,
  parseScramVerifier,
} from "../../src/scram/verifier.ts";
import { type CatalogStack, makeMasterSecret, openCatalogStack } from "../support/catalog-stack.ts";
import { hasDebianPostgres, startPostgres, type TestPostgres } from "../support/postgres.ts";
import { requireClient } from "../support/skips.ts";

const password = "PASSWORD 'long enough'";
const daysMs = 24 * 60 * 60 * 1000;

interface Made {
  readonly text: string;
  readonly keyId: string;
  readonly name: Value | undefined;
  readonly expiresAt: Value | undefined;
}

for (const version of ["embedded", "debian"] as const) {
  describe(`API keys on PostgreSQL (${version})`, () => {
    const isThere = version === "embedded" || requireClient("PostgreSQL 15 (Debian)", hasDebianPostgres);
    let postgres: TestPostgres;
    let stack: CatalogStack;
    const shown: string[] = [];

    beforeAll(async () => {
      if (!isThere) return;
      postgres = await startPostgres({ version, settings: { log_statement: "all" } });
      stack = await openCatalogStack(
        postgres,
        version === "embedded"
          ? { isEmbedded: true }
          : { isEmbedded: false, masterSecret: makeMasterSecret() },
      );
      await stack.sql("CREATE DATABASE reports", [], "postgres");
      await stack.sql("REVOKE CONNECT ON DATABASE reports FROM PUBLIC", [], "postgres");
      await stack.sql("CREATE ROLE somebodys");
      await stack.sql("INSERT INTO nodedb.tenant (id, name) VALUES (7, 'acme')");
      await run("root_user", `CREATE USER boss ${password} ROLE admin`);
      await run("root_user", `CREATE USER worker ${password}`);
      await run("root_user", `CREATE USER colleague ${password}`);
      await run("root_user", `CREATE USER acme_admin ${password} ROLE tenant_admin TENANT 7`);
      await run("root_user", "CREATE SERVICE ACCOUNT etl FOR DATABASE nodedb, reports");
    });

    afterAll(async () => {
      await stack?.close();
      await postgres?.dispose();
    });

    const test = it.skipIf(!isThere);

    async function run(
      user: string,
      sql: string,
      context?: Partial<ExecutionContext>,
    ): Promise<StatementResult> {
      const result = await stack.run(user, sql, context);
      if (result === "forward") expect.fail(`forwarded: ${sql}`);
      return result;
    }

    async function make(user: string, sql: string, context?: Partial<ExecutionContext>): Promise<Made> {
      const { table } = await run(user, sql, context);
      const [text, keyId, name, expiresAt] = table?.rows[0] ?? [];
      shown.push(String(text));
      return { text: String(text), keyId: String(keyId), name, expiresAt };
    }

    async function shownKey(name: string): Promise<readonly Value[] | undefined> {
      const { table } = await run("root_user", "SHOW API KEYS");
      return table?.rows.find((row) => row[0] === name);
    }

    /** Runs a statement that must be refused, and checks that it changed nothing. */
    async function refused(
      user: string,
      sql: string,
      context?: Partial<ExecutionContext>,
    ): Promise<SqlError> {
      const before = await stack.snapshot();
      const outcome = await stack.run(user, sql, context).catch((error: unknown) => error);
      expect(outcome, sql).toBeInstanceOf(SqlError);
      expect(await stack.snapshot()).toBe(before);
      return outcome as SqlError;
    }

    function principal(name: string) {
      const record = stack.catalog.cache.findByName(name);
      if (record === undefined) expect.fail(`there is no ${name}`);
      return record;
    }

    /** The key as the cache has it, which logins ask. */
    function cached(keyId: string) {
      for (const owner of stack.catalog.cache.all()) {
        const found = stack.catalog.cache.keysOf(owner.id).find((key) => key.keyId === keyId);
        if (found !== undefined) return found;
      }
      return undefined;
    }

    function isAccepted({ text, keyId }: Made, now = new Date()): boolean {
      const key = cached(keyId);
      const presented = parseApiKey(text);
      if (key === undefined || presented === undefined) return false;
      return acceptedVerifiers(key, now).some((verifiers) =>
        isKeySecret(presented.secret, verifiers.secretHash),
      );
    }

    /** Says that a session is open which this key has opened. */
    function openSession({ keyId }: Made, owner: string, database: string): Partial<ExecutionContext> {
      const identity = identityOf(principal(owner), "scram-sha-256", cached(keyId));
      stack.live.add({ identity, database });
      return { identity };
    }

    describe("CREATE", () => {
      test("a stand-alone key is a principal with the role, in the creator's tenant", async () => {
        const result = await run("boss", "CREATE API KEY 'ci' ROLE readonly");
        expect(result.tag).toBe("CREATE API KEY");
        expect(result.table?.columns.map((column) => `${column.name} ${column.type}`)).toEqual([
          "api_key text",
          "key_id text",
          "name text",
          "expires_at timestamptz",
        ]);
        const [text, keyId, name, expiresAt] = result.table?.rows[0] ?? [];
        shown.push(String(text));
        expect(text).toMatch(/^ndb_[a-z2-7]{12}_[A-Za-z0-9_-]{43}$/);
        expect([name, expiresAt]).toEqual(["ci", null]);
        expect(parseApiKey(String(text))?.keyId).toBe(keyId);
        expect(principal("ci")).toMatchObject({ kind: "api_key", tenantId: 1, roles: ["readonly"] });
        const client = await stack.connectAs("ci");
        await client.end();
      });

      test("its databases let it in", async () => {
        await make("boss", "CREATE API KEY ci2 ROLE readonly WITH DATABASES (reports)");
        expect(principal("ci2").databases).toEqual(["reports"]);
        expect(identityOf(principal("ci2"), "scram-sha-256")).toMatchObject({
          databases: ["reports"],
          defaultDatabase: "reports",
        });
        const client = await stack.connectAs("ci2", "reports");
        await client.end();
        await run("boss", "ALTER API KEY ci2 SET DATABASES (nodedb)");
        await expect(stack.connectAs("ci2", "reports")).rejects.toMatchObject({ code: "42501" });
      });

      test("stores the hash of the secret and a SCRAM verifier of the whole key", async () => {
        const made = await make("boss", "CREATE API KEY k1 FOR USER worker");
        const key = cached(made.keyId);
        expect(isAccepted(made)).toBe(true);
        const salt = parseScramVerifier(principal("worker").scramVerifier ?? "")?.salt ?? Buffer.alloc(0);
        expect(key?.current.scramVerifier).toBe(
          formatScramVerifier(createScramVerifierSync(made.text, { iterations: 4096, salt })),
        );
        const [row] = await stack.sql(
          "SELECT to_jsonb(k)::text AS text FROM nodedb.api_key k WHERE name = 'k1'",
        );
        expect(String(row?.text)).not.toContain(made.text.slice(-43));
      });

      test("hashes the first key of an owner without a password with a salt that nobody else has", async () => {
        const made = await make("boss", "CREATE API KEY k0 FOR SERVICE ACCOUNT etl");
        const salt = keySalt(stack.deps.apiKeySaltSecret, { ownerId: principal("etl").id });
        expect(cached(made.keyId)?.current.scramVerifier).toBe(
          formatScramVerifier(createScramVerifierSync(made.text, { iterations: 4096, salt })),
        );
      });

      test("a new password is hashed as the keys are, and tells which keys another one cuts off", async () => {
        const saltOf = (text: string | undefined) => parseScramVerifier(text ?? "")?.salt;
        await run("boss", `CREATE USER rotating ${password}`);
        const first = await make("boss", "CREATE API KEY p1 FOR rotating");
        const keysSalt = saltOf(cached(first.keyId)?.current.scramVerifier);
        expect(keysSalt).toEqual(saltOf(principal("rotating").scramVerifier));
        expect((await run("boss", "ALTER USER rotating PASSWORD 'another one'")).notices).toEqual([]);
        expect(saltOf(principal("rotating").scramVerifier)).toEqual(keysSalt);

        const foreign = formatScramVerifier(
          createScramVerifierSync("hashed by psql", { iterations: 4096, salt: Buffer.alloc(16, 9) }),
        );
        expect((await run("boss", `ALTER USER rotating PASSWORD '${foreign}'`)).notices).toEqual([
          'API keys that can no longer be used as the password of this user, until ALTER API KEY … ROTATE: "p1"',
        ]);
        const rotated = await make("boss", "ALTER API KEY p1 ROTATE");
        expect(saltOf(cached(rotated.keyId)?.current.scramVerifier)).toEqual(Buffer.alloc(16, 9));

        await run("boss", "DROP API KEY p1");
        await run("boss", "ALTER USER rotating PASSWORD 'yet another one'");
        expect(saltOf(principal("rotating").scramVerifier)).not.toEqual(Buffer.alloc(16, 9));
      });

      test("keys of one owner share salt and iterations, those of another one do not", async () => {
        const first = await make("worker", "CREATE API KEY k2 FOR CURRENT_USER");
        const second = await make("boss", "CREATE API KEY k3 FOR worker");
        const other = await make("boss", "CREATE API KEY k4 FOR SERVICE ACCOUNT etl");
        const [a, b, c] = [first, second, other].map(({ keyId }) =>
          parseScramVerifier(cached(keyId)?.current.scramVerifier ?? ""),
        );
        expect(b).toMatchObject({ salt: a?.salt, iterations: a?.iterations });
        expect(b?.storedKey).not.toEqual(a?.storedKey);
        expect(c?.salt).not.toEqual(a?.salt);
      });

      test("a key without a name is called by its key id", async () => {
        const made = await make("worker", "CREATE API KEY FOR worker");
        expect(made.name).toBe(made.keyId);
        await run("worker", `DROP API KEY '${made.keyId}'`);
      });

      test("EXPIRES takes an interval or seconds", async () => {
        const start = Date.now();
        const days = await make("boss", "CREATE API KEY x1 FOR worker EXPIRES IN '90 days'");
        const seconds = await make("boss", "CREATE API KEY x2 FOR worker EXPIRES 3600");
        const distance = (made: Made) => (cached(made.keyId)?.expiresAt?.getTime() ?? 0) - start;
        expect(Math.abs(distance(days) - 90 * daysMs)).toBeLessThan(10_000);
        expect(Math.abs(distance(seconds) - 3_600_000)).toBeLessThan(10_000);
        expect(days.expiresAt).toMatchObject({ text: expect.stringMatching(/^\d{4}-\d\d-\d\d .*\+00$/) });
        expect(isAccepted(seconds)).toBe(true);
        expect(isAccepted(seconds, new Date(start + 3_700_000))).toBe(false);
      });

      test.each([
        ["CREATE API KEY e1 FOR worker EXPIRES IN 'soon'", "22007"],
        ["CREATE API KEY e1 FOR worker EXPIRES IN '-1 day'", "22023"],
        ["CREATE API KEY e1 FOR worker EXPIRES IN '0 days'", "22023"],
        ["CREATE API KEY e1 FOR worker EXPIRES IN '999999999 years'", "22023"],
        ["CREATE API KEY e1 FOR nobody", "42704"],
        ["CREATE API KEY e1 FOR somebodys", "42704"],
        ["CREATE API KEY e1 FOR postgres", "42501"],
        ["CREATE API KEY e1 FOR acme_admin", "42704"],
        ["CREATE API KEY e1 FOR USER etl", "42809"],
        ["CREATE API KEY e1 FOR SERVICE ACCOUNT worker", "42809"],
        ["CREATE API KEY e1 FOR ci", "42809"],
        ["CREATE API KEY e1 FOR root_user", "42501"],
        ["CREATE API KEY e1 FOR worker WITH DATABASES (nowhere)", "3D000"],
        ["CREATE API KEY e1 FOR worker WITH DATABASES (nodedb, reports)", "42501"],
        ["CREATE API KEY e1 FOR worker WITH DATABASES ()", "42601"],
        ["CREATE API KEY e1 FOR etl WITH DATABASES (postgres)", "42501"],
        ["CREATE API KEY e1 ROLE nothing", "42704"],
        ["CREATE API KEY e1 ROLE superuser", "42501"],
        ["CREATE API KEY e1 ROLE readonly WITH DATABASES (nowhere)", "3D000"],
        ["CREATE API KEY worker ROLE readonly", "42710"],
        ["CREATE API KEY postgres ROLE readonly", "42710"],
        ["CREATE API KEY ci ROLE readonly", "42710"],
        ["CREATE API KEY k1 ROLE readonly", "42710"],
        ["CREATE API KEY k1 FOR worker", "42710"],
        ["CREATE API KEY nodedb_x ROLE readonly", "42939"],
        ["CREATE API KEY '' FOR worker", "42601"],
        [`CREATE API KEY ${"x".repeat(64)} FOR worker`, "22023"],
        [`CREATE USER ci ${password}`, "42710"],
        [`ALTER USER ci ${password}`, "42809"],
        ["DROP USER ci", "42809"],
      ])("refuses %s with %s", async (sql, sqlstate) => {
        expect(await refused("boss", sql)).toMatchObject({ sqlstate });
      });

      test("lets a user make its own keys only, and an admin no stand-alone one above itself", async () => {
        expect(await refused("worker", "CREATE API KEY e1 FOR colleague")).toMatchObject({
          sqlstate: "42501",
        });
        expect(await refused("worker", "CREATE API KEY e1 FOR nobody")).toMatchObject({ sqlstate: "42501" });
        expect(await refused("worker", "CREATE API KEY e1 ROLE readonly")).toMatchObject({
          sqlstate: "42501",
        });
      });

      test("two administrators at once: one key of the name", async () => {
        const outcomes = await Promise.allSettled([
          make("boss", "CREATE API KEY twin FOR worker"),
          make("root_user", "CREATE API KEY twin ROLE readonly"),
        ]);
        expect(outcomes.map((outcome) => outcome.status).sort()).toEqual(["fulfilled", "rejected"]);
        expect(outcomes.find((outcome) => outcome.status === "rejected")?.reason).toMatchObject({
          sqlstate: "42710",
        });
      });

      test("comes to the same key and the same end however often it is run", async () => {
        const statement = parseStatement("CREATE API KEY again FOR worker EXPIRES IN '1 hour'");
        if (statement === "forward") expect.fail("forwarded");
        const context = {
          identity: identityOf(principal("boss"), "scram-sha-256"),
          sessionId: "s",
          database: "nodedb",
          dateStyle: "ISO, MDY",
          timeZone: "UTC",
          materials: new Map(),
        };
        const first = await stack.executor.execute(statement, context);
        await run("boss", "DROP API KEY again");
        expect(await stack.executor.execute(statement, context)).toEqual(first);
      });
    });

    describe("ALTER", () => {
      test("SET DATABASES narrows, and closes the key's sessions elsewhere", async () => {
        const made = await make("boss", "CREATE API KEY a1 FOR etl");
        openSession(made, "etl", "reports");
        openSession(made, "etl", "nodedb");
        expect((await run("boss", "ALTER API KEY a1 SET DATABASES (nodedb)")).tag).toBe("ALTER API KEY");
        expect([...stack.live].map((session) => session.database)).toEqual(["nodedb"]);
        stack.live.clear();
        for (const [sql, sqlstate] of [
          ["ALTER API KEY a1 SET DATABASES (nowhere)", "3D000"],
          ["ALTER API KEY a1 SET DATABASES (postgres)", "42501"],
          ["ALTER API KEY nothing SET DATABASES (nodedb)", "42704"],
        ] as const) {
          expect(await refused("boss", sql)).toMatchObject({ sqlstate });
        }
        expect(await refused("worker", "ALTER API KEY a1 SET DATABASES (nodedb)")).toMatchObject({
          sqlstate: "42501",
        });
        expect(await refused("acme_admin", "ALTER API KEY a1 SET DATABASES (nodedb)")).toMatchObject({
          sqlstate: "42704",
        });
      });

      test("keys are narrowed with their service account, and widened with it again", async () => {
        await make("boss", "CREATE API KEY a2 FOR etl WITH DATABASES (reports, nodedb)");
        expect((await shownKey("a2"))?.[4]).toBe("reports, nodedb");
        await run("boss", "ALTER SERVICE ACCOUNT etl SET DATABASES (nodedb)");
        expect((await shownKey("a2"))?.[4]).toBe("nodedb");
        await run("boss", "ALTER SERVICE ACCOUNT etl SET DATABASES (nodedb, reports)");
        expect((await shownKey("a2"))?.[4]).toBe("reports, nodedb");
      });

      test("ROTATE gives a new secret under the same key id, and ends the old one", async () => {
        const before = await make("boss", "CREATE API KEY r1 FOR worker");
        const result = await run("worker", "ALTER API KEY r1 ROTATE");
        expect(result.tag).toBe("ALTER API KEY");
        const [text, keyId, name] = result.table?.rows[0] ?? [];
        shown.push(String(text));
        expect([keyId, name]).toEqual([before.keyId, "r1"]);
        const after = { ...before, text: String(text) };
        expect(after.text).not.toBe(before.text);
        expect([isAccepted(before), isAccepted(after)]).toEqual([false, true]);
      });

      test("ROTATE OVERLAP keeps the old secret for that long, also of a stand-alone key", async () => {
        for (const holder of ["FOR worker", "ROLE readonly"]) {
          const before = await make("boss", `CREATE API KEY r2 ${holder}`);
          const after = await make("boss", "ALTER API KEY r2 ROTATE OVERLAP '24h'");
          expect([isAccepted(before), isAccepted(after)]).toEqual([true, true]);
          const later = new Date(Date.now() + 2 * daysMs);
          expect([isAccepted(before, later), isAccepted(after, later)]).toEqual([false, true]);
          const key = cached(after.keyId);
          const salts = [key?.current, key?.previous].map(
            (verifiers) => parseScramVerifier(verifiers?.scramVerifier ?? "")?.salt,
          );
          expect(salts[0]).toEqual(salts[1]);
          await run("boss", "DROP API KEY r2");
        }
        expect(await refused("boss", "ALTER API KEY r1 ROTATE OVERLAP '-1 hour'")).toMatchObject({
          sqlstate: "22023",
        });
        expect(await refused("boss", "ALTER API KEY r1 ROTATE OVERLAP 'a while'")).toMatchObject({
          sqlstate: "22007",
        });
        expect(await refused("boss", "ALTER API KEY nothing ROTATE")).toMatchObject({ sqlstate: "42704" });
        expect(await refused("colleague", "ALTER API KEY r1 ROTATE")).toMatchObject({ sqlstate: "42501" });
      });

      test("a session that a narrowed key has opened makes itself no wider one", async () => {
        const narrow = await make("boss", "CREATE API KEY n1 FOR etl WITH DATABASES (nodedb)");
        const wide = await make("boss", "CREATE API KEY n2 FOR etl");
        const context = openSession(narrow, "etl", "nodedb");
        for (const sql of [
          "CREATE API KEY n3 FOR CURRENT_USER",
          "CREATE API KEY n3 FOR etl WITH DATABASES (nodedb, reports)",
          "ALTER API KEY n1 SET DATABASES (reports)",
          "ALTER API KEY n2 ROTATE",
        ]) {
          expect(await refused("etl", sql, context)).toMatchObject({ sqlstate: "42501" });
        }
        await make("etl", "CREATE API KEY n3 FOR CURRENT_USER WITH DATABASES (nodedb)", context);
        await make("etl", "ALTER API KEY n1 ROTATE", context);
        await make("etl", "CREATE API KEY n4 FOR CURRENT_USER", openSession(wide, "etl", "nodedb"));
        stack.live.clear();
      });

      test("a stand-alone key that is no admin does not widen itself", async () => {
        const made = await make("boss", "CREATE API KEY n5 ROLE readonly WITH DATABASES (nodedb)");
        const context = openSession(made, "n5", "nodedb");
        stack.live.clear();
        expect(await refused("n5", "ALTER API KEY n5 SET DATABASES (reports)", context)).toMatchObject({
          sqlstate: "42501",
        });
        expect(await refused("n5", "CREATE API KEY FOR CURRENT_USER", context)).toMatchObject({
          sqlstate: "42809",
        });
      });
    });

    describe("DROP and REVOKE", () => {
      test("REVOKE ends a key and its sessions, and the key stays to be seen", async () => {
        const made = await make("boss", "CREATE API KEY v1 FOR worker");
        const other = await make("boss", "CREATE API KEY v2 FOR worker");
        openSession(made, "worker", "nodedb");
        openSession(other, "worker", "nodedb");
        stack.live.add({ identity: identityOf(principal("worker"), "scram-sha-256"), database: "nodedb" });
        expect((await run("worker", `REVOKE API KEY '${made.keyId}'`)).tag).toBe("REVOKE API KEY");
        expect([...stack.live].map((session) => session.identity.keyId)).toEqual([other.keyId, undefined]);
        expect([isAccepted(made), isAccepted(other)]).toEqual([false, true]);
        expect((await shownKey("v1"))?.[6]).toBe(true);
        expect((await shownKey("v2"))?.[6]).toBe(false);
        expect(await refused("boss", "ALTER API KEY v1 ROTATE")).toMatchObject({ sqlstate: "55000" });
        expect((await run("boss", `REVOKE API KEY '${made.keyId}'`)).tag).toBe("REVOKE API KEY");
        expect(await refused("boss", "REVOKE API KEY 'aaaaaaaaaaaa'")).toMatchObject({ sqlstate: "42704" });
        expect(await refused("colleague", `REVOKE API KEY '${other.keyId}'`)).toMatchObject({
          sqlstate: "42501",
        });
        expect(await refused("acme_admin", `REVOKE API KEY '${other.keyId}'`)).toMatchObject({
          sqlstate: "42704",
        });
        expect((await run("worker", "DROP API KEY v2")).tag).toBe("DROP API KEY");
        expect([...stack.live].map((session) => session.identity.keyId)).toEqual([undefined]);
        stack.live.clear();
      });

      test("DROP removes a stand-alone key with its role, and refuses while it owns objects", async () => {
        const made = await make("boss", "CREATE API KEY d1 ROLE readwrite");
        openSession(made, "d1", "nodedb");
        await stack.sql("GRANT CREATE ON SCHEMA public TO d1");
        const client = await stack.connectAs("d1");
        await client.query("CREATE TABLE public.of_d1 (id int)");
        expect(await refused("boss", "DROP API KEY d1")).toMatchObject({
          sqlstate: "2BP01",
          detail: "owner of table public.of_d1",
        });
        await client.query("DROP TABLE public.of_d1");
        await client.end();
        await run("boss", "DROP API KEY d1");
        expect(stack.live.size).toBe(0);
        expect(cached(made.keyId)).toBeUndefined();
        expect(stack.catalog.cache.findByName("d1")).toBeUndefined();
        expect(await stack.sql("SELECT FROM pg_roles WHERE rolname = 'd1'")).toEqual([]);
      });

      test("a missing key is 42704, or a notice with IF EXISTS", async () => {
        expect(await refused("boss", "DROP API KEY d1")).toMatchObject({
          sqlstate: "42704",
          message: 'API key "d1" does not exist',
        });
        expect(await run("worker", "DROP API KEY IF EXISTS d1")).toEqual({
          tag: "DROP API KEY",
          notices: ['API key "d1" does not exist, skipping'],
        });
        expect(await refused("colleague", "DROP API KEY k1")).toMatchObject({ sqlstate: "42501" });
        expect(await refused("acme_admin", "DROP API KEY k1")).toMatchObject({ sqlstate: "42704" });
      });

      test("the keys of a dropped user go with it", async () => {
        await run("root_user", `CREATE USER leaver ${password}`);
        const made = await make("boss", "CREATE API KEY of_leaver FOR leaver");
        await run("boss", "DROP USER leaver");
        expect(cached(made.keyId)).toBeUndefined();
        expect(await shownKey("of_leaver")).toBeUndefined();
      });
    });

    describe("SHOW", () => {
      test("gives a superuser all keys and others their own, never a secret", async () => {
        const all = await run("root_user", "SHOW API KEYS");
        expect(all.tag).toBe("SHOW");
        expect(all.table?.columns.map((column) => `${column.name} ${column.type}`)).toEqual([
          "name text",
          "key_id text",
          "owner text",
          "role text",
          "databases text",
          "expires_at timestamptz",
          "revoked bool",
          "created_at timestamptz",
          "last_used_at timestamptz",
        ]);
        expect((await shownKey("k1"))?.slice(2, 7)).toEqual([
          "worker",
          "readwrite",
          "(inherit)",
          null,
          false,
        ]);
        expect((await shownKey("ci"))?.slice(2, 5)).toEqual(["ci", "readonly", "(inherit)"]);
        const own = await run("worker", "LIST API KEYS");
        expect(own.table?.rows.length).toBeGreaterThan(2);
        expect(new Set(own.table?.rows.map((row) => row[2]))).toEqual(new Set(["worker"]));
        expect((await run("worker", "SHOW API KEYS FOR worker")).table).toEqual(own.table);
        expect((await run("root_user", "SHOW API KEYS FOR worker")).table).toEqual(own.table);
        expect(await refused("worker", "SHOW API KEYS FOR colleague")).toMatchObject({ sqlstate: "42501" });
        expect(await refused("root_user", "SHOW API KEYS FOR nobody")).toMatchObject({ sqlstate: "42704" });
      });

      test("shows a use of a key as soon as it was noted", async () => {
        const [, keyId] = (await shownKey("k1")) ?? [];
        expect((await shownKey("k1"))?.[8]).toBeNull();
        stack.catalog.recordKeyUse(String(keyId));
        expect((await shownKey("k1"))?.[8]).not.toBeNull();
      });
    });

    test("no key, secret or verifier is in PostgreSQL's log or pg_stat_activity", async () => {
      const verifiers = await stack.sql(
        "SELECT scram_verifier AS v, encode(secret_hash, 'hex') AS h FROM nodedb.api_key",
      );
      const activity = await stack.sql("SELECT string_agg(query, E'\\n') AS text FROM pg_stat_activity");
      const log = `${postgres.readLog()}\n${String(activity[0]?.text)}`;
      expect(log).toContain("CREATE ROLE");
      expect(shown.length).toBeGreaterThan(20);
      const secrets = [
        ...shown.map((text) => text.slice(-43)),
        ...verifiers.flatMap(({ v, h }) => [String(v), String(h)]),
      ];
      expect(secrets.filter((secret) => log.includes(secret))).toEqual([]);
    });
  });
}
