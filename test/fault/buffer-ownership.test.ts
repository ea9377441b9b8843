/** Every byte has one owner: what a slow reader is still owed is neither overwritten nor anybody else's. */

import { chmodSync, chownSync } from "node:fs";
import { dirname } from "node:path";
import type { Writable } from "node:stream";
import { TLSSocket } from "node:tls";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { chooseUnprivilegedUser } from "../../src/embedded/unprivileged-user.ts";
import { makeServerCertificate } from "../support/certificates.ts";
import { message, openRawSession, type RawSession } from "../support/raw-session.ts";
import { openStage, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

const patience = { timeout: 10_000, interval: 10 };

/** Small enough that several of them wait in a stream before it asks for a pause, in bytes. */
const pieceBytes = 700;
/** Far more than the kernel holds between three programs, which is tens of megabytes on some. */
const manyPieces = 500_000;

const textOf = (index: number) => `${String(index + 1).padStart(6, "0")} ${"x".repeat(pieceBytes - 50)}`;

/** Whether TLS is spoken between the front-end and PostgreSQL; the front-end takes it where it is offered. */
async function openStageBefore(upstream: "plain TCP" | "TLS"): Promise<Stage> {
  const { certPath, keyPath } = await makeServerCertificate();
  const user = await chooseUnprivilegedUser("/nonexistent");
  chmodSync(dirname(keyPath), 0o755);
  if (user !== undefined) chownSync(keyPath, user.uid, user.gid);
  const stage = await openStage({
    users: ["alice", "bob"],
    configuration: `[server.tls]\ncert = "${certPath}"\nkey = "${keyPath}"\n`,
    postgres:
      upstream === "TLS" ? { settings: { ssl: "on", ssl_cert_file: certPath, ssl_key_file: keyPath } } : {},
  });
  await stage.asAdmin("CREATE TABLE target (n serial, t text); GRANT ALL ON target, target_n_seq TO alice");
  const { rows } = await stage.asAdmin("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
  expect(rows).toEqual([{ ssl: upstream === "TLS" }]);
  return stage;
}

/** Waits until a number has not moved for some looks: everything on the way is full. */
async function untilStill(read: () => number): Promise<void> {
  let last = -1;
  let looks = 0;
  await until(() => {
    const now = read();
    looks = now === last ? looks + 1 : 0;
    last = now;
    return looks > 20;
  }, 20_000);
}

/** Logged in, with the driver's own reading at its end. */
async function openAlice(stage: Stage, transport: "plain TCP" | "TLS"): Promise<RawSession> {
  const session = await openRawSession(
    stage.login("alice", transport === "TLS" ? { ssl: { rejectUnauthorized: false } } : {}),
  );
  expect(session.socket instanceof TLSSocket).toBe(transport === "TLS");
  session.query("SELECT 1");
  await session.take("Z");
  return session;
}

describe("before an upstream in plain TCP", () => {
  let stage: Stage;
  beforeAll(async () => {
    stage = await openStageBefore("plain TCP");
  });
  afterEach(() => {
    stage.relay.fragmentBytes = undefined;
    stage.relay.resume("to_server");
  });
  afterAll(() => stage?.close());

  test("a client that stops reading and then breaks the protocol gets no row of another user", async () => {
    const secret = "BOB-SECRET ";
    for (let round = 0; round < 4; round += 1) {
      const alice = await openAlice(stage, "plain TCP");
      alice.socket.removeAllListeners("data");
      alice.socket.pause();
      alice.query("SELECT repeat('a', 60000) FROM generate_series(1, 2000)");
      await untilStill(() => stage.relay.passed.to_client);
      const bobs = await Promise.all([1, 2, 3].map(() => stage.connect("bob")));
      alice.socket.write("!!!!!!!!!!!!");
      await vi.waitFor(async () => expect(await stage.running("alice")).toEqual([]), patience);
      const query = `SELECT repeat('${secret}', 20000) AS t FROM generate_series(1, 5)`;
      for (const { rows } of await Promise.all(bobs.map((bob) => bob.query<{ t: string }>(query)))) {
        expect(rows.map(({ t }) => t)).toEqual(Array.from({ length: 5 }, () => secret.repeat(20_000)));
      }
      const received: Buffer[] = [];
      alice.socket.on("data", (chunk: Buffer) => received.push(chunk));
      alice.socket.resume();
      await alice.closed;
      const bytes = Buffer.concat(received);
      expect(bytes.length).toBeGreaterThan(60_000);
      expect(bytes.includes(secret)).toBe(false);
      for (const bob of bobs) await bob.end();
    }
  });

  test.each(["TLS", "plain TCP"] as const)(
    "a client in %s that reads late gets every small message as it was",
    async (transport) => {
      const session = await openAlice(stage, transport);
      session.socket.pause();
      stage.relay.fragmentBytes = pieceBytes;
      session.query(`
        SET client_min_messages = notice;
        DO $$ BEGIN
          FOR i IN 1..${manyPieces} LOOP RAISE NOTICE '% ${textOf(0).slice(7)}', lpad(i::text, 6, '0'); END LOOP;
        END $$`);
      await untilStill(() => stage.relay.passed.to_client);
      stage.relay.fragmentBytes = undefined;
      await stage.past("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = 'alice'");
      session.socket.resume();
      // It was still running: the front-end had stopped reading because nobody took what it had read.
      await until(() => session.messages.at(-1)?.type === "Z", 20_000);
      expect(session.messages.at(-2)?.body.toString("latin1")).toContain("C57014");
      const notices = session.messages.filter(({ type }) => type === "N");
      expect(notices.length).toBeGreaterThan(1_000);
      expect(notices.findIndex(({ body }, index) => !body.includes(`\0M${textOf(index)}\0`))).toBe(-1);
      session.socket.destroy();
    },
  );

  test("every row of a client is stored as it was when PostgreSQL takes them late", () => copyLate(stage));
});

describe("before an upstream in TLS", () => {
  let stage: Stage;
  beforeAll(async () => {
    stage = await openStageBefore("TLS");
  });
  afterEach(() => stage.relay.resume("to_server"));
  afterAll(() => stage?.close());

  test("every row of a client is stored as it was when PostgreSQL takes them late", () => copyLate(stage));
});

/** Sends rows one by one to a PostgreSQL that reads them only when nothing more finds room on the way. */
async function copyLate(stage: Stage): Promise<void> {
  const session = await openAlice(stage, "plain TCP");
  session.query("COPY target (t) FROM STDIN");
  await session.take("G");
  stage.relay.pause("to_server");
  const { socket }: { socket: Writable } = session;
  let pieces = 0;
  // One by one, so that the front-end reads them so, until it reads no more.
  while (socket.writableLength === 0 && pieces < manyPieces) {
    for (; socket.writableLength < 1_000 * pieceBytes && pieces < manyPieces; pieces += 1) {
      socket.write(message("d", Buffer.from(`${textOf(pieces)}\n`)));
      await new Promise((resume) => setImmediate(resume));
    }
    await untilStill(() => socket.writableLength);
  }
  expect(socket.writableLength).toBeGreaterThan(0);
  stage.relay.resume("to_server");
  session.send("c");
  await session.take("Z");
  expect(
    await stage.past(
      `SELECT count(*)::int, count(*) FILTER (WHERE t <> lpad(n::text, 6, '0') || $1)::int AS wrong FROM target`,
      [textOf(0).slice(6)],
    ),
  ).toEqual([{ count: pieces, wrong: 0 }]);
  session.socket.destroy();
}
