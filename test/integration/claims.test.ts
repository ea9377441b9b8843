/** Claims end to end: who a session is inside PostgreSQL, and the rows that policies show it. */

import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type FrontEnd, startFrontEnd } from "../support/front-end.ts";
import { hasDebianPostgres, startPostgres, type TestPostgres } from "../support/postgres.ts";
import { requireClient } from "../support/skips.ts";
import { openClient, passwordOf, runOnce, stateOf } from "../support/stage.ts";

describe("before the embedded PostgreSQL", () => describeClaims("embedded", true));
describe("before PostgreSQL 15", () => {
  describeClaims("debian", requireClient("PostgreSQL 15 (postgresql-15)", hasDebianPostgres));
});

function describeClaims(kind: "embedded" | "debian", isThere: boolean): void {
  const it = test.skipIf(!isThere);
  let postgres: TestPostgres | undefined;
  let frontEnd: FrontEnd;

  beforeAll(async () => {
    if (!isThere) return;
    if (kind === "debian") postgres = await startPostgres({ version: "debian", tcp: true });
    frontEnd = await startFrontEnd(postgres === undefined ? {} : { upstreamUrl: postgres.url });
    for (const [user, role] of Object.entries({ alice: "readwrite", bob: "readwrite", boss: "admin" })) {
      await runOnce(
        as(frontEnd.adminUser),
        `CREATE USER ${user} PASSWORD '${passwordOf(user)}' ROLE ${role}`,
      );
    }
    const boss = await openClient(as("boss"));
    await boss.query("CREATE TABLE note (id int, user_id text DEFAULT auth.id())");
    await boss.query("CREATE RLS POLICY own ON note FOR ALL USING (user_id = $auth.id)");
    await boss.query("GRANT SELECT, INSERT, UPDATE, DELETE ON note TO alice, bob");
    await boss.end();
  });
  afterAll(async () => {
    await frontEnd?.close();
    await postgres?.dispose();
  });

  function as(user: string, database = frontEnd.database): pg.ClientConfig {
    const { host, port, adminUser, adminPassword } = frontEnd;
    return { host, port, database, user, password: user === adminUser ? adminPassword : passwordOf(user) };
  }

  it("every reader says what the identity is, and $auth is these readers", async () => {
    const client = await openClient(as("alice"));
    const { rows } = await client.query(
      `SELECT auth.id() AS id, auth.role() AS role, auth.roles() AS roles, auth.org_id() AS org_id, auth.tenant_id() AS tenant_id,
              auth.scopes() AS scopes, auth.email() AS email, auth.has_scope('read') AS has_scope, auth.claim('id') AS claim`,
    );
    expect(rows).toEqual([
      {
        id: "alice",
        role: "readwrite",
        roles: ["readwrite"],
        org_id: null,
        tenant_id: "1",
        scopes: null,
        email: null,
        has_scope: false,
        claim: "alice",
      },
    ]);
    const rewritten = await client.query(
      "SELECT $auth.id AS id, $auth.roles AS roles, $auth.tenant_id AS tenant_id, $auth.scopes CONTAINS 'read' AS has_scope",
    );
    expect(rewritten.rows).toEqual([{ id: "alice", roles: ["readwrite"], tenant_id: "1", has_scope: false }]);
    await client.end();
  });

  it("each user sees and writes its own rows only, by the simple, the extended and the prepared way", async () => {
    const alice = await openClient(as("alice"));
    const bob = await openClient(as("bob"));
    await alice.query("INSERT INTO note (id) VALUES (1)");
    await bob.query("INSERT INTO note (id) VALUES ($1)", [2]);
    expect((await alice.query("SELECT * FROM note")).rows).toEqual([{ id: 1, user_id: "alice" }]);
    expect((await bob.query("SELECT id FROM note WHERE id < $1", [9])).rows).toEqual([{ id: 2 }]);
    for (let turn = 0; turn < 8; turn += 1) {
      const prepared = {
        name: "own",
        text: "SELECT id, $auth.id AS me FROM note WHERE id > $1",
        values: [0],
      };
      expect((await bob.query(prepared)).rows).toEqual([{ id: 2, me: "bob" }]);
    }
    expect((await bob.query("UPDATE note SET id = 20 WHERE user_id <> $auth.id")).rowCount).toBe(0);
    expect(await stateOf(bob.query("INSERT INTO note VALUES (3, 'alice')"))).toBe("42501");
    expect((await alice.query("DELETE FROM note")).rowCount).toBe(1);
    expect((await bob.query("DELETE FROM note")).rowCount).toBe(1);
    await alice.end();
    await bob.end();
  });

  it("PostgreSQL's own CREATE POLICY takes $auth as well", async () => {
    const boss = await openClient(as("boss"));
    await boss.query("CREATE TABLE job (n int, tenant_id int8); ALTER TABLE job ENABLE ROW LEVEL SECURITY");
    await boss.query(
      "CREATE POLICY tenants ON job USING (tenant_id = $auth.tenant_id AND 'readwrite' = ANY ($auth.roles))",
    );
    await boss.query("INSERT INTO job VALUES (1, 1), (2, 2)");
    await boss.query("GRANT SELECT ON job TO alice");
    await boss.end();
    expect((await runOnce(as("alice"), "SELECT n FROM job")).rows).toEqual([{ n: 1 }]);
  });

  it("a database that is made later has the functions before its first session, whatever template it is made from", async () => {
    const admin = await openClient(as(frontEnd.adminUser));
    await admin.query("CREATE DATABASE first_copy");
    const inFirst = await runOnce(as(frontEnd.adminUser, "first_copy"), "SELECT auth.id() AS id");
    expect(inFirst.rows).toEqual([{ id: frontEnd.adminUser }]);
    await admin.query("CREATE DATABASE second_copy TEMPLATE first_copy");
    const inSecond = await runOnce(as(frontEnd.adminUser, "second_copy"), "SELECT auth.id() AS id");
    expect(inSecond.rows).toEqual([{ id: frontEnd.adminUser }]);
    const keys = await Promise.all(
      ["first_copy", "second_copy"].map(
        async (name) => (await runOnce(as(frontEnd.adminUser, name), "SELECT kid FROM auth.claims_key")).rows,
      ),
    );
    expect(keys.map((rows) => rows.length)).toEqual([1, 1]);
    expect(keys[0]).not.toEqual(keys[1]);
    await admin.end();
  });
}
