/** Slow readers on either side: what waits, waits in the kernel and at its source, not in the front-end's memory. */

import { existsSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { makeServerCertificate } from "../support/certificates.ts";
import { openRawSession } from "../support/raw-session.ts";
import { requireClient } from "../support/skips.ts";
import { openStage, runOnce, type Stage } from "../support/stage.ts";

const allowedGrowthKb = 10 * 1024;
const million = 1_000_000;

describe.each(["plain", "TLS"] as const)("memory, with a client over %s,", (kind) => {
  const hasProc = requireClient("/proc/<pid>/status", existsSync("/proc/self/status"));
  let stage: Stage;

  beforeAll(async () => {
    if (!hasProc) return;
    const { certPath, keyPath } = await makeServerCertificate();
    const tls = `[server.tls]\ncert = "${certPath}"\nkey = "${keyPath}"\nrequired = false\n`;
    stage = await openStage(kind === "TLS" ? { configuration: tls } : {});
    await stage.asAdmin("CREATE TABLE target (t text); GRANT INSERT ON target TO alice");
  });
  afterAll(() => stage?.close());

  const alice = () =>
    stage.login("alice", kind === "TLS" ? { ssl: { rejectUnauthorized: false } } : undefined);

  function residentKb(): number {
    const status = readFileSync(`/proc/${stage.frontEnd.processId}/status`, "utf8");
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]);
  }

  /** Waits until a number has stood still for a while: nothing moves any more. */
  async function waitUntilStill(read: () => number): Promise<number> {
    let last = -1;
    let sinceMs = Date.now();
    while (Date.now() - sinceMs < 300) {
      const now = read();
      if (now !== last) {
        last = now;
        sinceMs = Date.now();
      }
      await new Promise((resume) => setTimeout(resume, 10));
    }
    return last;
  }

  test.skipIf(!hasProc)("does not grow with 500 MB that a client asks for and does not read", async () => {
    const session = await openRawSession(alice());
    // The code paths are warm, so that what is measured is what waits.
    session.query("COPY (SELECT repeat('x', 999) FROM generate_series(1, 20000)) TO STDOUT");
    await session.take("Z");
    const before = await waitUntilStill(residentKb);
    session.socket.pause();
    const passedBefore = stage.relay.passed.to_client;
    session.query("COPY (SELECT repeat('x', 999) FROM generate_series(1, 500000)) TO STDOUT");
    const passed = (await waitUntilStill(() => stage.relay.passed.to_client)) - passedBefore;
    expect(passed).toBeGreaterThan(100_000);
    expect(passed).toBeLessThan(50 * million);
    expect(residentKb() - before).toBeLessThan(allowedGrowthKb);
    // Others are served meanwhile.
    expect((await runOnce(stage.login("alice"), "SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);

    let peak = 0;
    const watch = setInterval(() => {
      peak = Math.max(peak, residentKb());
    }, 20);
    const receivedBefore = session.received;
    session.socket.resume();
    await session.take("Z");
    clearInterval(watch);
    expect(session.received - receivedBefore).toBeGreaterThan(500 * million);
    expect(peak - before).toBeLessThan(allowedGrowthKb);
    session.socket.destroy();
  });

  test.skipIf(!hasProc)("does not grow with 200 MB that PostgreSQL does not take", async () => {
    const session = await openRawSession(alice());
    const row = Buffer.alloc(64 * 1024, "y");
    row[row.length - 1] = 0x0a;
    const header = Buffer.from([0x64, 0, 0, 0, 0]);
    header.writeInt32BE(row.length + 4, 1);
    const copyRow = Buffer.concat([header, row]);
    session.query("COPY target FROM STDIN");
    await session.take("G");
    for (let sent = 0; sent < 10 * million; sent += copyRow.length) session.socket.write(copyRow);
    session.send("c");
    await session.take("Z");
    const before = await waitUntilStill(residentKb);

    session.query("COPY target FROM STDIN");
    await session.take("G");
    stage.relay.pause("to_server");
    const offered = 200 * million;
    for (let sent = 0; sent < offered; sent += copyRow.length) session.socket.write(copyRow);
    // What the front-end does not read stays on this side.
    const left = await waitUntilStill(() => session.socket.writableLength);
    expect(left).toBeGreaterThan(offered - 50 * million);
    expect(residentKb() - before).toBeLessThan(allowedGrowthKb);
    stage.relay.resume("to_server");
    session.send("f", Buffer.from("enough\0"));
    expect(await session.takeError()).toBe("57014");
    expect(residentKb() - before).toBeLessThan(allowedGrowthKb);
    session.socket.destroy();
  });

  test.skipIf(!hasProc)(
    "does not grow with what a client sends ahead behind a statement of ours",
    async () => {
      const session = await openRawSession(alice());
      const before = await waitUntilStill(residentKb);
      session.query("SHOW SESSION; SELECT pg_sleep(2)");
      const text = Buffer.from(`SELECT '${"z".repeat(1_000_000)}'\0`);
      for (let count = 0; count < 100; count += 1) session.send("Q", text);
      const left = await waitUntilStill(() => session.socket.writableLength);
      expect(left).toBeGreaterThan(50 * million);
      expect(residentKb() - before).toBeLessThan(allowedGrowthKb);
      session.socket.destroy();
    },
  );
});
