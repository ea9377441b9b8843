/** RLS policies and `$auth` through the real program: part of the client's transaction, over both protocols. */

import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type FrontEnd, startFrontEnd } from "../support/front-end.ts";

describe("policies in a session", () => {
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
    await client.connect();
    await client.query("CREATE TABLE note (user_id text)");
  });
  afterAll(async () => {
    await client?.end();
    await frontEnd?.close();
  });

  const shown = async () => (await client.query("SHOW RLS POLICIES ON note")).rows.map((row) => row.name);
  const statement = "CREATE RLS POLICY own ON note FOR ALL USING (user_id = $auth.id)";

  for (const [protocol, run] of [
    ["simple", (sql: string) => client.query(sql)],
    ["extended", (sql: string) => client.query({ text: sql, values: [] })],
  ] as const) {
    test(`are made and undone with the transaction by the ${protocol} protocol`, async () => {
      await run("BEGIN");
      await run(statement);
      await run("ROLLBACK");
      expect(await shown()).toEqual([]);
      await run("BEGIN");
      await run(statement);
      await run("COMMIT");
      expect(await shown()).toEqual(["own"]);
      await expect(run(statement)).rejects.toMatchObject({ code: "42710" });
      await run("DROP RLS POLICY own ON note");
      expect(await shown()).toEqual([]);
    });

    test(`$auth is rewritten in what is forwarded by the ${protocol} protocol`, async () => {
      const result = await run("SELECT $auth.id AS id, '$auth.id' AS text");
      expect(result.rows).toEqual([{ id: "nodedb", text: "$auth.id" }]);
      await expect(run("SELECT 1, $auth.nobody")).rejects.toMatchObject({ code: "42601", position: "11" });
      expect((await run("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    });
  }

  test("an error of PostgreSQL's comes as PostgreSQL words it", async () => {
    await expect(
      client.query("CREATE RLS POLICY broken ON note FOR READ USING (no_such_column = 1)"),
    ).rejects.toMatchObject({ code: "42703" });
    await expect(
      client.query("CREATE RLS POLICY lost ON nowhere FOR READ USING (true)"),
    ).rejects.toMatchObject({ code: "42P01" });
  });
});
