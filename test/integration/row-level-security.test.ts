/**
 * Row-level security end to end: one table, and every credential through every front door, each seeing and changing its own
 * rows and no others, whichever way the policy asks who somebody is.
 */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { makeServerCertificate, type TestCertificate } from "../support/certificates.ts";
import {
  type ClientAuthority,
  type ClientCertificate,
  makeClientAuthority,
} from "../support/client-certificates.ts";
import { isRunnable } from "../support/client-program.ts";
import {
  bearerDoor,
  type Door,
  httpCertificateDoor,
  httpDoor,
  type Outcome,
  psqlDoor,
} from "../support/doors.ts";
import { createKey, httpClient } from "../support/http.ts";
import { type Issuer, type IssuerKey, makeKey, startIssuer } from "../support/issuer.ts";
import { hasDebianPostgres } from "../support/postgres.ts";
import { requireClient } from "../support/skips.ts";
import { openStage, passwordOf, type Stage } from "../support/stage.ts";

describe("before PostgreSQL 18", () => describeRows("embedded", true));
describe("before PostgreSQL 15", () => {
  describeRows("debian", requireClient("PostgreSQL 15 (postgresql-15)", hasDebianPostgres));
});

/** Who there is: the id that policies know them by, the tenant, and the organisation that a token may name. */
const people = {
  alice: { id: "alice", tenant: "1", organisation: null },
  carol: { id: "carol", tenant: "42", organisation: null },
  etl: { id: "etl", tenant: "1", organisation: null },
  ada: { id: "5f0c1a52-6c44-4d6c-9a0e-0d3c7f9b1a11", tenant: "42", organisation: "acme" },
} as const;
type Person = keyof typeof people;

/** SCRAM needs a conversation, and HTTP has none: a password is not taken there. */
const ways: readonly { readonly name: string; readonly person: Person; readonly needsPsql: boolean }[] = [
  { name: "psql with a password (SCRAM)", person: "alice", needsPsql: true },
  { name: "psql with a certificate", person: "carol", needsPsql: true },
  { name: "psql with an API key as the password", person: "etl", needsPsql: true },
  { name: "the PostgreSQL protocol with a JWT (OAUTHBEARER)", person: "ada", needsPsql: false },
  { name: "HTTP with a certificate", person: "carol", needsPsql: false },
  { name: "HTTP with an API key", person: "etl", needsPsql: false },
  { name: "HTTP with a JWT", person: "ada", needsPsql: false },
];

/** Tables with the same rows and a policy each; what of a person a row must have to be its. */
const tables = {
  by_id: { policy: "user_id = $auth.id", column: "id" },
  by_tenant: { policy: "tenant = $auth.tenant_id", column: "tenant" },
  by_organisation: { policy: "organisation = $auth.org_id", column: "organisation" },
  by_plan: { policy: "user_id = $auth.id AND $auth.plan = 'gold'", column: "id" },
  by_jwt_claims: {
    policy: "user_id = current_setting('request.jwt.claims', true)::json ->> 'sub'",
    column: "id",
  },
  by_own_uid: { policy: "user_id = (SELECT app.uid())", column: "id" },
  by_supabase_jwt: { policy: "organisation = (auth.jwt() ->> 'org_id')", column: "organisation" },
  by_supabase_uid: { policy: "user_id = (SELECT auth.uid())::text", column: "id" },
  by_setting: { policy: "user_id = current_setting('app.sub', true)", column: "id" },
} as const;
type Table = keyof typeof tables;

function describeRows(version: "embedded" | "debian", isThere: boolean): void {
  const hasPsql = requireClient("psql (postgresql-client-15)", isRunnable("psql", "--version"));
  let stage: Stage;
  let issuer: Issuer;
  let server: TestCertificate;
  let authority: ClientAuthority;
  let certificate: ClientCertificate;
  const doors = new Map<string, Door>();
  /** A way in for any claims that the provider vouches for. */
  let tokenDoor: (claims: Readonly<Record<string, unknown>>) => Promise<Door>;

  beforeAll(async () => {
    if (!isThere) return;
    [server, authority] = await Promise.all([makeServerCertificate(), makeClientAuthority()]);
    stage = await openStage({
      postgres: { version },
      users: ["alice"],
      configuration: `[server.tls]
cert = "${server.certPath}"
key = "${server.keyPath}"
client_ca = "${authority.certPath}"
[upstream]
pool_size = 1
[auth]
claims_prefix = "app"
[auth.pgwire]
bearer = true
[auth.jwks]
claims = { plan = "app_metadata.plan", issuer = "iss" }
`,
    });
    await stage.asAdmin("CREATE TENANT acme ID 42");
    await stage.asAdmin(`CREATE USER carol PASSWORD '${passwordOf("carol")}' TENANT acme`);
    await stage.asAdmin("CREATE SERVICE ACCOUNT etl FOR DATABASE postgres");
    const signingKey = await makeKey("ES256", "k1");
    issuer = await startIssuer([signingKey]);
    await stage.asAdmin(
      `CREATE OIDC PROVIDER corp WITH (issuer = '${issuer.issuer}', jwks_url = '${issuer.jwksUrl}', audience = 'api', tenant = 42,
         claim_mapping = [{ claim = 'sub', value = '*', effect = { add_roles = ['readwrite'] } }])`,
    );
    certificate = await authority.issue({ name: "CN=carol" });
    tokenDoor = async (claims) => httpDoor(stage.frontEnd, await issuer.sign(signingKey, claims));
    await openDoors(signingKey);
    await makeTables();
  });
  afterAll(async () => {
    await stage?.close();
    await issuer?.close();
  });

  async function openDoors(signingKey: IssuerKey): Promise<void> {
    const { frontEnd } = stage;
    const key = await createKey(stage, "etl-key", "FOR SERVICE ACCOUNT etl");
    const { id, organisation } = people.ada;
    const token = await issuer.sign(signingKey, {
      sub: id,
      org_id: organisation,
      app_metadata: { plan: "gold" },
    });
    const made: readonly Door[] = [
      psqlDoor(frontEnd, "alice", { password: passwordOf("alice") }),
      psqlDoor(frontEnd, "carol", { certificate, serverCa: server.certPath }),
      psqlDoor(frontEnd, "etl", { password: key }),
      bearerDoor(frontEnd, "oidc:corp", token),
      httpCertificateDoor(frontEnd, certificate, server.cert),
      httpDoor(frontEnd, key),
      httpDoor(frontEnd, token),
    ];
    ways.forEach(({ name }, index) => {
      const door = made[index];
      if (door !== undefined) doors.set(name, door);
    });
  }

  async function makeTables(): Promise<void> {
    // What an application has that was written for PostgREST or Supabase, and keeps such a function of its own.
    await stage.asAdmin(`
      CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO PUBLIC;
      CREATE FUNCTION app.uid() RETURNS text LANGUAGE sql STABLE
        RETURN coalesce(nullif(current_setting('request.jwt.claim.sub', true), ''),
                        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')`);
    const rows = Object.values(people).map(
      ({ id, tenant, organisation }) =>
        `('${id}', ${tenant}, ${organisation === null ? "NULL" : `'${organisation}'`})`,
    );
    for (const [table, { policy }] of Object.entries(tables)) {
      await stage.asAdmin(
        `CREATE TABLE ${table} (user_id text, tenant int8, organisation text, n int DEFAULT 0)`,
      );
      await stage.asAdmin(
        `INSERT INTO ${table} VALUES ${rows.join(", ")}, ('somebody else', 7, 'evil'), (NULL, NULL, NULL)`,
      );
      await stage.asAdmin(`CREATE RLS POLICY own ON ${table} FOR ALL USING (${policy})`);
    }
  }

  function door(name: string): Door {
    const found = doors.get(name);
    if (found === undefined) throw new Error(`no door for ${name}`);
    return found;
  }

  /** The ids of the rows of a table that are a person's. */
  function ownOf(person: Person, table: Table): string[] {
    const { column } = tables[table];
    const own = people[person][column];
    if (table === "by_plan" && person !== "ada") return [];
    // What is no UUID is nobody's in Supabase.
    if (table === "by_supabase_uid" && person !== "ada") return [];
    return Object.values(people)
      .filter((other) => own !== null && other[column] === own)
      .map(({ id }) => id);
  }

  const only = (outcome: Outcome): Outcome =>
    typeof outcome === "string" ? outcome : outcome.map(([value = null]) => [value]);
  const asRows = (ids: readonly string[]): Outcome => [...ids].sort().map((id) => [id]);

  describe.each(ways)("$name", ({ name, person, needsPsql }) => {
    const it = test.skipIf(!isThere || (needsPsql && !hasPsql));
    const { id, tenant } = people[person];
    const names = Object.keys(tables) as Table[];

    it("is who it is", async () => {
      expect(
        await door(name)("SELECT $auth.id, $auth.tenant_id, $auth.org_id, auth.uid(), auth.jwt() ->> 'sub'"),
      ).toEqual([[id, tenant, people[person].organisation, person === "ada" ? id : null, id]]);
    });

    it.each(names)("reads its own rows %s", async (table) => {
      const seen = await door(name)(`SELECT user_id FROM ${table} ORDER BY user_id`);
      expect(seen).toEqual(asRows(ownOf(person, table)));
      expect(
        await door(name)(`SELECT count(*) FROM ${table} WHERE user_id = 'somebody else' OR user_id IS NULL`),
      ).toEqual([["0"]]);
      // What COPY sends is no result that HTTP could answer with.
      const copied = await door(name)(
        `COPY (SELECT n FROM ${table} WHERE n = 0 AND user_id = 'somebody else') TO STDOUT`,
      );
      expect(copied).toEqual(name.startsWith("HTTP") ? "0A000" : []);
    });

    it("changes and deletes its own rows, and no others, with whatever it writes being its own", async () => {
      const run = door(name);
      const others = `SELECT user_id, n FROM by_id WHERE user_id IS DISTINCT FROM '${id}' ORDER BY 1`;
      const before = await stage.past(others);
      expect(before).toHaveLength(5);
      const mine = `('${id}', ${tenant}, 100)`;
      expect(
        only(await run(`INSERT INTO by_id (user_id, tenant, n) VALUES ${mine} RETURNING user_id`)),
      ).toEqual([[id]]);
      expect(await run("INSERT INTO by_id (user_id, n) VALUES ('somebody else', 100)")).toBe("42501");
      expect(await run("INSERT INTO by_id (user_id, n) VALUES (NULL, 100)")).toBe("42501");
      expect(
        await run(
          `INSERT INTO by_id (user_id, n) VALUES ${mine.replace(`${tenant}, `, "")}, ('somebody else', 1)`,
        ),
      ).toBe("42501");
      expect(await run("UPDATE by_id SET n = n + 1 RETURNING user_id, n")).toEqual([
        [id, "1"],
        [id, "101"],
      ]);
      expect(await run("UPDATE by_id SET n = 9 WHERE user_id = 'somebody else' RETURNING n")).toEqual([]);
      expect(await run("UPDATE by_id SET user_id = 'somebody else'")).toBe("42501");
      expect(
        await run(`MERGE INTO by_id USING (VALUES (1)) AS v ON true WHEN MATCHED THEN UPDATE SET n = n`),
      ).toEqual([]);
      expect(await run("DELETE FROM by_id WHERE n > 100 RETURNING user_id, n")).toEqual([[id, "101"]]);
      expect(await run("UPDATE by_id SET n = 0 RETURNING user_id")).toEqual([[id]]);
      expect(await run("TRUNCATE by_id")).toBe("42501");
      expect(await stage.past(others)).toEqual(before);
    });

    it("finds its own rows again after it has spoiled its settings and left", async () => {
      const run = door(name);
      for (const setting of [
        "nodedb.session",
        "app.sub",
        "app.tenant_id",
        "request.jwt.claims",
        "request.jwt.claim.sub",
      ]) {
        const value = setting.endsWith("claims") ? `{"sub":"somebody else"}` : "somebody else";
        expect(await run(`SELECT set_config('${setting}', '${value}', false)`)).toEqual([[value]]);
      }
      for (const table of ["by_id", "by_jwt_claims", "by_own_uid", "by_setting"] as const) {
        expect(await run(`SELECT user_id FROM ${table}`)).toEqual([[id]]);
      }
    });
  });

  test.skipIf(!isThere)("an envelope that one way in has shown is worth nothing in any other", async () => {
    const visible = ways.filter(({ needsPsql }) => hasPsql || !needsPsql);
    const taken = new Map<string, string>();
    for (const { name } of visible) {
      const [row] = await door(name)("SELECT current_setting('nodedb.session')");
      taken.set(name, String(row?.[0]));
    }
    for (const [from, envelope] of taken) {
      for (const { name, person } of visible) {
        // Set before it is read, in one statement.
        const outcome = await door(name)(
          `WITH s AS MATERIALIZED (SELECT set_config('nodedb.session', '${envelope}', false) AS v)
           SELECT auth.id() FROM s WHERE v IS NOT NULL`,
        );
        // The connection that it was sealed for, taken from the pool again, has the same claims anyway.
        if (from === name && outcome !== "28000") expect(outcome).toEqual([[people[person].id]]);
        else expect(outcome, `${from}, then ${name}`).toBe("28000");
      }
    }
  });

  test.skipIf(!isThere)(
    "a subject of the name of a user has the user's id, and its issuer tells the two apart",
    async () => {
      await stage.asAdmin(`
      CREATE TABLE of_users (user_id text); INSERT INTO of_users VALUES ('alice');
      CREATE RLS POLICY own ON of_users FOR ALL USING (user_id = $auth.id AND $auth.issuer IS NULL)`);
      const namesake = await tokenDoor({ sub: "alice" });
      expect(await namesake("SELECT $auth.id, $auth.issuer, session_user = 'alice'")).toEqual([
        ["alice", issuer.issuer, "false"],
      ]);
      expect(await namesake("SELECT user_id FROM by_id")).toEqual([["alice"]]);
      expect(await namesake("SELECT user_id FROM of_users")).toEqual([]);
      const alice = await stage.connect("alice");
      expect((await alice.query("SELECT user_id FROM of_users")).rows).toEqual([{ user_id: "alice" }]);
      await alice.end();
    },
  );

  test.skipIf(!isThere)("HTTP takes no password: SCRAM needs a conversation", async () => {
    const { host, httpPort } = stage.frontEnd;
    const basic = Buffer.from(`alice:${passwordOf("alice")}`).toString("base64");
    const { status } = await httpClient(`http://${host}:${httpPort}`).post(
      "/v1/query",
      { sql: "SELECT 1" },
      { headers: { authorization: `Basic ${basic}` } },
    );
    expect(status).toBe(401);
  });

  test.skipIf(!isThere)(
    "one after another and all at once, on connections that are used again, each stays who it is",
    async () => {
      const used = new Map<Person, Set<string>>();
      const times = new Map<string, number>();
      const visible = ways.filter(({ needsPsql }) => hasPsql || !needsPsql);
      const ask = async ({ name, person }: (typeof ways)[number]) => {
        const rows = await door(name)("SELECT user_id, pg_backend_pid() FROM by_id");
        expect(rows).toEqual([[people[person].id, expect.any(String)]]);
        const pid = String(rows[0]?.[1]);
        used.set(person, (used.get(person) ?? new Set()).add(pid));
        times.set(pid, (times.get(pid) ?? 0) + 1);
      };
      for (let round = 0; round < 3; round += 1) {
        for (const way of visible) await ask(way);
      }
      await Promise.all([...visible, ...visible, ...visible].map(ask));
      const all = [...used.values()].flatMap((pids) => [...pids]);
      expect(new Set(all).size, "a connection of two identities").toBe(all.length);
      // A place in each pool: the same way in finds the connection that it had before.
      expect(Math.max(...times.values())).toBeGreaterThanOrEqual(3);
    },
  );
}
