/** Keeps a session's claims good: sealed anew before they expire, when they change, and after a reset took them away. */

import type { Claims } from "../auth/identity.ts";
import type { Self } from "../auth/live-session.ts";
import type { SessionProfile } from "../exec/sessions.ts";
import { upstreamTargetOf } from "../exec/upstream-target.ts";
import type { Log } from "../observe/log.ts";
import type { ClaimsPublisher } from "../upstream/claims-publisher.ts";
import type { Relay } from "./relay.ts";

const noParameters: ReadonlyMap<string, string> = new Map();

export class SessionClaims {
  readonly #profile: SessionProfile;
  readonly #relay: Relay;
  readonly #publisher: Pick<ClaimsPublisher, "messagesFor" | "withdraw">;
  readonly #log: Log;
  /** By its present name. */
  #role: string;
  #claims: Claims;
  /** What the connection carries. */
  #carried: Claims;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    profile: SessionProfile,
    relay: Relay,
    publisher: Pick<ClaimsPublisher, "messagesFor" | "withdraw">,
    log: Log,
  ) {
    this.#profile = profile;
    this.#relay = relay;
    this.#publisher = publisher;
    this.#log = log;
    this.#role = profile.identity.role;
    this.#claims = profile.identity.claims;
    this.#carried = this.#claims;
    this.#watch(relay.connection.claimsDueAtMs);
  }

  /** True when they are others than the connection was lent for: it may not go back to those who have these. */
  get haveChanged(): boolean {
    return this.#claims !== this.#profile.identity.claims;
  }

  /** Takes other claims, for the role that the session's has become; they hold from the client's next transaction on. */
  renew({ role, claims }: Self): void {
    this.#role = role;
    if (JSON.stringify(claims) === JSON.stringify(this.#claims)) return;
    this.#claims = claims;
    this.#relay.areClaimsDue = true;
  }

  /**
   * Seals them for the time to come, while the client waits.
   *
   * @throws SqlError when they cannot be sealed; whatever keeps those from before from being taken back
   */
  async refresh(): Promise<void> {
    const { identity, database, id } = this.#profile;
    const { connection } = this.#relay;
    const claims = this.#claims;
    if (claims !== this.#carried) await this.#publisher.withdraw(connection, database);
    const target = { ...upstreamTargetOf(identity, database, noParameters), role: this.#role, claims };
    const { calls, dueAtMs } = this.#publisher.messagesFor(connection, target);
    if (await this.#relay.converseCalls(calls)) {
      connection.claimsDueAtMs = dueAtMs;
      this.#carried = claims;
      this.#watch(dueAtMs);
    } else {
      // What is there goes on until it expires, and then $auth is refused.
      this.#log.warn({ sessionId: id }, "the upstream server has refused a session's claims");
      this.#relay.areClaimsDue = true;
    }
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  #watch(dueAtMs: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#relay.areClaimsDue = true;
    }, dueAtMs - Date.now()).unref();
  }
}
