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

/** Opens the sessions, lets each run one query and closes them, reading the proxy's resident memory in between. */
export async function measureIdleMemory(
  target: Target,
  proxyPid: number,
  sessions: number,
): Promise<IdleMemory> {
  const resident = async () => {
    await delay(settleMs);
    return residentBytes(processTree(proxyPid));
  };
  const clients: pg.Client[] = [];
  try {
    await openSessions(target.endpoint, warmUpSessions, clients);
    await queryEach(clients);
    await closeSessions(clients);
    const base = await resident();
    await openSessions(target.endpoint, sessions, clients);
    const loggedIn = await resident();
    await queryEach(clients);
    const queried = await resident();
    await closeSessions(clients);
    const closed = await resident();
    return {
      sessions,
      baseBytes: base,
      loggedInBytes: loggedIn - base,
      queriedBytes: queried - base,
      closedBytes: closed - base,
    };
  } finally {
    await closeSessions(clients);
  }
}

async function openSessions(endpoint: Endpoint, count: number, clients: pg.Client[]): Promise<void> {
  let started = 0;
  const openInTurn = async () => {
    while (started < count) {
      started += 1;
      const client = new pg.Client({ ...endpoint });
      await client.connect();
      clients.push(client);
    }
  };
  await Promise.all(Array.from({ length: logInsAtATime }, openInTurn));
}

async function queryEach(clients: readonly pg.Client[]): Promise<void> {
  for (const client of clients) await client.query("SELECT 1");
}

async function closeSessions(clients: pg.Client[]): Promise<void> {
  await Promise.all(clients.splice(0).map((client) => client.end()));
}
