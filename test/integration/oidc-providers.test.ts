/** The OIDC providers section of the auth SQL contract, on the embedded PostgreSQL 18 and an external 15. */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findOidcProvider, loadOidcProviders } from "../../src/catalog/oidc-providers.ts";
import { SqlError } from "../../src/errors/sql-error.ts";
import type { StatementResult } from "../../src/exec/result.ts";
import { type CatalogStack, startCatalogStack } from "../support/catalog-stack.ts";
import { hasDebianPostgres } from "../support/postgres.ts";
import { requireClient } from "../support/skips.ts";

const password = "PASSWORD 'long enough'";

for (const version of ["embedded", "debian"] as const) {
  describe(`OIDC providers on PostgreSQL (${version})`, () => {
    const isThere = version === "embedded" || requireClient("PostgreSQL 15 (Debian)", hasDebianPostgres);
    let stack: CatalogStack;

    beforeAll(async () => {
      if (!isThere) return;
      stack = await startCatalogStack(version);
      await stack.sql("INSERT INTO nodedb.tenant (id, name) VALUES (42, 'acme')");
      await run(`CREATE USER boss ${password} ROLE tenant_admin`);
    });

    afterAll(() => stack?.close());

    const test = it.skipIf(!isThere);

    async function run(sql: string, user = "root_user"): Promise<StatementResult> {
      const result = await stack.run(user, sql);
      if (result === "forward") expect.fail(`forwarded: ${sql}`);
      return result;
    }

    /** Runs a statement that must be refused, and checks that it changed nothing. */
    async function refused(sql: string, user = "root_user"): Promise<SqlError> {
      const before = await stack.snapshot();
      const outcome = await stack.run(user, sql).catch((error: unknown) => error);
      expect(outcome, sql).toBeInstanceOf(SqlError);
      expect(await stack.snapshot()).toBe(before);
      return outcome as SqlError;
    }

    const provider = (name: string) => findOidcProvider(stack.catalog.pool, name);

    test("CREATE keeps everything that was said", async () => {
      const result = await run(
        `CREATE OIDC PROVIDER keycloak WITH (issuer = 'https://id.example.com/realms/a',
           jwks_url = 'https://id.example.com/certs?x=1', audience = 'app', tenant = 42,
           algorithms = ('ES256', 'EdDSA', 'ES256'),
           claim_mapping = [
             { claim = 'groups', value = 'eng', effect = {
                 default_database = 'nodedb', add_databases = ['nodedb', 'postgres'], add_roles = ['readwrite'] } },
             { claim = 'realm_access.roles', value = null, effect = { add_roles = ['readonly'] } } ])`,
      );
      expect(result).toEqual({ tag: "CREATE OIDC PROVIDER", notices: [] });
      expect(await provider("keycloak")).toMatchObject({
        issuer: "https://id.example.com/realms/a",
        jwksUrl: "https://id.example.com/certs?x=1",
        audience: "app",
        tenantId: 42,
        algorithms: ["ES256", "EdDSA"],
        claimMapping: [
          {
            claim: "groups",
            value: "eng",
            defaultDatabase: "nodedb",
            addDatabases: ["nodedb", "postgres"],
            addRoles: ["readwrite"],
          },
          {
            claim: "realm_access.roles",
            value: null,
            defaultDatabase: undefined,
            addDatabases: [],
            addRoles: ["readonly"],
          },
        ],
        jwksRefreshRequestedAt: undefined,
      });
    });

    test("the clause form says the same, and the tenant is the creator's by default", async () => {
      await run(
        `CREATE OIDC PROVIDER clause ISSUER 'https://clause.example.com' JWKS_URI 'https://clause.example.com/k'
           CLAIM MAPPING WHEN groups = 'eng' SET DEFAULT_DATABASE = nodedb ADD DATABASES [nodedb] ADD ROLES ['readonly']`,
      );
      expect(await provider("clause")).toMatchObject({
        tenantId: 1,
        audience: undefined,
        algorithms: undefined,
        claimMapping: [{ claim: "groups", value: "eng", defaultDatabase: "nodedb", addRoles: ["readonly"] }],
      });
    });

    const https = "issuer = 'https://new.example.com'";
    test.each([
      [`keycloak WITH (${https})`, "42710"],
      ["n WITH (issuer = 'https://id.example.com/realms/a', audience = 'app')", "42710"],
      ["n WITH (issuer = 'https://id.example.com/realms/a')", "42710"],
      ["n WITH (issuer = 'https://clause.example.com', audience = 'any')", "42710"],
      ["n WITH (issuer = 'http://new.example.com')", "22023"],
      ["n WITH (issuer = 'ftp://new.example.com')", "22023"],
      ["n WITH (issuer = 'http://localhost.example.com')", "22023"],
      ["n WITH (issuer = 'http://127.0.0.1.example.com')", "22023"],
      ["n WITH (issuer = 'https://u:p@new.example.com')", "22023"],
      ["n WITH (issuer = 'https://new.example.com?x=1')", "22023"],
      ["n WITH (issuer = 'https://new.example.com#x')", "22023"],
      ["n WITH (issuer = ' https://new.example.com')", "22023"],
      ["n WITH (issuer = 'new.example.com')", "22023"],
      ["n WITH (issuer = '')", "22023"],
      [`n WITH (${https}, jwks_url = 'http://new.example.com/k')`, "22023"],
      [`n WITH (${https}, jwks_url = '')`, "22023"],
      [`n WITH (${https}, audience = '')`, "22023"],
      [`n WITH (${https}, tenant = 99)`, "42704"],
      [`n WITH (${https}, algorithms = ('none'))`, "22023"],
      [`n WITH (${https}, algorithms = ('ES256', 'HS256'))`, "22023"],
      [`n WITH (${https}, algorithms = ('es256'))`, "22023"],
      [
        `n WITH (${https}, claim_mapping = [{ claim = 'g', value = 'e', effect = { add_roles = ['nothing'] } }])`,
        "42704",
      ],
      [
        `n WITH (${https}, claim_mapping = [{ claim = 'g', value = 'e', effect = { add_roles = ['superuser'] } }])`,
        "42501",
      ],
      [
        `n WITH (${https}, claim_mapping = [{ claim = 'g', value = 'e', effect = { add_databases = ['nowhere'] } }])`,
        "3D000",
      ],
      [
        `n WITH (${https}, claim_mapping = [{ claim = 'g', value = 'e', effect = { default_database = 'nowhere' } }])`,
        "3D000",
      ],
    ])("refuses CREATE OIDC PROVIDER %s with %s", async (rest, sqlstate) => {
      expect(await refused(`CREATE OIDC PROVIDER ${rest}`)).toMatchObject({ sqlstate });
    });

    test("a custom role that inherits superuser is no way around", async () => {
      await run("CREATE ROLE sneaky INHERIT superuser").catch(() => undefined);
      await stack.sql(
        "INSERT INTO nodedb.role (name, tenant_id, parent) VALUES ('sneaky', 1, 'superuser') ON CONFLICT DO NOTHING",
      );
      expect(
        await refused(
          `CREATE OIDC PROVIDER n WITH (${https},
             claim_mapping = [{ claim = 'g', value = 'e', effect = { add_roles = ['sneaky'] } }])`,
        ),
      ).toMatchObject({ sqlstate: "42501" });
    });

    test.each(["http://localhost:8080", "http://127.0.0.1/x", "http://[::1]:9"])(
      "takes %s, which never leaves the machine, without TLS",
      async (issuer) => {
        await run(`CREATE OIDC PROVIDER local WITH (issuer = '${issuer}')`);
        await run("DROP OIDC PROVIDER local");
      },
    );

    test("providers of one issuer with audiences of their own stand side by side", async () => {
      await run(
        "CREATE OIDC PROVIDER second WITH (issuer = 'https://id.example.com/realms/a', audience = 'other')",
      );
      expect(await refused("ALTER OIDC PROVIDER second SET (audience = 'app')")).toMatchObject({
        sqlstate: "42710",
      });
      await run("ALTER OIDC PROVIDER second SET (audience = 'third')");
      expect(
        await run("CREATE OIDC PROVIDER IF NOT EXISTS second WITH (issuer = 'https://x.example.com')"),
      ).toEqual({
        tag: "CREATE OIDC PROVIDER",
        notices: ['OIDC provider "second" already exists, skipping'],
      });
    });

    test("two administrators at once make no two providers that take the same tokens", async () => {
      for (const [one, other] of [
        ["", ", audience = 'a'"],
        [", audience = 'a'", ", audience = 'a'"],
      ]) {
        const outcomes = await Promise.allSettled([
          run(`CREATE OIDC PROVIDER race1 WITH (issuer = 'https://race.example.com'${one})`),
          run(`CREATE OIDC PROVIDER race2 WITH (issuer = 'https://race.example.com'${other})`),
        ]);
        expect(outcomes.map((outcome) => outcome.status).sort()).toEqual(["fulfilled", "rejected"]);
        expect(outcomes.find((outcome) => outcome.status === "rejected")?.reason).toMatchObject({
          sqlstate: "42710",
        });
        await run("DROP OIDC PROVIDER IF EXISTS race1");
        await run("DROP OIDC PROVIDER IF EXISTS race2");
      }
    });

    test("ALTER changes what is mentioned and nothing else", async () => {
      const before = await provider("keycloak");
      expect((await run("ALTER OIDC PROVIDER keycloak SET (audience = 'app2')")).tag).toBe(
        "ALTER OIDC PROVIDER",
      );
      expect(await provider("keycloak")).toEqual({ ...before, audience: "app2" });
      await run("ALTER OIDC PROVIDER keycloak SET CLAIM MAPPING WHEN g = '*' ADD ROLES ['admin']");
      expect(await provider("keycloak")).toEqual({
        ...before,
        audience: "app2",
        claimMapping: [
          { claim: "g", value: "*", defaultDatabase: undefined, addDatabases: [], addRoles: ["admin"] },
        ],
      });
      expect(
        await refused("ALTER OIDC PROVIDER keycloak SET (issuer = 'http://x.example.com')"),
      ).toMatchObject({
        sqlstate: "22023",
      });
      expect(await refused("ALTER OIDC PROVIDER nothing SET (audience = 'x')")).toMatchObject({
        sqlstate: "42704",
      });
    });

    test("REFRESH JWKS notes the request and tells the other processes", async () => {
      const listener = await stack.connectAs("postgres");
      const told = new Promise((resolve) => listener.once("notification", resolve));
      await listener.query("LISTEN nodedb_catalog");
      const start = Date.now();
      expect((await run("ALTER OIDC PROVIDER keycloak REFRESH JWKS")).tag).toBe("ALTER OIDC PROVIDER");
      await told;
      await listener.end();
      const requested = (await provider("keycloak"))?.jwksRefreshRequestedAt?.getTime() ?? 0;
      expect(Math.abs(requested - start)).toBeLessThan(10_000);
      expect(await refused("ALTER OIDC PROVIDER nothing REFRESH JWKS")).toMatchObject({ sqlstate: "42704" });
    });

    test("is the superuser's alone", async () => {
      for (const sql of [
        `CREATE OIDC PROVIDER n WITH (${https})`,
        "ALTER OIDC PROVIDER keycloak SET (audience = 'x')",
        "ALTER OIDC PROVIDER keycloak REFRESH JWKS",
        "DROP OIDC PROVIDER keycloak",
        "DROP OIDC PROVIDER IF EXISTS nothing",
        "SHOW OIDC PROVIDERS",
      ]) {
        expect(await refused(sql, "boss")).toMatchObject({ sqlstate: "42501" });
      }
    });

    test("SHOW lists them", async () => {
      const { tag, table } = await run("SHOW OIDC PROVIDERS");
      expect(tag).toBe("SHOW");
      expect(table?.columns.map((column) => `${column.name} ${column.type}`)).toEqual([
        "name text",
        "issuer text",
        "jwks_url text",
        "audience text",
        "tenant_id int8",
        "claim_mapping_rules int8",
        "created_at timestamptz",
      ]);
      expect(table?.rows.map((row) => row.slice(0, 6))).toEqual([
        ["clause", "https://clause.example.com", "https://clause.example.com/k", null, 1n, 1n],
        ["keycloak", "https://id.example.com/realms/a", "https://id.example.com/certs?x=1", "app2", 42n, 1n],
        ["second", "https://id.example.com/realms/a", null, "third", 1n, 0n],
      ]);
    });

    test("DROP removes one", async () => {
      expect((await run("DROP OIDC PROVIDER second")).tag).toBe("DROP OIDC PROVIDER");
      expect(await refused("DROP OIDC PROVIDER second")).toMatchObject({
        sqlstate: "42704",
        message: 'OIDC provider "second" does not exist',
      });
      expect(await run("DROP OIDC PROVIDER IF EXISTS second")).toEqual({
        tag: "DROP OIDC PROVIDER",
        notices: ['OIDC provider "second" does not exist, skipping'],
      });
      expect((await loadOidcProviders(stack.catalog.pool)).map(({ name }) => name)).toEqual([
        "clause",
        "keycloak",
      ]);
    });
  });
}
