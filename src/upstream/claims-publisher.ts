/** Tells PostgreSQL whose claims a connection carries: the sealed envelope that proves them. */

import {
  type ClaimsKey,
  type ClaimsPeriod,
  deriveClaimsKey,
  type SealableClaims,
  sealClaims,
} from "./claims-envelope.ts";
import { sessionSetting } from "./claims-functions.ts";
import { callFunctions, encodeClientPortQuestion, encodeSetting } from "./function-calls.ts";
import type { UpstreamConnection } from "./upstream-connection.ts";

/** Whose claims, and where. */
export interface ClaimsTarget {
  readonly database: string;
  /** The session user. */
  readonly role: string;
  readonly claims: SealableClaims;
  /** When the credential ends; undefined is never. */
  readonly expiresAt: Date | undefined;
}

/** Calls for one connection, not yet sent. */
export interface ClaimsMessages {
  readonly calls: readonly Buffer[];
  /** From when on they should be made anew, in milliseconds since 1970. */
  readonly dueAtMs: number;
}

/**
 * How long an envelope may be used by transactions that begin, in ms. Long enough for clocks that differ by minutes; what ends a
 * session earlier (its credential's end, DROP USER) closes its connection.
 */
const lifetimeMs = 60 * 60_000;

export class ClaimsPublisher {
  readonly #masterSecret: Buffer;
  readonly #now: () => number;
  readonly #keys = new Map<string, ClaimsKey>();

  constructor(masterSecret: Buffer, now: () => number = Date.now) {
    this.#masterSecret = masterSecret;
    this.#now = now;
  }

  /**
   * Makes the connection carry these claims, and no others. It must wait for a command outside a transaction, and nobody else
   * may be using it.
   *
   * @throws UpstreamError or SqlError; the connection is not to be used then
   */
  async publish(connection: UpstreamConnection, target: ClaimsTarget): Promise<void> {
    if (connection.clientPort === undefined) {
      // As PostgreSQL sees it: between it and us addresses may be translated.
      const [port] = await callFunctions(connection, [encodeClientPortQuestion()]);
      connection.clientPort = port === undefined || port === null ? null : Number(port);
    }
    const { calls, dueAtMs } = this.messagesFor(connection, target);
    await callFunctions(connection, calls);
    connection.claimsDueAtMs = dueAtMs;
  }

  /**
   * The same for a connection in use, whose stream is somebody else's to write to.
   *
   * @throws SqlError when the claims cannot be sealed
   */
  messagesFor(connection: UpstreamConnection, target: ClaimsTarget): ClaimsMessages {
    const { database, role, claims } = target;
    const period = this.#periodFor(target.expiresAt);
    const binding = {
      processId: connection.processId,
      clientPort: connection.clientPort ?? null,
      sessionUser: role,
      database,
    };
    return {
      calls: [encodeSetting(sessionSetting, sealClaims(this.#keyOf(database), binding, period, claims))],
      dueAtMs: period.issuedAtMs + lifetimeMs / 2,
    };
  }

  #periodFor(expiresAt: Date | undefined): ClaimsPeriod {
    const issuedAtMs = this.#now();
    const endsAtMs = expiresAt?.getTime() ?? Number.POSITIVE_INFINITY;
    return { issuedAtMs, expiresAtMs: Math.min(issuedAtMs + lifetimeMs, endsAtMs) };
  }

  #keyOf(database: string): ClaimsKey {
    let key = this.#keys.get(database);
    if (key === undefined) {
      key = deriveClaimsKey(this.#masterSecret, database);
      this.#keys.set(database, key);
    }
    return key;
  }
}
