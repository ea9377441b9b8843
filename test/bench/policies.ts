/** Entry of `npm run bench:policies`: what row-level security by `$auth` costs, against the same filter with a constant. */

import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { parseArguments } from "./arguments.ts";
import { startFrontEnd } from "./front-end.ts";
import { startPostgresServer } from "./postgres-server.ts";

const rows = 100_000;
/** Times that each statement is measured, in turns with the others. */
const turns = 60;
const warmUpTurns = 10;

/** Tables with the same rows, and the policy on each; the first has none, and is filtered by the statement. */
const tables = [
  { name: "filtered", policy: undefined },
  { name: "by_constant", policy: "user_id = 'bench'" },
  { name: "by_auth_id", policy: "user_id = $auth.id" },
  { name: "by_roles", policy: "user_id = 'bench' AND 'readwrite' = ANY ($auth.roles)" },
  { name: "by_setting", policy: "user_id = current_setting('app.sub', true)" },
  { name: "by_bare_call", policy: "user_id = auth.id()" },
] as const;

/** How the rows are distributed: the SQL of the owner of row n. */
const distributions = {
  // Half of the rows are the client's.
  half: "CASE n % 2 WHEN 0 THEN 'somebody else' ELSE 'bench' END",
  // A hundred are, as of everybody else.
  few: "CASE n % 1000 WHEN 711 THEN 'bench' ELSE 'user ' || n % 1000 END",
} as const;

interface Question {
  readonly of: keyof typeof distributions;
  readonly sql: (table: string) => string;
  /** Prepared once and planned for any value (a generic plan), instead of planned each time. */
  readonly isPrepared?: boolean;
}

/** What is asked of each table. */
const questions: Readonly<Record<string, Question>> = {
  "all rows, half of them own, without an index": {
    of: "half",
    sql: (table) => `SELECT count(*), sum(value) FROM ${table} AS t WHERE true`,
  },
  "the same, prepared": {
    of: "half",
    sql: (table) => `SELECT count(*), sum(value) FROM ${table} AS t WHERE id > $1`,
    isPrepared: true,
  },
  "the same in a join with 100,000 other rows": {
    of: "half",
    sql: (table) => `SELECT count(*), sum(d.size) FROM ${table} AS t JOIN detail AS d USING (id) WHERE true`,
  },
  "one row by its key": { of: "half", sql: (table) => `SELECT value FROM ${table} AS t WHERE id = 4711` },
  "all rows, 100 of them own, by an index": {
    of: "few",
    sql: (table) => `SELECT count(*), sum(value) FROM ${table} AS t WHERE true`,
  },
  "the same by the index, prepared": {
    of: "few",
    sql: (table) => `SELECT count(*), sum(value) FROM ${table} AS t WHERE id > $1`,
    isPrepared: true,
  },
  "the same by the index, in a join": {
    of: "few",
    sql: (table) => `SELECT count(*), sum(d.size) FROM ${table} AS t JOIN detail AS d USING (id) WHERE true`,
  },
};

type Times = Map<string, number[]>;

async function main(): Promise<void> {
  const options = parseArguments(["--scale", "1", "--sessions", "10", ...process.argv.slice(2)]);
  if (options === undefined) return;
  const workDir = mkdtempSync(join(tmpdir(), "nodedb-bench-"));
  const passwords = { superuser: randomBytes(18).toString("hex"), client: randomBytes(18).toString("hex") };
  const server = await startPostgresServer(options, passwords.client);
  try {
    const target = await startFrontEnd(workDir, options, server, passwords, undefined);
    try {
      await within({ ...target.endpoint, user: "nodedb", password: passwords.superuser }, makeTables);
      await within(target.endpoint, async (client) => {
        const { rows: version } = await client.query("SHOW server_version");
        process.stdout.write(`PostgreSQL ${version[0].server_version}, ${target.version}, ${rows} rows\n`);
        for (const [title, question] of Object.entries(questions))
          print(title, await measure(client, question));
      });
    } finally {
      await target.close();
    }
  } finally {
    await server.close();
    rmSync(workDir, { recursive: true, force: true });
  }
}

async function within<T>(login: pg.ClientConfig, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client(login);
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

async function makeTables(client: pg.Client): Promise<void> {
  await client.query("CREATE TABLE detail (id int PRIMARY KEY, size int NOT NULL)");
  await client.query(`INSERT INTO detail SELECT n, n % 97 FROM generate_series(1, ${rows}) AS n`);
  await client.query("GRANT SELECT ON detail TO bench");
  await client.query("VACUUM ANALYZE detail");
  for (const [of, owner] of Object.entries(distributions)) {
    for (const { name, policy } of tables) {
      const table = `${name}_${of}`;
      await client.query(
        `CREATE TABLE ${table} (id int PRIMARY KEY, user_id text NOT NULL, value int NOT NULL)`,
      );
      await client.query(`INSERT INTO ${table} SELECT n, ${owner}, n FROM generate_series(1, ${rows}) AS n`);
      if (of === "few") await client.query(`CREATE INDEX ON ${table} (user_id)`);
      await client.query(`GRANT SELECT ON ${table} TO bench`);
      if (policy !== undefined) {
        await client.query(`ALTER TABLE ${table} ENABLE ROW LEVEL SECURITY`);
        await client.query(`CREATE POLICY own ON ${table} USING (${policy})`);
      }
      await client.query(`VACUUM ANALYZE ${table}`);
    }
  }
}

/** Times in ms by table, round by round. */
async function measure(client: pg.Client, { of, sql, isPrepared = false }: Question): Promise<Times> {
  // What is measured is the filter; workers would come and go.
  await client.query("SET max_parallel_workers_per_gather = 0");
  await client.query("SET plan_cache_mode = force_generic_plan");
  await client.query("SET app.sub = 'bench'");
  const times: Times = new Map(tables.map(({ name }) => [name, []]));
  for (let turn = -warmUpTurns; turn < turns; turn += 1) {
    for (const { name, policy } of tables) {
      // It takes a second or more: often enough for a median.
      if (name === "by_bare_call" && turn % 10 !== 0) continue;
      const table = `${name}_${of}`;
      const text = sql(table) + (policy === undefined ? " AND t.user_id = 'bench'" : "");
      const start = performance.now();
      await client.query(isPrepared ? { name: text.slice(0, 63), text, values: [0] } : text);
      if (turn >= 0) times.get(name)?.push(performance.now() - start);
    }
  }
  return times;
}

function print(title: string, times: Times): void {
  const reference = median(times.get("filtered") ?? []);
  process.stdout.write(`\n${title}\n`);
  for (const { name, policy } of tables) {
    const ms = median(times.get(name) ?? []);
    const cells = [name.padEnd(14), ms.toFixed(2).padStart(9), `${(ms / reference).toFixed(2)}×`.padStart(9)];
    process.stdout.write(`${cells.join(" ")}  ${policy ?? "WHERE user_id = 'bench'"}\n`);
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

await main();
