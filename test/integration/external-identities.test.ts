/** Whom OIDC providers vouch for: principals that are made at the first login, follow the mapping, and go when unused. */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { mayStay } from "../../src/auth/live-session.ts";
import { providersOf } from "../../src/auth/token-provider.ts";
import type { PrincipalRecord } from "../../src/catalog/users.ts";
import { SqlError } from "../../src/errors/sql-error.ts";
import { createExternalIdentities } from "../../src/exec/external-identity.ts";
import { reapExternalIdentities } from "../../src/exec/external-identity-reaper.ts";
import type { StatementResult } from "../../src/exec/result.ts";
import { type CatalogStack, makeMasterSecret, openCatalogStack } from "../support/catalog-stack.ts";
import { type IdentityStack, openIdentityStack } from "../support/identity-stack.ts";
import { type Issuer, type IssuerKey, makeKey, startIssuer } from "../support/issuer.ts";
import { hasDebianPostgres, startPostgres, type TestPostgres } from "../support/postgres.ts";
import { requireClient } from "../support/skips.ts";

for (const version of ["embedded", "debian"] as const) {
  describe(`external identities on PostgreSQL (${version})`, () => {
    const isThere = version === "embedded" || requireClient("PostgreSQL 15 (Debian)", hasDebianPostgres);
    let dataDir: string;
    let postgres: TestPostgres;
    let stack: CatalogStack;
    let issuer: Issuer;
    let key: IssuerKey;
    let identities: IdentityStack;
    let subjects = 0;

    beforeAll(async () => {
      if (!isThere) return;
      dataDir = await mkdtemp(join(tmpdir(), "nodedb-identities-"));
      postgres = await startPostgres({ version });
      stack = await openCatalogStack(
        postgres,
        version === "embedded"
          ? { isEmbedded: true }
          : { isEmbedded: false, masterSecret: makeMasterSecret() },
      );
      await stack.sql("INSERT INTO nodedb.tenant (id, name) VALUES (42, 'acme')");
      await stack.sql("CREATE DATABASE analytics");
      await stack.sql("CREATE DATABASE reports");
      key = await makeKey("ES256", "k1");
      issuer = await startIssuer([key]);
      identities = openIdentityStack(
        stack,
        dataDir,
        `[[auth.jwks.providers]]
         name = "configured"\nissuer = "${issuer.issuer}"\njwks_url = "${issuer.jwksUrl}"
         audience = "configured-api"\ntenant_id = 42\nroles = ["readwrite"]
         [auth.jwks.claims]\nplan = "app_metadata.plan"`,
      );
      await run("CREATE ROLE analyst INHERIT readonly");
      await run("CREATE USER somebody PASSWORD 'long enough'");
    });

    afterAll(async () => {
      await identities?.services.close();
      await stack?.close();
      await issuer?.close();
      await postgres?.dispose();
      if (dataDir !== undefined) await rm(dataDir, { recursive: true });
    });

    beforeEach(async () => {
      if (isThere) await run("DROP OIDC PROVIDER IF EXISTS main");
    });

    const test = it.skipIf(!isThere);

    async function run(sql: string, user = "root_user"): Promise<StatementResult> {
      const result = await stack.run(user, sql);
      if (result === "forward") expect.fail(`forwarded: ${sql}`);
      return result;
    }

    const conditionOf = async (work: Promise<unknown>) => {
      const error = await work.catch((thrown: unknown) => thrown);
      return error instanceof SqlError ? error.condition : error;
    };

    function createProvider(more = ""): Promise<StatementResult> {
      return run(
        `CREATE OIDC PROVIDER main WITH (issuer = '${issuer.issuer}', jwks_url = '${issuer.jwksUrl}', audience = 'api'${more})`,
      );
    }

    const mapping = (...rules: string[]) => `, claim_mapping = [${rules.join(", ")}]`;
    const rule = (claim: string, value: string, effect: string) =>
      `{ claim = '${claim}', value = '${value}', effect = { ${effect} } }`;
    const newSubject = () => {
      subjects += 1;
      return `subject-${subjects}`;
    };
    const recordOf = (name: string) => stack.catalog.cache.findByName(name) as PrincipalRecord;
    const groupsOf = async (name: string) =>
      (
        await stack.sql(
          `SELECT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
             JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = $1 ORDER BY 1`,
          [name],
        )
      ).map(({ rolname }) => rolname);
    const mayConnect = async (name: string) =>
      (
        await stack.sql(
          `SELECT d.datname FROM pg_database d, aclexplode(d.datacl) a JOIN pg_roles r ON r.oid = a.grantee
            WHERE r.rolname = $1 AND a.privilege_type = 'CONNECT' ORDER BY 1`,
          [name],
        )
      ).map(({ datname }) => datname);

    test("the first of many logins at once makes one principal, in the provider's tenant", async () => {
      await createProvider(`, tenant = 42${mapping(rule("groups", "eng", "add_roles = ['readwrite']"))}`);
      const sub = newSubject();
      const token = await issuer.sign(key, {
        sub,
        groups: ["eng"],
        tenant_id: 7,
        scope: "read:orders write:orders",
        org_id: "org-9",
        app_metadata: { plan: "gold" },
      });
      const found = await Promise.all(Array.from({ length: 20 }, () => identities.identityOf(token)));
      const [identity] = found;
      expect(new Set(found.map(({ principal }) => principal.id)).size).toBe(1);
      expect(identity).toMatchObject({
        principal: { kind: "external", name: expect.stringMatching(/^oidc:main:[a-z2-7]{26}$/) },
        tenantId: 42,
        roles: ["readwrite"],
        isSuperuser: false,
        method: "jwt",
        claims: {
          id: sub,
          role: "readwrite",
          roles: ["readwrite"],
          tenant_id: 42,
          org_id: "org-9",
          scopes: ["read:orders", "write:orders"],
          plan: "gold",
        },
      });
      const { role = "" } = identity ?? {};
      const [pgRole] = await stack.sql(
        "SELECT rolcanlogin, rolsuper, rolcreaterole, rolbypassrls FROM pg_roles WHERE rolname = $1",
        [role],
      );
      expect(pgRole).toEqual({
        rolcanlogin: true,
        rolsuper: false,
        rolcreaterole: false,
        rolbypassrls: false,
      });
      expect(await groupsOf(role)).toContain("nodedb_readwrite");
      const writes = await stack.sql("SELECT count(*)::int AS n FROM nodedb.principal WHERE name = $1", [
        role,
      ]);
      expect(writes).toEqual([{ n: 1 }]);
    });

    test("a login that changes nothing writes nothing", async () => {
      await createProvider();
      const token = await issuer.sign(key, { sub: newSubject() });
      await identities.identityOf(token);
      const before = await stack.snapshot();
      const [version] = await stack.sql("SELECT catalog_version FROM nodedb.instance");
      await Promise.all(Array.from({ length: 10 }, () => identities.identityOf(token)));
      expect(await stack.sql("SELECT catalog_version FROM nodedb.instance")).toEqual([version]);
      expect(await stack.snapshot()).toBe(before);
    });

    test("what the token says of superusers, tenants and roles gives nothing", async () => {
      await createProvider();
      const identity = await identities.identityOf(
        await issuer.sign(key, {
          sub: newSubject(),
          is_superuser: true,
          role: "superuser",
          roles: ["superuser", "admin"],
          tenant_id: 42,
          databases: ["analytics"],
        }),
      );
      expect(identity).toMatchObject({
        roles: ["readonly"],
        tenantId: 1,
        isSuperuser: false,
        claims: { role: "readonly", roles: ["readonly"], tenant_id: 1 },
      });
      expect(await groupsOf(identity.role)).not.toContain("nodedb_superuser");
      const other = await identities.identityOf(
        await issuer.sign(key, { sub: newSubject(), role: "author" }),
      );
      expect(other.claims).toMatchObject({ role: "author", roles: ["readonly"] });
    });

    test("a mapping that matches nothing gives no role, and PostgreSQL no way in", async () => {
      await createProvider(mapping(rule("groups", "eng", "add_roles = ['readwrite']")));
      const identity = await identities.identityOf(
        await issuer.sign(key, { sub: newSubject(), groups: ["ops"] }),
      );
      expect(identity.roles).toEqual([]);
      expect(await groupsOf(identity.role)).toEqual([]);
    });

    test("the mapping decides at each login, with what is granted and what is taken back", async () => {
      await createProvider(
        mapping(
          rule(
            "groups",
            "eng",
            "default_database = 'analytics', add_databases = ['reports'], add_roles = ['analyst']",
          ),
          rule("groups", "ops", "add_roles = ['admin']"),
        ),
      );
      const sub = newSubject();
      const eng = await issuer.sign(key, { sub, groups: ["eng"] });
      const identity = await identities.identityOf(eng);
      const { role } = identity;
      expect(identity).toMatchObject({
        roles: ["analyst"],
        effectiveRoles: expect.arrayContaining(["analyst", "readonly"]),
        defaultDatabase: "analytics",
        databases: ["analytics", "reports"],
      });
      expect(await groupsOf(role)).toContain("analyst");
      expect(await mayConnect(role)).toEqual(["analytics", "reports"]);
      expect(await identities.identityOf(eng, "reports")).toMatchObject({ role });
      expect(await conditionOf(identities.present(eng, "nodedb"))).toBe("insufficient_privilege");

      const ops = await identities.identityOf(await issuer.sign(key, { sub, groups: ["ops"] }));
      expect(ops).toMatchObject({ role, roles: ["admin"], defaultDatabase: undefined, databases: undefined });
      expect(await groupsOf(role)).not.toContain("analyst");
      expect(await mayConnect(role)).toEqual([]);

      await run("ALTER OIDC PROVIDER main SET CLAIM MAPPING WHEN groups = 'eng' ADD DATABASES [reports]");
      // A live session stays as it is; the next login is by the new mapping.
      expect(mayStay(stack.catalog.cache, { identity: ops, database: "nodedb" }, new Date())).toBe(true);
      expect(await identities.identityOf(eng)).toMatchObject({ role, roles: [], databases: ["reports"] });
      expect(await mayConnect(role)).toEqual(["reports"]);
    });

    test("a role or a database that is gone gives nothing, and is not looked for at each login", async () => {
      await run("CREATE ROLE passing INHERIT readonly");
      await stack.sql("CREATE DATABASE passing");
      await createProvider(mapping(rule("sub", "*", "add_databases = ['passing'], add_roles = ['passing']")));
      await run("DROP ROLE passing");
      await stack.sql("DROP DATABASE passing");
      const token = await issuer.sign(key, { sub: newSubject() });
      // The list stays, and lets in nowhere else.
      expect(await identities.identityOf(token, "passing")).toMatchObject({
        roles: [],
        databases: ["passing"],
      });
      expect(await conditionOf(identities.present(token, "nodedb"))).toBe("insufficient_privilege");
      const [version] = await stack.sql("SELECT catalog_version FROM nodedb.instance");
      await identities.identityOf(token, "passing");
      expect(await stack.sql("SELECT catalog_version FROM nodedb.instance")).toEqual([version]);
    });

    test("one subject of two providers is two principals, each of its tenant", async () => {
      await createProvider();
      const sub = newSubject();
      const one = await identities.identityOf(await issuer.sign(key, { sub }));
      const other = await identities.identityOf(await issuer.sign(key, { sub, aud: "configured-api" }));
      expect(one.role).not.toBe(other.role);
      expect([one.tenantId, other.tenantId]).toEqual([1, 42]);
      expect(other).toMatchObject({ roles: ["readwrite"], role: expect.stringMatching(/^oidc:configured:/) });
    });

    test("names of any length and letters make roles of 63 bytes at most", async () => {
      const long = `p${"ü".repeat(31)}`;
      await run(
        `CREATE OIDC PROVIDER "${long}" WITH (issuer = '${issuer.issuer}', jwks_url = '${issuer.jwksUrl}', audience = 'long')`,
      );
      for (const sub of ["s".repeat(255), "'; DROP ROLE x; --", 'ünï"çødé 🙂', "auth0|5f7c"]) {
        const { role, claims } = await identities.identityOf(await issuer.sign(key, { sub, aud: "long" }));
        expect(Buffer.byteLength(role)).toBeLessThanOrEqual(63);
        expect(role).toMatch(/^oidc:pü+:[a-z2-7]{26}$/);
        expect(claims).toMatchObject({ id: sub });
        expect(await stack.sql("SELECT FROM pg_roles WHERE rolname = $1", [role])).toHaveLength(1);
      }
      await run(`DROP OIDC PROVIDER "${long}"`);
    });

    test("providers whose names begin alike have users of their own", async () => {
      const long = "p".repeat(62);
      const sub = newSubject();
      const roles = new Set<string>();
      for (const end of ["a", "b"]) {
        await run(
          `CREATE OIDC PROVIDER "${long}${end}" WITH (issuer = '${issuer.issuer}', jwks_url = '${issuer.jwksUrl}', audience = '${end}')`,
        );
        roles.add((await identities.identityOf(await issuer.sign(key, { sub, aud: end }))).role);
        await run(`DROP OIDC PROVIDER "${long}${end}"`);
      }
      expect(roles.size).toBe(2);
    });

    test("no rule gives superuser or another tenant's role, whatever the catalog has come to say", async () => {
      await run("CREATE ROLE boss INHERIT readonly");
      await createProvider(mapping(rule("sub", "*", "add_roles = ['boss', 'readwrite']")));
      const login = async () => identities.identityOf(await issuer.sign(key, { sub: newSubject() }));
      expect(await login()).toMatchObject({ roles: ["boss", "readwrite"] });
      await stack.sql("UPDATE nodedb.role SET tenant_id = 42 WHERE name = 'boss'");
      expect(await login()).toMatchObject({ roles: ["readwrite"] });
      // No statement stores this.
      await stack.sql(
        `UPDATE nodedb.oidc_provider SET claim_mapping = replace(claim_mapping::text, '"boss"', '"superuser"')::jsonb WHERE name = 'main'`,
      );
      await run("ALTER OIDC PROVIDER main SET (audience = 'api')");
      expect(await login()).toMatchObject({ roles: ["readwrite"], isSuperuser: false });
    });

    test("a provider that is dropped while a token of it is checked vouches for nobody", async () => {
      await createProvider();
      const [provider] = providersOf(stack.catalog.cache.providers(), [], ["ES256"]);
      if (provider === undefined) expect.fail("no provider");
      const resolve = createExternalIdentities(stack.deps);
      const access = { defaultDatabase: undefined, databases: [], roles: ["readonly"] };
      await run("ALTER OIDC PROVIDER main SET (tenant = 42)");
      expect(await resolve({ provider, subject: newSubject(), access })).toBeUndefined();
      await run("DROP OIDC PROVIDER main");
      const before = await stack.snapshot();
      expect(await resolve({ provider, subject: newSubject(), access })).toBeUndefined();
      expect(await stack.snapshot()).toBe(before);
    });

    test("nothing is granted to one that may not log in", async () => {
      await createProvider(mapping(rule("groups", "ops", "add_roles = ['admin']")));
      const sub = newSubject();
      const { role } = await identities.identityOf(await issuer.sign(key, { sub }));
      await run(`ALTER USER "${role}" NOLOGIN`);
      const before = await stack.snapshot();
      expect(await identities.present(await issuer.sign(key, { sub, groups: ["ops"] }))).toMatchObject({
        ok: false,
        reason: "login_disabled",
      });
      expect(await stack.snapshot()).toBe(before);
    });

    test("a subject that is called as somebody else is nobody but itself", async () => {
      await createProvider();
      const subs = [
        "somebody",
        "root_user",
        "analyst",
        "superuser",
        "readonly",
        "postgres",
        "pg_read_all_data",
        "nodedb_readwrite",
        "public",
        "current_user",
        "s\u043emebody",
        "somebody ",
        "SOMEBODY",
        "caf\u00e9",
        "cafe\u0301",
        "oidc:main:aaaaaaaaaaaaaaaaaaaaaaaaaa",
      ];
      const roles = new Set<string>();
      for (const sub of subs) {
        const identity = await identities.identityOf(await issuer.sign(key, { sub }));
        expect(identity).toMatchObject({ roles: ["readonly"], isSuperuser: false, claims: { id: sub } });
        expect(identity.role).toMatch(/^oidc:main:[a-z2-7]{26}$/);
        expect(await groupsOf(identity.role)).toEqual(await groupsOf([...roles][0] ?? identity.role));
        roles.add(identity.role);
      }
      expect(roles.size).toBe(subs.length);
      expect(recordOf("somebody")).toMatchObject({ kind: "user" });
    });

    test("a refused token leaves everything as it was", async () => {
      await createProvider();
      const stranger = await makeKey("ES256", "k1");
      const sub = newSubject();
      const before = await stack.snapshot();
      for (const token of [
        await issuer.sign(stranger, { sub }),
        await issuer.sign(key, { sub, exp: 1 }),
        await issuer.sign(key, { sub, org_id: "x".repeat(5_000) }),
        await issuer.sign(key, { sub, org_id: "a\0b" }),
        await issuer.sign(key, { sub: "" }),
      ]) {
        expect(await identities.present(token)).toMatchObject({ ok: false, provider: "main" });
      }
      expect(await stack.snapshot()).toBe(before);
      await stack.deps.audit.flush();
      const log = await run("SHOW AUDIT LOG WHERE event = 'AuthFailure' LIMIT 5");
      expect(log.table?.rows.map((row) => row[7])).toEqual([
        'no_subject, OIDC provider "main"',
        'unusable_claims, OIDC provider "main"',
        'unusable_claims, OIDC provider "main"',
        'token_expired, OIDC provider "main"',
        'bad_signature, OIDC provider "main"',
      ]);
    });

    test("with its provider it goes, and comes back as the same", async () => {
      await createProvider();
      const token = await issuer.sign(key, { sub: newSubject() });
      const identity = await identities.identityOf(token);
      const session = { identity, database: "nodedb" };
      stack.live.add(session);
      await run("DROP OIDC PROVIDER main");
      expect(stack.closed.map(({ id }) => id)).toContain(identity.principal.id);
      expect(mayStay(stack.catalog.cache, session, new Date())).toBe(false);
      stack.live.delete(session);
      expect(await identities.present(token)).toEqual({ ok: false, reason: "unknown_provider" });
      expect(await conditionOf(stack.run(identity.role, "SHOW USERS"))).toBe("insufficient_privilege");
      await createProvider();
      expect((await identities.identityOf(token)).principal).toEqual(identity.principal);
    });

    test("another issuer in the provider is another one's word", async () => {
      await createProvider();
      const identity = await identities.identityOf(await issuer.sign(key, { sub: newSubject() }));
      await run("ALTER OIDC PROVIDER main SET (issuer = 'https://id.example.com/')");
      expect(mayStay(stack.catalog.cache, { identity, database: "nodedb" }, new Date())).toBe(false);
    });

    test("its session ends with its token", async () => {
      await createProvider();
      const exp = Math.floor(Date.now() / 1000) + 100;
      const identity = await identities.identityOf(await issuer.sign(key, { sub: newSubject(), exp }));
      const session = { identity, database: "nodedb" };
      const end = (exp + 60) * 1000;
      expect(identity.expiresAt?.getTime()).toBe(end);
      expect(mayStay(stack.catalog.cache, session, new Date(end - 1))).toBe(true);
      expect(mayStay(stack.catalog.cache, session, new Date(end))).toBe(false);
    });

    test("an admin can keep one out, and nothing else of it is a statement's to change", async () => {
      await createProvider();
      const token = await issuer.sign(key, { sub: newSubject() });
      const { role } = await identities.identityOf(token);
      for (const [sql, condition] of [
        [`ALTER USER "${role}" PASSWORD 'long enough'`, "wrong_object_type"],
        [`ALTER USER "${role}" SET ROLE admin`, "wrong_object_type"],
        [`ALTER USER "${role}" RENAME TO another`, "wrong_object_type"],
        [`ALTER USER "${role}" SET DEFAULT DATABASE analytics`, "wrong_object_type"],
        [`GRANT ROLE admin TO "${role}"`, "wrong_object_type"],
        [`GRANT CONNECT ON DATABASE analytics TO "${role}"`, "wrong_object_type"],
        [`CREATE API KEY 'k' FOR "${role}"`, "wrong_object_type"],
        [`DROP SERVICE ACCOUNT "${role}"`, "wrong_object_type"],
        [`CREATE USER "oidc:main:x" PASSWORD 'long enough'`, "reserved_name"],
        [`CREATE ROLE "oidc:main:x"`, "reserved_name"],
        [`CREATE API KEY "oidc:main:x" ROLE readonly`, "reserved_name"],
        [`CREATE SERVICE ACCOUNT "oidc:main:x" FOR DATABASE analytics`, "reserved_name"],
        [`ALTER USER somebody RENAME TO "oidc:main:x"`, "reserved_name"],
      ]) {
        expect(await conditionOf(stack.run("root_user", sql ?? "")), sql).toBe(condition);
      }
      expect(await conditionOf(stack.run(role, "CREATE API KEY 'mine' FOR USER CURRENT_USER"))).toBe(
        "wrong_object_type",
      );
      expect(await conditionOf(stack.run(role, "ALTER USER CURRENT_USER PASSWORD 'long enough'"))).toBe(
        "wrong_object_type",
      );

      await run(`ALTER USER "${role}" NOLOGIN`);
      const before = await stack.snapshot();
      expect(await identities.present(token)).toMatchObject({ ok: false, reason: "login_disabled" });
      expect(await stack.snapshot()).toBe(before);
      await run(`ALTER USER "${role}" LOGIN`);
      expect((await identities.identityOf(token)).role).toBe(role);
      await run(`DROP USER "${role}"`);
      expect(await stack.sql("SELECT FROM pg_roles WHERE rolname = $1", [role])).toEqual([]);
      expect((await identities.identityOf(token)).role).toBe(role);
    });

    test("SHOW SESSION shows it, and SHOW USERS does not", async () => {
      await createProvider();
      const identity = await identities.identityOf(await issuer.sign(key, { sub: newSubject() }));
      const shown = await stack.run(identity.role, "SHOW SESSION", { identity });
      expect(shown === "forward" ? undefined : shown.table?.rows[0]?.slice(0, 5)).toEqual([
        identity.role,
        1n,
        "readonly",
        "jwt",
        false,
      ]);
      const users = await run("SHOW USERS");
      expect(users.table?.rows.map(([name]) => name)).not.toContain(identity.role);
    });

    test("a role that somebody made in PostgreSQL under its name is not taken over", async () => {
      await createProvider();
      const token = await issuer.sign(key, { sub: newSubject() });
      const { role } = await identities.identityOf(token);
      await run(`DROP USER "${role}"`);
      await stack.sql(`CREATE ROLE "${role}" IN ROLE pg_read_all_data`);
      expect(await conditionOf(identities.present(token))).toBe("duplicate_object");
      await stack.sql(`DROP ROLE "${role}"`);
      expect((await identities.identityOf(token)).role).toBe(role);
    });

    describe("collecting unused ones", () => {
      const day = 86_400_000;
      async function aged(days: number): Promise<string> {
        const { role } = await identities.identityOf(await issuer.sign(key, { sub: newSubject() }));
        await stack.catalog.flushLogins();
        await stack.sql(
          `UPDATE nodedb.principal SET created_at = now() - $2 * interval '1 day',
                  last_login_at = now() - $2 * interval '1 day' WHERE name = $1`,
          [role, days],
        );
        return role;
      }
      const exists = async (role: string) =>
        (await stack.sql("SELECT FROM pg_roles WHERE rolname = $1", [role])).length === 1;

      test("drops those that nobody has used for long, with their rights", async () => {
        await createProvider(
          mapping(rule("sub", "*", "add_databases = ['reports'], add_roles = ['analyst']")),
        );
        const old = await aged(31);
        const young = await aged(29);
        const gone = await reapExternalIdentities(stack.deps, 30 * day);
        expect(gone).toContain(old);
        expect(gone).not.toContain(young);
        expect([await exists(old), await exists(young)]).toEqual([false, true]);
        expect(stack.catalog.cache.findByName(old)).toBeUndefined();
        expect(await stack.sql("SELECT FROM nodedb.principal WHERE name = $1", [old])).toEqual([]);
      });

      test("leaves those that own something, have a session, or are kept out", async () => {
        await createProvider(mapping(rule("sub", "*", "add_roles = ['admin']")));
        const owner = await aged(31);
        await stack.sql(
          `CREATE TABLE owned (); ALTER TABLE owned OWNER TO "${owner}"`,
          undefined,
          "analytics",
        );
        const banned = await aged(31);
        await run(`ALTER USER "${banned}" NOLOGIN`);
        const busy = await aged(31);
        await stack.sql(
          `WITH f AS (INSERT INTO nodedb.front_end (id, heartbeat_at) VALUES (gen_random_uuid(), now() + interval '1 hour') RETURNING id)
           INSERT INTO nodedb.session (id, instance_id, principal_id, username, database, tenant_id, auth_method, protocol, state, connected_at, last_active_at)
           SELECT gen_random_uuid(), f.id, $1, 'x', 'nodedb', 1, 'jwt', 'pgwire', 'idle', now(), now() FROM f`,
          [recordOf(busy).id],
        );
        const free = await aged(31);
        const gone = await reapExternalIdentities(stack.deps, 30 * day);
        expect(gone).toContain(free);
        for (const role of [owner, banned, busy]) {
          expect(gone, role).not.toContain(role);
          expect(await exists(role)).toBe(true);
        }
        expect(await stack.sql("SELECT FROM nodedb.principal WHERE name = $1", [owner])).toHaveLength(1);
      });

      test("a use that is not yet written counts", async () => {
        await createProvider();
        const sub = newSubject();
        const token = await issuer.sign(key, { sub });
        const { role } = await identities.identityOf(token);
        await stack.catalog.flushLogins();
        await stack.sql(
          `UPDATE nodedb.principal SET created_at = now() - interval '1 year', last_login_at = now() - interval '1 year' WHERE name = $1`,
          [role],
        );
        await identities.identityOf(token);
        expect(await reapExternalIdentities(stack.deps, 30 * day)).not.toContain(role);
      });
    });
  });
}
