/** Unused upstream connections of a front-end, when another one takes away what they were opened with. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type FrontEnd, startFrontEnd } from "../support/front-end.ts";
import { openClient, openStage, type Stage, stateOf } from "../support/stage.ts";
import { until } from "../support/until.ts";

describe("unused connections at another front-end", () => {
  let stage: Stage;
  let second: FrontEnd;

  const there = (user: string, database: string) =>
    openClient(stage.login(user, { host: second.host, port: second.port, database }));
  /** Leaves one connection in the pool of the second front-end. */
  const leaveOne = async (user: string) => {
    await (await there(user, "ours")).end();
    await until(async () => (await stage.running(user)).length === 1);
  };
  const goneAfter = async (user: string) => {
    const startedAt = performance.now();
    await until(async () => (await stage.running(user)).length === 0);
    return performance.now() - startedAt;
  };

  beforeAll(async () => {
    stage = await openStage({ users: ["alice", "bob", "carol"] });
    await stage.asAdmin("CREATE DATABASE ours");
    await stage.past("REVOKE CONNECT ON DATABASE ours FROM PUBLIC, nodedb_readwrite");
    for (const user of ["alice", "bob", "carol"]) {
      await stage.asAdmin(`GRANT CONNECT ON DATABASE ours TO ${user}`);
    }
    second = await startFrontEnd({ upstreamUrl: stage.postgres.url, besides: stage.frontEnd.dataDir });
  });
  afterAll(async () => {
    await second?.close();
    await stage?.close();
  });

  test("are closed within a second after REVOKE CONNECT, and others' stay", async () => {
    await leaveOne("alice");
    await leaveOne("bob");
    await stage.asAdmin("REVOKE CONNECT ON DATABASE ours FROM alice");
    expect(await goneAfter("alice")).toBeLessThan(1_000);
    expect(await stateOf(there("alice", "ours"))).toBe("42501");
    expect(await stage.running("bob")).toHaveLength(1);
  });

  test("are closed within a second after DROP USER", async () => {
    await leaveOne("carol");
    await stage.asAdmin("DROP USER carol");
    expect(await goneAfter("carol")).toBeLessThan(1_000);
  });

  test("are closed soon also when no notification comes", async () => {
    await leaveOne("bob");
    await stage.past("REVOKE CONNECT ON DATABASE ours FROM bob");
    await stage.past("UPDATE nodedb.instance SET catalog_version = catalog_version + 1");
    expect(await goneAfter("bob")).toBeLessThan(2_000);
  });
});
