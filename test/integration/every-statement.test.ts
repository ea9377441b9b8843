/** Every statement of SHOW AUTH HELP as a client runs it: both protocols and psql, outside and inside a transaction block. */

import { readFileSync } from "node:fs";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { helpEntries } from "../../src/exec/help.ts";
import { isRunnable } from "../support/client-program.ts";
import { type FrontEnd, startFrontEnd } from "../support/front-end.ts";
import { type Finished, runProgram } from "../support/run-program.ts";
import { requireClient } from "../support/skips.ts";

/** What examples are about: how it is made, and how it is taken away again whether or not it is there. */
const objects = {
  alice: {
    make: "CREATE USER alice PASSWORD 'correct horse battery' ROLE readonly",
    drop: "DROP USER IF EXISTS alice",
  },
  alicia: { make: "CREATE USER alicia PASSWORD 'correct horse battery'", drop: "DROP USER IF EXISTS alicia" },
  analyst: { make: "CREATE ROLE analyst INHERIT readonly", drop: "DROP ROLE IF EXISTS analyst" },
  "analyst of alice": { make: "GRANT analyst TO alice", drop: undefined },
  connect: { make: "GRANT CONNECT ON DATABASE analytics TO alice", drop: undefined },
  reports: {
    make: "CREATE API KEY 'reports' FOR alice WITH DATABASES (analytics, logs)",
    drop: "DROP API KEY IF EXISTS 'reports'",
  },
  "my-service": {
    make: "CREATE API KEY 'my-service' ROLE readwrite",
    drop: "DROP API KEY IF EXISTS 'my-service'",
  },
  "batch-processor": {
    make: "CREATE SERVICE ACCOUNT 'batch-processor' FOR DATABASE analytics ROLE readonly",
    drop: "DROP SERVICE ACCOUNT IF EXISTS 'batch-processor'",
  },
  okta: {
    make: "CREATE OIDC PROVIDER okta WITH (issuer = 'https://id.example.com/')",
    drop: "DROP OIDC PROVIDER IF EXISTS okta",
  },
  own_orders: {
    make: "CREATE RLS POLICY own_orders ON orders FOR READ USING (user_id = $auth.id)",
    drop: "DROP RLS POLICY IF EXISTS own_orders ON orders",
  },
  acme: { make: "CREATE TENANT acme ID 42", drop: "DROP TENANT acme" },
} as const;

type ObjectName = keyof typeof objects;

interface Expectation {
  /** Text of CommandComplete, or the SQLSTATE of an error that docs/sql.md documents for the statement. */
  readonly tag?: string;
  readonly error?: string;
  /** Made before, in this order. */
  readonly needs?: readonly ObjectName[];
  /** What the example makes. */
  readonly makes?: ObjectName;
}

const expectations: Readonly<Record<string, Expectation>> = {
  "CREATE USER": { tag: "CREATE USER", makes: "alice" },
  "ALTER USER": { tag: "ALTER USER", needs: ["alice"] },
  "ALTER USER SET ROLE": { tag: "ALTER USER", needs: ["alice"] },
  "ALTER USER SET DEFAULT DATABASE": { tag: "ALTER USER", needs: ["alice"] },
  "ALTER USER RENAME": { tag: "ALTER USER", needs: ["alice"], makes: "alicia" },
  "DROP USER": { tag: "DROP USER", needs: ["alice"] },
  "SHOW USERS": { tag: "SHOW" },
  "SHOW SESSION": { tag: "SHOW" },
  "CREATE ROLE": { tag: "CREATE ROLE", makes: "analyst" },
  "ALTER ROLE SET INHERIT": { tag: "ALTER ROLE", needs: ["analyst"] },
  "DROP ROLE": { tag: "DROP ROLE", needs: ["analyst"] },
  "SHOW ROLES": { tag: "SHOW" },
  "GRANT ROLE": { tag: "GRANT ROLE", needs: ["analyst", "alice"] },
  "REVOKE ROLE": { tag: "REVOKE ROLE", needs: ["analyst", "alice", "analyst of alice"] },
  "GRANT CONNECT ON DATABASE": { tag: "GRANT", needs: ["alice"] },
  "REVOKE CONNECT ON DATABASE": { tag: "REVOKE", needs: ["alice", "connect"] },
  "SHOW GRANTS": { tag: "SHOW", needs: ["alice"] },
  "SHOW PERMISSIONS": { tag: "SHOW", needs: ["alice"] },
  "CREATE API KEY": { tag: "CREATE API KEY", makes: "my-service" },
  "CREATE API KEY FOR": { tag: "CREATE API KEY", needs: ["alice"], makes: "reports" },
  "ALTER API KEY SET DATABASES": { tag: "ALTER API KEY", needs: ["alice", "reports"] },
  "ALTER API KEY ROTATE": { tag: "ALTER API KEY", needs: ["alice", "reports"] },
  "DROP API KEY": { tag: "DROP API KEY", needs: ["alice", "reports"] },
  "REVOKE API KEY": { error: "42704" },
  "SHOW API KEYS": { tag: "SHOW", needs: ["alice", "reports"] },
  "CREATE SERVICE ACCOUNT": { tag: "CREATE SERVICE ACCOUNT", makes: "batch-processor" },
  "ALTER SERVICE ACCOUNT SET DATABASES": { tag: "ALTER SERVICE ACCOUNT", needs: ["batch-processor"] },
  "ALTER SERVICE ACCOUNT SET ROLE": { tag: "ALTER SERVICE ACCOUNT", needs: ["batch-processor"] },
  "DROP SERVICE ACCOUNT": { tag: "DROP SERVICE ACCOUNT", needs: ["alice", "batch-processor"] },
  "SHOW SERVICE ACCOUNTS": { tag: "SHOW" },
  "CREATE OIDC PROVIDER": { tag: "CREATE OIDC PROVIDER", makes: "okta" },
  "CREATE OIDC PROVIDER ISSUER": { tag: "CREATE OIDC PROVIDER", makes: "okta" },
  "ALTER OIDC PROVIDER SET": { tag: "ALTER OIDC PROVIDER", needs: ["okta"] },
  "ALTER OIDC PROVIDER REFRESH JWKS": { tag: "ALTER OIDC PROVIDER", needs: ["okta"] },
  "DROP OIDC PROVIDER": { tag: "DROP OIDC PROVIDER", needs: ["okta"] },
  "SHOW OIDC PROVIDERS": { tag: "SHOW" },
  "CREATE RLS POLICY": { tag: "CREATE RLS POLICY", makes: "own_orders" },
  "DROP RLS POLICY": { tag: "DROP RLS POLICY", needs: ["own_orders"] },
  "SHOW RLS POLICIES": { tag: "SHOW" },
  "CREATE TENANT": { tag: "CREATE TENANT", makes: "acme" },
  "ALTER TENANT SET QUOTA": { tag: "ALTER TENANT", needs: ["acme"] },
  "DROP TENANT": { tag: "DROP TENANT", needs: ["acme"] },
  "SHOW TENANTS": { tag: "SHOW" },
  "SHOW SESSIONS": { tag: "SHOW" },
  "KILL SESSION": { error: "42704" },
  "SHOW AUDIT LOG": { tag: "SHOW" },
  "VERIFY AUDIT CHAIN": { tag: "VERIFY AUDIT CHAIN" },
  "SHOW AUTH HELP": { tag: "SHOW" },
};

/** What the page says of a statement, from its heading to the next. */
function documented(statement: string): string {
  const page = readFileSync(new URL("../../docs/sql.md", import.meta.url), "utf8");
  return page.split(/^##+ /m).find((section) => section.startsWith(`${statement}\n`)) ?? "";
}

/** Text of CommandComplete, of which node-postgres keeps only the first word; an error's SQLSTATE. */
async function answer(client: pg.Client, query: pg.QueryConfig): Promise<string> {
  const { connection } = client as unknown as { connection: NodeJS.EventEmitter };
  let tag = "";
  const listen = (message: { text: string }) => {
    tag = message.text;
  };
  connection.on("commandComplete", listen);
  try {
    await client.query(query);
    return tag;
  } catch (error) {
    return error instanceof pg.DatabaseError ? `ERROR ${error.code}` : String(error);
  } finally {
    connection.off("commandComplete", listen);
  }
}

const protocols = [
  ["simple", (text: string): pg.QueryConfig => ({ text })],
  // A list of no values alone would leave node-postgres with the simple protocol.
  ["extended", (text: string): pg.QueryConfig => ({ text, values: [], ...{ queryMode: "extended" } })],
] as const;

describe("every statement", () => {
  let frontEnd: FrontEnd;
  let client: pg.Client;

  beforeAll(async () => {
    frontEnd = await startFrontEnd();
    client = new pg.Client({
      host: frontEnd.host,
      port: frontEnd.port,
      user: frontEnd.adminUser,
      password: frontEnd.adminPassword,
      database: frontEnd.database,
    });
    client.on("error", () => undefined);
    await client.connect();
    await client.query("CREATE DATABASE analytics");
    await client.query("CREATE DATABASE logs");
    await client.query("CREATE TABLE orders (id int, user_id text)");
    await client.query("CREATE USER bob PASSWORD 'correct horse battery'");
  });
  afterAll(async () => {
    await client?.end();
    await frontEnd?.close();
  });

  /** Takes away what the example was about; what is not there any more is no matter. */
  async function clear(expectation: Expectation): Promise<void> {
    const names = [...(expectation.needs ?? [])];
    if (expectation.makes !== undefined) names.push(expectation.makes);
    for (const name of names.reverse()) {
      const { drop } = objects[name];
      if (drop !== undefined) await client.query(drop).catch(() => undefined);
    }
  }

  test("has its expectation here", () => {
    expect(Object.keys(expectations)).toEqual(helpEntries.map(({ statement }) => statement));
  });

  test.each(
    Object.entries(expectations).flatMap(([statement, { error }]) =>
      error === undefined ? [] : [{ statement, code: error }],
    ),
  )("$statement documents its $code", ({ statement, code }) => {
    expect(documented(statement)).toContain(code);
  });

  for (const [protocol, query] of protocols) {
    describe(`by the ${protocol} protocol`, () => {
      test.each(helpEntries)("$statement, outside a block", async ({ statement, example }) => {
        const expectation = expectations[statement] ?? {};
        try {
          for (const name of expectation.needs ?? []) await client.query(objects[name].make);
          expect(await answer(client, query(example))).toBe(expectation.tag ?? `ERROR ${expectation.error}`);
          expect(await answer(client, query("SELECT 1"))).toBe("SELECT 1");
        } finally {
          await clear(expectation);
        }
      });

      test.each(helpEntries)("$statement, inside a block", async ({ statement, example }) => {
        const expectation = expectations[statement] ?? {};
        const { error } = expectation;
        try {
          for (const name of expectation.needs ?? []) await client.query(objects[name].make);
          expect(await answer(client, query("BEGIN"))).toBe("BEGIN");
          expect(await answer(client, query(example))).toBe(
            error === undefined ? expectation.tag : `ERROR ${error}`,
          );
          expect(await answer(client, query("SELECT 1"))).toBe(
            error === undefined ? "SELECT 1" : "ERROR 25P02",
          );
          expect(await answer(client, query("COMMIT"))).toBe(error === undefined ? "COMMIT" : "ROLLBACK");
        } finally {
          await client.query("ROLLBACK");
          await clear(expectation);
        }
      });
    });
  }

  describe.runIf(requireClient("psql (postgresql-client-15)", isRunnable("psql", "--version")))(
    "by psql",
    () => {
      /** Runs each statement by itself; an error leaves the rest to be tried, as at the prompt. */
      const psql = (...statements: string[]): Promise<Finished> =>
        runProgram(
          "psql",
          ["-X", "-A", "-v", "VERBOSITY=verbose", ...statements.flatMap((statement) => ["-c", statement])],
          {
            PGHOST: frontEnd.host,
            PGPORT: String(frontEnd.port),
            PGUSER: frontEnd.adminUser,
            PGPASSWORD: frontEnd.adminPassword,
            PGDATABASE: frontEnd.database,
          },
        );
      /** psql prints the tag of what has no rows. */
      const expectAnswer = ({ stdout, stderr }: Finished, { tag, error }: Expectation): void => {
        if (error === undefined) expect(stderr).not.toContain("ERROR");
        else expect(stderr).toContain(`ERROR:  ${error}: `);
        if (tag !== undefined && !stdout.includes(" row")) expect(stdout.split("\n")).toContain(tag);
      };

      test.each(helpEntries)("$statement, outside a block", async ({ statement, example }) => {
        const expectation = expectations[statement] ?? {};
        try {
          for (const name of expectation.needs ?? []) await client.query(objects[name].make);
          expectAnswer(await psql(example), expectation);
        } finally {
          await clear(expectation);
        }
      });

      test.each(helpEntries)("$statement, inside a block", async ({ statement, example }) => {
        const expectation = expectations[statement] ?? {};
        try {
          for (const name of expectation.needs ?? []) await client.query(objects[name].make);
          const finished = await psql("BEGIN", example, "COMMIT");
          expectAnswer(finished, expectation);
          const [first, ...others] = finished.stdout.trim().split("\n");
          expect([first, others.at(-1)]).toEqual([
            "BEGIN",
            expectation.error === undefined ? "COMMIT" : "ROLLBACK",
          ]);
        } finally {
          await clear(expectation);
        }
      });
    },
  );
});
