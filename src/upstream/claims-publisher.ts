/**
 * Tells PostgreSQL whose claims a connection carries: the sealed envelope that proves them, and, for policies that were written
 * for others, the same as plain settings. A client can set those too: they prove nothing.
 */

import { SqlError } from "../errors/sql-error.ts";
import {
  type ClaimsBinding,
  type ClaimsKey,
  type ClaimsPeriod,
  deriveClaimsKey,
  type SealableClaims,
  sealClaims,
  toAsciiJson,
} from "./claims-envelope.ts";
import { sessionSetting } from "./claims-functions.ts";
import { callFunctions, encodeClientPortQuestion, encodeSetting } from "./function-calls.ts";
import { SealedConnections } from "./sealed-connections.ts";
import type { UpstreamConnection } from "./upstream-connection.ts";
import type { ClaimsWithdrawal } from "./withdraw-claims.ts";

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

export interface ClaimsPublisherOptions {
  readonly masterSecret: Buffer;
  /**
   * How long an envelope may be used by transactions that begin, in ms. Should allow for clocks that differ; what ends a
   * session earlier (its credential's end, DROP USER) closes its connection.
   */
  readonly lifetimeMs: number;
  /** `auth.claims_prefix`; undefined: no setting for each claim. */
  readonly prefix?: string | undefined;
  /** Makes worthless what was sealed for a connection (src/upstream/withdraw-claims.ts). */
  readonly withdraw: (database: string, withdrawal: ClaimsWithdrawal) => Promise<void>;
  readonly now?: () => number;
}

/** What Supabase's and PostgREST's policies read: one JSON object. */
const jwtClaimsSetting = "request.jwt.claims";

export class ClaimsPublisher {
  readonly #options: ClaimsPublisherOptions;
  readonly #keys = new Map<string, ClaimsKey>();
  readonly #sealed: SealedConnections;

  constructor(options: ClaimsPublisherOptions) {
    this.#options = options;
    this.#sealed = new SealedConnections(options.lifetimeMs);
  }

  /**
   * Makes the connection carry these claims, and no others. It must wait for a command outside a transaction, and nobody else
   * may be using it.
   *
   * @throws UpstreamError or SqlError; the connection is not to be used then: cannot_connect_now when PostgreSQL could take it for
   *   an earlier one that had other claims
   */
  async publish(connection: UpstreamConnection, target: ClaimsTarget): Promise<void> {
    if (connection.clientPort === undefined) {
      // As PostgreSQL sees it: between it and us addresses may be translated.
      const [port] = await callFunctions(connection, [encodeClientPortQuestion()]);
      connection.clientPort = port === undefined || port === null ? null : Number(port);
    }
    const isNew = connection.claimsDueAtMs === 0;
    if (
      isNew &&
      !this.#sealed.mayOpen(bindingOf(connection, target), JSON.stringify(target.claims), this.#now())
    ) {
      throw new SqlError(
        "cannot_connect_now",
        "this connection looks like an earlier one with other claims",
        { severity: "FATAL", hint: "Connect again." },
      );
    }
    const { calls, dueAtMs } = this.messagesFor(connection, target);
    await callFunctions(connection, calls);
    connection.claimsDueAtMs = dueAtMs;
    connection.toldClaims = { calls, dueAtMs, expiresAtMs: target.expiresAt?.getTime() };
  }

  /**
   * Takes back every envelope that the connection has had, before it gets one with other claims.
   *
   * @throws when PostgreSQL has not noted it: the connection is not to be used then
   */
  async withdraw(connection: UpstreamConnection, database: string): Promise<void> {
    const { processId, clientPort = null } = connection;
    connection.toldClaims = undefined;
    const untilMs = this.#now();
    await this.#options.withdraw(database, {
      processId,
      clientPort,
      untilMs,
      lifetimeMs: this.#options.lifetimeMs,
    });
    connection.claimsWithdrawnMs = untilMs;
  }

  /**
   * The same for a connection in use, whose stream is somebody else's to write to.
   *
   * @throws SqlError when the claims cannot be sealed
   */
  messagesFor(connection: UpstreamConnection, target: ClaimsTarget): ClaimsMessages {
    const { database, claims } = target;
    const period = this.#periodFor(target.expiresAt, connection.claimsWithdrawnMs);
    const binding = bindingOf(connection, target);
    const envelope = sealClaims(this.#keyOf(database), binding, period, claims);
    this.#sealed.note(binding, JSON.stringify(claims), period.issuedAtMs);
    const settings = plainSettings(claims, this.#options.prefix, hasUtf8(connection));
    return {
      calls: [
        encodeSetting(sessionSetting, envelope),
        ...settings.map(([name, value]) => encodeSetting(name, value)),
      ],
      dueAtMs: period.issuedAtMs + this.#options.lifetimeMs / 2,
    };
  }

  #periodFor(expiresAt: Date | undefined, withdrawnMs: number): ClaimsPeriod {
    // Later than what was withdrawn, also where that was in the same millisecond or the clock has been set back.
    const issuedAtMs = Math.max(this.#now(), withdrawnMs + 1);
    const endsAtMs = expiresAt?.getTime() ?? Number.POSITIVE_INFINITY;
    return { issuedAtMs, expiresAtMs: Math.min(issuedAtMs + this.#options.lifetimeMs, endsAtMs) };
  }

  #now(): number {
    return (this.#options.now ?? Date.now)();
  }

  #keyOf(database: string): ClaimsKey {
    let key = this.#keys.get(database);
    if (key === undefined) {
      key = deriveClaimsKey(this.#options.masterSecret, database);
      this.#keys.set(database, key);
    }
    return key;
  }
}

function bindingOf(connection: UpstreamConnection, { database, role }: ClaimsTarget): ClaimsBinding {
  const { processId, clientPort = null } = connection;
  return { processId, clientPort, sessionUser: role, database };
}

function hasUtf8(connection: UpstreamConnection): boolean {
  return connection.parameters.get("client_encoding") === "UTF8";
}

/**
 * The claims as settings. `sub` is the identity, as it is in a token.
 *
 * @param mayBeAny whether texts may hold more than ASCII: they are sent in the client's encoding
 */
function plainSettings(
  claims: SealableClaims,
  prefix: string | undefined,
  mayBeAny: boolean,
): (readonly [name: string, value: string])[] {
  const all = { sub: claims.id, ...claims };
  const settings: [string, string][] = [[jwtClaimsSetting, toAsciiJson(all)]];
  if (prefix === undefined) return settings;
  for (const [name, value] of Object.entries(all)) {
    if (value === undefined || value === null || !/^[a-z_][a-z0-9_]*$/i.test(name)) continue;
    const text = typeof value === "string" ? value : toAsciiJson(value);
    if (mayBeAny || /^[\x20-\x7e]*$/.test(text)) settings.push([`${prefix}.${name}`, text]);
  }
  return settings;
}
