/** Names of databases that are something else for whoever reads them: they reach the front-end's own connections, too. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { connectAdmin } from "../../src/catalog/connection.ts";
import { createKey, type HttpClient, httpClient } from "../support/http.ts";
import { openStage, passwordOf, type Stage } from "../support/stage.ts";

let stage: Stage;
let http: HttpClient;
let key: string;

beforeAll(async () => {
  stage = await openStage({ users: [] });
  await stage.asAdmin(`CREATE USER eve PASSWORD '${passwordOf("eve")}' ROLE admin`);
  http = httpClient(`http://127.0.0.1:${stage.frontEnd.httpPort}`);
  key = await createKey(stage, "of eve", "FOR eve");
});
afterAll(() => stage?.close());

test("what follows a NUL does not become a setting of an administrative connection", async () => {
  const eve = await stage.connect("eve");
  for (const sql of [
    "CREATE SCHEMA evil",
    "GRANT USAGE ON SCHEMA evil TO PUBLIC",
    `CREATE FUNCTION evil.equals(name, name) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
       IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) current_user) THEN
         EXECUTE 'ALTER ROLE eve SUPERUSER';
       END IF;
       RETURN $1 OPERATOR(pg_catalog.=) $2;
     END $$`,
    "CREATE OPERATOR evil.= (FUNCTION = evil.equals, LEFTARG = name, RIGHTARG = name)",
  ]) {
    await eve.query(sql);
  }
  await eve.end();
  const database = "postgres\0search_path\0evil, pg_catalog";
  const { body } = await http.query(key, { sql: "SELECT 1", database });
  expect(body.error.code).toBe("22021");
  expect(await stage.past("SELECT rolsuper FROM pg_roles WHERE rolname = 'eve'")).toEqual([
    { rolsuper: false },
  ]);
});

test.each(["postgres\0", "postgres\0x", "\0user\0postgres"])("%j is refused in a body", async (database) => {
  const { status, body } = await http.query(key, { sql: "SELECT 1", database });
  expect([status, body.error.code]).toEqual([400, "22021"]);
});

test("connectAdmin refuses a name with a NUL before it connects", async () => {
  const refusal = connectAdmin({ host: "192.0.2.1", port: 1, user: "nobody" }, "postgres\0role\0none");
  await expect(refusal).rejects.toMatchObject({ condition: "character_not_in_repertoire" });
});
