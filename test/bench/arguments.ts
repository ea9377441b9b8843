/** The benchmark's command line: what is measured, against which targets, and for how long. */

import { parseArgs } from "node:util";

export const usage = `usage: npm run bench -- [option ...]

  --only SECTION,...        idle, copy, pgbench, churn, http, logins, tls (default: all, in this order)
  --targets NAME,...        direct, pgbouncer, relay, nodedb (default: all, in this order);
                            relay: passes bytes on Node's handles and looks at none, section pgbench only
  --rounds N                times that every target is measured (3)
  --seconds N               length of one pgbench run (5)
  --clients N,...           client counts of the sections pgbench, http and tls (1,8,32)
  --modes MODE,...          simple, extended, prepared (all)
  --churn-clients N         clients of churn and logins, which reconnect for every transaction (8)
  --scale N                 pgbench scale factor: 100,000 rows each (10)
  --sessions N              sessions of the idle section (1000)
  --copy-megabytes N        size of one COPY, or stream over HTTP (500)
  --upstream unix|tcp       how both proxies reach PostgreSQL (unix)
  --upstream-auth trust|scram
                            what PostgreSQL asks of both proxies on the unix socket (scram;
                            the front-end refuses an external PostgreSQL that trusts everybody)
  --postgres embedded|debian
                            PostgreSQL 18 from npm, or Debian's 15 (embedded)
  --profile DIR             the front-end writes a CPU profile there whenever it stops
  --json FILE               also write every measurement there
  --help
`;

const sections = ["idle", "copy", "pgbench", "churn", "http", "logins", "tls"] as const;
export type Section = (typeof sections)[number];

const targetNames = ["direct", "pgbouncer", "relay", "nodedb"] as const;
export type TargetName = (typeof targetNames)[number];

const queryModes = ["simple", "extended", "prepared"] as const;
export type QueryMode = (typeof queryModes)[number];

export interface BenchOptions {
  readonly sections: readonly Section[];
  readonly targets: readonly TargetName[];
  readonly rounds: number;
  readonly seconds: number;
  readonly clients: readonly number[];
  readonly modes: readonly QueryMode[];
  readonly churnClients: number;
  readonly scale: number;
  readonly sessions: number;
  readonly copyMegabytes: number;
  readonly upstream: "unix" | "tcp";
  readonly upstreamAuth: "trust" | "scram";
  readonly postgres: "embedded" | "debian";
  readonly profileDir: string | undefined;
  readonly jsonFile: string | undefined;
}

/** A mistake on the command line; its message is for the person who typed it. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/**
 * Reads the arguments after the script's name.
 *
 * @returns undefined when help was asked for
 * @throws UsageError when an option or its value is not understood
 */
export function parseArguments(argv: readonly string[]): BenchOptions | undefined {
  const values = parseValues(argv);
  if (values.help === true) return undefined;
  const upstream = oneOf("--upstream", values.upstream ?? "unix", ["unix", "tcp"]);
  return {
    sections: listOf("--only", values.only, sections),
    targets: listOf("--targets", values.targets, targetNames),
    rounds: positive("--rounds", values.rounds ?? "3"),
    seconds: positive("--seconds", values.seconds ?? "5"),
    clients: (values.clients ?? "1,8,32").split(",").map((text) => positive("--clients", text)),
    modes: listOf("--modes", values.modes, queryModes),
    churnClients: positive("--churn-clients", values["churn-clients"] ?? "8"),
    scale: positive("--scale", values.scale ?? "10"),
    sessions: positive("--sessions", values.sessions ?? "1000"),
    copyMegabytes: positive("--copy-megabytes", values["copy-megabytes"] ?? "500"),
    upstream,
    upstreamAuth:
      upstream === "tcp"
        ? "scram"
        : oneOf("--upstream-auth", values["upstream-auth"] ?? "scram", ["trust", "scram"]),
    postgres: oneOf("--postgres", values.postgres ?? "embedded", ["embedded", "debian"]),
    profileDir: values.profile,
    jsonFile: values.json,
  };
}

function parseValues(argv: readonly string[]) {
  const text = { type: "string" } as const;
  try {
    return parseArgs({
      args: [...argv],
      options: {
        only: text,
        targets: text,
        rounds: text,
        seconds: text,
        clients: text,
        modes: text,
        "churn-clients": text,
        scale: text,
        sessions: text,
        "copy-megabytes": text,
        upstream: text,
        "upstream-auth": text,
        postgres: text,
        profile: text,
        json: text,
        help: { type: "boolean" },
      },
    }).values;
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

function positive(option: string, text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) {
    throw new UsageError(`${option}: "${text}" is not a positive whole number`);
  }
  return value;
}

function oneOf<T extends string>(option: string, text: string, allowed: readonly T[]): T {
  const found = allowed.find((value) => value === text);
  if (found === undefined) {
    throw new UsageError(`${option}: "${text}" is none of ${allowed.join(", ")}`);
  }
  return found;
}

/** Keeps the order of `allowed`, so that a run is the same however the list was typed. */
function listOf<T extends string>(option: string, text: string | undefined, allowed: readonly T[]): T[] {
  if (text === undefined) return [...allowed];
  const asked = text.split(",").map((item) => oneOf(option, item, allowed));
  return allowed.filter((value) => asked.includes(value));
}
