/**
 * Several administrators change the same few names at the same time, through two front-ends, inside and outside of blocks, and
 * some vanish: each name is created and dropped by one of them at a time, and catalog and PostgreSQL agree at the end.
 */

import type { Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import type pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { loadCustomRoles } from "../../src/catalog/roles.ts";
import { loadUsers } from "../../src/catalog/users.ts";
import { desiredRoleOf } from "../../src/exec/run-statement.ts";
import { reconcileConnect } from "../../src/upstream/reconcile-connect.ts";
import { reconcileCustomRoles, reconcileRoles } from "../../src/upstream/reconcile-roles.ts";
import { type FrontEnd, startFrontEnd } from "../support/front-end.ts";
import { openClient, openStage, type Stage } from "../support/stage.ts";
import { until } from "../support/until.ts";

/** SEED and DURATION_MS are for runs by hand. */
const seed = Number(process.env.SEED ?? 20_261_121);
const durationMs = Number(process.env.DURATION_MS ?? 5_000);
/** Longer than any wait that is bounded: for the catalog's lock, a held COMMIT, the reaper. */
const roundMs = 45_000;

const users = ["u0", "u1"] as const;
const roles = ["r0"] as const;
const password = "PASSWORD 'long enough to be taken'";

/** What a loser may be told: it is there, it is not there, somebody else was faster, it is in use, it is of another kind. */
const cleanRefusals = ["42710", "42704", "40001", "55000", "2BP01", "0LP01", "42809"];

let stage: Stage;
let second: FrontEnd;
let direct: pg.Client;

beforeAll(async () => {
  stage = await openStage();
  second = await startFrontEnd({ upstreamUrl: stage.postgres.url, besides: stage.frontEnd.dataDir });
  direct = await openClient({
    host: stage.postgres.socketDir,
    port: stage.postgres.port,
    user: "postgres",
    database: "postgres",
  });
  await direct.query("CREATE TABLE written (name text)");
  await direct.query("GRANT ALL ON written TO PUBLIC");
  // So that what happens during a COMMIT is seldom over before it has begun; some are not stopped by a cancel either.
  await direct.query(
    `CREATE FUNCTION takes_a_moment() RETURNS trigger LANGUAGE plpgsql AS
       $$BEGIN
         BEGIN PERFORM pg_sleep(random() * 0.05);
         EXCEPTION WHEN query_canceled THEN IF random() < 0.5 THEN RAISE; END IF;
         END;
         RETURN NULL;
       END$$;
     CREATE CONSTRAINT TRIGGER takes_a_moment AFTER INSERT ON written DEFERRABLE INITIALLY DEFERRED
       FOR EACH ROW EXECUTE FUNCTION takes_a_moment()`,
  );
  for (const actor of [0, 1, 2, 3]) await stage.asAdmin(`CREATE TABLE of_actor_${actor} (id int)`);
});
afterAll(async () => {
  await direct?.end();
  await second?.close();
  await stage?.close();
});

/** Mulberry32: the same numbers for the same seed. */
function randomNumbers(state: number): (below: number) => number {
  let current = state;
  return (below) => {
    current = (current + 0x6d2b79f5) | 0;
    let mixed = Math.imul(current ^ (current >>> 15), 1 | current);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

interface Action {
  readonly sql: string;
  /** Names that are there once more, or once less, when it has succeeded. */
  readonly created?: string;
  readonly dropped?: string;
}

type Ending = "COMMIT" | "ROLLBACK" | "vanish" | "vanish in COMMIT";

interface Script {
  readonly isBlock: boolean;
  readonly actions: readonly Action[];
  /** Index of the action that a savepoint is set before; an error behind it is rolled back to it. */
  readonly savepoint: number | undefined;
  readonly ending: Ending;
  readonly vanishesAfterMs: number;
}

function drawAction(below: (limit: number) => number, actor: number): Action {
  const pick = <T>(from: readonly T[]): T => from[below(from.length)] as T;
  const [user, role] = [pick(users), pick(roles)];
  const other = pick(users.filter((name) => name !== user));
  return pick<Action>([
    { sql: `CREATE USER ${user} ${password}`, created: user },
    { sql: `CREATE USER ${user} ${password} ROLE readonly`, created: user },
    { sql: `CREATE USER ${user} ${password} ROLE ${role}`, created: user },
    { sql: `CREATE SERVICE ACCOUNT '${user}' FOR DATABASE postgres`, created: user },
    { sql: `DROP USER ${user}`, dropped: user },
    { sql: `DROP USER ${user}`, dropped: user },
    { sql: `DROP SERVICE ACCOUNT '${user}'`, dropped: user },
    { sql: `ALTER USER ${user} RENAME TO ${other}`, created: other, dropped: user },
    { sql: `ALTER USER ${user} SET ROLE ${role}` },
    { sql: `ALTER USER ${user} NOLOGIN CONNECTION LIMIT ${below(9)}` },
    { sql: `CREATE ROLE ${role}`, created: role },
    { sql: `DROP ROLE ${role}`, dropped: role },
    { sql: `GRANT ${role} TO ${user}` },
    { sql: `REVOKE ${role} FROM ${user}` },
    { sql: `GRANT CONNECT ON DATABASE postgres TO ${user}` },
    { sql: `GRANT SELECT ON of_actor_${actor} TO ${user}` },
  ]);
}

function drawScript(below: (limit: number) => number, actor: number): Script {
  const isBlock = below(3) > 0;
  const actions = Array.from({ length: 1 + below(3) }, () => drawAction(below, actor));
  const endings: readonly Ending[] = ["COMMIT", "COMMIT", "COMMIT", "ROLLBACK", "vanish", "vanish in COMMIT"];
  return {
    isBlock,
    actions,
    savepoint: isBlock && below(3) === 0 ? below(actions.length) : undefined,
    ending: endings[below(endings.length)] ?? "COMMIT",
    vanishesAfterMs: below(60),
  };
}

interface Deed {
  /** Of what has succeeded and was not taken back; of a block: when it has committed. */
  readonly done: readonly Action[];
  /** The name that its block has created and written, if it is one. */
  readonly witness: string | undefined;
  readonly refusals: readonly string[];
  /** Unknown to a client that vanished. */
  readonly hasCommitted: boolean | undefined;
}

function codeOf(error: unknown): string {
  return (error as { code?: string }).code ?? String(error);
}

async function perform(client: pg.Client, script: Script | undefined, witness: string): Promise<Deed> {
  if (script === undefined) throw new TypeError("every client has a script");
  const refusals: string[] = [];
  let done: Action[] = [];
  const attempt = async (action: Action): Promise<boolean> => {
    try {
      await client.query(action.sql);
      done.push(action);
      return true;
    } catch (error) {
      refusals.push(`${codeOf(error)} ${action.sql}: ${(error as Error).message}`);
      return false;
    }
  };
  if (!script.isBlock) {
    for (const action of script.actions) await attempt(action);
    return { done, refusals, witness: undefined, hasCommitted: true };
  }
  await client.query("BEGIN");
  await client.query("INSERT INTO written VALUES ($1)", [witness]);
  let isFailed = !(await attempt({ sql: `CREATE USER ${witness} ${password}` }));
  let kept: number | undefined;
  for (const [index, action] of script.actions.entries()) {
    if (isFailed) break;
    if (index === script.savepoint) {
      await client.query("SAVEPOINT s");
      kept = done.length;
    }
    isFailed = !(await attempt(action));
    if (isFailed && kept !== undefined) {
      await client.query("ROLLBACK TO s");
      done = done.slice(0, kept);
      isFailed = false;
    }
  }
  const { stream } = (client as unknown as { connection: { stream: Socket } }).connection;
  switch (script.ending) {
    case "vanish":
      stream.resetAndDestroy();
      return { done, refusals, witness, hasCommitted: undefined };
    case "vanish in COMMIT": {
      const end = client.query("COMMIT").catch(() => undefined);
      await delay(script.vanishesAfterMs);
      stream.resetAndDestroy();
      await end;
      return { done, refusals, witness, hasCommitted: undefined };
    }
    default: {
      const command = await client.query(script.ending).then(
        (result) => result.command,
        (error: unknown) => {
          refusals.push(`${codeOf(error)} COMMIT: ${(error as Error).message}`);
          return "";
        },
      );
      return { done, refusals, witness, hasCommitted: command === "COMMIT" };
    }
  }
}

async function names(sql: string): Promise<string[]> {
  return (await direct.query<{ name: string }>(sql)).rows.map(({ name }) => name);
}

const principals = () => names("SELECT name FROM nodedb.principal UNION ALL SELECT name FROM nodedb.role");

/** How many statements it would take to bring PostgreSQL's roles to what the catalog says. */
async function drift(): Promise<number> {
  const options = { isEmbedded: false, masterSecret: undefined, defaultDatabase: "postgres" };
  await direct.query("BEGIN");
  try {
    const all = await loadUsers(direct);
    return (
      (await reconcileCustomRoles(direct, await loadCustomRoles(direct), options)) +
      (await reconcileRoles(direct, all.map(desiredRoleOf), options)) +
      (await reconcileConnect(direct, all))
    );
  } finally {
    await direct.query("ROLLBACK");
  }
}

test(
  `what they do at once is what one after the other could have done (seed ${seed})`,
  async () => {
    const below = randomNumbers(seed);
    const counts = new Map<string, number>();
    const deadline = performance.now() + durationMs;
    for (let round = 0; performance.now() < deadline; round += 1) {
      const scripts = Array.from({ length: 2 + below(3) }, (_, actor) => drawScript(below, actor));
      const told = `seed ${seed}, round ${round}: ${JSON.stringify(scripts, undefined, 1)}`;
      const doors = scripts.map(() => (below(2) === 0 ? stage.frontEnd.port : second.port));
      const before = await principals();
      const clients = await Promise.all(
        doors.map((port) => openClient(stage.login(stage.frontEnd.adminUser, { port }))),
      );
      const deeds = await inTime(
        told,
        Promise.all(clients.map((client, actor) => perform(client, scripts[actor], `w${round}_${actor}`))),
      );
      await Promise.all(clients.map((client) => client.end().catch(() => undefined)));
      await until(async () => {
        const busy = await names(
          `SELECT usename AS name FROM pg_stat_activity WHERE usename = '${stage.frontEnd.adminUser}' AND state <> 'idle'
          UNION ALL SELECT rolname FROM pg_roles WHERE rolname LIKE 'nodedb\\_dropped\\_%' OR rolname LIKE 'nodedb\\_reserved\\_%'
          UNION ALL SELECT former_name FROM nodedb.dropped_role UNION ALL SELECT name FROM nodedb.reserved_role`,
        );
        return busy.length === 0;
      }, roundMs);
      const [after, rows, pgRoles] = [
        await principals(),
        await names("SELECT name FROM written"),
        await names("SELECT rolname AS name FROM pg_roles WHERE rolname ~ '^[urw][0-9]'"),
      ];
      const changes = new Map<string, number>();
      for (const deed of deeds) {
        for (const refusal of deed.refusals) {
          const code = refusal.slice(0, 5);
          counts.set(code, (counts.get(code) ?? 0) + 1);
          expect(cleanRefusals, `${refusal}\n${told}`).toContain(code);
        }
        const hasCommitted = deed.witness === undefined || rows.includes(deed.witness);
        if (deed.witness !== undefined) {
          expect(after.includes(deed.witness), `both parts or none, ${told}`).toBe(hasCommitted);
          if (deed.hasCommitted !== undefined) expect(hasCommitted, told).toBe(deed.hasCommitted);
        }
        counts.set(hasCommitted ? "done" : "undone", (counts.get(hasCommitted ? "done" : "undone") ?? 0) + 1);
        if (!hasCommitted) continue;
        for (const { created, dropped } of deed.done) {
          if (created !== undefined) changes.set(created, (changes.get(created) ?? 0) + 1);
          if (dropped !== undefined) changes.set(dropped, (changes.get(dropped) ?? 0) - 1);
        }
      }
      for (const name of [...users, ...roles]) {
        const change = Number(after.includes(name)) - Number(before.includes(name));
        expect(changes.get(name) ?? 0, `${name} in ${told}`).toBe(change);
      }
      expect(pgRoles.sort(), told).toEqual(after.filter((name) => /^[urw][0-9]/.test(name)).sort());
      expect(await drift(), `statements to reconcile after ${told}`).toBe(0);
      const witnesses = after.filter((name) => name.startsWith("w"));
      if (witnesses.length > 0) await stage.asAdmin(`DROP USER ${witnesses.join(", ")}`);
    }
    // Something was won, something was lost.
    expect(counts.get("done")).toBeGreaterThan(0);
    expect(counts.get("undone")).toBeGreaterThan(0);
    if (process.env.DURATION_MS !== undefined) console.log(seed, counts);
  },
  durationMs + 2 * roundMs,
);

async function inTime<T>(what: string, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${roundMs} ms: ${what}`)), roundMs);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
