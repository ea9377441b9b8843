/** Statements that go on when they are cancelled: with their session they end all the same, and until then they count. */

import type pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { encodeExecute, encodeFlush, encodeParse } from "../../src/wire/frontend-message-encoding.ts";
import { createKey, httpClient } from "../support/http.ts";
import { bind } from "../support/raw-client.ts";
import { openRawSession, type RawSession } from "../support/raw-session.ts";
import { openStage, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

const stubborn = `DO $$ BEGIN
  LOOP BEGIN PERFORM pg_sleep(3600); EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(0.01); END; END LOOP;
END $$`;

let stage: Stage;

const sleeping = () =>
  stage.past("SELECT pid FROM pg_stat_activity WHERE usename = 'alice' AND wait_event = 'PgSleep'");
const begun = () => until(async () => (await sleeping()).length === 1);
/** Two seconds for the cancel, and some for a machine that is busy. */
const ended = () => until(async () => (await stage.running("alice")).length === 0, 8_000);

/** A client that is gone while its statement runs. */
async function leaveDuring(sql: string): Promise<void> {
  const session: RawSession = await openRawSession(stage.login("alice"));
  session.query(sql);
  await begun();
  session.socket.resetAndDestroy();
}

/** How often the log says that a statement had to be terminated. */
const terminations = () => stage.frontEnd.output().split("did not end when it was cancelled").length - 1;

/** The SQLSTATE that a statement ends with. */
function outcomeOf(query: Promise<pg.QueryResult>): Promise<string | undefined> {
  return query.then(
    () => undefined,
    (error: { code?: string }) => error.code ?? String(error),
  );
}

beforeAll(async () => {
  stage = await openStage({ configuration: "[upstream]\npool_size = 1\n" });
});
// What one test could not end must not be what the next one looks at.
beforeEach(async () => {
  await stage.past("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'alice'");
  await until(async () => (await stage.running("alice")).length === 0);
});
afterAll(() => stage?.close());

describe("a statement that catches its cancellation ends", () => {
  test("with KILL SESSION", async () => {
    const client = await stage.connect("alice");
    const id = (await client.query("SHOW SESSION")).rows[0].session_id;
    const outcome = outcomeOf(client.query(stubborn));
    await begun();
    await stage.asAdmin(`KILL SESSION '${id}'`);
    expect(await outcome).toBe("57P01");
    await ended();
  });

  test("when its client goes away", async () => {
    await leaveDuring(stubborn);
    await ended();
  });

  test("when its client goes away before it has sent a Sync", async () => {
    const session = await openRawSession(stage.login("alice"));
    session.socket.write(
      Buffer.concat([encodeParse("", stubborn), bind(), encodeExecute("", 0), encodeFlush()]),
    );
    await begun();
    session.socket.resetAndDestroy();
    await ended();
  });

  test("at the end of an HTTP request's time", async () => {
    const key = await createKey(stage, "of a request", "FOR alice");
    const http = httpClient(`http://127.0.0.1:${stage.frontEnd.httpPort}`);
    const answer = await http.query(key, { sql: stubborn, timeoutMs: 100 });
    expect(answer.body.error.code).toBe("57014");
    await ended();
  });
});

test("until it has ended it takes a place in its user's pool", async () => {
  await leaveDuring(stubborn);
  const next = await stage.connect("alice");
  expect(await sleeping()).toEqual([]);
  expect(await stage.running("alice")).toHaveLength(1);
  await next.end();
});

test("a statement that ends when it is cancelled is not terminated", async () => {
  const before = terminations();
  await leaveDuring("SELECT pg_sleep(3600)");
  await ended();
  expect(terminations()).toBe(before);
});
