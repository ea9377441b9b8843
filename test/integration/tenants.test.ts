/** Tenants: their statements, what belongs to them, and their quota. */

import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { identityOf } from "../../src/auth/password.ts";
import { SqlError } from "../../src/errors/sql-error.ts";
import type { StatementResult } from "../../src/exec/result.ts";
import { type CatalogStack, startCatalogStack } from "../support/catalog-stack.ts";
import { hasDebianPostgres } from "../support/postgres.ts";
import { requireClient } from "../support/skips.ts";
import { openStage, passwordOf, type Stage, stateOf } from "../support/stage.ts";

const password = "PASSWORD 'long enough'";

for (const version of ["embedded", "debian"] as const) {
  describe(`tenants on PostgreSQL (${version})`, () => {
    const isThere = version === "embedded" || requireClient("PostgreSQL 15 (Debian)", hasDebianPostgres);
    const test = it.skipIf(!isThere);
    let stack: CatalogStack;

    beforeAll(async () => {
      if (!isThere) return;
      stack = await startCatalogStack(version);
      await as("root_user", "CREATE TENANT acme ID 7");
      await as("root_user", `CREATE USER boss ${password} ROLE admin`);
      await as("root_user", `CREATE USER acme_admin ${password} ROLE tenant_admin TENANT acme`);
    });

    afterAll(() => stack?.close());

    function as(user: string, sql: string): Promise<StatementResult | "forward"> {
      return stack.run(user, sql);
    }

    async function refused(user: string, sql: string): Promise<SqlError> {
      const before = await stack.snapshot();
      const outcome = await as(user, sql).catch((error: unknown) => error);
      expect(outcome, sql).toBeInstanceOf(SqlError);
      expect(await stack.snapshot(), sql).toBe(before);
      return outcome as SqlError;
    }

    async function shown(): Promise<readonly (readonly unknown[])[]> {
      const result = await as("root_user", "SHOW TENANTS");
      if (result === "forward") expect.fail("forwarded");
      expect(result.table?.columns.map((column) => `${column.name} ${column.type}`)).toEqual([
        "id int8",
        "name text",
        "max_connections int8",
        "users int8",
        "created_at timestamptz",
      ]);
      return (result.table?.rows ?? []).map((row) => row.slice(0, 4));
    }

    test("CREATE TENANT takes the number that it is given, or the next one", async () => {
      expect(await as("root_user", "CREATE TENANT globex")).toEqual({ tag: "CREATE TENANT", notices: [] });
      expect(await shown()).toEqual([
        [0n, "system", null, 0n],
        [1n, "default", null, 2n],
        [7n, "acme", null, 1n],
        [8n, "globex", null, 0n],
      ]);
      expect(await as("root_user", "CREATE TENANT IF NOT EXISTS globex ID 99")).toEqual({
        tag: "CREATE TENANT",
        notices: ['tenant "globex" already exists, skipping'],
      });
    });

    test("a quota is set, lifted, and known to the admission of sessions at once", async () => {
      expect(await as("root_user", "ALTER TENANT acme SET QUOTA max_connections = 2")).toEqual({
        tag: "ALTER TENANT",
        notices: [],
      });
      expect(stack.catalog.cache.tenantLimit(7)).toBe(2);
      expect(await shown()).toContainEqual([7n, "acme", 2n, 1n]);
      await as("root_user", "ALTER TENANT 7 SET QUOTA max_connections = 0");
      expect(stack.catalog.cache.tenantLimit(7)).toBe(0);
      const root = stack.catalog.cache.findByName("root_user");
      if (root === undefined) expect.fail("no such user");
      await stack.executor.execute(
        {
          kind: "alter_tenant_quota",
          tenant: { id: 7, position: 1 },
          quota: { text: "max_connections", position: 1 },
          value: -1,
        },
        {
          identity: identityOf(root, "scram-sha-256"),
          sessionId: "session-1",
          database: "nodedb",
          dateStyle: "ISO, MDY",
          timeZone: "UTC",
          materials: new Map(),
        },
      );
      expect(stack.catalog.cache.tenantLimit(7)).toBeUndefined();
    });

    test("DROP TENANT refuses one with users or roles, naming them, and drops an empty one", async () => {
      await as("acme_admin", "CREATE ROLE acme_role");
      expect(await refused("root_user", "DROP TENANT acme")).toMatchObject({
        sqlstate: "2BP01",
        detail: "role acme_role\nuser acme_admin",
      });
      expect(await as("root_user", "DROP TENANT globex")).toEqual({ tag: "DROP TENANT", notices: [] });
      expect((await shown()).map((row) => row[1])).not.toContain("globex");
    });

    test("two superusers at once cannot make the same tenant twice", async () => {
      const outcomes = await Promise.allSettled([
        as("root_user", "CREATE TENANT same"),
        as("root_user", "CREATE TENANT same"),
      ]);
      expect(outcomes.map((outcome) => outcome.status).sort()).toEqual(["fulfilled", "rejected"]);
      const failed = outcomes.find((outcome) => outcome.status === "rejected");
      expect(failed?.reason).toMatchObject({ sqlstate: "42710" });
    });

    test("an admin acts in its own tenant only", async () => {
      expect(await as("acme_admin", `CREATE USER acme_new ${password}`)).toMatchObject({
        tag: "CREATE USER",
      });
      expect(stack.catalog.cache.findByName("acme_new")?.tenantId).toBe(7);
      expect(await refused("boss", "ALTER USER acme_new NOLOGIN")).toMatchObject({ sqlstate: "42704" });
      expect(await refused("acme_admin", "ALTER USER boss NOLOGIN")).toMatchObject({ sqlstate: "42704" });
    });

    test.each([
      ["root_user", "DROP TENANT system", "42501", "permission denied: cannot drop system tenant"],
      ["root_user", "DROP TENANT 0", "42501", "permission denied: cannot drop system tenant"],
      ["root_user", 'DROP TENANT "default"', "42501", "permission denied: cannot drop default tenant"],
      ["root_user", "DROP TENANT nowhere", "42704", 'tenant "nowhere" does not exist'],
      ["root_user", "CREATE TENANT acme", "42710", 'tenant "acme" already exists'],
      ["root_user", "CREATE TENANT other ID 7", "42710", "tenant 7 already exists"],
      ["root_user", `CREATE TENANT ${"x".repeat(64)}`, "22023", expect.stringContaining("too long")],
      ["root_user", "ALTER TENANT acme SET QUOTA disk = 3", "42704", 'unrecognized quota "disk"'],
      ["root_user", "ALTER TENANT 99 SET QUOTA max_connections = 3", "42704", "tenant 99 does not exist"],
      [
        "root_user",
        "ALTER TENANT acme SET QUOTA max_connections = 99999999999",
        "22023",
        "quota is out of range",
      ],
      ["boss", "CREATE TENANT mine", "42501", "permission denied: only superuser may create tenants"],
      [
        "acme_admin",
        "ALTER TENANT acme SET QUOTA max_connections = 3",
        "42501",
        "permission denied: only superuser may alter tenants",
      ],
      ["acme_admin", "DROP TENANT acme", "42501", "permission denied: only superuser may drop tenants"],
      ["acme_admin", "SHOW TENANTS", "42501", "permission denied: only superuser may see the tenants"],
    ])("%s: %s is refused with %s", async (user, sql, sqlstate, message) => {
      expect(await refused(user, sql)).toMatchObject({ sqlstate, message });
    });
  });
}

describe("the quota of a tenant", () => {
  let stage: Stage;

  beforeAll(async () => {
    stage = await openStage();
    await stage.asAdmin("CREATE TENANT acme ID 7");
    await stage.asAdmin("ALTER TENANT acme SET QUOTA max_connections = 2");
    for (const user of ["ann", "ben"]) {
      await stage.asAdmin(`CREATE USER ${user} PASSWORD '${passwordOf(user)}' TENANT acme`);
    }
  });

  afterAll(() => stage?.close());

  it("refuses one session more of all its users together, and lets the next in when one has gone", async () => {
    const ann = await stage.connect("ann");
    const ben = await stage.connect("ben");
    await expect(stage.connect("ann")).rejects.toMatchObject({
      code: "53300",
      severity: "FATAL",
      message: "too many connections for this tenant",
    });
    await ben.end();
    await vi.waitFor(async () => (await stage.connect("ben")).end(), { timeout: 3_000, interval: 10 });
    await stage.asAdmin("ALTER TENANT acme SET QUOTA max_connections = 1");
    expect(await stateOf(stage.connect("ben"))).toBe("53300");
    await ann.end();
  });

  it("takes a database away from the next session, though PostgreSQL looks at CONNECT at logins only", async () => {
    await stage.asAdmin("ALTER TENANT acme SET QUOTA max_connections = 5");
    await stage.asAdmin("CREATE DATABASE ours");
    await stage.asAdmin("REVOKE CONNECT ON DATABASE ours FROM PUBLIC");
    await stage.asAdmin("GRANT CONNECT ON DATABASE ours TO ann");
    await (await stage.connect("ann", { database: "ours" })).end();
    await stage.asAdmin("REVOKE CONNECT ON DATABASE ours FROM ann");
    expect(await stateOf(stage.connect("ann", { database: "ours" }))).toBe("42501");
  });
});
