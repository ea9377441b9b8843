/** The pooled connections of one identity, with the same claims, to one database. */

import type { ToldClaims, UpstreamConnection } from "./upstream-connection.ts";
import type { UpstreamTarget } from "./upstream-target.ts";

/** One connection of a pool. */
export interface PoolEntry {
  readonly group: PoolGroup;
  readonly parametersKey: string;
  readonly connection: UpstreamConnection;
  /** The group's when the connection was asked for. */
  readonly generation: number;
  idleSinceMs: number;
  /** What it was told when it came back; absent when the next session's claims are still to be told. */
  carried?: ToldClaims | undefined;
}

/** CREATE DATABASE copies one of these unless told otherwise, which nobody may be connected to then. */
const templates: ReadonlySet<string> = new Set(["template0", "template1"]);

export class PoolGroup {
  readonly key: string;
  readonly database: string;
  readonly principalId: number;
  readonly role: string;
  /** Open and opening connections. */
  count = 0;
  /** The one that has been idle longest first. */
  readonly idle: PoolEntry[] = [];
  /** Connections on loan are closed when they come back. */
  isRetired = false;
  /** Moved on to close the connections of an earlier one when they come back. */
  generation = 0;

  constructor(key: string, { database, principalId, role }: UpstreamTarget) {
    this.key = key;
    this.database = database;
    this.principalId = principalId;
    this.role = role;
  }

  /** Whether a connection that comes back may be given out again. */
  mayKeep({ generation }: PoolEntry): boolean {
    return !this.isRetired && generation === this.generation && !templates.has(this.database);
  }

  /** Takes an idle connection with these startup parameters; nobody reads it then. */
  takeIdle(parametersKey: string): PoolEntry | undefined {
    // The most recently used first: it is the one that is warm, and the oldest get to be closed.
    for (let index = this.idle.length - 1; index >= 0; index -= 1) {
      const entry = this.idle[index];
      if (entry?.parametersKey === parametersKey) {
        this.idle.splice(index, 1);
        entry.connection.transport.stop();
        return entry;
      }
    }
    return undefined;
  }
}

/** Equal for those who share a group. */
export function keyOfGroup(target: UpstreamTarget): string {
  const { database, principalId, role, roleVersion, claims } = target;
  return JSON.stringify([database, principalId, role, roleVersion, sorted(Object.entries(claims))]);
}

/** Equal for the same startup parameters. */
export function keyOfParameters(parameters: ReadonlyMap<string, string>): string {
  return JSON.stringify(sorted([...parameters]));
}

function sorted<T extends readonly [string, unknown]>(entries: T[]): T[] {
  return entries.sort(([a], [b]) => (a < b ? -1 : 1));
}
