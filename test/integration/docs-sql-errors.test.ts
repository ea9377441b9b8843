/** Each error that docs/sql.md names of a statement, raised by that statement; and none is left out of this table. */

import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parseStatement } from "../../src/ddl/parse-statement.ts";
import { SqlError } from "../../src/errors/sql-error.ts";
import { helpEntries } from "../../src/exec/help.ts";
import { openStage, runOnce, type Stage, stateOf } from "../support/stage.ts";

const page = readFileSync(new URL("../../docs/sql.md", import.meta.url), "utf8");

/** SQLSTATE, statement, and who runs it where that is not the superuser. */
type Refused = readonly [state: string, sql: string, as?: string];

const password = "PASSWORD 'long enough'";

/** By the statement's section; alice is readwrite, ada admin, tam admin of another tenant. */
const refused: Readonly<Record<string, readonly Refused[]>> = {
  "CREATE USER": [
    ["42710", `CREATE USER alice ${password}`],
    ["42704", `CREATE USER x ${password} ROLE nothing`],
    ["42704", `CREATE USER x ${password} TENANT nowhere`],
    ["22023", "CREATE USER x PASSWORD ''"],
    ["22023", "CREATE USER x PASSWORD 'short'"],
    ["22023", `CREATE USER ${"x".repeat(64)} ${password}`],
    ["22007", `CREATE USER x ${password} VALID UNTIL 'soon'`],
    ["0A000", `CREATE USER x ${password} CREATEDB`],
  ],
  "ALTER USER": [
    ["42704", "ALTER USER nobody NOLOGIN"],
    ["42809", `ALTER USER svc ${password}`],
    ["42501", "ALTER USER nodedb NOLOGIN"],
    ["22023", "ALTER USER alice PASSWORD 'short'"],
    ["22023", "ALTER USER alice CONNECTION LIMIT -2"],
    ["22007", "ALTER USER alice VALID UNTIL 'soon'"],
    ["0A000", "ALTER USER alice CREATEDB"],
  ],
  "ALTER USER SET ROLE": [
    ["42704", "ALTER USER nobody SET ROLE readonly"],
    ["42704", "ALTER USER alice SET ROLE nothing"],
    ["42501", "ALTER USER ada SET ROLE readonly", "ada"],
    ["42501", "ALTER USER alice SET ROLE superuser", "ada"],
    ["42601", "ALTER USER alice SET ROLE = readonly"],
  ],
  "ALTER USER SET DEFAULT DATABASE": [
    ["3D000", "ALTER USER alice SET DEFAULT DATABASE nowhere"],
    ["42704", "ALTER USER nobody SET DEFAULT DATABASE postgres"],
  ],
  "ALTER USER RENAME": [
    ["42710", "ALTER USER alice RENAME TO ada"],
    ["0A000", "ALTER USER ada RENAME TO eve", "ada"],
    ["42704", "ALTER USER nobody RENAME TO eve"],
  ],
  "DROP USER": [
    ["42501", "DROP USER ada", "ada"],
    ["42704", "DROP USER nobody"],
    ["2BP01", "DROP USER alice"],
  ],
  "CREATE ROLE": [
    ["42710", "CREATE ROLE held"],
    ["42710", "CREATE ROLE readonly INHERIT admin"],
    ["42704", "CREATE ROLE x INHERIT nothing"],
    ["42P16", "CREATE ROLE x INHERIT step_8"],
    ["0A000", "CREATE ROLE x INHERIT superuser"],
  ],
  "ALTER ROLE SET INHERIT": [
    ["42704", "ALTER ROLE nothing SET INHERIT readonly"],
    ["42P16", "ALTER ROLE step_1 SET INHERIT step_2"],
    ["42P16", "ALTER ROLE held SET INHERIT held"],
    ["0A000", "ALTER ROLE held SET INHERIT superuser"],
  ],
  "DROP ROLE": [
    ["42704", "DROP ROLE nothing"],
    ["2BP01", "DROP ROLE held"],
  ],
  "GRANT ROLE": [
    ["42704", "GRANT ROLE nothing TO alice"],
    ["42704", "GRANT held TO nobody"],
    ["42501", "GRANT superuser TO alice", "ada"],
    ["42809", "GRANT held TO readonly"],
    ["0A000", "GRANT held TO alice WITH ADMIN OPTION"],
  ],
  "REVOKE ROLE": [
    ["42704", "REVOKE ROLE nothing FROM alice"],
    ["42704", "REVOKE held FROM ada"],
    ["42501", "REVOKE superuser FROM nodedb"],
    ["0A000", "REVOKE held FROM alice GRANTED BY nodedb"],
  ],
  "GRANT CONNECT ON DATABASE": [
    ["3D000", "GRANT CONNECT ON DATABASE nowhere TO alice"],
    ["42704", "GRANT CONNECT ON DATABASE postgres TO nobody"],
    ["42501", "GRANT CONNECT ON DATABASE of_acme TO ada", "ada"],
    ["42501", "GRANT CONNECT ON DATABASE postgres TO readonly", "ada"],
  ],
  "REVOKE CONNECT ON DATABASE": [
    ["3D000", "REVOKE CONNECT ON DATABASE nowhere FROM alice"],
    ["42704", "REVOKE CONNECT ON DATABASE postgres FROM nobody"],
    ["42501", "REVOKE CONNECT ON DATABASE postgres FROM readonly", "ada"],
    ["0A000", "REVOKE CONNECT ON DATABASE postgres FROM alice GRANTED BY nodedb"],
  ],
  "SHOW GRANTS": [["42704", "SHOW GRANTS FOR nobody"]],
  "SHOW PERMISSIONS": [
    ["42P01", "SHOW PERMISSIONS ON nothing"],
    ["42704", "SHOW PERMISSIONS FOR nobody"],
  ],
  "CREATE API KEY": [
    ["42710", "CREATE API KEY 'alone' ROLE readonly"],
    ["42704", "CREATE API KEY 'x' ROLE nothing"],
    ["3D000", "CREATE API KEY 'x' ROLE readonly WITH DATABASES (nowhere)"],
    ["42601", "CREATE API KEY 'x' ROLE readonly WITH DATABASES ()"],
    ["22007", "CREATE API KEY 'x' ROLE readonly EXPIRES IN 'soon'"],
    ["22023", "CREATE API KEY 'x' ROLE readonly EXPIRES 0"],
    ["22023", `CREATE API KEY '${"x".repeat(64)}' ROLE readonly`],
  ],
  "CREATE API KEY FOR": [
    ["42710", "CREATE API KEY 'reports' FOR alice"],
    ["42704", "CREATE API KEY FOR nobody"],
    ["42501", "CREATE API KEY FOR SERVICE ACCOUNT svc WITH DATABASES (of_acme)"],
    ["3D000", "CREATE API KEY FOR alice WITH DATABASES (nowhere)"],
    ["42601", "CREATE API KEY FOR alice WITH DATABASES ()"],
    ["22007", "CREATE API KEY FOR alice EXPIRES IN 'soon'"],
    ["22023", "CREATE API KEY FOR alice EXPIRES 0"],
  ],
  "ALTER API KEY SET DATABASES": [
    ["42704", "ALTER API KEY 'nothing' SET DATABASES (postgres)"],
    ["42501", "ALTER API KEY 'of svc' SET DATABASES (of_acme)"],
    ["3D000", "ALTER API KEY 'reports' SET DATABASES (nowhere)"],
    ["42601", "ALTER API KEY 'reports' SET DATABASES ()"],
  ],
  "ALTER API KEY ROTATE": [
    ["42704", "ALTER API KEY 'nothing' ROTATE"],
    ["55000", "ALTER API KEY 'revoked' ROTATE"],
    ["22007", "ALTER API KEY 'reports' ROTATE OVERLAP 'soon'"],
    ["22023", "ALTER API KEY 'reports' ROTATE OVERLAP '-1 hour'"],
  ],
  "DROP API KEY": [
    ["42704", "DROP API KEY 'nothing'"],
    ["2BP01", "DROP API KEY 'alone'"],
  ],
  "REVOKE API KEY": [["42704", "REVOKE API KEY 'nothing'"]],
  "SHOW API KEYS": [
    ["42704", "SHOW API KEYS FOR nobody"],
    ["42501", "SHOW API KEYS FOR ada", "alice"],
  ],
  "CREATE SERVICE ACCOUNT": [
    ["42710", "CREATE SERVICE ACCOUNT 'svc' FOR DATABASE postgres"],
    ["3D000", "CREATE SERVICE ACCOUNT 'x' FOR DATABASE nowhere"],
    ["42704", "CREATE SERVICE ACCOUNT 'x' FOR DATABASE postgres ROLE nothing"],
    ["42704", "CREATE SERVICE ACCOUNT 'x' FOR DATABASE postgres TENANT nowhere"],
  ],
  "ALTER SERVICE ACCOUNT SET DATABASES": [
    ["42704", "ALTER SERVICE ACCOUNT 'nothing' SET DATABASES (postgres)"],
    ["42809", "ALTER SERVICE ACCOUNT 'alice' SET DATABASES (postgres)"],
    ["3D000", "ALTER SERVICE ACCOUNT 'svc' SET DATABASES (nowhere)"],
    ["42601", "ALTER SERVICE ACCOUNT 'svc' SET DATABASES ()"],
  ],
  "ALTER SERVICE ACCOUNT SET ROLE": [
    ["42704", "ALTER SERVICE ACCOUNT 'nothing' SET ROLE readonly"],
    ["42704", "ALTER SERVICE ACCOUNT 'svc' SET ROLE nothing"],
    ["42809", "ALTER SERVICE ACCOUNT 'alice' SET ROLE readonly"],
  ],
  "DROP SERVICE ACCOUNT": [
    ["42704", "DROP SERVICE ACCOUNT 'nothing'"],
    ["42809", "DROP SERVICE ACCOUNT 'alice'"],
    ["42501", "DROP SERVICE ACCOUNT 'svc'", "svc"],
    ["2BP01", "DROP SERVICE ACCOUNT 'owner'"],
  ],
  "CREATE OIDC PROVIDER": [
    ["42710", "CREATE OIDC PROVIDER okta WITH (issuer = 'https://b.example.com/', audience = 'b')"],
    ["42710", "CREATE OIDC PROVIDER x WITH (issuer = 'https://a.example.com/', audience = 'a')"],
    ["42704", "CREATE OIDC PROVIDER x WITH (issuer = 'https://b.example.com/', audience = 'b', tenant = 99)"],
    [
      "42704",
      "CREATE OIDC PROVIDER x WITH (issuer = 'https://b.example.com/', audience = 'b', claim_mapping = [{ claim = 'g', value = '*', effect = { add_roles = ['nothing'] } }])",
    ],
    [
      "3D000",
      "CREATE OIDC PROVIDER x WITH (issuer = 'https://b.example.com/', audience = 'b', claim_mapping = [{ claim = 'g', value = '*', effect = { default_database = 'nowhere' } }])",
    ],
    ["22023", "CREATE OIDC PROVIDER x WITH (issuer = 'http://b.example.com/', audience = 'b')"],
    ["22023", "CREATE OIDC PROVIDER x WITH (issuer = '', audience = 'b')"],
  ],
  "CREATE OIDC PROVIDER ISSUER": [],
  "ALTER OIDC PROVIDER SET": [["42704", "ALTER OIDC PROVIDER nothing SET (audience = 'x')"]],
  "ALTER OIDC PROVIDER REFRESH JWKS": [["42704", "ALTER OIDC PROVIDER nothing REFRESH JWKS"]],
  "DROP OIDC PROVIDER": [["42704", "DROP OIDC PROVIDER nothing"]],
  "CREATE RLS POLICY": [
    ["42710", "CREATE RLS POLICY own ON orders FOR READ USING (true)"],
    ["42P01", "CREATE RLS POLICY x ON nothing FOR READ USING (true)"],
    ["42601", "CREATE RLS POLICY x ON orders FOR READ USING (user_id = $auth.nothing)"],
    ["42501", "CREATE RLS POLICY x ON orders FOR READ USING (true)", "bob"],
    ["22023", `CREATE RLS POLICY ${"x".repeat(57)} ON orders FOR WRITE USING (true)`],
  ],
  "DROP RLS POLICY": [
    ["42704", "DROP RLS POLICY nothing ON orders"],
    ["42P01", "DROP RLS POLICY own ON nothing"],
    ["42501", "DROP RLS POLICY own ON orders", "bob"],
  ],
  "SHOW RLS POLICIES": [["42P01", "SHOW RLS POLICIES ON nothing"]],
  "CREATE TENANT": [
    ["42710", "CREATE TENANT acme"],
    ["42710", "CREATE TENANT x ID 7"],
    ["22023", `CREATE TENANT ${"x".repeat(64)}`],
  ],
  "ALTER TENANT SET QUOTA": [
    ["42704", "ALTER TENANT nowhere SET QUOTA max_connections = 1"],
    ["42704", "ALTER TENANT acme SET QUOTA nothing = 1"],
    ["22023", "ALTER TENANT acme SET QUOTA max_connections = -2"],
  ],
  "DROP TENANT": [
    ["42501", "DROP TENANT 0"],
    ["42501", "DROP TENANT default"],
    ["42704", "DROP TENANT nowhere"],
    ["2BP01", "DROP TENANT acme"],
  ],
  "KILL SESSION": [
    ["42704", "KILL SESSION '00000000-0000-4000-8000-000000000000'"],
    ["42501", "KILL SESSION '{session of ada}'", "alice"],
  ],
  "SHOW AUDIT LOG": [
    ["42703", "SHOW AUDIT LOG WHERE nothing = 'x'"],
    ["22023", "SHOW AUDIT LOG WHERE seq = 'x'"],
    ["22023", "SHOW AUDIT LOG LIMIT 1000000"],
  ],
  "VERIFY AUDIT CHAIN": [["XX001", "VERIFY AUDIT CHAIN"]],
  "SHOW AUTH HELP": [["42704", "SHOW AUTH HELP nothing"]],
};

/** What the page names behind `Errors:`, by section. */
const documented = new Map(
  page
    .split(/^### /m)
    .slice(1)
    .map((part) => {
      const title = part.split("\n")[0] ?? "";
      const errors = /^Errors: ([\s\S]*?)\n\n/m.exec(part)?.[1] ?? "";
      return [title, new Set(errors.match(/\b(?:[0-9][0-9A-Z]{4}|XX[0-9]{3})\b/g) ?? [])];
    }),
);

function stateOfGrammar(sql: string): string | undefined {
  try {
    parseStatement(sql);
    return undefined;
  } catch (error) {
    return error instanceof SqlError ? error.sqlstate : String(error);
  }
}

function kindOf(sql: string): string {
  const parsed = parseStatement(sql);
  return parsed === "forward" ? "forward" : parsed.kind;
}

describe("errors of docs/sql.md", () => {
  let stage: Stage;
  let sessionOfAda: string;
  const users = ["alice", "bob", "ada", "tam"];

  beforeAll(async () => {
    stage = await openStage({ users });
    const admin = (sql: string) => stage.asAdmin(sql);
    await admin("CREATE TENANT acme ID 7");
    await admin("DROP USER tam");
    await admin(`CREATE USER tam ${password} ROLE tenant_admin TENANT 7`);
    await admin("GRANT admin TO ada");
    await admin("CREATE DATABASE of_acme");
    await admin("REVOKE CONNECT ON DATABASE of_acme FROM PUBLIC");
    await admin("GRANT CONNECT ON DATABASE of_acme TO tam");
    await admin("CREATE ROLE held");
    await admin("GRANT held TO alice");
    await admin("CREATE ROLE step_1 INHERIT readonly");
    for (let step = 2; step <= 8; step += 1) await admin(`CREATE ROLE step_${step} INHERIT step_${step - 1}`);
    await admin("CREATE API KEY 'alone' ROLE admin");
    await admin("CREATE API KEY 'reports' FOR alice");
    const { rows } = await admin("CREATE API KEY 'revoked' FOR alice");
    await admin(`REVOKE API KEY '${rows[0].key_id}'`);
    for (const account of ["svc", "owner"]) {
      await admin(`CREATE SERVICE ACCOUNT '${account}' FOR DATABASE postgres ROLE admin`);
      passwords.set(
        account,
        (await admin(`CREATE API KEY 'of ${account}' FOR '${account}'`)).rows[0].api_key,
      );
    }
    await admin("CREATE OIDC PROVIDER okta WITH (issuer = 'https://a.example.com/', audience = 'a')");
    await admin("CREATE TABLE orders (user_id text)");
    await admin("CREATE RLS POLICY own ON orders FOR READ USING (user_id = $auth.id)");
    await admin("CREATE TABLE of_alice (); ALTER TABLE of_alice OWNER TO alice");
    await admin("CREATE TABLE of_owner (); ALTER TABLE of_owner OWNER TO owner");
    await admin("CREATE TABLE of_alone (); ALTER TABLE of_alone OWNER TO alone");
    const ada = await stage.connect("ada");
    sessionOfAda = (await ada.query("SHOW SESSION")).rows[0].session_id;
  });
  afterAll(() => stage?.close());

  const passwords = new Map<string, string>([["tam", "long enough"]]);

  async function stateFor([, sql, as]: Refused): Promise<string | undefined> {
    const text = sql.replace("{session of ada}", sessionOfAda);
    if (as === undefined) return stateOf(stage.asAdmin(text));
    const own = passwords.get(as);
    return stateOf(runOnce(stage.login(as, own === undefined ? {} : { password: own }), text));
  }

  test("are all in this table, and no others", () => {
    const tried = Object.entries(refused).map(([title, runs]) => [
      title,
      new Set(runs.map(([state]) => state)),
    ]);
    const named = [...documented].filter(([title]) => title in refused);
    expect(tried).toEqual(named);
    const without = [...documented].filter(([title]) => !(title in refused)).map(([title]) => title);
    expect(without.filter((title) => documented.get(title)?.size !== 0)).toEqual([]);
    expect([...documented.keys()]).toEqual(helpEntries.map(({ statement }) => statement));
  });

  test.each(Object.keys(refused).filter((title) => title !== "VERIFY AUDIT CHAIN"))(
    "%s is refused as the page says",
    async (title) => {
      for (const run of refused[title] ?? []) expect(await stateFor(run), run[1]).toBe(run[0]);
    },
  );

  test("each is raised by the statement that the section is of", () => {
    for (const [title, runs] of Object.entries(refused)) {
      const kind = helpEntries.find(({ statement }) => statement === title)?.kind;
      for (const [state, sql] of runs) {
        // The grammar itself refuses some, and then there is no statement.
        if (stateOfGrammar(sql) === state) continue;
        expect(kindOf(sql), sql).toBe(kind);
      }
    }
  });

  test("VERIFY AUDIT CHAIN is refused as the page says", async () => {
    await stage.past("ALTER TABLE nodedb.audit_log DISABLE TRIGGER ALL");
    await stage.past("UPDATE nodedb.audit_log SET username = 'somebody else' WHERE seq = 1");
    expect(await stateFor(["XX001", "VERIFY AUDIT CHAIN"])).toBe("XX001");
  });
});
