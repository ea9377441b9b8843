/** CREATE, DROP and SHOW RLS POLICY on the client's own connection, on the embedded PostgreSQL 18 and an external 15. */

import type { Client } from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { parseStatement } from "../../src/ddl/parse-statement.ts";
import { SqlError } from "../../src/errors/sql-error.ts";
import type { StatementResult } from "../../src/exec/result.ts";
import { UpstreamError } from "../../src/upstream/upstream-error.ts";
import { type CatalogStack, makeMasterSecret, openCatalogStack } from "../support/catalog-stack.ts";
import { clientConnection } from "../support/client-connection.ts";
import { hasDebianPostgres, startPostgres, type TestPostgres } from "../support/postgres.ts";
import { requireClient } from "../support/skips.ts";

const password = "PASSWORD 'long enough'";

for (const version of ["embedded", "debian"] as const) {
  describe(`row-level security on PostgreSQL (${version})`, () => {
    const isThere = version === "embedded" || requireClient("PostgreSQL 15 (Debian)", hasDebianPostgres);
    const test = it.skipIf(!isThere);
    let postgres: TestPostgres;
    let stack: CatalogStack;
    let owner: Client;

    beforeAll(async () => {
      if (!isThere) return;
      postgres = await startPostgres({ version });
      stack = await openCatalogStack(
        postgres,
        version === "embedded"
          ? { isEmbedded: true }
          : { isEmbedded: false, masterSecret: makeMasterSecret() },
      );
      await stack.sql("CREATE DATABASE app");
      await stack.run("root_user", `CREATE USER boss ${password} ROLE admin`);
      await stack.run("root_user", `CREATE USER other_boss ${password} ROLE admin`);
      await stack.run("root_user", `CREATE USER reader ${password} ROLE readonly`);
      await stack.sql(
        `CREATE SCHEMA auth;
         CREATE FUNCTION auth.id() RETURNS text STABLE LANGUAGE sql AS 'SELECT session_user::text';
         CREATE FUNCTION auth.has_scope(text) RETURNS bool STABLE LANGUAGE sql AS 'SELECT $1 = ''read''';
         CREATE SCHEMA boss AUTHORIZATION boss;
         GRANT USAGE ON SCHEMA auth, boss TO PUBLIC;
         GRANT CREATE ON SCHEMA public TO boss;`,
        [],
        "app",
      );
      owner = await stack.connectAs("boss", "app");
    });

    beforeEach(async () => {
      if (!isThere) return;
      await owner.query("DROP TABLE IF EXISTS public.notes");
      await owner.query(
        `CREATE TABLE public.notes (id int, owner text);
         GRANT ALL ON public.notes TO reader, other_boss;
         INSERT INTO public.notes VALUES (1, 'reader'), (2, 'boss'), (3, 'other_boss')`,
      );
    });

    afterAll(async () => {
      await owner?.end();
      await stack?.close();
      await postgres?.dispose();
    });

    async function asUser<T>(user: string, work: (client: Client) => Promise<T>): Promise<T> {
      const client = await stack.connectAs(user, "app");
      try {
        return await work(client);
      } finally {
        await client.end();
      }
    }

    const run = (user: string, sql: string, client: Client) =>
      stack.run(user, sql, { database: "app", connection: clientConnection(client) });

    async function as(user: string, sql: string): Promise<StatementResult> {
      const result =
        user === "boss" ? await run(user, sql, owner) : await asUser(user, (c) => run(user, sql, c));
      if (result === "forward") throw new Error("was not run");
      return result;
    }

    async function refused(user: string, sql: string): Promise<SqlError | UpstreamError> {
      const before = JSON.stringify([await stack.snapshot(), await policies()]);
      const error = await as(user, sql).catch((caught: unknown) => caught);
      expect(JSON.stringify([await stack.snapshot(), await policies()])).toBe(before);
      if (error instanceof SqlError || error instanceof UpstreamError) return error;
      throw new Error(`was not refused: ${String(error)}`);
    }

    const policies = () =>
      stack.sql(
        `SELECT p.*, c.relrowsecurity, c.relforcerowsecurity FROM pg_class c LEFT JOIN pg_policies p ON p.tablename = c.relname
          WHERE c.relname = 'notes' ORDER BY c.oid, p.policyname`,
        [],
        "app",
      );

    const rows = (result: StatementResult) => result.table?.rows ?? [];

    const idsOf = (user: string) =>
      asUser(user, async (client) =>
        (await client.query<{ id: number }>("SELECT id FROM public.notes ORDER BY id")).rows.map(
          ({ id }) => id,
        ),
      );

    test("enables and forces row security, and shows everybody the own rows", async () => {
      const result = await as("boss", "CREATE RLS POLICY own ON notes FOR ALL USING (owner = $auth.id)");
      expect(result).toEqual({ tag: "CREATE RLS POLICY", notices: [] });
      expect(await policies()).toMatchObject([
        {
          policyname: "own",
          cmd: "ALL",
          permissive: "PERMISSIVE",
          relrowsecurity: true,
          relforcerowsecurity: true,
        },
      ]);
      expect([await idsOf("reader"), await idsOf("boss"), await idsOf("other_boss")]).toEqual([
        [1],
        [2],
        [3],
      ]);
    });

    test("evaluates the reference once and not for each row", async () => {
      await as("boss", "CREATE RLS POLICY own ON notes FOR READ USING (owner = $auth.id)");
      const plan = await owner.query<{ "QUERY PLAN": string }>("EXPLAIN SELECT * FROM public.notes");
      expect(plan.rows.map((row) => row["QUERY PLAN"]).join("\n")).toContain("InitPlan");
    });

    test("lets FOR WRITE insert, change and delete what the predicate allows, and nothing else", async () => {
      await as("boss", "CREATE RLS POLICY seen ON notes FOR READ USING (true)");
      await as("boss", "CREATE RLS POLICY own ON notes FOR WRITE USING (owner = $auth.id)");
      await asUser("reader", async (client) => {
        await client.query("INSERT INTO public.notes VALUES (4, 'reader')");
        await expect(client.query("INSERT INTO public.notes VALUES (5, 'boss')")).rejects.toMatchObject({
          code: "42501",
        });
        await expect(client.query("UPDATE public.notes SET owner = 'boss'")).rejects.toMatchObject({
          code: "42501",
        });
        expect((await client.query("UPDATE public.notes SET id = id + 10")).rowCount).toBe(2);
        expect((await client.query("DELETE FROM public.notes")).rowCount).toBe(2);
      });
      expect(rows(await as("reader", "SHOW RLS POLICIES ON notes"))).toEqual([
        ["own", "public.notes", "WRITE", "PERMISSIVE", "(owner = $auth.id)"],
        ["seen", "public.notes", "READ", "PERMISSIVE", "true"],
      ]);
    });

    test("narrows what other policies allow with RESTRICTIVE", async () => {
      await as("boss", "CREATE RLS POLICY seen ON notes FOR ALL USING (true)");
      await as("boss", "CREATE RLS POLICY first ON notes FOR READ USING (id = 1 -- only that\n) RESTRICTIVE");
      expect(await idsOf("reader")).toEqual([1]);
      expect(rows(await as("boss", "SHOW RLS POLICIES ON notes"))[0]).toEqual([
        "first",
        "public.notes",
        "READ",
        "RESTRICTIVE",
        "(id = 1)",
      ]);
    });

    test("shows scopes as they were written, and PostgreSQL's own policies by their command", async () => {
      await as("boss", "CREATE RLS POLICY scoped ON notes FOR READ USING ($auth.scopes CONTAINS 'read')");
      await owner.query("CREATE POLICY plain ON notes FOR DELETE USING (id > 1)");
      const expected = [
        ["plain", "public.notes", "DELETE", "PERMISSIVE", "(id > 1)"],
        ["scoped", "public.notes", "READ", "PERMISSIVE", "$auth.scopes CONTAINS 'read'"],
      ];
      expect(rows(await as("reader", "SHOW RLS POLICIES ON public.notes"))).toEqual(expected);
      expect(rows(await as("reader", "SHOW RLS POLICIES"))).toEqual(expected);
    });

    test("resolves the table's name as the session does", async () => {
      await owner.query("CREATE TABLE boss.notes (id int)");
      try {
        await owner.query("SET search_path = boss, public");
        await as("boss", "CREATE RLS POLICY p ON notes FOR ALL USING (true)");
        expect(rows(await as("boss", "SHOW RLS POLICIES"))).toEqual([
          ["p", "boss.notes", "ALL", "PERMISSIVE", "true"],
        ]);
        await as("boss", "DROP RLS POLICY p ON notes");
      } finally {
        await owner.query("RESET search_path");
        await owner.query("DROP TABLE boss.notes");
      }
    });

    test.each(["READ", "WRITE", "ALL"])("refuses a name that a policy FOR %s has already", async (access) => {
      await as("boss", `CREATE RLS POLICY p ON notes FOR ${access} USING (true)`);
      for (const other of ["READ", "WRITE", "ALL"]) {
        const error = await refused("boss", `CREATE RLS POLICY p ON notes FOR ${other} USING (false)`);
        expect(error.sqlstate).toBe("42710");
      }
    });

    test("leaves no policy when one of the three of FOR WRITE cannot be made", async () => {
      await as("boss", 'CREATE RLS POLICY "p:delete" ON notes FOR READ USING (true)');
      expect((await refused("boss", "CREATE RLS POLICY p ON notes FOR WRITE USING (true)")).sqlstate).toBe(
        "42710",
      );
    });

    test("refuses an unknown reference at its place, before anything is run", async () => {
      const error = await refused("boss", "CREATE RLS POLICY p ON notes FOR ALL USING ('é' = $auth.nothing)");
      expect(error).toMatchObject({ condition: "syntax_error", position: 51 });
    });

    test.each([
      ["owner = = 1", "= 1", "42601"],
      ["owner = $auth.id AND 'ü😀' = = $auth.id", "= $auth.id)", "42601"],
      ["owner = $auth.id +", ")", "42601"],
      // Beyond syntax PostgreSQL gives no position in CREATE POLICY.
      ["owner = nobody", undefined, "42703"],
      ["owner = $auth.email", undefined, "42883"],
    ])("points at what PostgreSQL refuses in (%s)", async (predicate, place, sqlstate) => {
      for (const access of ["READ", "WRITE"]) {
        const sql = `CREATE RLS POLICY p ON notes FOR ${access} USING (${predicate})`;
        const error = await refused("boss", sql);
        expect(error.sqlstate).toBe(sqlstate);
        const position = error instanceof UpstreamError ? error.fields.get("P") : error.position;
        const expected =
          place === undefined ? undefined : String([...sql.slice(0, sql.lastIndexOf(place))].length + 1);
        expect(position).toBe(expected);
      }
    });

    test("lets nobody but the owner and superusers change a table's policies", async () => {
      await as("boss", "CREATE RLS POLICY p ON notes FOR WRITE USING (true)");
      for (const user of ["reader", "other_boss"]) {
        for (const sql of [
          "CREATE RLS POLICY q ON notes FOR ALL USING (true)",
          "DROP RLS POLICY p ON notes",
          "DROP RLS POLICY IF EXISTS p ON notes",
        ]) {
          const error = await refused(user, sql);
          expect(error.sqlstate).toBe("42501");
          expect(error.message).toMatch(/^must be owner of (table|relation) notes$/);
        }
      }
      if (version === "embedded") await as("root_user", "DROP RLS POLICY p ON notes");
    });

    test.each([
      ["CREATE RLS POLICY p ON missing FOR ALL USING (true)", "42P01", 24],
      ["DROP RLS POLICY p ON nowhere.missing", "42P01", 22],
      ["SHOW RLS POLICIES ON missing", "42P01", 22],
      ["DROP RLS POLICY p ON notes", "42704", 17],
      [`CREATE RLS POLICY ${"n".repeat(57)} ON notes FOR WRITE USING (true)`, "22023", 19],
    ])("refuses %j", async (sql, sqlstate, position) => {
      const error = await refused("boss", sql);
      expect(error.sqlstate).toBe(sqlstate);
      const written = error instanceof UpstreamError ? Number(error.fields.get("P")) : error.position;
      expect(written).toBe(position);
    });

    test("drops all of a policy, and with IF EXISTS says what was not there", async () => {
      await as("boss", 'CREATE RLS POLICY "a b" ON notes FOR WRITE USING (true)');
      await as("boss", "CREATE RLS POLICY kept ON notes FOR READ USING (true)");
      expect(await as("boss", 'DROP RLS POLICY "a b" ON notes')).toEqual({
        tag: "DROP RLS POLICY",
        notices: [],
      });
      expect((await policies()).map(({ policyname }) => policyname)).toEqual(["kept"]);
      expect((await as("boss", "DROP RLS POLICY IF EXISTS p ON notes")).notices).toEqual([
        'policy "p" for table "notes" does not exist, skipping',
      ]);
      expect((await as("boss", "DROP RLS POLICY IF EXISTS p ON missing")).notices).toEqual([
        'relation "missing" does not exist, skipping',
      ]);
    });

    test("admins of the tenant change the policies of what its members own, with their own rights", async () => {
      await stack.run("root_user", "CREATE TENANT acme ID 7");
      for (const [user, role, tenant] of [
        ["writer", "readwrite", 1],
        ["chief", "tenant_admin", 1],
        ["stranger", "tenant_admin", 7],
      ]) {
        await stack.run("root_user", `CREATE USER ${user} ${password} ROLE ${role} TENANT ${tenant}`);
      }
      await stack.sql(
        "ALTER TABLE public.notes OWNER TO writer; GRANT ALL ON public.notes TO PUBLIC",
        [],
        "app",
      );
      for (const user of ["writer", "other_boss", "chief"]) {
        await as(user, "CREATE RLS POLICY mine ON notes FOR ALL USING (owner = $auth.id)");
        expect(await idsOf("reader"), user).toEqual([1]);
        await as(user, "DROP RLS POLICY mine ON notes");
      }
      for (const user of ["reader", "stranger"]) {
        const error = await refused(user, "CREATE RLS POLICY q ON notes FOR ALL USING (true)");
        expect([user, error.sqlstate, error.message]).toEqual([
          user,
          "42501",
          "must be owner of table notes",
        ]);
      }
      // PostgreSQL runs the CHECK of a domain in a constant while it parses the predicate.
      await stack.sql(
        `CREATE FUNCTION public.tell(int) RETURNS bool LANGUAGE plpgsql
           AS 'BEGIN RAISE EXCEPTION ''ran as % for %'', current_user, session_user; END';
         CREATE DOMAIN public.telling AS int CHECK (public.tell(VALUE));
         CREATE TYPE public.holds_it AS (x public.telling)`,
        [],
        "app",
      );
      for (const user of ["other_boss", "chief"]) {
        const error = await refused(
          user,
          "CREATE RLS POLICY q ON notes FOR ALL USING (('(1)'::public.holds_it) IS NOT NULL)",
        );
        expect(error.message).toBe(`ran as ${user} for ${user}`);
      }
      await stack.sql(
        "DROP TYPE public.holds_it; DROP DOMAIN public.telling; DROP FUNCTION public.tell",
        [],
        "app",
      );
    });

    test("takes part in the client's transaction, and is audited with its commit", async () => {
      const connection = clientConnection(owner);
      const audited = async () => {
        await stack.deps.audit.flush();
        return stack.sql("SELECT detail FROM nodedb.audit_log WHERE detail LIKE '%RLS POLICY \"in_block\"%'");
      };
      const context = await contextOf("boss");
      const inBlock = async (end: "COMMIT" | "ROLLBACK") => {
        const paired = stack.executor.beginTransaction({ processId: 0, secretKey: Buffer.alloc(4) } as never);
        await owner.query("BEGIN");
        await owner.query("CREATE TABLE public.fresh (id int)");
        const statement = parseStatement("CREATE RLS POLICY in_block ON fresh FOR ALL USING (true)");
        if (statement === "forward") throw new Error("was forwarded");
        await paired.run(statement, { ...context, connection, materials: new Map() });
        expect(await audited()).toEqual([]);
        const prepared = end === "COMMIT" ? await paired.prepareCommit(connection, () => {}) : undefined;
        await owner.query(end);
        if (prepared === undefined) await paired.discard();
        else await prepared.commit();
      };
      await inBlock("ROLLBACK");
      expect(await stack.sql("SELECT FROM pg_class WHERE relname = 'fresh'", [], "app")).toEqual([]);
      await inBlock("COMMIT");
      expect(
        await stack.sql("SELECT policyname FROM pg_policies WHERE tablename = 'fresh'", [], "app"),
      ).toEqual([{ policyname: "in_block" }]);
      expect(await audited()).toHaveLength(1);
      await owner.query("DROP TABLE public.fresh");
    });

    async function contextOf(user: string) {
      const record = stack.catalog.cache.findByName(user);
      if (record === undefined) throw new Error("no such user");
      const { identityOf } = await import("../../src/auth/password.ts");
      return {
        identity: identityOf(record, "scram-sha-256"),
        sessionId: "session-1",
        database: "app",
        dateStyle: "ISO, MDY",
        timeZone: "UTC",
      };
    }
  });
}
