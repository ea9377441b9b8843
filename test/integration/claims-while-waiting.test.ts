/** Claims that change while a login or a request is on its way: it begins with those that hold by then. */

import type pg from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { createKey, type HttpClient, httpClient } from "../support/http.ts";
import { openClient, openStage, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

const roles = "SELECT $auth.roles::text AS roles";

let stage: Stage;
let http: HttpClient;
let key: string;
/** Logged in before anything is held up. */
let admin: pg.Client;
const clients: pg.Client[] = [];

beforeAll(async () => {
  stage = await openStage({ users: ["bob"], configuration: "[upstream]\npool_size = 1\n" });
  http = httpClient(`http://127.0.0.1:${stage.frontEnd.httpPort}`);
  key = await createKey(stage, "bobs", "FOR bob");
  admin = await stage.connect(stage.frontEnd.adminUser);
});
beforeEach(async () => {
  await admin.query("ALTER USER bob SET ROLE readwrite");
});
afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.end().catch(() => undefined)));
});
afterAll(async () => {
  await admin?.end();
  await stage?.close();
});

const keep = async (client: Promise<pg.Client>) => {
  clients.push(await client);
  return client;
};

async function rolesOf(client: pg.Client): Promise<string> {
  return (await client.query(roles)).rows[0].roles;
}

const someoneWaits = async () =>
  (await admin.query("SHOW SESSIONS")).rows.some(({ state }) => state === "waiting");

test("for a session that waits for its connection", async () => {
  const first = await keep(stage.connect("bob"));
  const second = keep(stage.connect("bob"));
  await until(someoneWaits);
  await admin.query("ALTER USER bob SET ROLE readonly");
  await first.end();
  expect(await rolesOf(await second)).toBe("{readonly}");
});

test("for a request that waits for its connection", async () => {
  const busy = http.query(key, { sql: "SELECT pg_sleep(600)" });
  await until(async () => (await stage.running("bob")).some(({ state }) => state === "active"));
  const waiting = http.query(key, { sql: roles });
  await until(someoneWaits);
  await admin.query("ALTER USER bob SET ROLE readonly");
  await stage.past("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = 'bob'");
  await busy;
  expect((await waiting).body.rows).toEqual([{ roles: "{readonly}" }]);
});

test("for a login whose database is being prepared", async () => {
  await stage.past("CREATE DATABASE fresh");
  const { socketDir: host, port } = stage.postgres;
  const holder = await keep(openClient({ host, port, user: "postgres", database: "fresh" }));
  await holder.query("BEGIN; LOCK TABLE pg_catalog.pg_default_acl");
  const login = keep(stage.connect("bob", { database: "fresh" }));
  await until(async () => (await holder.query("SELECT FROM pg_locks WHERE NOT granted")).rowCount !== 0);
  await admin.query("ALTER USER bob SET ROLE readonly");
  await holder.query("COMMIT");
  expect(await rolesOf(await login)).toBe("{readonly}");
});
