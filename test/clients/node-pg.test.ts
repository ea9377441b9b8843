/** node-postgres (pg): its own protocol implementation, from npm, so that these tests always run. */

import { connect as connectSocket } from "node:net";
import pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type Endpoint, openEndpoint, type Upstream } from "../support/endpoint.ts";
import { hasDebianPostgres } from "../support/postgres.ts";
import { requireClient } from "../support/skips.ts";

describe("pg, PostgreSQL 18 at the far end", () => describePg("embedded", true));
describe("pg, PostgreSQL 15 at the far end", () => {
  describePg("debian", requireClient("PostgreSQL 15 (postgresql-15)", hasDebianPostgres));
});

const horse = "Příliš žluťoučký kůň \u{1F40E} ' \" \\ $1";
const allBytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));

function describePg(upstream: Upstream, isThere: boolean): void {
  const clients: pg.Client[] = [];
  let endpoint: Endpoint;

  beforeAll(async () => {
    if (isThere) {
      endpoint = await openEndpoint(upstream);
    }
  });
  afterEach(async () => {
    await Promise.all(clients.splice(0).map((client) => client.end()));
  });
  afterAll(() => endpoint?.close());

  function login(): pg.ClientConfig {
    const { host, port, database, user, password } = endpoint;
    return { host, port, database, user, password };
  }

  async function connect(options: pg.ClientConfig & { pipeline?: boolean } = {}): Promise<pg.Client> {
    const client = new pg.Client({ ...login(), ...options });
    await client.connect();
    clients.push(client);
    return client;
  }

  const it = test.skipIf(!isThere);

  it("logs in with a password and acts as its own role", async () => {
    const client = await connect({ application_name: "pg checks", options: "-c work_mem=7MB" });
    const shown =
      "SELECT current_user, session_user, current_setting('application_name') AS name, current_setting('work_mem') AS mem";
    expect((await client.query(shown)).rows).toEqual([
      { current_user: endpoint.user, session_user: endpoint.user, name: "pg checks", mem: "7MB" },
    ]);
  });

  it("is refused with the same words for a wrong password and an unknown user", async () => {
    for (const user of [endpoint.user, "nobody_of_this_name"]) {
      const client = new pg.Client({ ...login(), user, password: "not the password" });
      await expect(client.connect()).rejects.toMatchObject({
        severity: "FATAL",
        code: "28P01",
        message: `password authentication failed for user "${user}"`,
      });
    }
  });

  it("round-trips parameters of many types", async () => {
    const client = await connect();
    const at = new Date("2024-02-29T18:29:59.123Z");
    const text =
      "SELECT $1::int8 AS i, $2::numeric AS n, $3::text AS t, $4::text AS m, $5::bytea AS b, $6::int[] AS a, $7::timestamptz AS at, $8::jsonb AS j";
    const decimal = "12345678901234567890.012345678900";
    const values = [
      "-9223372036854775808",
      decimal,
      horse,
      null,
      allBytes,
      [1, null, -3],
      at,
      { k: [horse] },
    ];
    const { rows } = await client.query(text, values);
    expect(rows).toEqual([
      {
        i: "-9223372036854775808",
        n: decimal,
        t: horse,
        m: null,
        b: allBytes,
        a: [1, null, -3],
        at,
        j: { k: [horse] },
      },
    ]);
  });

  it("repeats a named prepared statement", async () => {
    const client = await connect();
    for (let number = 0; number < 20; number += 1) {
      const query = { name: "addition", text: "SELECT $1::int + 1 AS sum", values: [number] };
      expect((await client.query(query)).rows).toEqual([{ sum: number + 1 }]);
    }
    const named = "SELECT count(*)::int AS count FROM pg_prepared_statements WHERE name = 'addition'";
    expect((await client.query(named)).rows).toEqual([{ count: 1 }]);
  });

  it("fetches a portal in pieces when the query has a row limit", async () => {
    const client = await connect();
    const text = "SELECT generate_series(1, $1::int) AS n";
    const limited: pg.QueryConfig & { rows: number } = { text, values: [100_000], rows: 999 };
    const { rows } = await client.query<{ n: number }>(limited);
    expect(rows.reduce((sum, row) => sum + row.n, 0)).toBe(5_000_050_000);
  });

  it("commits, rolls back, and returns to a savepoint", async () => {
    const client = await connect();
    await client.query("BEGIN");
    await client.query("INSERT INTO account VALUES ($1, $2, $3)", [100, "kept", 1]);
    await client.query("SAVEPOINT before_duplicate");
    await expect(client.query("INSERT INTO account VALUES (100, 'again', 1)")).rejects.toMatchObject({
      code: "23505",
    });
    await client.query("ROLLBACK TO before_duplicate");
    await client.query("COMMIT");
    await client.query("BEGIN; DELETE FROM account WHERE id = 100");
    await client.query("ROLLBACK");
    expect((await client.query("SELECT owner FROM account WHERE id = 100")).rows).toEqual([
      { owner: "kept" },
    ]);
  });

  it("is refused with 25P02 after an error until it rolls back", async () => {
    const client = await connect();
    await client.query("BEGIN");
    await expect(client.query("SELECT 1/0")).rejects.toMatchObject({ code: "22012" });
    await expect(client.query("SELECT $1::int", [1])).rejects.toMatchObject({ code: "25P02" });
    expect((await client.query("ROLLBACK")).command).toBe("ROLLBACK");
    expect((await client.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
  });

  it("gets every field of an error", async () => {
    const client = await connect();
    await expect(client.query("INSERT INTO account VALUES (1, 'x', 1)")).rejects.toMatchObject({
      severity: "ERROR",
      code: "23505",
      detail: "Key (id)=(1) already exists.",
      schema: "public",
      table: "account",
      constraint: "account_pkey",
      file: "nbtinsert.c",
      routine: "_bt_check_unique",
    });
    await expect(client.query("INSERT INTO account VALUES (2)")).rejects.toMatchObject({
      code: "23502",
      column: "owner",
    });
    await expect(client.query("SELECT 1,, 2")).rejects.toMatchObject({ code: "42601", position: "10" });
    const raise = "DO $$BEGIN RAISE EXCEPTION 'no' USING ERRCODE='22023', DETAIL='Why.', HINT='Do.'; END$$";
    await expect(client.query(raise)).rejects.toMatchObject({
      message: "no",
      code: "22023",
      detail: "Why.",
      hint: "Do.",
      where: "PL/pgSQL function inline_code_block line 1 at RAISE",
    });
  });

  it("gets every result of a string of several statements", async () => {
    const client = await connect();
    const results: unknown = await client.query(
      "SELECT 1 AS n; CREATE TEMP TABLE one (id int); SELECT 2 AS n",
    );
    expect(results).toMatchObject([
      { command: "SELECT", rows: [{ n: 1 }] },
      { command: "CREATE" },
      { command: "SELECT", rows: [{ n: 2 }] },
    ]);
  });

  it("copies rows in and out, and goes on after a failed copy", async () => {
    const client = await connect();
    const text = Array.from({ length: 5000 }, (_, n) => `${n}\trow ${n}\n`).join("");
    await client.query("CREATE TEMP TABLE copied (id int, name text)");
    expect(await client.query(new Copy("COPY copied FROM STDIN", text)).finished).toBe("");
    expect(await client.query(new Copy("COPY copied TO STDOUT")).finished).toBe(text);
    await expect(client.query(new Copy("COPY copied FROM STDIN", "x\ty\n")).finished).rejects.toMatchObject({
      code: "22P02",
      where: 'COPY copied, line 1, column id: "x"',
    });
    expect((await client.query("SELECT count(*)::int AS n FROM copied")).rows).toEqual([{ n: 5000 }]);
  });

  it("sends and receives a value of 20 MB", async () => {
    const client = await connect();
    const content = Buffer.alloc(20 * 1024 * 1024, allBytes);
    const { rows } = await client.query<{ b: Buffer }>("SELECT $1::bytea AS b", [content]);
    expect(rows[0]?.b.equals(content)).toBe(true);
  });

  it("is cancelled by a CancelRequest with its key, and goes on", async () => {
    const client = await connect();
    const other = await connect();
    const sleeping = expect(client.query("SELECT pg_sleep(60)")).rejects.toMatchObject({
      code: "57014",
      message: "canceling statement due to user request",
    });
    await waitUntilActive(other, backendKey(client).processId);
    await sendCancelRequest(backendKey(client));
    await sleeping;
    expect((await client.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
  });

  it("ignores a CancelRequest with another key", async () => {
    const client = await connect();
    const other = await connect();
    const sleeping = client.query("SELECT pg_sleep(0.5), 'slept' AS s");
    const { processId, secretKey } = backendKey(client);
    await waitUntilActive(other, processId);
    await sendCancelRequest({ processId, secretKey: secretKey ^ 1 });
    expect((await sleeping).rows).toMatchObject([{ s: "slept" }]);
  });

  it("receives notices and notifications", async () => {
    const client = await connect();
    const other = await connect();
    const notices: unknown[] = [];
    client.on("notice", (notice) => notices.push([notice.severity, notice.code, notice.message]));
    await client.query("DO $$BEGIN RAISE NOTICE 'first'; RAISE WARNING 'second'; END$$");
    expect(notices).toEqual([
      ["NOTICE", "00000", "first"],
      ["WARNING", "01000", "second"],
    ]);
    const notified = new Promise((resolve) => client.once("notification", resolve));
    await client.query("LISTEN pg_channel");
    await other.query("SELECT pg_notify('pg_channel', $1)", [horse]);
    const { processId } = backendKey(other);
    expect(await notified).toMatchObject({ channel: "pg_channel", payload: horse, processId });
  });

  it("pipelines statements, and an error stops only its own", async () => {
    const client = await connect({ pipeline: true });
    const queries = Array.from({ length: 200 }, (_, n) =>
      client.query("SELECT 100 / $1::int AS n", [n % 50]).then(
        ({ rows }) => rows[0]?.n,
        (error) => error.code,
      ),
    );
    const expected = Array.from({ length: 200 }, (_, n) =>
      n % 50 === 0 ? "22012" : Math.trunc(100 / (n % 50)),
    );
    expect(await Promise.all(queries)).toEqual(expected);
  });

  it("serves a pool of more users than connections", async () => {
    const pool = new pg.Pool({ ...login(), max: 4 });
    const queries = Array.from({ length: 200 }, (_, n) => pool.query("SELECT $1::int AS n", [n]));
    const numbers = (await Promise.all(queries)).map(({ rows }) => rows[0]?.n);
    expect(numbers).toEqual(Array.from({ length: 200 }, (_, n) => n));
    await pool.end();
  });

  async function waitUntilActive(client: pg.Client, processId: number): Promise<void> {
    const active =
      "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND state = 'active' AND wait_event = 'PgSleep'";
    while ((await client.query(active, [processId])).rowCount === 0) {
      // Each turn is a round trip.
    }
  }

  function sendCancelRequest(key: BackendKey): Promise<void> {
    const request = Buffer.alloc(16);
    request.writeInt32BE(16, 0);
    request.writeInt32BE(80877102, 4);
    request.writeInt32BE(key.processId, 8);
    request.writeInt32BE(key.secretKey, 12);
    return new Promise((resolve, reject) => {
      const socket = connectSocket(endpoint.port, endpoint.host, () => socket.write(request));
      socket.on("error", reject).on("close", () => resolve());
      socket.resume();
    });
  }
}

interface BackendKey {
  readonly processId: number;
  readonly secretKey: number;
}

/** What the server sent as BackendKeyData; pg keeps it without declaring it. */
function backendKey(client: pg.Client): BackendKey {
  return {
    processId: Number(Reflect.get(client, "processID")),
    secretKey: Number(Reflect.get(client, "secretKey")),
  };
}

/** One COPY as pg's query queue runs it: pg calls these methods for the messages of the server. */
class Copy implements pg.Submittable {
  /** What the server sent; rejected with the server's error. */
  readonly finished: Promise<string>;
  readonly #text: string;
  readonly #input: string | undefined;
  readonly #chunks: Buffer[] = [];
  #resolve: (received: string) => void = () => {};
  #reject: (error: unknown) => void = () => {};

  constructor(text: string, input?: string) {
    this.#text = text;
    this.#input = input;
    this.finished = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  submit(connection: pg.Connection): void {
    connection.query(this.#text);
  }

  handleCopyInResponse(connection: { sendCopyFromChunk(chunk: Buffer): void; endCopyFrom(): void }): void {
    connection.sendCopyFromChunk(Buffer.from(this.#input ?? ""));
    connection.endCopyFrom();
  }

  handleCopyData(message: { chunk: Buffer }): void {
    this.#chunks.push(Buffer.from(message.chunk));
  }

  handleCommandComplete(): void {}

  /** Called instead of handleReadyForQuery. */
  handleError(error: unknown): void {
    this.#reject(error);
  }

  handleReadyForQuery(): void {
    this.#resolve(Buffer.concat(this.#chunks).toString());
  }
}
