/** CONNECT on databases and SHOW PERMISSIONS, on the embedded PostgreSQL 18 and an external 15. */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { SqlError } from "../../src/errors/sql-error.ts";
import { bootstrap } from "../../src/exec/bootstrap.ts";
import { beginOpenTransaction } from "../../src/exec/context.ts";
import type { StatementResult } from "../../src/exec/result.ts";
import { type CatalogStack, startCatalogStack, superuserPassword } from "../support/catalog-stack.ts";
import { clientConnection } from "../support/client-connection.ts";
import { hasDebianPostgres } from "../support/postgres.ts";
import { requireClient } from "../support/skips.ts";

const password = "PASSWORD 'long enough'";

for (const version of ["embedded", "debian"] as const) {
  describe(`grants on PostgreSQL (${version})`, () => {
    const isThere = version === "embedded" || requireClient("PostgreSQL 15 (Debian)", hasDebianPostgres);
    const test = it.skipIf(!isThere);
    let stack: CatalogStack;

    beforeAll(async () => {
      if (!isThere) return;
      stack = await startCatalogStack(version);
      for (const database of ["sales", "stock", "acme_db"]) {
        await stack.sql(`CREATE DATABASE ${database}`);
        await stack.sql(`REVOKE CONNECT ON DATABASE ${database} FROM PUBLIC`);
      }
      await as("root_user", "CREATE TENANT acme ID 7");
      await as("root_user", `CREATE USER boss ${password} ROLE admin`);
      await as("root_user", `CREATE USER worker ${password}`);
      await as("root_user", `CREATE USER acme_admin ${password} ROLE tenant_admin TENANT 7`);
      await as("root_user", `CREATE USER acme_user ${password} TENANT 7`);
      await as("boss", "CREATE ROLE sellers");
      await as("root_user", "CREATE SERVICE ACCOUNT robot FOR DATABASE sales");
    });

    afterAll(() => stack?.close());

    function as(user: string, sql: string, database = "nodedb"): Promise<StatementResult | "forward"> {
      return stack.run(user, sql, { database });
    }

    /** In a session of the user's own, as clients are. */
    async function inSession(user: string, sql: string, database = "nodedb") {
      const client = await stack.connectAs(user, database);
      try {
        return await stack.run(user, sql, { database, connection: clientConnection(client) });
      } finally {
        await client.end();
      }
    }

    async function refused(user: string, sql: string): Promise<SqlError> {
      const before = await stack.snapshot();
      const outcome = await as(user, sql).catch((error: unknown) => error);
      expect(outcome, sql).toBeInstanceOf(SqlError);
      expect(await stack.snapshot(), sql).toBe(before);
      return outcome as SqlError;
    }

    async function mayConnect(role: string, database: string): Promise<boolean> {
      const client = await stack.connectAs(role, database).catch(() => undefined);
      await client?.end();
      return client !== undefined;
    }

    describe("GRANT CONNECT ON DATABASE", () => {
      test("lets users and holders of a role in, REVOKE keeps them out, and a start leaves both", async () => {
        expect(await mayConnect("worker", "sales")).toBe(false);
        expect(await as("boss", "GRANT CONNECT ON DATABASE sales, stock TO worker, sellers")).toEqual({
          tag: "GRANT",
          notices: [],
        });
        expect(await mayConnect("worker", "sales")).toBe(true);
        await as("boss", `CREATE USER seller ${password} ROLE sellers`);
        expect(await mayConnect("seller", "stock")).toBe(true);
        expect(await as("boss", "REVOKE CONNECT ON DATABASE stock FROM worker")).toEqual({
          tag: "REVOKE",
          notices: [],
        });
        await bootstrap(stack.deps, { superuserName: "root_user", superuserPassword });
        expect(await mayConnect("worker", "sales")).toBe(true);
        expect(await mayConnect("worker", "stock")).toBe(false);
      });

      test("REVOKE tells when a role still lets the user in", async () => {
        const result = await as("boss", "REVOKE CONNECT ON DATABASE nodedb FROM worker");
        expect(result).toEqual({
          tag: "REVOKE",
          notices: ['"worker" can still connect to database "nodedb" through a role that it holds'],
        });
      });

      test("is undone with the client's transaction", async () => {
        await stack.catalog.rehearse(async (client) => {
          const transaction = beginOpenTransaction(client, { processId: 0 });
          const before = stack.catalog.cache.findByName("boss");
          if (before === undefined) expect.fail("no such user");
          await stack.run("boss", "GRANT CONNECT ON DATABASE stock TO worker", { transaction });
          expect([...transaction.touched]).toEqual([stack.catalog.cache.findByName("worker")?.id]);
        });
        expect(await mayConnect("worker", "stock")).toBe(false);
      });

      test("a built-in role is let in by a superuser", async () => {
        await as("root_user", "GRANT CONNECT ON DATABASE stock TO readwrite");
        expect(await mayConnect("worker", "stock")).toBe(true);
        await as("root_user", "REVOKE CONNECT ON DATABASE stock FROM readwrite");
        expect(await mayConnect("worker", "stock")).toBe(false);
      });

      test("a database that only another tenant was let into is not opened", async () => {
        await as("root_user", "GRANT CONNECT ON DATABASE acme_db TO acme_user");
        expect(await refused("boss", "GRANT CONNECT ON DATABASE acme_db TO worker")).toMatchObject({
          sqlstate: "42501",
        });
        expect(await as("acme_admin", "GRANT CONNECT ON DATABASE acme_db TO acme_admin")).toMatchObject({
          tag: "GRANT",
        });
        expect(await as("root_user", "GRANT CONNECT ON DATABASE acme_db TO worker")).toMatchObject({
          tag: "GRANT",
        });
      });

      test("a database that nobody was let into by name is not another tenant's to open", async () => {
        await stack.sql("CREATE DATABASE nobodys", [], "postgres");
        await stack.sql("REVOKE CONNECT ON DATABASE nobodys FROM PUBLIC", [], "postgres");
        for (const sql of [
          "GRANT CONNECT ON DATABASE nobodys TO acme_user",
          "GRANT CONNECT ON DATABASE nobodys TO acme_admin",
          "CREATE SERVICE ACCOUNT acme_robot FOR DATABASE nobodys",
          "CREATE API KEY 'acme_key' ROLE readonly WITH DATABASES (nobodys)",
        ]) {
          expect(await refused("acme_admin", sql), sql).toMatchObject({ sqlstate: "42501" });
        }
        expect(await mayConnect("acme_user", "nobodys")).toBe(false);
        expect(await as("boss", "GRANT CONNECT ON DATABASE nobodys TO worker")).toMatchObject({
          tag: "GRANT",
        });
      });

      test("about PostgreSQL's own roles is PostgreSQL's", async () => {
        expect(await as("worker", "GRANT CONNECT ON DATABASE sales TO PUBLIC")).toBe("forward");
        expect(await as("worker", "GRANT CONNECT ON DATABASE sales TO pg_monitor")).toBe("forward");
      });

      test.each([
        ["worker", "GRANT CONNECT ON DATABASE sales TO worker", "42501"],
        ["boss", "GRANT CONNECT ON DATABASE nowhere TO worker", "3D000"],
        ["boss", "REVOKE CONNECT ON DATABASE nowhere FROM worker", "3D000"],
        ["boss", "GRANT CONNECT ON DATABASE sales TO nobody", "42704"],
        ["boss", "GRANT CONNECT ON DATABASE sales TO acme_user", "42704"],
        ["acme_admin", "GRANT CONNECT ON DATABASE sales TO worker", "42704"],
        ["boss", "GRANT CONNECT ON DATABASE sales TO root_user", "42501"],
        ["boss", "GRANT CONNECT ON DATABASE sales TO readwrite", "42501"],
        ["boss", "GRANT CONNECT ON DATABASE sales TO nodedb_readwrite", "42501"],
        ["boss", "GRANT CONNECT ON DATABASE sales TO worker, pg_monitor", "42809"],
        ["boss", "GRANT CONNECT ON DATABASE sales TO robot", "42809"],
      ])("%s: %s is refused with %s", async (user, sql, sqlstate) => {
        expect(await refused(user, sql)).toMatchObject({ sqlstate });
      });
    });

    describe("SHOW PERMISSIONS", () => {
      beforeAll(async () => {
        if (!isThere) return;
        await stack.sql(
          `CREATE TABLE public.invoices (id int, total int);
           ALTER TABLE public.invoices OWNER TO boss;
           GRANT SELECT, UPDATE (total) ON public.invoices TO worker;
           GRANT SELECT ON public.invoices TO sellers, acme_user;
           GRANT SELECT ON public.invoices TO nodedb_readonly;
           CREATE SCHEMA worker AUTHORIZATION worker;
           CREATE TABLE worker.notes (id int);
           ALTER TABLE worker.notes OWNER TO worker`,
          [],
          "sales",
        );
      });

      async function shown(user: string, sql: string): Promise<string[]> {
        const result = await inSession(user, sql, "sales");
        if (result === "forward") expect.fail("forwarded");
        return (result.table?.rows ?? []).map((row) => row.join(" "));
      }

      test("shows what was granted to oneself and to the roles that one holds, in the session's database", async () => {
        const rows = await shown("worker", "SHOW PERMISSIONS ON invoices");
        expect(rows).toEqual([
          "readonly SELECT public.invoices role",
          "worker SELECT public.invoices direct",
          "worker UPDATE public.invoices(total) direct",
        ]);
        const all = await shown("worker", "SHOW PERMISSIONS");
        expect(all).toContain("worker INSERT worker.notes owner");
        expect(all.filter((row) => /^(boss|sellers|acme_user) /.test(row))).toEqual([]);
      });

      test("finds a table as the session would", async () => {
        expect(await shown("worker", "SHOW PERMISSIONS ON notes")).toContain(
          "worker SELECT worker.notes owner",
        );
        const error = await inSession("boss", "SHOW PERMISSIONS ON notes", "sales").catch(
          (reason: unknown) => reason,
        );
        expect(error).toMatchObject({ sqlstate: "42P01", message: 'relation "notes" does not exist' });
        expect(await shown("boss", "SHOW PERMISSIONS ON worker.notes")).toContain(
          "worker SELECT worker.notes owner",
        );
      });

      test("shows what the session's own transaction has made and granted", async () => {
        const client = await stack.connectAs("worker", "sales");
        const show = (sql: string) =>
          stack.run("worker", sql, { database: "sales", connection: clientConnection(client) });
        await client.query(
          "BEGIN; SET search_path = worker; CREATE TABLE unborn (); GRANT SELECT ON unborn TO boss",
        );
        expect(await show("SHOW PERMISSIONS ON unborn")).toMatchObject({
          table: { rows: expect.arrayContaining([["worker", "SELECT", "worker.unborn", "owner"]]) },
        });
        await client.query("ROLLBACK");
        await expect(show("SHOW PERMISSIONS ON unborn")).rejects.toMatchObject({ sqlstate: "42P01" });
        await client.end();
      });

      test("shows an admin its tenant, and a superuser everything", async () => {
        const rows = await shown("boss", "SHOW PERMISSIONS ON invoices");
        expect(rows).toContain("boss DELETE public.invoices owner");
        expect(rows).toContain("sellers SELECT public.invoices role");
        expect(rows).not.toContain("acme_user SELECT public.invoices direct");
        expect(await shown("root_user", "SHOW PERMISSIONS ON invoices")).toContain(
          "acme_user SELECT public.invoices direct",
        );
      });

      test("FOR shows those of one user or role", async () => {
        expect(await shown("boss", "SHOW PERMISSIONS ON invoices FOR worker")).toEqual([
          "readonly SELECT public.invoices role",
          "worker SELECT public.invoices direct",
          "worker UPDATE public.invoices(total) direct",
        ]);
        expect(await shown("worker", "SHOW PERMISSIONS ON invoices FOR readonly")).toEqual([
          "readonly SELECT public.invoices role",
        ]);
        expect(await shown("boss", "SHOW PERMISSIONS ON invoices FOR sellers")).toEqual([
          "sellers SELECT public.invoices role",
        ]);
      });

      test("never shows the catalog", async () => {
        await expect(inSession("root_user", "SHOW PERMISSIONS ON nodedb.principal")).rejects.toMatchObject({
          sqlstate: "42P01",
        });
        const result = await inSession("root_user", "SHOW PERMISSIONS");
        if (result === "forward") expect.fail("forwarded");
        expect(result.table?.rows.filter((row) => /nodedb\./.test(String(row[2])))).toEqual([]);
      });

      test.each([
        ["worker", "SHOW PERMISSIONS FOR boss", "42501"],
        ["worker", "SHOW PERMISSIONS FOR sellers", "42501"],
        ["boss", "SHOW PERMISSIONS FOR acme_user", "42704"],
        ["boss", "SHOW PERMISSIONS FOR nobody", "42704"],
      ])("%s: %s is refused with %s", async (user, sql, sqlstate) => {
        expect(await refused(user, sql)).toMatchObject({ sqlstate });
      });
    });
  });
}
