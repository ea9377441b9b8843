/** Both kinds of transport must do the same: the raw one knows Node from the inside, the public one is what it falls back to. */

import { randomFillSync } from "node:crypto";
import { once } from "node:events";
import type { Socket } from "node:net";
import { connect as connectTls, createSecureContext, TLSSocket } from "node:tls";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { chooseTransports } from "../../../src/wire/choose-transport.ts";
import { findStreamBinding } from "../../../src/wire/stream-binding.ts";
import type { Transport } from "../../../src/wire/transport.ts";
import { TransportFactory } from "../../../src/wire/transport-factory.ts";
import { makeServerCertificate, type TestCertificate } from "../../support/certificates.ts";
import { closePairs, openPair, openSecurePair } from "../../support/socket-pair.ts";
import { collect, hashOf, Recorder, settle } from "../../support/transport-recorder.ts";

const waitMs = 10_000;
const megabyte = 1024 * 1024;

const sockets: Socket[] = [];

afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  closePairs();
});

async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = Date.now() + waitMs;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`${what} did not happen within ${waitMs} ms`);
    await new Promise((resume) => setTimeout(resume, 1));
  }
}

/** Writes until the peer, who does not read, keeps a write queued. @returns what was written */
async function fill(transport: Transport, recorder: Recorder): Promise<Buffer[]> {
  const written: Buffer[] = [];
  for (let quietTurns = 0; quietTurns < 3; ) {
    const { drains } = recorder;
    for (let isTaken = quietTurns === 0; isTaken; ) {
      if (written.length > 1_000) throw new Error("the kernel takes everything");
      const chunk = randomFillSync(Buffer.alloc(64 * 1024));
      written.push(Buffer.from(chunk));
      isTaken = transport.write(chunk);
    }
    await settle();
    quietTurns = recorder.drains === drains ? quietTurns + 1 : 0;
  }
  return written;
}

describe.each(["raw", "public"] as const)("the %s transport", (kind) => {
  let factory: TransportFactory;
  let certificate: TestCertificate;

  beforeAll(async () => {
    factory = await chooseTransports(kind);
    certificate = await makeServerCertificate();
  });

  test("is the one that was asked for", () => {
    expect([factory.kind, factory.tlsKind]).toEqual([kind, kind]);
  });

  describe.each([
    ["accepted", "accepted", openPair],
    ["connected", "connected", openPair],
    ["accepted, in TLS", "accepted", openSecurePair],
    ["connected, in TLS", "connected", openSecurePair],
  ] as const)("on a socket that was %s", (_, side, openSockets) => {
    let makers: TransportFactory;
    let transport: Transport;
    let recorder: Recorder;
    let far: Socket;
    let farTcp: Socket;

    beforeAll(() => {
      // In TLS the public one may stand beside raw ones, whose read buffers it must not keep.
      const isFallback = kind === "public" && openSockets === openSecurePair;
      makers = isFallback ? new TransportFactory(findStreamBinding(), "public") : factory;
    });

    const open = async () => {
      const sockets = await openSockets(side);
      far = sockets.far;
      farTcp = sockets.farTcp;
      transport = makers.open(sockets.near);
      recorder = new Recorder();
      transport.handler = recorder;
    };

    test("forwards parts of read buffers, whatever was forwarded with the same bounds before", async () => {
      await open();
      const received = collect(far);
      const [one, other] = [Buffer.alloc(1024), Buffer.alloc(1024)];
      const sent: Buffer[] = [];
      for (let round = 0; round < 60; round += 1) {
        const buffer = round % 5 === 4 ? other : one;
        randomFillSync(buffer);
        const start = round % 7 === 6 ? 3 : 0;
        const end = [20, 21, 28][round % 3] ?? 0;
        sent.push(Buffer.from(buffer.subarray(start, end)));
        expect(transport.forward(buffer, start, end)).toBe(true);
      }
      const length = Buffer.concat(sent).length;
      await until(() => received.length() === length, "everything");
      expect(hashOf(...received.chunks)).toBe(hashOf(...sent));
    });

    test("moves small messages both ways, each at once", async () => {
      await open();
      const received = collect(far);
      transport.start();
      for (let round = 0; round < 50; round += 1) {
        expect(transport.write(Buffer.from(`there ${round};`))).toBe(true);
        far.write(`back ${round};`);
        await until(() => recorder.text.endsWith(`back ${round};`), "the answer");
      }
      const all = (word: string) => Array.from({ length: 50 }, (_, round) => `${word} ${round};`).join("");
      expect(recorder.text).toBe(all("back"));
      await until(() => received.length() === all("there").length, "the last message");
      expect(Buffer.concat(received.chunks).toString()).toBe(all("there"));
    });

    test("receives 32 MB as they were sent", async () => {
      await open();
      const bytes = randomFillSync(Buffer.alloc(32 * megabyte));
      transport.start();
      far.write(bytes.subarray(0, 100));
      far.write(bytes.subarray(100, 20_000));
      far.write(bytes.subarray(20_000));
      await until(() => recorder.length === bytes.length, "all of it");
      expect(hashOf(...recorder.chunks)).toBe(hashOf(bytes));
    });

    test("queues what the kernel does not take, keeps it intact, and tells when it is taken", async () => {
      await open();
      const written = await fill(transport, recorder);
      const last = Buffer.from("and one more behind the queue");
      const { drains } = recorder;
      expect(transport.write(last)).toBe(false);
      await settle();
      expect(recorder.drains).toBe(drains);
      const received = collect(far);
      const expected = Buffer.concat([...written, last]);
      await until(() => received.length() === expected.length, "all of it");
      await until(() => recorder.drains > drains, "the drain");
      expect(recorder.drains).toBe(drains + 1);
      expect(hashOf(...received.chunks)).toBe(hashOf(expected));
      expect(transport.write(Buffer.from("x"))).toBe(true);
    });

    test("relays views of its own buffer, untouched while the other side does not read", async () => {
      await open();
      const second = await openSockets("connected");
      const onward = makers.open(second.near);
      let stops = 0;
      transport.handler = {
        onData: (buffer, start, end) => {
          if (onward.write(buffer.subarray(start, end))) return;
          stops += 1;
          transport.stop();
        },
        onDrain() {},
        onEnd: () => onward.end(),
      };
      onward.handler = { onData() {}, onDrain: () => transport.start(), onEnd() {} };
      transport.start();
      onward.start();
      const bytes = randomFillSync(Buffer.alloc(24 * megabyte));
      far.end(bytes);
      await until(() => stops > 0, "back-pressure");
      // A reader that pauses often: the queue fills and empties many times.
      const received = collect(second.far);
      second.far.on("data", () => {
        second.far.pause();
        setImmediate(() => second.far.resume());
      });
      await until(() => received.isEnded, "the end");
      expect(received.length()).toBe(bytes.length);
      expect(hashOf(...received.chunks)).toBe(hashOf(bytes));
      expect(stops).toBeGreaterThan(1);
    });

    test("delivers nothing before it is started, and nothing while it is stopped", async () => {
      await open();
      far.write("early");
      await settle();
      expect(recorder.chunks).toEqual([]);
      transport.start();
      await until(() => recorder.text === "early", "what had come before");
      transport.stop();
      far.write(" and late");
      await settle();
      expect(recorder.text).toBe("early");
      transport.stop();
      transport.start();
      transport.start();
      await until(() => recorder.text === "early and late", "what had come meanwhile");
    });

    test("may be stopped in the middle of its data, again and again", async () => {
      await open();
      const bytes = randomFillSync(Buffer.alloc(2 * megabyte));
      let isStopped = false;
      recorder.onChunk = () => {
        expect(isStopped).toBe(false);
        isStopped = true;
        transport.stop();
        setImmediate(() => {
          isStopped = false;
          transport.start();
        });
      };
      transport.start();
      far.write(bytes);
      await until(() => recorder.length === bytes.length, "all of it");
      expect(hashOf(...recorder.chunks)).toBe(hashOf(bytes));
    });

    test("delivers the last message and then the end, also behind a queue", async () => {
      await open();
      transport.start();
      const written = await fill(transport, recorder);
      transport.write(Buffer.from("last"));
      transport.end();
      const received = collect(far);
      await until(() => received.isEnded, "the end");
      expect(hashOf(...received.chunks)).toBe(hashOf(...written, Buffer.from("last")));
      expect(received.isReset).toBe(false);
      far.end();
      await until(() => transport.isClosed, "the close");
      expect(recorder.ends).toBe(0);
    });

    test("delivers its last message to a peer that is still sending", async () => {
      await open();
      const received = collect(far);
      far.write(Buffer.alloc(megabyte));
      await settle();
      transport.write(Buffer.from("FATAL"));
      transport.end();
      await until(() => received.isEnded, "the end");
      expect([Buffer.concat(received.chunks).toString(), received.isReset]).toEqual(["FATAL", false]);
    });

    test("closes even when the peer never does", async () => {
      await open();
      far.pause();
      transport.end();
      await until(() => transport.isClosed, "the close");
    });

    test("tells once that the peer has closed", async () => {
      await open();
      transport.start();
      far.end("goodbye");
      await until(() => recorder.ends > 0, "the end");
      await settle();
      expect([recorder.text, recorder.ends, transport.isClosed]).toEqual(["goodbye", 1, true]);
    });

    test("tells once that the peer has reset the connection, while it reads and while it writes", async () => {
      await open();
      transport.start();
      farTcp.resetAndDestroy();
      await until(() => recorder.ends > 0, "the end");
      await settle();
      expect([recorder.ends, transport.isClosed]).toEqual([1, true]);

      await open();
      await fill(transport, recorder);
      farTcp.resetAndDestroy();
      await until(() => {
        transport.write(Buffer.from("x"));
        return recorder.ends > 0;
      }, "the end");
      await settle();
      expect([recorder.ends, transport.isClosed]).toEqual([1, true]);
    });

    test("tells nobody anything after close, and takes what is written then for nothing", async () => {
      await open();
      const received = collect(far);
      transport.start();
      transport.close();
      far.write("too late");
      expect(transport.write(Buffer.from("never sent"))).toBe(true);
      transport.close();
      transport.end();
      transport.start();
      transport.stop();
      await until(() => received.isEnded || received.isReset, "the close at the far end");
      await settle();
      expect([recorder.chunks, recorder.drains, recorder.ends]).toEqual([[], 0, 0]);
      expect(received.length()).toBe(0);
    });

    test("may be closed from within its own data", async () => {
      await open();
      recorder.onChunk = () => transport.close();
      transport.start();
      far.write("one");
      await until(() => transport.isClosed, "the close");
      far.write("two");
      await settle();
      expect([recorder.text, recorder.ends]).toEqual(["one", 0]);
    });

    test("gives the events to the handler that is set now", async () => {
      await open();
      const next = new Recorder();
      recorder.onChunk = () => {
        transport.handler = next;
      };
      transport.start();
      far.write("one");
      await until(() => recorder.text === "one", "the first");
      far.end("two");
      await until(() => next.ends === 1, "the end");
      expect([recorder.text, recorder.ends, next.text]).toEqual(["one", 0, "two"]);
    });
  });

  test("gives its socket back for TLS after it has read from it", async () => {
    const { near, far } = await openPair("accepted");
    const plain = factory.open(near);
    const recorder = new Recorder();
    plain.handler = recorder;
    plain.start();
    far.write("please encrypt");
    await until(() => recorder.text === "please encrypt", "the request");
    plain.write(Buffer.from("S"));
    await once(far, "readable");
    expect(far.read().toString()).toBe("S");
    const socket = plain.detach();
    expect(socket).toBe(near);
    const context = createSecureContext({ cert: certificate.cert, key: certificate.key });
    const secure = new TLSSocket(socket, { isServer: true, secureContext: context });
    secure.on("error", () => undefined);
    const secured = once(secure, "secure");
    const client = connectTls({ socket: far, ca: certificate.cert, servername: "localhost" });
    sockets.push(client, secure);
    await once(client, "secureConnect");
    await secured;
    const transport = factory.open(secure);
    const inside = new Recorder();
    transport.handler = inside;
    transport.start();
    const received = collect(client);
    const bytes = randomFillSync(Buffer.alloc(4 * megabyte));
    client.write(bytes);
    await until(() => inside.length === bytes.length, "4 MB in TLS");
    expect(hashOf(...inside.chunks)).toBe(hashOf(bytes));
    transport.write(bytes);
    await until(() => received.length() === bytes.length, "4 MB back");
    expect(hashOf(...received.chunks)).toBe(hashOf(bytes));
    transport.end();
    await until(() => received.isEnded, "the end");
    expect(recorder.ends).toBe(0);
  });

  test("gives its socket back for TLS with the client's first bytes still in it", async () => {
    const { near, far } = await openPair("accepted");
    const plain = factory.open(near);
    plain.handler = new Recorder();
    const client = connectTls({ socket: far, ca: certificate.cert, servername: "localhost" });
    await settle();
    const context = createSecureContext({ cert: certificate.cert, key: certificate.key });
    const secure = new TLSSocket(plain.detach(), { isServer: true, secureContext: context });
    sockets.push(client, secure);
    await once(client, "secureConnect");
    const recorder = new Recorder();
    const transport = factory.open(secure);
    transport.handler = recorder;
    transport.start();
    client.write("encrypted");
    await until(() => recorder.text === "encrypted", "what was sent in TLS");
  });

  test("serves many connections one after the other without mixing their bytes", async () => {
    for (let round = 0; round < 30; round += 1) {
      const connections = await Promise.all([
        openPair("accepted"),
        openPair("connected"),
        openPair("accepted"),
      ]);
      const opened = connections.map(({ near, far }, index) => {
        const transport = factory.open(near);
        const recorder = new Recorder();
        transport.handler = recorder;
        transport.start();
        far.write(Buffer.alloc(20_000 + round, round * 3 + index));
        return { transport, recorder, index };
      });
      for (const { transport, recorder, index } of opened) {
        await until(() => recorder.length === 20_000 + round, "the data");
        expect(Buffer.concat(recorder.chunks).every((byte) => byte === round * 3 + index)).toBe(true);
        transport.close();
      }
    }
  });
});
