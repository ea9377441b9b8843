/** pg_dump and pg_restore 15: a database moves into another one through the endpoint, and nothing is lost. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { isRunnable } from "../support/client-program.ts";
import { type Endpoint, libpqEnvironment, openEndpoint, runAsAdmin } from "../support/endpoint.ts";
import { hasDebianPostgres } from "../support/postgres.ts";
import { runProgram } from "../support/run-program.ts";
import { requireClient } from "../support/skips.ts";

/** One of everything whose text or order matters in a dump. */
const shop = `
  CREATE SCHEMA shop;
  CREATE TYPE shop.state AS ENUM ('new', 'paid', 'sent');
  CREATE DOMAIN shop.amount AS numeric(10,2) CHECK (VALUE >= 0);
  CREATE TABLE shop.customer (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, photo bytea, note text);
  CREATE TABLE shop.purchase (
    id serial PRIMARY KEY, customer int NOT NULL REFERENCES shop.customer, state shop.state DEFAULT 'new',
    total shop.amount, tags text[], details jsonb, at timestamptz) PARTITION BY HASH (id);
  CREATE TABLE shop.purchase_0 PARTITION OF shop.purchase FOR VALUES WITH (MODULUS 2, REMAINDER 0);
  CREATE TABLE shop.purchase_1 PARTITION OF shop.purchase FOR VALUES WITH (MODULUS 2, REMAINDER 1);
  CREATE VIEW shop.unpaid AS SELECT * FROM shop.purchase WHERE state = 'new';
  CREATE MATERIALIZED VIEW shop.totals AS SELECT customer, sum(total) AS total FROM shop.purchase GROUP BY 1;
  CREATE INDEX purchase_details ON shop.purchase USING gin (details);
  CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS $body$
    BEGIN NEW.note := coalesce(NEW.note, '$$; it''s touched'); RETURN NEW; END $body$;
  CREATE FUNCTION shop.twice(n int) RETURNS int BEGIN ATOMIC SELECT n * 2; END;
  CREATE TRIGGER touch BEFORE INSERT ON shop.customer FOR EACH ROW EXECUTE FUNCTION shop.touch();
  COMMENT ON TABLE shop.customer IS 'Zákazníci; "všichni"';
  ALTER TABLE shop.customer ENABLE ROW LEVEL SECURITY;
  CREATE POLICY everybody ON shop.customer FOR SELECT USING (true);
  INSERT INTO shop.customer (name, photo, note)
    SELECT 'zákazník ' || n, decode(repeat(to_hex(n % 256 + 256), 20), 'hex'),
           CASE WHEN n % 3 = 0 THEN E'tab\\t newline\\n backslash \\\\ quote '' \\\\N' END
    FROM generate_series(1, 2000) AS n;
  INSERT INTO shop.purchase (customer, state, total, tags, details, at)
    SELECT n, 'paid', n * 1.25, ARRAY['a', 'b,"c"', NULL], jsonb_build_object('n', n),
           timestamptz '2024-01-01 00:00:00.123456+00' + n * interval '1 hour'
    FROM generate_series(1, 2000) AS n;
  INSERT INTO shop.customer (name, photo) VALUES ('large', decode(repeat('00ff5c', 1000000), 'hex'));
  SELECT lo_from_bytea(0, decode(repeat('abcd', 100000), 'hex'));
  REFRESH MATERIALIZED VIEW shop.totals`;

/** Everything but what names a user, and the front-end's own schemas. */
const dumped = ["--no-owner", "--no-privileges", "-N", "nodedb", "-N", "auth"];

/** A fingerprint of all rows, computed by the server. */
const fingerprint = `
  SELECT (SELECT md5(string_agg(c::text, '|' ORDER BY id)) FROM shop.customer AS c) AS customers,
         (SELECT md5(string_agg(p::text, '|' ORDER BY id)) FROM shop.purchase AS p) AS purchases,
         (SELECT md5(string_agg(t::text, '|' ORDER BY customer)) FROM shop.totals AS t) AS totals,
         (SELECT md5(string_agg(md5(lo_get(oid)), '|' ORDER BY oid)) FROM pg_largeobject_metadata) AS large_objects,
         (SELECT last_value FROM shop.purchase_id_seq) AS sequence`;

describe("pg_dump", () => {
  // pg_dump refuses servers that are newer than itself, so PostgreSQL 15 is at the far end.
  const isThere =
    requireClient("pg_dump (postgresql-client-15)", isRunnable("pg_dump", "--version")) &&
    requireClient("PostgreSQL 15 (postgresql-15)", hasDebianPostgres);
  const it = test.skipIf(!isThere);
  let directory: string;
  let endpoint: Endpoint;

  beforeAll(async () => {
    if (isThere) {
      directory = mkdtempSync(join(tmpdir(), "nodedb-pg-dump-"));
      endpoint = await openEndpoint("debian");
      await runAsAdmin(endpoint, shop);
    }
  });
  afterAll(async () => {
    await endpoint?.close();
    rmSync(directory, { recursive: true, force: true });
  });

  async function run(program: string, ...args: string[]): Promise<string> {
    const finished = await runProgram(program, args, libpqEnvironment(endpoint, "admin"));
    expect(finished, `${program} ${args.join(" ")}`).toMatchObject({ status: 0, stderr: "" });
    return finished.stdout;
  }

  /** The whole dump of a database without the lines that name it. */
  function dump(database: string): Promise<string> {
    return run("pg_dump", ...dumped, "-d", database);
  }

  async function expectCopy(copy: string): Promise<void> {
    const [original] = (await runAsAdmin(endpoint, fingerprint)).rows;
    expect(original.customers).toMatch(/^[0-9a-f]{32}$/);
    expect((await runAsAdmin(endpoint, fingerprint, copy)).rows).toEqual([original]);
    expect(withoutKey(await dump(copy))).toBe(withoutKey(await dump(endpoint.database)));
  }

  async function restoreWithPsql(copy: string, ...options: string[]): Promise<void> {
    await endpoint.createDatabase(copy);
    const dumping = ["pg_dump", ...dumped, ...options].join(" ");
    await run("bash", "-c", `set -o pipefail; ${dumping} | psql -X -q -v ON_ERROR_STOP=1 -d ${copy}`);
  }

  it("piped into psql makes an equal database", async () => {
    await restoreWithPsql("piped");
    await expectCopy("piped");
  });

  it("with --inserts makes an equal database too", async () => {
    await restoreWithPsql("inserted", "--inserts", "--rows-per-insert=50");
    await expectCopy("inserted");
  });

  it("in directory format with 2 jobs is restored by pg_restore with 2 jobs", async () => {
    await endpoint.createDatabase("restored");
    const path = join(directory, "dump");
    await run("pg_dump", ...dumped, "-F", "directory", "-j", "2", "-f", path);
    await run("pg_restore", "--no-owner", "-j", "2", "-d", "restored", path);
    await expectCopy("restored");
  });

  it("of a user leaves out nothing silently: it fails at the first table that the user may not read", async () => {
    const finished = await runProgram("pg_dump", [], libpqEnvironment(endpoint, "user"));
    expect(finished.status).toBe(1);
    expect(finished.stderr).toContain("permission denied");
  });
});

/** Minor releases of pg_dump put a random key into \restrict and \unrestrict. */
function withoutKey(text: string): string {
  return text.replaceAll(/^\\(un)?restrict .*$/gm, "");
}
