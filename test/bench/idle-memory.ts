/** Memory that a proxy needs for sessions that do nothing. */

import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { processTree, residentBytes } from "./process-cost.ts";
import type { Endpoint, Target } from "./targets.ts";

export interface IdleMemory {
  readonly sessions: number;
  /** Of the proxy after a few sessions have come and gone. */
  readonly baseBytes: number;
  /** Rise over the base when all sessions have logged in. */
  readonly loggedInBytes: number;
  /** Rise when each has also run one query, so that a session pool holds an upstream connection for it. */
  readonly queriedBytes: number;
  /** Rise that remains when all have disconnected. */
  readonly closedBytes: number;
}

const warmUpSessions = 50;
const logInsAtATime = 8;
/** Time for the proxy to finish what it does after the last answer. */
const settleMs = 1_500;

/** The sessions that are open, and the first that was lost without being closed. */
interface Sessions {
  readonly clients: pg.Client[];
  lost: Error | undefined;
}

/**
 * Opens the sessions, lets each run one query and closes them, reading the proxy's resident memory in between.
 *
 * @throws Error when a session cannot be opened or is lost
 */
export async function measureIdleMemory(
  target: Target,
  proxyPid: number,
  sessions: number,
): Promise<IdleMemory> {
  const resident = async () => {
    await delay(settleMs);
    return residentBytes(processTree(proxyPid));
  };
  const open: Sessions = { clients: [], lost: undefined };
  try {
    await openSessions(target.endpoint, warmUpSessions, open);
    await queryEach(open);
    await closeSessions(open);
    const base = await resident();
    await openSessions(target.endpoint, sessions, open);
    const loggedIn = await resident();
    await queryEach(open);
    const queried = await resident();
    await closeSessions(open);
    const closed = await resident();
    return {
      sessions,
      baseBytes: base,
      loggedInBytes: loggedIn - base,
      queriedBytes: queried - base,
      closedBytes: closed - base,
    };
  } finally {
    await closeSessions(open);
  }
}

async function openSessions(endpoint: Endpoint, count: number, open: Sessions): Promise<void> {
  let started = 0;
  const openInTurn = async () => {
    while (started < count) {
      started += 1;
      const client = new pg.Client({ ...endpoint });
      client.on("error", (error) => {
        open.lost ??= error;
      });
      await client.connect();
      open.clients.push(client);
    }
  };
  await Promise.all(Array.from({ length: logInsAtATime }, openInTurn));
}

async function queryEach(open: Sessions): Promise<void> {
  for (const client of open.clients) await client.query("SELECT 1");
  if (open.lost !== undefined) throw new Error("a session was lost", { cause: open.lost });
}

async function closeSessions(open: Sessions): Promise<void> {
  await Promise.all(open.clients.splice(0).map((client) => client.end()));
}
