/** A front-end before a PostgreSQL that writes down all that it is told, and the search for secrets in everything that was written. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type pg from "pg";
import { beforeAll, describe, expect, test } from "vitest";
import { type FrontEnd, startFrontEnd } from "./front-end.ts";
import { hasDebianPostgres, startPostgres, type TestPostgres } from "./postgres.ts";
import type { SecretHunt } from "./secret-hunt.ts";
import { requireClient } from "./skips.ts";
import { openClient } from "./stage.ts";

/** Whole transactions too, which is decided when they begin. */
const talkative = {
  log_statement: "all",
  log_min_duration_statement: "0",
  log_duration: "on",
  log_transaction_sample_rate: "1",
  log_parameter_max_length: "-1",
  log_parameter_max_length_on_error: "-1",
  log_min_error_statement: "debug5",
  log_error_verbosity: "verbose",
  log_connections: "on",
  track_activity_query_size: "65536",
};

const talkativeFrontEnd = '[log]\nlevel = "trace"\n[audit]\nlevel = "full"\n';

export interface Arrangement {
  readonly title: string;
  readonly version: "embedded" | "debian";
  /** Settings of its PostgreSQL beside the talkative ones. */
  readonly settings: Readonly<Record<string, string>>;
  /** What the front-end logs in as. */
  readonly login: "superuser" | "creator of roles";
}

const withStatistics = { shared_preload_libraries: "pg_stat_statements" };
export const arrangements: readonly Arrangement[] = [
  {
    title: "PostgreSQL 18, where the front-end is a superuser",
    version: "embedded",
    settings: { ...withStatistics, "pg_stat_statements.track": "all" },
    login: "superuser",
  },
  {
    title: "PostgreSQL 18, where the front-end may set no superuser's parameter",
    version: "embedded",
    settings: withStatistics,
    login: "creator of roles",
  },
  {
    title: "PostgreSQL 15, where the front-end is a superuser",
    version: "debian",
    settings: { ...withStatistics, "pg_stat_statements.track": "all" },
    login: "superuser",
  },
  {
    title: "PostgreSQL 15, where the front-end may set no superuser's parameter",
    version: "debian",
    settings: withStatistics,
    login: "creator of roles",
  },
];

export function isArrangementThere({ version }: Arrangement): boolean {
  return version === "embedded" || requireClient("PostgreSQL 15 (postgresql-15)", hasDebianPostgres);
}

export interface SecretStage {
  readonly hunt: SecretHunt;
  readonly postgres: TestPostgres;
  readonly frontEnd: FrontEnd;
  /** The front-end's superuser. */
  readonly admin: pg.Client;
  /** PostgreSQL's superuser, whose statements are not logged: it reads the secrets. */
  readonly watcher: pg.Client;
  /** Each error and notice that a client got, with all of its fields, and each row that is not there to show a secret. */
  readonly told: string[];
  /** Statements that were seen to run. */
  readonly activity: Set<string>;
  tell(error: unknown): void;
  /** Runs a statement and keeps what the client is told. @returns undefined when it fails */
  run(client: pg.Client, query: pg.QueryConfig): Promise<pg.QueryResult | undefined>;
  login(user: string, password: string): Promise<pg.Client>;
  /** Runs a statement that shows an API key, and remembers that. */
  makeKey(what: string, query: pg.QueryConfig): Promise<string>;
  /** Remembers what the catalog and PostgreSQL keep at this moment. */
  rememberStored(when: string): Promise<void>;
  /** Looks no more at what runs. */
  stopSampling(): Promise<void>;
  close(): Promise<void>;
}

/** @param configuration more of nodedb.toml: top-level keys, dotted */
export async function openSecretStage(
  arrangement: Arrangement,
  hunt: SecretHunt,
  configuration = "",
): Promise<SecretStage> {
  const told: string[] = [];
  const activity = new Set<string>();
  const postgres = await startPostgres({
    version: arrangement.version,
    tcp: true,
    settings: { ...talkative, ...arrangement.settings },
  });
  const openQuietly = (database: string) =>
    openClient({
      host: postgres.socketDir,
      port: postgres.port,
      user: "postgres",
      database,
      options:
        "-c log_statement=none -c log_min_duration_statement=-1 -c log_duration=off -c log_transaction_sample_rate=0 -c pg_stat_statements.track=none",
    });
  const url = new URL(postgres.url);
  const setUp = await openQuietly("postgres");
  await setUp.query("CREATE EXTENSION pg_stat_statements");
  url.username = "front";
  url.password = hunt.makePassword("of the front-end's own login");
  url.pathname = "/catalog";
  const attribute = arrangement.login === "superuser" ? "SUPERUSER" : "CREATEROLE";
  await setUp.query(`CREATE ROLE front LOGIN ${attribute} PASSWORD '${url.password}'`);
  await setUp.query("CREATE DATABASE catalog OWNER front");
  await setUp.end();
  const frontEnd = await startFrontEnd({
    upstreamUrl: url.href,
    configuration: configuration + talkativeFrontEnd,
  });
  hunt.remember("password: the first superuser's", frontEnd.adminPassword);
  const masterSecret = readFileSync(join(frontEnd.dataDir, "master.secret"), "utf8").trim();
  hunt.remember("master secret", masterSecret);
  const watcher = await openQuietly(frontEnd.database);
  const sampler = await openQuietly(frontEnd.database);
  let isSampling = true;
  const sampling = (async () => {
    while (isSampling) {
      const seen = await sampler.query("SELECT DISTINCT query FROM pg_stat_activity WHERE query <> ''");
      for (const { query } of seen.rows) activity.add(String(query));
    }
    await sampler.end();
  })();

  const tell = (error: unknown) => {
    told.push(JSON.stringify(error instanceof Error ? { ...error, message: error.message } : error));
  };
  const run = async (client: pg.Client, query: pg.QueryConfig) => {
    try {
      const result = await client.query(query);
      for (const { api_key: _, ...row } of result.rows ?? []) told.push(JSON.stringify(row));
      return result;
    } catch (error) {
      tell(error);
      return undefined;
    }
  };
  const login = async (user: string, password: string) => {
    const { host, port, database } = frontEnd;
    const client = await openClient({ host, port, database, user, password });
    client.on("notice", tell);
    return client;
  };
  const rememberStored = async (when: string) => {
    const roles = await watcher.query(
      "SELECT rolname, rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL AND rolname NOT IN ('postgres', 'front')",
    );
    for (const { rolname, rolpassword } of roles.rows) {
      hunt.rememberVerifier(`PostgreSQL role ${rolname}, ${when}`, rolpassword);
    }
    const users = await watcher.query(
      "SELECT name, scram_verifier FROM nodedb.principal WHERE scram_verifier IS NOT NULL",
    );
    for (const { name, scram_verifier } of users.rows)
      hunt.rememberVerifier(`user ${name}, ${when}`, scram_verifier);
    const keys = await watcher.query("SELECT * FROM nodedb.api_key");
    for (const key of keys.rows) {
      hunt.rememberVerifier(`key ${key.name}, ${when}`, key.scram_verifier);
      hunt.rememberBytes(`hash: of key ${key.name}, ${when}`, key.secret_hash);
    }
    const claims = await watcher.query("SELECT inner_pad, outer_pad FROM auth.claims_key");
    for (const { inner_pad, outer_pad } of claims.rows) {
      hunt.rememberBytes(`claims key: inner, ${when}`, inner_pad);
      hunt.rememberBytes(`claims key: outer, ${when}`, outer_pad);
    }
  };
  const admin = await login(frontEnd.adminUser, frontEnd.adminPassword);
  await rememberStored("at the start");
  const stopSampling = async () => {
    isSampling = false;
    await sampling;
  };
  return {
    hunt,
    postgres,
    frontEnd,
    admin,
    watcher,
    told,
    activity,
    tell,
    run,
    login,
    makeKey: async (what, query) => {
      const result = await run(admin, query);
      expect(result, `${what}: ${told.slice(-3).join("\n")}`).toBeDefined();
      return hunt.rememberApiKey(what, result?.rows[0]?.api_key);
    },
    rememberStored,
    stopSampling,
    close: async () => {
      await stopSampling();
      await admin.end();
      await watcher.end();
      await frontEnd.close();
      await postgres.dispose();
    },
  };
}

/** What has to be found where secrets are looked for, so that nothing is looked through in vain. */
export interface Traces {
  readonly kinds: readonly string[];
  readonly secrets: number;
  /** In the front-end's output. */
  readonly output: readonly string[];
  readonly postgresLog: readonly (string | RegExp)[];
  readonly auditEvents: readonly string[];
  /** Messages to clients. */
  readonly told: number;
}

/** Looks through everything that was written. */
export function describeNoSecret(isThere: boolean, stage: () => SecretStage, traces: Traces): void {
  const testIfThere = test.skipIf(!isThere);
  const expectNoneIn = (text: string) => expect(stage().hunt.findIn(text)).toEqual([]);

  describe("afterwards no secret is", () => {
    beforeAll(async () => {
      if (!isThere) return;
      await stage().rememberStored("at the end");
      await stage().stopSampling();
    });

    testIfThere("forgotten by this test", () => {
      expect(stage().hunt.kinds).toEqual(new Set(traces.kinds));
      expect(stage().hunt.size).toBeGreaterThan(traces.secrets);
    });

    testIfThere("in the front-end's output", () => {
      const output = stage().frontEnd.output();
      for (const part of traces.output) expect(output).toContain(part);
      expectNoneIn(output);
    });

    testIfThere("in PostgreSQL's log", () => {
      const log = stage().postgres.readLog();
      for (const part of traces.postgresLog) expect(log).toMatch(part);
      expectNoneIn(log);
    });

    testIfThere("in pg_stat_activity", () => {
      const seen = [...stage().activity].join("\n");
      expect(seen).toContain("nodedb.");
      expectNoneIn(seen);
    });

    testIfThere("in pg_stat_statements", async () => {
      const { socketDir: host, port } = stage().postgres;
      const reader = await openClient({ host, port, user: "postgres", database: "postgres" });
      const { rows } = await reader.query("SELECT query FROM pg_stat_statements");
      await reader.end();
      expect(rows.some(({ query }) => /nodedb\./.test(query))).toBe(true);
      expectNoneIn(rows.map(({ query }) => query).join("\n"));
    });

    testIfThere("in the audit log", async () => {
      const shown = await stage().admin.query("SHOW AUDIT LOG LIMIT 10000");
      const events = new Set(shown.rows.map(({ event }) => event));
      for (const event of traces.auditEvents) expect(events).toContain(event);
      const stored = await stage().watcher.query(
        "SELECT a::text FROM nodedb.audit_log a UNION ALL SELECT o::text FROM nodedb.audit_outbox o",
      );
      expectNoneIn(JSON.stringify([shown.rows, stored.rows]));
    });

    testIfThere("in what clients were told", () => {
      expect(stage().told.length).toBeGreaterThan(traces.told);
      expectNoneIn(stage().told.join("\n"));
    });
  });
}
