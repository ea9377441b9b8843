/** COMMIT of a transaction with statements of ours while the client, the upstream or the way to it breaks: both parts or none. */

import type { Socket } from "node:net";
import type pg from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { openStage, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

let stage: Stage;
let admin: pg.Client;
const clients: pg.Client[] = [];
let count = 0;

async function connect(user = stage.frontEnd.adminUser): Promise<pg.Client> {
  const client = await stage.connect(user);
  clients.push(client);
  return client;
}

function socketOf(client: pg.Client): Socket {
  return (client as unknown as { connection: { stream: Socket } }).connection.stream;
}

interface HeldUp {
  readonly client: pg.Client;
  /** The user that the transaction creates, and the number that it writes. */
  readonly name: string;
  readonly id: number;
  readonly upstreamPid: number;
  /** Of the COMMIT: its tag or SQLSTATE. */
  readonly outcome: Promise<string>;
}

/** How a client ends its transaction. */
const endings = [
  ["a Query", (client: pg.Client) => client.query("COMMIT")],
  [
    "a prepared COMMIT",
    (client: pg.Client) => client.query({ text: "COMMIT", values: [], ...{ queryMode: "extended" } }),
  ],
] as const;

type End = (typeof endings)[number][1];

/** Begins a transaction with a part of ours and of PostgreSQL's, and its COMMIT, which a deferred trigger holds up. */
async function commitHeldUp(body: string, end: End): Promise<HeldUp> {
  count += 1;
  const id = count;
  const name = `user_${id}`;
  const client = await connect();
  const pid = await client.query("SELECT pg_backend_pid() AS pid");
  for (const sql of [
    "BEGIN",
    "CREATE TEMP TABLE x (i int)",
    `CREATE FUNCTION pg_temp.f() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN ${body} RETURN NULL; END $f$`,
    `CREATE CONSTRAINT TRIGGER z AFTER INSERT ON x DEFERRABLE INITIALLY DEFERRED
       FOR EACH ROW EXECUTE FUNCTION pg_temp.f()`,
    "INSERT INTO x VALUES (1)",
    `INSERT INTO written VALUES (${id})`,
    `CREATE USER ${name} PASSWORD 'long enough to be taken'`,
  ]) {
    await client.query(sql);
  }
  const outcome = end(client).then(
    ({ command }) => command,
    (error: unknown) => (error as { code?: string }).code ?? String(error),
  );
  return { client, name, id, upstreamPid: pid.rows[0].pid, outcome };
}

/** Waits until the COMMIT is in its trigger. */
async function untilHeldUp({ upstreamPid }: HeldUp): Promise<void> {
  await until(async () => {
    const rows = await stage.past(
      "SELECT FROM pg_stat_activity WHERE pid = $1 AND state = 'active' AND wait_event = 'PgSleep'",
      [upstreamPid],
    );
    return rows.length === 1;
  });
}

/** What is there when nothing of it is under way any more. */
async function parts({
  name,
  id,
  upstreamPid,
}: HeldUp): Promise<{ theirs: boolean; ours: boolean; role: boolean }> {
  await until(async () => {
    const busy = await stage.past(
      `SELECT FROM pg_stat_activity WHERE pid = $1 AND state = 'active'
        UNION ALL SELECT FROM nodedb.reserved_role WHERE name = $2`,
      [upstreamPid, name],
    );
    return busy.length === 0;
  }, 20_000);
  const [row] = await stage.past(
    `SELECT EXISTS (SELECT FROM written WHERE id = $1) AS theirs,
            EXISTS (SELECT FROM nodedb.principal WHERE name = $2) AS ours,
            EXISTS (SELECT FROM pg_roles WHERE rolname = $2) AS role`,
    [id, name],
  );
  return row as { theirs: boolean; ours: boolean; role: boolean };
}

const all = { theirs: true, ours: true, role: true };
const nothing = { theirs: false, ours: false, role: false };

/** Goes on after a cancel, as a trigger may. */
const stubborn =
  "BEGIN PERFORM pg_sleep(3600); EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(0.2); END;";
/** Ends only with its backend. */
const endless =
  "LOOP BEGIN PERFORM pg_sleep(3600); EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(0.01); END; END LOOP;";

beforeAll(async () => {
  stage = await openStage();
  await stage.past("CREATE TABLE written (id int)");
  await stage.past("GRANT ALL ON written TO PUBLIC");
});
beforeEach(async () => {
  admin = await connect();
});
afterEach(async () => {
  stage.relay.judge = undefined;
  await Promise.all(clients.splice(0).map((client) => client.end().catch(() => undefined)));
});
afterAll(() => stage?.close());

describe.each(endings)("while %s runs", (_, end) => {
  test("a client that vanishes keeps both parts, when PostgreSQL commits its own all the same", async () => {
    const held = await commitHeldUp(stubborn, end);
    await untilHeldUp(held);
    socketOf(held.client).destroy();
    expect(await parts(held)).toEqual(all);
  });

  test("a client that vanishes loses both parts, when PostgreSQL is stopped by that", async () => {
    const held = await commitHeldUp("PERFORM pg_sleep(3600);", end);
    await untilHeldUp(held);
    socketOf(held.client).destroy();
    expect(await parts(held)).toEqual(nothing);
  });

  test("a client that says goodbye is one that vanishes", async () => {
    const held = await commitHeldUp(stubborn, end);
    await untilHeldUp(held);
    socketOf(held.client).write(Buffer.from([0x58, 0, 0, 0, 4]));
    expect(await parts(held)).toEqual(all);
  });

  test("a session that is killed ends with both parts or none", async () => {
    const held = await commitHeldUp(stubborn, end);
    await untilHeldUp(held);
    const sessions = await admin.query("SHOW SESSIONS");
    const own = await admin.query("SHOW SESSION");
    const victim = sessions.rows.find(
      (row) => row.state === "active" && row.session_id !== own.rows[0].session_id,
    );
    await admin.query(`KILL SESSION '${victim?.session_id}'`);
    expect(await held.outcome).toBe("57P01");
    expect(await parts(held)).toEqual(all);
  });

  test("an upstream connection that is terminated takes both parts with it", async () => {
    const held = await commitHeldUp("PERFORM pg_sleep(3600);", end);
    await untilHeldUp(held);
    await stage.past("SELECT pg_terminate_backend($1)", [held.upstreamPid]);
    expect(await held.outcome).toBe("57P01");
    expect(await parts(held)).toEqual(nothing);
  });

  test("an answer that gets lost on its way is found out", async () => {
    const held = await commitHeldUp("", (client) => {
      stage.relay.judge = (direction, chunk, link) =>
        direction === "to_client" && link.opening.includes("user\0nodedb\0") && chunk.includes("COMMIT\0")
          ? 0
          : undefined;
      return end(client);
    });
    expect(await held.outcome).toBe("08006");
    expect(await parts(held)).toEqual(all);
  });

  test("a COMMIT that never ends is ended, and nobody else waits for longer than that", async () => {
    const held = await commitHeldUp(endless, end);
    await untilHeldUp(held);
    expect(await held.outcome).toBe("57014");
    expect(await parts(held)).toEqual(nothing);
    await admin.query(`CREATE USER ${held.name} PASSWORD 'long enough to be taken'`);
  });
});

test("a pipeline that commits at Sync keeps both parts when its client vanishes", async () => {
  const held = await commitHeldUp(stubborn, async (client) => {
    // The block is left for a pipeline of its own, with the same trigger on the same table.
    await client.query("ROLLBACK");
    await client.query("CREATE TEMP TABLE x (i int)");
    await client.query(
      `CREATE FUNCTION pg_temp.f() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN ${stubborn} RETURN NULL; END $f$`,
    );
    await client.query(
      `CREATE CONSTRAINT TRIGGER z AFTER INSERT ON x DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION pg_temp.f()`,
    );
    const { connection } = client as unknown as {
      connection: {
        parse(message: { text: string; name: string; types: never[] }): void;
        bind(message: object): void;
        execute(message: object): void;
        sync(): void;
      };
    };
    const texts = [
      "INSERT INTO x VALUES (1)",
      `INSERT INTO written VALUES (${count})`,
      `CREATE USER user_${count} PASSWORD 'long enough to be taken'`,
    ];
    for (const text of texts) {
      connection.parse({ text, name: "", types: [] });
      connection.bind({});
      connection.execute({});
    }
    connection.sync();
    return { command: "" } as pg.QueryResult;
  });
  await untilHeldUp(held);
  socketOf(held.client).destroy();
  expect(await parts(held)).toEqual(all);
});
