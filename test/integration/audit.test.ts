/** The audit log: its chain under a superuser's hands, two writers on one chain, and statements that leave an entry or none. */

import { createHash, randomUUID } from "node:crypto";
import type { Pool } from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { AuditLog } from "../../src/catalog/audit-log.ts";
import { createAdminPool } from "../../src/catalog/connection.ts";
import { createLog } from "../../src/observe/log.ts";
import { type CatalogStack, openCatalogStack } from "../support/catalog-stack.ts";
import { startFrontEnd } from "../support/front-end.ts";
import { hasDebianPostgres, startPostgres, type TestPostgres } from "../support/postgres.ts";
import { openClient, runOnce, stateOf } from "../support/stage.ts";
import { until } from "../support/until.ts";

const versions = hasDebianPostgres ? (["embedded", "debian"] as const) : (["embedded"] as const);

describe.each(versions)("on %s PostgreSQL", (version) => {
  let postgres: TestPostgres;
  let stack: CatalogStack;
  let secondPool: Pool;
  let second: AuditLog;
  const silent = createLog({ level: "silent", format: "json" });

  beforeAll(async () => {
    postgres = await startPostgres({ version });
    stack = await openCatalogStack(postgres, { isEmbedded: true });
    secondPool = createAdminPool(
      { host: postgres.socketDir, port: postgres.port, user: "postgres", database: "nodedb" },
      2,
    );
    second = new AuditLog({
      pool: secondPool,
      changes: stack.catalog.changes,
      key: createHash("sha256").update("audit chain").digest(),
      level: "full",
      log: silent,
    });
  });

  afterAll(async () => {
    await second?.close();
    await secondPool?.end();
    await stack?.close();
    await postgres?.dispose();
  });

  const verify = () => stack.run("root_user", "VERIFY AUDIT CHAIN");
  const rows = async (sql: string) => {
    const result = await stack.run("root_user", sql);
    return result === "forward" ? [] : (result.table?.rows ?? []);
  };
  /** Runs SQL as a superuser who has switched the triggers off. */
  const tamper = async (sql: string) => {
    await stack.sql("ALTER TABLE nodedb.audit_log DISABLE TRIGGER ALL");
    await stack.sql(sql);
    await stack.sql("ALTER TABLE nodedb.audit_log ENABLE ALWAYS TRIGGER audit_log_is_append_only");
  };

  test("two writers append to one chain without a gap", async () => {
    const { audit } = stack.deps;
    for (let round = 0; round < 20; round += 1) {
      for (let index = 0; index < 10; index += 1) {
        audit.record({ event: "AuthSuccess", username: `first ${index}`, source: "10.0.0.1" });
        second.record({ event: "AuthFailure", username: `second ${index}`, detail: "wrong_password" });
      }
      // The first batches one after the other, so that it is known what stands at the beginning.
      if (round === 0) await audit.flush();
      await Promise.all([audit.flush(), second.flush()]);
    }
    const [{ count, last } = {}] = await stack.sql(
      "SELECT count(*)::int4, max(seq)::int4 AS last FROM nodedb.audit_log",
    );
    expect(count).toBe(last);
    expect(count).toBeGreaterThanOrEqual(400);
    expect(await verify()).toMatchObject({ table: { rows: [["ok", BigInt(String(count))]] } });
  });

  test("a change and its entry come together, and a refused one leaves an entry of the refusal only", async () => {
    await stack.run(
      "root_user",
      "CREATE USER auditor_a PASSWORD 'very secret 1' ROLE readonly VALID UNTIL '2999-01-01'",
    );
    await stack.run("root_user", "ALTER USER auditor_a SET ROLE readwrite");
    await expect(
      stack.run("auditor_a", "CREATE USER auditor_b PASSWORD 'very secret 2'"),
    ).rejects.toMatchObject({
      condition: "insufficient_privilege",
    });
    await expect(
      stack.run("root_user", "CREATE USER auditor_a PASSWORD 'very secret 3'"),
    ).rejects.toMatchObject({ condition: "duplicate_object" });
    const found = await rows("SHOW AUDIT LOG WHERE event <> 'AuthSuccess' AND event <> 'AuthFailure'");
    expect(found.map((row) => [row[2], row[3], row[7]])).toEqual([
      [
        "AuthzDenied",
        "auditor_a",
        'CREATE USER "auditor_b": permission denied: only an admin may create users',
      ],
      ["PrivilegeChange", "root_user", 'ALTER USER "auditor_a" SET ROLE "readwrite"'],
      ["AdminAction", "root_user", 'CREATE USER "auditor_a" ROLE "readonly"'],
    ]);
    const [{ text } = {}] = await stack.sql(
      "SELECT json_agg(to_jsonb(a) - 'hash' - 'at')::text AS text FROM nodedb.audit_log a",
    );
    expect(text).not.toMatch(/very secret|2999|SCRAM/);
  });

  test("conditions are values, unknown columns are named, and only superusers read it", async () => {
    expect(await rows("SHOW AUDIT LOG")).toHaveLength(100);
    const newest = await rows("SHOW AUDIT LOG LIMIT 3");
    expect(newest).toHaveLength(3);
    expect(Number(newest[0]?.[0])).toBeGreaterThan(Number(newest[2]?.[0]));
    expect(await rows(`SHOW AUDIT LOG WHERE seq <= '7' AND username >= 'first 0'`)).not.toHaveLength(0);
    expect(await rows(`SHOW AUDIT LOG WHERE username = ''' OR true --'`)).toHaveLength(0);
    expect(await rows(`SHOW AUDIT LOG WHERE timestamp > '2000-01-01' LIMIT 1`)).toHaveLength(1);
    await expect(rows("SHOW AUDIT LOG WHERE hash = 'x'")).rejects.toMatchObject({ sqlstate: "42703" });
    await expect(rows("SHOW AUDIT LOG WHERE constructor = 'x'")).rejects.toMatchObject({ sqlstate: "42703" });
    await expect(rows("SHOW AUDIT LOG WHERE seq = 'x'")).rejects.toMatchObject({ sqlstate: "22023" });
    await expect(rows("SHOW AUDIT LOG WHERE timestamp > 'x'")).rejects.toMatchObject({ sqlstate: "22007" });
    for (const sql of ["SHOW AUDIT LOG", "VERIFY AUDIT CHAIN"]) {
      await expect(stack.run("auditor_a", sql)).rejects.toMatchObject({ sqlstate: "42501" });
    }
  });

  test("nobody may change, remove or truncate entries", async () => {
    await stack.deps.audit.flush();
    const before = await stack.sql("SELECT * FROM nodedb.audit_log ORDER BY seq");
    for (const sql of [
      "UPDATE nodedb.audit_log SET detail = 'x' WHERE seq = 1",
      "DELETE FROM nodedb.audit_log WHERE seq = 1",
      "TRUNCATE nodedb.audit_log",
      "SET session_replication_role = replica; DELETE FROM nodedb.audit_log",
      "DELETE FROM nodedb.audit_head",
      "TRUNCATE nodedb.audit_head",
    ]) {
      expect(await stateOf(stack.sql(sql)), sql).toBe("42501");
    }
    expect(await stack.sql("SELECT * FROM nodedb.audit_log ORDER BY seq")).toEqual(before);
  });

  describe("a superuser who switches the triggers off is found out", () => {
    afterEach(async () => {
      await tamper(
        "DELETE FROM nodedb.audit_log; INSERT INTO nodedb.audit_log SELECT * FROM public.audit_copy",
      );
      await stack.sql("UPDATE nodedb.audit_head SET (seq, hash) = (SELECT seq, hash FROM public.head_copy)");
      await stack.sql("DROP TABLE public.audit_copy, public.head_copy");
      expect(await verify()).toMatchObject({ tag: "VERIFY AUDIT CHAIN" });
    });

    const columns: readonly (readonly [string, string])[] = [
      ["at", "at + '1 microsecond'::interval"],
      ["event", "'AuthSuccess '"],
      ["username", "coalesce(username, '') || 'x'"],
      ["tenant_id", "coalesce(tenant_id, 0) + 1"],
      ["source", "coalesce(source, '') || 'x'"],
      ["session_id", "'00000000-0000-4000-8000-000000000000'"],
      ["detail", "coalesce(detail, '') || ' '"],
      ["hash", "sha256(hash)"],
    ];
    const edits: readonly (readonly [string, string, string])[] = [
      ...columns.map(
        ([column, value]) =>
          [
            `an edit of ${column}`,
            `UPDATE nodedb.audit_log SET ${column} = ${value} WHERE seq = 5`,
            "5",
          ] as const,
      ),
      ["a deletion", "DELETE FROM nodedb.audit_log WHERE seq = 9", "9"],
      [
        "a deletion that closes the gap",
        "DELETE FROM nodedb.audit_log WHERE seq = 9; UPDATE nodedb.audit_log SET seq = seq - 1000000 WHERE seq > 9; UPDATE nodedb.audit_log SET seq = seq + 999999 WHERE seq < 0",
        "9",
      ],
      ["deleting the beginning", "DELETE FROM nodedb.audit_log WHERE seq < 4", "1"],
      [
        "an insertion before the beginning",
        "INSERT INTO nodedb.audit_log SELECT 0, at, event, username, tenant_id, source, session_id, detail, hash FROM nodedb.audit_log WHERE seq = 1",
        "0",
      ],
      [
        "an insertion in the middle that moves the rest",
        "UPDATE nodedb.audit_log SET seq = -1 - seq WHERE seq >= 7; UPDATE nodedb.audit_log SET seq = -seq WHERE seq < 0; INSERT INTO nodedb.audit_log SELECT 7, at, event, username, tenant_id, source, session_id, 'forged', hash FROM nodedb.audit_log WHERE seq = 6",
        "7",
      ],
      [
        "an insertion behind the end",
        "INSERT INTO nodedb.audit_log SELECT seq + 1, at, event, username, tenant_id, source, session_id, 'forged', hash FROM nodedb.audit_log ORDER BY seq DESC LIMIT 1; UPDATE nodedb.audit_head SET seq = seq + 1",
        "end",
      ],
      [
        "an emptied log with a head that begins anew",
        "DELETE FROM nodedb.audit_log; UPDATE nodedb.audit_head SET seq = 0, hash = decode(repeat('00', 32), 'hex')",
        "1",
      ],
      [
        "swapped entries",
        "UPDATE nodedb.audit_log SET seq = -seq WHERE seq IN (11, 12); UPDATE nodedb.audit_log SET seq = 23 + seq WHERE seq < 0",
        "11",
      ],
      [
        "a text moved into the next field",
        "UPDATE nodedb.audit_log SET source = left(username, 1) || source, username = substr(username, 2) WHERE seq = (SELECT min(seq) FROM nodedb.audit_log WHERE source = '10.0.0.1')",
        "1",
      ],
      ["cutting the tail with the head left", "DELETE FROM nodedb.audit_log WHERE seq > 20", "21"],
      [
        "cutting the tail and setting the head back",
        "DELETE FROM nodedb.audit_log WHERE seq > 20; UPDATE nodedb.audit_head SET (seq, hash) = (SELECT seq, hash FROM nodedb.audit_log WHERE seq = 20)",
        "21",
      ],
    ];

    test.each(edits)("%s", async (_name, sql, seq) => {
      await stack.deps.audit.flush();
      await second.flush();
      await stack.sql(
        "CREATE TABLE public.audit_copy AS TABLE nodedb.audit_log; CREATE TABLE public.head_copy AS TABLE nodedb.audit_head",
      );
      const [{ next } = {}] = await stack.sql("SELECT (seq + 1)::text AS next FROM nodedb.audit_head");
      await tamper(sql);
      await expect(verify()).rejects.toMatchObject({
        sqlstate: "XX001",
        message: `audit chain is broken at sequence number ${seq === "end" ? String(next) : seq}`,
      });
    });
  });

  test("an entry forged with a bare SHA-256 does not fit: the key is not in PostgreSQL", async () => {
    await stack.sql("CREATE TABLE public.audit_copy AS TABLE nodedb.audit_log");
    await stack.sql("CREATE TABLE public.head_copy AS TABLE nodedb.audit_head");
    await stack.sql(
      `INSERT INTO nodedb.audit_log SELECT h.seq + 1, now(), 'AuthSuccess', 'x', 1, NULL, NULL, NULL, sha256(h.hash) FROM nodedb.audit_head h;
       UPDATE nodedb.audit_head SET (seq, hash) = (SELECT seq, hash FROM nodedb.audit_log ORDER BY seq DESC LIMIT 1)`,
    );
    await expect(verify()).rejects.toMatchObject({ sqlstate: "XX001" });
    await tamper("DELETE FROM nodedb.audit_log WHERE seq > (SELECT seq FROM public.head_copy)");
    await stack.sql("UPDATE nodedb.audit_head SET (seq, hash) = (SELECT seq, hash FROM public.head_copy)");
    await stack.sql("DROP TABLE public.audit_copy, public.head_copy");
  });

  test("the head is locked neither by an open transaction of a statement nor by a rolled back one", async () => {
    const client = await stack.connectAs("postgres");
    await client.query("BEGIN");
    await stack.deps.audit.recordIn(client, { event: "AdminAction", username: "open", detail: "not yet" });
    second.record({ event: "AuthSuccess", username: "meanwhile" });
    await second.flush();
    expect(await rows("SHOW AUDIT LOG WHERE username = 'meanwhile'")).toHaveLength(1);
    expect(await rows("SHOW AUDIT LOG WHERE username = 'open'")).toHaveLength(0);
    await client.query("COMMIT");
    expect(await rows("SHOW AUDIT LOG WHERE username = 'open'")).toHaveLength(1);
    await client.query("BEGIN");
    await stack.deps.audit.recordIn(client, {
      event: "AdminAction",
      username: "undone",
      sessionId: randomUUID(),
    });
    await client.query("ROLLBACK");
    await client.end();
    expect(await rows("SHOW AUDIT LOG WHERE username = 'undone'")).toHaveLength(0);
    await verify();
  });

  test("a level leaves out what it does not record", async () => {
    const minimal = new AuditLog({
      pool: secondPool,
      changes: stack.catalog.changes,
      key: createHash("sha256").update("audit chain").digest(),
      level: "minimal",
      log: silent,
    });
    minimal.record({ event: "AuthSuccess", username: "levels" });
    minimal.record({ event: "SessionConnect", username: "levels" });
    minimal.record({ event: "AuthFailure", username: "levels" });
    await minimal.close();
    expect((await rows("SHOW AUDIT LOG WHERE username = 'levels'")).map((row) => row[2])).toEqual([
      "AuthFailure",
    ]);
  });

  test("names and details that PostgreSQL could not hold, and API keys in them, are made harmless", async () => {
    second.record({
      event: "AuthFailure",
      username: "odd\0\ud800name",
      detail: `ndb_abcdefghijkl_${"s".repeat(43)}`,
    });
    await second.flush();
    const [row] = await rows("SHOW AUDIT LOG LIMIT 1");
    expect([row?.[3], row?.[7]]).toEqual(["odd\ufffdname", "ndb_[secret]"]);
    await verify();
  });
});

describe("through the program", () => {
  let postgres: TestPostgres;

  beforeAll(async () => {
    postgres = await startPostgres({ tcp: true });
  });

  afterAll(async () => {
    await postgres?.dispose();
  });

  test("nothing is lost on a clean shutdown, and at most the last 100 ms when it is killed", async () => {
    const frontEnd = await startFrontEnd({
      upstreamUrl: postgres.url,
      configuration: '[audit]\nlevel = "full"',
    });
    const { host, port, adminUser, adminPassword, dataDir, database } = frontEnd;
    const admin = { host, port, user: adminUser, password: adminPassword, database };
    const past = async (sql: string) =>
      (await runOnce({ host: postgres.socketDir, port: postgres.port, user: "postgres", database }, sql))
        .rows;
    const client = await openClient(admin);
    await client.query("CREATE USER carol PASSWORD 'carol carol'");
    expect(await stateOf(openClient({ ...admin, user: "carol", password: "wrong" }))).toBe("28P01");
    await until(
      async () => (await past("SELECT FROM nodedb.audit_log WHERE event = 'AuthFailure'")).length === 1,
    );
    const failed = performance.now();
    expect(await stateOf(openClient({ ...admin, user: "nobody", password: "wrong" }))).toBe("28P01");
    await new Promise((resume) => setTimeout(resume, 150 - (performance.now() - failed)));
    frontEnd.signal("SIGKILL");
    await frontEnd.exited;
    expect(
      await past(
        "SELECT username, source, detail FROM nodedb.audit_log WHERE event = 'AuthFailure' ORDER BY seq",
      ),
    ).toEqual([
      { username: "carol", source: "127.0.0.1", detail: "wrong_password" },
      { username: "nobody", source: "127.0.0.1", detail: "unknown_user" },
    ]);

    const again = await startFrontEnd({
      upstreamUrl: postgres.url,
      dataDir,
      configuration: '[audit]\nlevel = "full"',
    });
    await openClient({ ...admin, port: again.port, user: "carol", password: "carol carol" });
    again.signal("SIGTERM");
    await again.exited;
    const events = await past("SELECT event FROM nodedb.audit_log WHERE username = 'carol' ORDER BY seq");
    expect(events.map(({ event }) => event)).toEqual([
      "AuthFailure",
      "AuthSuccess",
      "SessionConnect",
      "SessionDisconnect",
    ]);
    const [head] = await past("SELECT seq::text, encode(hash, 'hex') AS hash FROM nodedb.audit_head");
    const logged = again
      .output()
      .trim()
      .split("\n")
      .filter((line) => line.includes("audit chain head"));
    expect(JSON.parse(logged.at(-1) ?? "{}")).toMatchObject({
      level: "info",
      seq: head?.seq,
      hash: head?.hash,
    });
    await frontEnd.close();
  });
});
