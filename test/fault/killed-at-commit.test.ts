/** The front-end is killed (SIGKILL) while a transaction with a part of ours and one of PostgreSQL's commits: what is there then. */

import { afterEach, beforeEach, expect, test } from "vitest";
import { type FrontEnd, startFrontEnd } from "../support/front-end.ts";
import { openClient, openStage, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

let stage: Stage;
let victim: FrontEnd;
let url: string;

beforeEach(async () => {
  stage = await openStage();
  const through = new URL(stage.postgres.url);
  through.port = String(stage.relay.port);
  url = through.href;
  victim = await startFrontEnd({ upstreamUrl: url, besides: stage.frontEnd.dataDir });
  await stage.past("CREATE TABLE written (id int)");
  await stage.past("GRANT ALL ON written TO PUBLIC");
  await stage.asAdmin("CREATE USER leaver PASSWORD 'long enough to be taken'");
  await stage.asAdmin("GRANT SELECT ON written TO leaver");
});
afterEach(async () => {
  stage.relay.judge = undefined;
  await victim.close();
  await stage.close();
});

type Side = "client's" | "catalog";

/**
 * Commits, through a front-end that is killed when a COMMIT, or the answer to one, is on its way between it and PostgreSQL; that
 * message does not arrive.
 *
 * @param whose connection the message is on; the catalog's counts only after PostgreSQL has committed the client's part
 */
async function commitAndKill(whose: Side, direction: "to_server" | "to_client"): Promise<string> {
  const client = await openClient(stage.login(stage.frontEnd.adminUser, { port: victim.port }));
  for (const sql of [
    "BEGIN",
    "INSERT INTO written VALUES (1)",
    "CREATE USER joiner PASSWORD 'long enough to be taken' ROLE readonly",
    "GRANT SELECT ON written TO joiner",
    "DROP USER leaver",
  ]) {
    await client.query(sql);
  }
  let isReached = false;
  let hasTheirs = false;
  stage.relay.judge = (going, chunk, link) => {
    const isClients = link.opening.includes(`user\0${stage.frontEnd.adminUser}\0`);
    if (!chunk.includes("COMMIT\0")) return undefined;
    if (isClients && going === "to_client") hasTheirs = true;
    if (isReached || going !== direction || isClients !== (whose === "client's")) return undefined;
    if (!isClients && !hasTheirs) return undefined;
    isReached = true;
    victim.signal("SIGKILL");
    return victim.exited.then(() => {
      throw new Error("the link is cut");
    });
  };
  const outcome = client.query("COMMIT").then(
    ({ command }) => command,
    (error: unknown) => (error as { code?: string }).code ?? "no answer",
  );
  await until(() => isReached);
  await victim.exited;
  stage.relay.judge = undefined;
  return outcome;
}

/** What is there when PostgreSQL has noticed, and a front-end on the same data has started again. */
async function found(): Promise<Record<string, unknown>> {
  await until(async () => {
    const open = await stage.past(
      "SELECT FROM pg_stat_activity WHERE usename IS NOT NULL AND state LIKE 'idle in transaction%'",
    );
    return open.length === 0;
  });
  const again = await startFrontEnd({ upstreamUrl: url, besides: stage.frontEnd.dataDir });
  try {
    await until(async () => {
      const left = await stage.past(
        "SELECT FROM nodedb.reserved_role UNION ALL SELECT FROM nodedb.dropped_role",
      );
      return left.length === 0;
    }, 30_000);
    const [row] = await stage.past(
      `SELECT (SELECT count(*)::int FROM written) AS theirs,
              (SELECT array_agg(name ORDER BY name) FROM nodedb.principal WHERE name IN ('joiner', 'leaver')) AS users,
              (SELECT array_agg(rolname::text ORDER BY rolname) FROM pg_roles
                WHERE rolname IN ('joiner', 'leaver') OR rolname ~ '^nodedb_(dropped|reserved)_') AS roles,
              (SELECT relacl::text LIKE '%joiner=r%' FROM pg_class WHERE relname = 'written') AS granted`,
    );
    return row ?? {};
  } finally {
    await again.close();
  }
}

test("before PostgreSQL hears of the COMMIT: nothing", async () => {
  expect(await commitAndKill("client's", "to_server")).toBe("no answer");
  expect(await found()).toEqual({ theirs: 0, users: ["leaver"], roles: ["leaver"], granted: false });
}, 60_000);

test("between PostgreSQL's commit and ours: PostgreSQL's part alone, and the client was told nothing", async () => {
  expect(await commitAndKill("client's", "to_client")).toBe("no answer");
  // The grant went to a name that was given up, and with it.
  expect(await found()).toEqual({ theirs: 1, users: ["leaver"], roles: ["leaver"], granted: false });
  // The client has to look, as after any lost COMMIT; what is missing can be run again.
  await stage.asAdmin("CREATE USER joiner PASSWORD 'long enough to be taken' ROLE readonly");
  await stage.asAdmin("DROP USER leaver");
}, 60_000);

test("behind our commit: both parts, though the client was told nothing", async () => {
  expect(await commitAndKill("catalog", "to_client")).toBe("no answer");
  expect(await found()).toEqual({ theirs: 1, users: ["joiner"], roles: ["joiner"], granted: true });
  const joiner = await stage.connect("joiner", { password: "long enough to be taken" });
  expect((await joiner.query("SELECT id FROM written")).rows).toEqual([{ id: 1 }]);
  await joiner.end();
}, 60_000);
