/** The catalog's schema, its cache over several processes, and the record of logins. */

import { createHash } from "node:crypto";
import type { Pool } from "pg";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { type Catalog, openCatalog } from "../../src/catalog/catalog.ts";
import { connectAdmin, createAdminPool } from "../../src/catalog/connection.ts";
import { schemaVersion } from "../../src/catalog/migrations.ts";
import { bootstrap } from "../../src/exec/bootstrap.ts";
import { createLog } from "../../src/observe/log.ts";
import { type CatalogStack, openCatalogStack } from "../support/catalog-stack.ts";
import { startPostgres, type TestPostgres } from "../support/postgres.ts";

const log = createLog({ level: "silent", format: "json" });
const password = "PASSWORD 'long enough'";

describe("the catalog", () => {
  let postgres: TestPostgres;
  let stack: CatalogStack;
  const opened: { catalog: Catalog; pool: Pool }[] = [];

  beforeAll(async () => {
    postgres = await startPostgres();
    stack = await openCatalogStack(postgres, { isEmbedded: true });
  });

  afterAll(async () => {
    for (const { catalog, pool } of opened) {
      await catalog.close();
      await pool.end();
    }
    await stack?.close();
    await postgres?.dispose();
  });

  function connectionTo(database: string) {
    return { host: postgres.socketDir, port: postgres.port, user: postgres.superuser, database };
  }

  /** Opens the catalog as another process would. */
  async function openAgain(secret = "none", database = "nodedb", pollIntervalMs = 60_000): Promise<Catalog> {
    const connection = connectionTo(database);
    const pool = createAdminPool(connection, 2);
    try {
      const catalog = await openCatalog({
        pool,
        connectListener: () => connectAdmin(connection, database),
        masterSecretFingerprint: createHash("sha256").update(secret).digest(),
        cancelBackend: async () => undefined,
        log,
        pollIntervalMs,
        reloadSpacingMs: 1,
      });
      opened.push({ catalog, pool });
      return catalog;
    } catch (error) {
      await pool.end();
      throw error;
    }
  }

  async function freshDatabase(name: string): Promise<void> {
    await stack.sql(`CREATE DATABASE ${name}`, [], "postgres");
  }

  it("creates its schema once, out of PUBLIC's reach, also when several processes start together", async () => {
    await freshDatabase("together");
    await Promise.all([openAgain("a", "together"), openAgain("a", "together"), openAgain("a", "together")]);
    expect(await stack.sql("SELECT version FROM nodedb.schema_version", [], "together")).toEqual(
      Array.from({ length: schemaVersion }, (_, index) => ({ version: index + 1 })),
    );
    expect(
      await stack.sql("SELECT has_schema_privilege('public', 'nodedb', 'USAGE') AS may", [], "together"),
    ).toEqual([{ may: false }]);
    expect(await stack.sql("SELECT id, name FROM nodedb.tenant ORDER BY id", [], "together")).toEqual([
      { id: "0", name: "system" },
      { id: "1", name: "default" },
    ]);
  });

  it("refuses another master secret, and leaves the catalog as it is", async () => {
    const before = await stack.snapshot();
    await expect(openAgain("another secret")).rejects.toMatchObject({
      sqlstate: "55000",
      message: "this catalog belongs to another master secret",
    });
    expect(await stack.snapshot()).toBe(before);
  });

  it("refuses a schema that is newer than the program", async () => {
    await freshDatabase("newer");
    await openAgain("a", "newer");
    await stack.sql("INSERT INTO nodedb.schema_version (version) VALUES (1000)", [], "newer");
    await expect(openAgain("a", "newer")).rejects.toMatchObject({
      sqlstate: "55000",
      message: expect.stringContaining("schema version 1000"),
    });
  });

  it("refuses a schema of that name that is none of ours", async () => {
    await freshDatabase("taken");
    await stack.sql("CREATE SCHEMA nodedb; CREATE TABLE nodedb.mine (id int)", [], "taken");
    await expect(openAgain("a", "taken")).rejects.toMatchObject({ sqlstate: "55000" });
    expect(
      await stack.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'nodedb'", [], "taken"),
    ).toEqual([{ tablename: "mine" }]);
  });

  it("fixes the search path of its connections, whatever the role's and the database's defaults are", async () => {
    await freshDatabase("poisoned");
    await stack.sql("ALTER DATABASE poisoned SET search_path = evil, pg_catalog", [], "postgres");
    const pool = createAdminPool(connectionTo("poisoned"), 1);
    expect((await pool.query("SHOW search_path")).rows).toEqual([{ search_path: "pg_catalog,pg_temp" }]);
    await pool.end();
  });

  it("the first start makes the superuser with a generated password, the second finds it", async () => {
    await freshDatabase("first_start");
    const catalog = await openAgain("a", "first_start");
    const deps = { ...stack.deps, catalog, roleOptions: { ...stack.deps.roleOptions } };
    const options = { superuserName: "first_superuser", superuserPassword: undefined };
    const first = await bootstrap(deps, options);
    expect(first).toMatchObject({ isFirstStart: true, superuserName: "first_superuser" });
    expect(first.generatedPassword).toMatch(/^[\w-]{24}$/);
    expect(catalog.cache.findByName("first_superuser")).toMatchObject({ roles: ["superuser"], tenantId: 1 });
    expect(await bootstrap(deps, options)).toMatchObject({
      isFirstStart: false,
      generatedPassword: undefined,
    });
  });

  it("the first start adopts no role, and refuses a short password", async () => {
    await freshDatabase("refused_start");
    const deps = { ...stack.deps, catalog: await openAgain("a", "refused_start") };
    await expect(
      bootstrap(deps, { superuserName: "postgres", superuserPassword: "long enough" }),
    ).rejects.toMatchObject({ sqlstate: "42710" });
    await expect(
      bootstrap(deps, { superuserName: "other_superuser", superuserPassword: "short" }),
    ).rejects.toMatchObject({ sqlstate: "22023" });
    expect(await stack.sql("SELECT name FROM nodedb.principal", [], "refused_start")).toEqual([]);
    expect(await stack.sql("SELECT FROM pg_roles WHERE rolname = 'other_superuser'")).toEqual([]);
  });

  it("other processes learn of a change without being asked", async () => {
    const other = await openAgain();
    await stack.run("root_user", `CREATE USER seen ${password}`);
    await vi.waitFor(() => expect(other.cache.findByName("seen")).toBeDefined());
    await stack.run("root_user", "ALTER USER seen RENAME TO seen_again");
    await vi.waitFor(() => expect(other.cache.findByName("seen")).toBeUndefined());
    expect(other.cache.findByName("seen_again")).toBeDefined();
    await stack.run("root_user", "DROP USER seen_again");
    await vi.waitFor(() => expect(other.cache.findByName("seen_again")).toBeUndefined());
  });

  it("notices changes by polling when no notification comes", async () => {
    const other = await openAgain("none", "nodedb", 20);
    await stack.sql("UPDATE nodedb.instance SET catalog_version = catalog_version + 1");
    await stack.sql("INSERT INTO nodedb.principal (kind, name, tenant_id) VALUES ('user', 'polled', 1)");
    await stack.sql("UPDATE nodedb.instance SET catalog_version = catalog_version + 1");
    await vi.waitFor(() => expect(other.cache.findByName("polled")).toBeDefined(), 5_000);
    await stack.sql("DELETE FROM nodedb.principal WHERE name = 'polled'");
    await stack.sql("UPDATE nodedb.instance SET catalog_version = catalog_version + 1");
  });

  it("listens again after its connection was lost, and has missed nothing", async () => {
    const other = await openAgain();
    await stack.sql(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' OR query LIKE '%nodedb_catalog'",
    );
    await stack.run("root_user", `CREATE USER missed ${password}`);
    await vi.waitFor(() => expect(other.cache.findByName("missed")).toBeDefined(), 10_000);
    await stack.run("root_user", "DROP USER missed");
    await vi.waitFor(() => expect(other.cache.findByName("missed")).toBeUndefined(), 10_000);
  });

  it("notifications of clients, however many, cost one comparison and no reload", async () => {
    const other = await openAgain();
    let changes = 0;
    other.cache.onChange(() => {
      changes += 1;
    });
    const client = await stack.connectAs(postgres.superuser);
    for (let count = 0; count < 200; count += 1)
      await client.query(`SELECT pg_notify('nodedb_catalog', '${count}')`);
    await client.end();
    await stack.run("root_user", `CREATE USER marker ${password}`);
    await vi.waitFor(() => expect(other.cache.findByName("marker")).toBeDefined());
    expect(changes).toBe(1);
    await stack.run("root_user", "DROP USER marker");
  });

  it("writes the last of many logins in one batch, at the latest when it closes", async () => {
    const catalog = await openAgain();
    const id = catalog.cache.findByName("root_user")?.id ?? 0;
    const lastLogin = async () =>
      (
        await stack.sql("SELECT last_login_at IS NOT NULL AS has FROM nodedb.principal WHERE id = $1", [id])
      )[0];
    expect(await lastLogin()).toEqual({ has: false });
    catalog.recordLogin(id);
    catalog.recordLogin(id);
    // A user that was dropped in between is no obstacle.
    catalog.recordLogin(999_999);
    expect(await lastLogin()).toEqual({ has: false });
    await catalog.close();
    expect(await lastLogin()).toEqual({ has: true });
  });

  it("is unavailable while PostgreSQL is, and works again afterwards without a restart", async () => {
    await postgres.stop("immediate");
    const error = await stack.run("root_user", "SHOW USERS").catch((reason: unknown) => reason);
    expect(error).toMatchObject({ sqlstate: "57P03", message: "the catalog is not available" });
    expect(stack.catalog.cache.findByName("root_user")).toBeDefined();
    await postgres.start();
    await vi.waitFor(
      async () => expect(await stack.run("root_user", "SHOW USERS")).toMatchObject({ tag: "SHOW" }),
      10_000,
    );
    await stack.run("root_user", `CREATE USER afterwards ${password}`);
    expect(stack.catalog.cache.findByName("afterwards")).toBeDefined();
  });
});
