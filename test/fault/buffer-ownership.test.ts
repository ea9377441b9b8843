/** Every byte has one owner: what a slow client is still owed is neither overwritten nor anybody else's. */

import { chmodSync, chownSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { dirname } from "node:path";
import { connect as connectTls, createSecureContext, TLSSocket } from "node:tls";
import type pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { chooseUnprivilegedUser } from "../../src/embedded/unprivileged-user.ts";
import { chooseTransports } from "../../src/wire/choose-transport.ts";
import { makeServerCertificate } from "../support/certificates.ts";
import { type FrontEnd, type FrontEndOptions, startFrontEnd } from "../support/front-end.ts";
import { startPostgres, type TestPostgres } from "../support/postgres.ts";
import { openRawSession, type RawSession } from "../support/raw-session.ts";
import { openClient, passwordOf } from "../support/stage.ts";

const patience = { timeout: 10_000, interval: 10 };

/** A front-end, and its administrator on a session that stays. */
interface Stage {
  readonly frontEnd: FrontEnd;
  readonly admin: pg.Client;
  login(user: string, more?: pg.ClientConfig): pg.ClientConfig;
  close(): Promise<void>;
}

async function openStage(options: FrontEndOptions = {}): Promise<Stage> {
  const frontEnd = await startFrontEnd(options);
  const { host, port, database } = frontEnd;
  const login = (user: string, more: pg.ClientConfig = {}) => ({
    host,
    port,
    database,
    user,
    password: user === frontEnd.adminUser ? frontEnd.adminPassword : passwordOf(user),
    ...more,
  });
  const admin = await openClient(login(frontEnd.adminUser));
  for (const user of ["alice", "bob"]) {
    await admin.query(`CREATE USER ${user} PASSWORD '${passwordOf(user)}'`);
  }
  return {
    frontEnd,
    admin,
    login,
    close: async () => {
      await admin.end();
      await frontEnd.close();
    },
  };
}

/** Until PostgreSQL has been waiting for a while for somebody to take what alice has asked for, or the kernel holds it all. */
async function waitUntilStuck(stage: Stage): Promise<void> {
  let polls = 0;
  await vi.waitFor(async () => {
    const { rows } = await stage.admin.query(
      "SELECT FROM pg_stat_activity WHERE usename = 'alice' AND (wait_event = 'ClientWrite' OR state = 'idle')",
    );
    polls = rows.length === 0 ? 0 : polls + 1;
    expect(polls).toBeGreaterThan(20);
  }, patience);
}

describe("a client that stops reading and then breaks the protocol", () => {
  let stage: Stage;
  beforeAll(async () => {
    stage = await openStage();
  });
  afterAll(() => stage?.close());

  test("gets no row of another user", async () => {
    const secret = "BOB-SECRET ";
    for (let round = 0; round < 4; round += 1) {
      const alice = await openRawSession(stage.login("alice"));
      // The driver's own reading ends a turn after its login.
      alice.query("SELECT 1");
      await alice.take("Z");
      alice.socket.removeAllListeners("data");
      const received: Buffer[] = [];
      alice.socket.pause();
      alice.query("SELECT repeat('a', 60000) FROM generate_series(1, 2000)");
      await waitUntilStuck(stage);
      const bobs = await Promise.all([1, 2, 3].map(() => openClient(stage.login("bob"))));
      alice.socket.write("!!!!!!!!!!!!");
      await vi.waitFor(async () => {
        const { rows } = await stage.admin.query("SELECT FROM pg_stat_activity WHERE usename = 'alice'");
        expect(rows).toEqual([]);
      }, patience);
      const query = `SELECT repeat('${secret}', 20000) AS t FROM generate_series(1, 5)`;
      for (const { rows } of await Promise.all(bobs.map((bob) => bob.query<{ t: string }>(query)))) {
        expect(rows.map(({ t }) => t)).toEqual(Array.from({ length: 5 }, () => secret.repeat(20_000)));
      }
      alice.socket.on("data", (chunk: Buffer) => received.push(chunk));
      alice.socket.resume();
      await alice.closed;
      const bytes = Buffer.concat(received);
      expect(bytes.length).toBeGreaterThan(60_000);
      expect(bytes.includes(secret)).toBe(false);
      for (const bob of bobs) await bob.end();
    }
  });
});

const noticeCount = 30_000;
const noticeText = "x".repeat(700);

/** Has PostgreSQL say many small things, each of which is a message. */
function askForNotices(session: RawSession): void {
  session.query(`
    SET client_min_messages = notice;
    DO $$ BEGIN
      FOR i IN 1..${noticeCount} LOOP RAISE NOTICE '% ${noticeText}', lpad(i::text, 6, '0'); END LOOP;
    END $$`);
}

/** @returns the first message that is not what it should be */
function findWrongNotice(session: RawSession): string | undefined {
  const notices = session.messages.filter(({ type }) => type === "N");
  const wrong = notices.findIndex(({ body }, index) => {
    const text = body.toString("latin1");
    return !text.includes(`\0M${String(index + 1).padStart(6, "0")} ${noticeText}\0`);
  });
  if (wrong !== -1) return `${wrong}: ${notices[wrong]?.body.toString("latin1").slice(0, 100)}`;
  return notices.length === noticeCount ? undefined : `${notices.length} notices`;
}

async function waitForReady(session: RawSession): Promise<void> {
  const isReady = () => session.messages.at(-1)?.type === "Z";
  await vi.waitFor(() => expect(isReady()).toBe(true), { timeout: 20_000, interval: 10 });
}

/** A PostgreSQL that speaks TLS; the front-end takes it where it is offered. */
async function startEncryptedUpstream(): Promise<TestPostgres> {
  const { certPath, keyPath } = await makeServerCertificate();
  const user = await chooseUnprivilegedUser("/nonexistent");
  chmodSync(dirname(keyPath), 0o755);
  if (user !== undefined) chownSync(keyPath, user.uid, user.gid);
  return startPostgres({
    tcp: true,
    settings: { ssl: "on", ssl_cert_file: certPath, ssl_key_file: keyPath },
  });
}

describe.each(["not encrypted", "encrypted"] as const)("with an upstream that is %s", (upstream) => {
  let postgres: TestPostgres | undefined;
  let stage: Stage;
  beforeAll(async () => {
    const { certPath, keyPath } = await makeServerCertificate();
    if (upstream === "encrypted") postgres = await startEncryptedUpstream();
    stage = await openStage({
      configuration: `[server.tls]\ncert = "${certPath}"\nkey = "${keyPath}"\n`,
      ...(postgres === undefined ? {} : { upstreamUrl: postgres.url }),
    });
    const { rows } = await stage.admin.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    expect(rows).toEqual([{ ssl: upstream === "encrypted" }]);
  });
  afterAll(async () => {
    await stage?.close();
    await postgres?.dispose();
  });

  test.each([
    ["TLS", "slowly"],
    ["TLS", "at once"],
    ["plain TCP", "slowly"],
    ["plain TCP", "at once"],
  ])("a client in %s that reads %s gets every byte in order", async (transport, pace) => {
    const session = await openRawSession(
      stage.login("alice", transport === "TLS" ? { ssl: { rejectUnauthorized: false } } : {}),
    );
    expect(session.socket instanceof TLSSocket).toBe(transport === "TLS");
    session.query("SELECT 1");
    await session.take("Z");
    if (pace === "slowly") session.socket.pause();
    askForNotices(session);
    if (pace === "slowly") {
      await waitUntilStuck(stage);
      session.socket.resume();
    }
    await waitForReady(session);
    expect(findWrongNotice(session)).toBeUndefined();
    session.socket.destroy();
  });
});

describe("a transport that is given views of one buffer, again and again", () => {
  const servers: Server[] = [];
  const sockets: Socket[] = [];
  afterEach(() => {
    for (const socket of sockets.splice(0)) socket.destroy();
    for (const server of servers.splice(0)) server.close();
  });

  async function pair(): Promise<{ near: Socket; far: Socket }> {
    const server = createServer({ pauseOnConnect: true });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("no TCP port");
    const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
    const far = connect(address.port, "127.0.0.1");
    const near = await accepted;
    sockets.push(near, far);
    return { near, far };
  }

  async function securePair(): Promise<{ near: Socket; far: Socket }> {
    const plain = await pair();
    const { cert, key } = await makeServerCertificate();
    const near = new TLSSocket(plain.near, {
      isServer: true,
      secureContext: createSecureContext({ cert, key }),
    });
    const far = connectTls({ socket: plain.far, ca: cert, servername: "localhost" });
    sockets.push(near, far);
    await new Promise((resolve) => far.once("secureConnect", resolve));
    return { near, far };
  }

  test.each([
    ["plain TCP", pair],
    ["TLS", securePair],
  ])("has sent each as it was, over %s", async (_, open) => {
    const { near, far } = await open();
    const transport = (await chooseTransports("raw")).open(near);
    let drained = () => {};
    transport.handler = { onData() {}, onDrain: () => drained(), onEnd() {} };
    const received: Buffer[] = [];
    let length = 0;
    far.on("data", (chunk: Buffer) => {
      received.push(chunk);
      length += chunk.length;
    });
    const buffer = Buffer.alloc(700);
    const rounds = 20_000;
    let queued = 0;
    for (let round = 0; round < rounds; round += 1) {
      if (round % 2_000 === 0) far.pause();
      buffer.fill(round % 251);
      if (transport.write(buffer)) continue;
      // Only now is the buffer still another's.
      queued += 1;
      const isDrained = new Promise<void>((resolve) => {
        drained = resolve;
      });
      far.resume();
      await isDrained;
    }
    far.resume();
    await vi.waitFor(() => expect(length).toBe(rounds * buffer.length), patience);
    expect(queued).toBeGreaterThan(0);
    const bytes = Buffer.concat(received);
    const isAsItWas = (round: number) =>
      bytes
        .subarray(round * buffer.length, (round + 1) * buffer.length)
        .every((byte) => byte === round % 251);
    expect(Array.from({ length: rounds }, (__, round) => round).filter((round) => !isAsItWas(round))).toEqual(
      [],
    );
  });
});
