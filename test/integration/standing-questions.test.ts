/** The connection on which logins ask: what becomes of it, and what comes back. */

import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { SqlError } from "../../src/errors/sql-error.ts";
import { openUpstreamConnection } from "../../src/upstream/login.ts";
import { loginLookQuery, readLoginLook } from "../../src/upstream/role-fingerprint.ts";
import { RefusedQuestionError, StandingQuestions } from "../../src/upstream/standing-questions.ts";
import { chooseTransports } from "../../src/wire/choose-transport.ts";
import type { TransportFactory } from "../../src/wire/transport-factory.ts";
import { startPostgres, type TestPostgres } from "../support/postgres.ts";
import { startRelay, type TcpRelay } from "../support/relay.ts";
import { openClient } from "../support/stage.ts";

let postgres: TestPostgres;
let relay: TcpRelay;
let transports: TransportFactory;
let questions: StandingQuestions;
let opened = 0;

beforeAll(async () => {
  [postgres, transports] = await Promise.all([startPostgres({ tcp: true }), chooseTransports()]);
  relay = await startRelay(postgres.port);
});
beforeEach(() => {
  opened = 0;
  questions = openQuestions(5_000);
});
afterEach(() => questions.close());
afterAll(async () => {
  await relay?.close();
  await postgres?.dispose();
});

function openQuestions(answerTimeoutMs: number): StandingQuestions {
  return new StandingQuestions(() => {
    opened += 1;
    return openUpstreamConnection({
      endpoint: { kind: "tcp", host: "127.0.0.1", port: relay.port, tls: "disable" },
      transports,
      database: "postgres",
      role: "postgres",
      password: postgres.superuserPassword,
      parameters: new Map(),
      timeoutMs: 10_000,
      nonce: () => "a-nonce",
    });
  }, answerTimeoutMs);
}

const question = (text: string, ...values: string[]) => ({ name: text, text, values });
const whoAmI = question("SELECT pg_backend_pid(), session_user");

async function run(sql: string): Promise<void> {
  const client = await openClient({ connectionString: postgres.url });
  await client.query(sql);
  await client.end();
}

test("is logged in by SCRAM, and asked again and again on one connection", async () => {
  const [[pid, user] = []] = await questions.ask(whoAmI);
  expect(user).toBe("postgres");
  const sum = {
    name: "sum",
    text: "SELECT $1::int4 + 1, NULL, name FROM pg_prepared_statements ORDER BY 3 DESC",
    values: ["41"],
  };
  expect(await questions.ask(whoAmI)).toEqual([[pid, user]]);
  expect(await questions.ask(sum)).toEqual([
    ["42", null, "sum"],
    ["42", null, whoAmI.name],
  ]);
  expect(opened).toBe(1);
});

test("what PostgreSQL refuses is an error of the front-end's, not one for clients, and the next question is answered", async () => {
  await questions.ask(whoAmI);
  const refused = await questions.ask(question("SELECT 1 / $1::int4", "0")).catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(RefusedQuestionError);
  expect(refused).toMatchObject({ code: "22012", severity: "ERROR" });
  await expect(questions.ask(question("SELECT nonsense"))).rejects.toMatchObject({ code: "42703" });
  await expect(questions.ask(question("SELECT nonsense"))).rejects.toMatchObject({ code: "42703" });
  expect(await questions.ask(question("SELECT 1 / $1::int4", "1"))).toEqual([["1"]]);
  expect(opened).toBe(1);
});

test("a connection that has ended is replaced at the next question", async () => {
  const [[pid] = []] = await questions.ask(whoAmI);
  await run(`SELECT pg_terminate_backend(${pid}, 5000)`);
  const pidNow = () =>
    questions.ask(whoAmI).then(
      ([row]) => row?.[0],
      () => "none yet",
    );
  await expect.poll(pidNow).toMatch(/^\d+$/);
  expect(await pidNow()).not.toBe(pid);
  expect(opened).toBe(2);
});

test("a connection that ends under a question, or has ended when nobody has looked, is an upstream that is not there", async () => {
  const [[pid] = []] = await questions.ask(whoAmI);
  const slow = questions.ask(question("SELECT pg_terminate_backend($1::int4, 5000)", String(pid)));
  await expect(slow).rejects.toMatchObject({ code: "57P01" });
  await questions.ask(whoAmI);
  const cut = questions.ask(whoAmI);
  for (const link of relay.links) link.cut();
  await expect(cut).rejects.toMatchObject({ condition: "cannot_connect_now" });
  expect(await questions.ask(whoAmI)).toHaveLength(1);
});

test("an upstream that keeps silent is not waited for, and the next question has another connection", async () => {
  questions.close();
  questions = openQuestions(200);
  await questions.ask(whoAmI);
  relay.pause("to_client");
  const error = await questions.ask(whoAmI).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(SqlError);
  expect(error).toMatchObject({ condition: "cannot_connect_now" });
  relay.resume("to_client");
  expect(await questions.ask(whoAmI)).toHaveLength(1);
  expect(opened).toBe(2);
});

test("is not asked any more when it is closed", async () => {
  await questions.ask(whoAmI);
  questions.close();
  await expect.poll(() => relay.links.size).toBe(0);
  await expect(questions.ask(whoAmI)).rejects.toMatchObject({ condition: "cannot_connect_now" });
  await expect.poll(() => relay.links.size).toBe(0);
});

test("finds roles and databases by any name", async () => {
  const names = ['quo"te', "back\\slash", "a,b", "{}", " blank ", "NULL", "Grüße", "\\"];
  for (const name of names) await run(`CREATE ROLE "${name.replaceAll('"', '""')}" LOGIN`);
  const places = [...names, "nobody"].map((role) => ({ role, database: "postgres" }));
  const found = readLoginLook(await questions.ask(loginLookQuery(places, true)));
  expect([...found.keys()].sort()).toEqual(names.map((_, index) => index));
  expect([...found.values()].every(({ mayConnect }) => mayConnect)).toBe(true);
  expect(new Set([...found.values()].map(({ attributes }) => attributes)).size).toBe(names.length);
  const elsewhere = names.map((database) => ({ role: "postgres", database }));
  const outside = readLoginLook(await questions.ask(loginLookQuery(elsewhere, true)));
  expect([...outside.values()].map(({ mayConnect }) => mayConnect)).toEqual(names.map(() => false));
});
