/** A client that resets its connection at any point of a transaction with a part of ours and one of PostgreSQL's: both or none. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  encodeExecute,
  encodeFlush,
  encodeParse,
  encodeQuery,
  encodeSync,
} from "../../src/wire/frontend-message-encoding.ts";
import { bind } from "../support/raw-client.ts";
import { openRawSession, type RawSession } from "../support/raw-session.ts";
import { openStage, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

let stage: Stage;
let count = 0;

beforeAll(async () => {
  stage = await openStage();
  await stage.past("CREATE TABLE written (name text)");
  await stage.past("GRANT ALL ON written TO PUBLIC");
  // A COMMIT that can be seen, and that a cancel does not stop.
  await stage.past(
    `CREATE FUNCTION takes_a_moment() RETURNS trigger LANGUAGE plpgsql AS
       $$BEGIN PERFORM pg_sleep(0.1); RETURN NULL; EXCEPTION WHEN query_canceled THEN RETURN NULL; END$$`,
  );
  await stage.past(
    `CREATE CONSTRAINT TRIGGER takes_a_moment AFTER INSERT ON written DEFERRABLE INITIALLY DEFERRED
       FOR EACH ROW EXECUTE FUNCTION takes_a_moment()`,
  );
});
afterAll(() => stage?.close());

/** Both parts are spread over the transaction: neither is complete before its end. */
const statementsOf = (name: string) => [
  "BEGIN",
  `INSERT INTO written VALUES ('${name}')`,
  `CREATE USER ${name}_a PASSWORD 'long enough to be taken'`,
  `GRANT SELECT ON written TO ${name}_a`,
  `CREATE USER ${name}_b PASSWORD 'long enough to be taken'`,
  `INSERT INTO written VALUES ('${name}')`,
  "COMMIT",
];

interface Encoding {
  readonly what: string;
  /** Messages, each with what the client waits for before it sends the next; undefined: it sends ahead. */
  encode(statements: readonly string[]): { readonly bytes: Buffer; readonly awaited: string | undefined }[];
}

const extended = (text: string) => Buffer.concat([encodeParse("", text), bind(), encodeExecute("")]);
/** Answered without a Sync. */
const flushed = (text: string) => Buffer.concat([extended(text), encodeFlush()]);

const encodings: readonly Encoding[] = [
  {
    what: "Querys, each behind the answer to the last",
    encode: (statements) => statements.map((text) => ({ bytes: encodeQuery(text), awaited: "Z" })),
  },
  {
    what: "Querys sent ahead",
    encode: (statements) => statements.map((text) => ({ bytes: encodeQuery(text), awaited: undefined })),
  },
  {
    what: "the extended protocol, a Sync each",
    encode: (statements) =>
      statements.map((text) => ({ bytes: Buffer.concat([extended(text), encodeSync()]), awaited: "Z" })),
  },
  {
    what: "one pipeline",
    encode: (statements) => [
      ...statements.map((text) => ({ bytes: flushed(text), awaited: undefined })),
      { bytes: encodeSync(), awaited: "Z" },
    ],
  },
  {
    what: "a pipeline without a block",
    encode: (statements) => [
      ...statements.slice(1, -1).map((text) => ({ bytes: flushed(text), awaited: undefined })),
      { bytes: encodeSync(), awaited: "Z" },
    ],
  },
  {
    what: "one string without a block",
    encode: (statements) => [{ bytes: encodeQuery(statements.slice(1, -1).join("; ")), awaited: "Z" }],
  },
];

type Moment = (session: RawSession) => Promise<unknown> | undefined;

/** When, after its last bytes, the client resets: at once, or at several moments of what they have begun. */
const moments: readonly Moment[] = [
  () => undefined,
  () => new Promise((resume) => setImmediate(resume)),
  (session) => session.take("C"),
];

/** For the last message alone: PostgreSQL is in the middle of its commit. */
const inCommit: Moment = () =>
  until(async () => {
    const committing = await stage.past(
      "SELECT FROM pg_stat_activity WHERE usename = $1 AND wait_event = 'PgSleep'",
      [stage.frontEnd.adminUser],
    );
    return committing.length === 1;
  });

/** Sends messages up to `last`, of that one only a part when `isCut`, and resets. */
async function vanish(
  encoding: Encoding,
  name: string,
  last: number,
  isCut: boolean,
  moment: Moment,
): Promise<void> {
  const session = await openRawSession(stage.login(stage.frontEnd.adminUser));
  const messages = encoding.encode(statementsOf(name));
  for (const [index, { bytes, awaited }] of messages.slice(0, last + 1).entries()) {
    const isLast = index === last;
    session.socket.write(isLast && isCut ? bytes.subarray(0, bytes.length - 2) : bytes);
    if (!isLast && awaited !== undefined) await session.take(awaited);
  }
  if (!isCut) await moment(session);
  session.socket.resetAndDestroy();
  await session.closed;
  await until(async () => {
    const busy = await stage.past(
      `SELECT FROM pg_stat_activity WHERE usename = $1 AND state <> 'idle'
        UNION ALL SELECT FROM nodedb.reserved_role WHERE name LIKE $2
        UNION ALL SELECT FROM nodedb.dropped_role`,
      [stage.frontEnd.adminUser, `${name}\\_%`],
    );
    return busy.length === 0;
  }, 20_000);
}

async function found(name: string): Promise<{ rows: number; users: number; roles: number }> {
  const [row] = await stage.past(
    `SELECT (SELECT count(*)::int FROM written WHERE name = $1) AS rows,
            (SELECT count(*)::int FROM nodedb.principal WHERE name LIKE $2) AS users,
            (SELECT count(*)::int FROM pg_roles WHERE rolname LIKE $2) AS roles`,
    [name, `${name}\\_%`],
  );
  return row as { rows: number; users: number; roles: number };
}

describe.each(encodings)("in $what", (encoding) => {
  test("it has done all or nothing, wherever it vanished", async () => {
    const length = encoding.encode(statementsOf("n")).length;
    for (let last = 0; last < length; last += 1) {
      for (const isCut of [true, false]) {
        const isWhole = last === length - 1 && !isCut;
        for (const moment of isCut ? moments.slice(0, 1) : isWhole ? [...moments, inCommit] : moments) {
          count += 1;
          const name = `n${count}`;
          await vanish(encoding, name, last, isCut, moment);
          const { rows, users, roles } = await found(name);
          const where = `message ${last} of ${length}, ${isCut ? "cut" : moment}`;
          expect([rows, users, roles], where).toEqual(rows === 0 ? [0, 0, 0] : [2, 2, 2]);
          // What was not sent whole cannot have been done, and what is in its commit is.
          if (!isWhole) expect(rows, where).toBe(0);
          if (moment === inCommit) expect(rows, where).toBe(2);
        }
      }
    }
  }, 120_000);
});
