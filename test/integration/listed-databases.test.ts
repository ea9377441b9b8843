/** A principal with a list of databases at the pgwire port: where it gets in, and what a shorter list does to its sessions. */

import { Client } from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createScramVerifierSync, formatScramVerifier } from "../../src/scram/verifier.ts";
import { type FrontEnd, startFrontEnd } from "../support/front-end.ts";
import { startPostgres, type TestPostgres } from "../support/postgres.ts";

let postgres: TestPostgres;
let frontEnd: FrontEnd;
let admin: Client;

beforeAll(async () => {
  postgres = await startPostgres({ tcp: true });
  frontEnd = await startFrontEnd({
    upstreamUrl: postgres.url,
    configuration: '[upstream]\ntls = "disable"\n',
  });
  admin = await connect(frontEnd.adminUser, frontEnd.adminPassword, "postgres");
  await admin.query("CREATE DATABASE reports");
  await admin.query("CREATE SERVICE ACCOUNT etl FOR DATABASE reports");
  // Keys are not yet a password at this port, and accounts have none: one is put there past the front-end.
  const verifier = createScramVerifierSync("stand-in", { iterations: 4096, salt: Buffer.alloc(16, 1) });
  const direct = new Client({ connectionString: postgres.url });
  await direct.connect();
  await direct.query("UPDATE nodedb.principal SET scram_verifier = $1 WHERE name = 'etl'", [
    formatScramVerifier(verifier),
  ]);
  await direct.end();
  // Anything that touches the account makes the front-end read it again.
  await admin.query("ALTER SERVICE ACCOUNT etl SET ROLE readonly");
});

afterAll(async () => {
  await admin?.end();
  await frontEnd?.close();
  await postgres?.dispose();
});

async function connect(user: string, password: string, database?: string): Promise<Client> {
  const client = new Client({ host: frontEnd.host, port: frontEnd.port, user, password, database });
  client.on("error", () => undefined);
  await client.connect();
  return client;
}

it("lets it into the databases of its list, the first of which is its default", async () => {
  for (const database of ["reports", undefined]) {
    const client = await connect("etl", "stand-in", database);
    expect((await client.query("SELECT current_database() AS name")).rows).toEqual([{ name: "reports" }]);
    await client.end();
  }
});

it("refuses every other database with DATABASE_NOT_AUTHORIZED, although PostgreSQL would let it in", async () => {
  await expect(connect("etl", "stand-in", "postgres")).rejects.toMatchObject({
    code: "42501",
    severity: "FATAL",
    message: expect.stringMatching(/^DATABASE_NOT_AUTHORIZED: .*"postgres"$/),
  });
});

it("closes its sessions in a database that it lost, and leaves the others", async () => {
  await admin.query("ALTER SERVICE ACCOUNT etl SET DATABASES (reports, postgres)");
  const lost = await connect("etl", "stand-in", "reports");
  const kept = await connect("etl", "stand-in", "postgres");
  const ended = new Promise<Error>((resolve) => lost.once("error", resolve));
  await admin.query("ALTER SERVICE ACCOUNT etl SET DATABASES (postgres)");
  expect(await ended).toMatchObject({ code: "57P01" });
  expect((await kept.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
  await kept.end();
});

it("gives the new key over the wire, and shows neither it nor its verifier in the front-end's log", async () => {
  const made = await admin.query("CREATE API KEY wired FOR SERVICE ACCOUNT etl EXPIRES IN '1 day'");
  expect(made.command).toBe("CREATE");
  const [row] = made.rows;
  expect(row.api_key).toMatch(/^ndb_[a-z2-7]{12}_[A-Za-z0-9_-]{43}$/);
  expect(row.expires_at).toBeInstanceOf(Date);
  const shown = await admin.query("SHOW API KEYS FOR etl");
  expect(shown.rows).toMatchObject([{ name: "wired", owner: "etl", databases: "(inherit)", revoked: false }]);
  await admin.query(`REVOKE API KEY '${row.key_id}'`);
  expect(`${frontEnd.output()}${postgres.readLog()}`).not.toContain(row.api_key.slice(-43));
});
