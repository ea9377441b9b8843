/** COMMIT of a transaction with statements of ours: they are held open while PostgreSQL commits, and then end as it has. */

import type { PreparedCommit } from "../exec/statement-transaction.ts";
import { lendConnection } from "./client-connection.ts";
import type { QuerySession } from "./query-session.ts";
import type { CommitHold } from "./relay-contracts.ts";

/** What the upstream has said to the COMMIT; "unknown" when it was interrupted, or has only said that something went wrong. */
export type CommitAnswer = "committed" | "not committed" | "unknown";

export class PendingCommit {
  readonly #prepared: PreparedCommit;
  readonly #hold: CommitHold;

  private constructor(prepared: PreparedCommit, hold: CommitHold) {
    this.#prepared = prepared;
    this.#hold = hold;
  }

  /**
   * Runs the statements for good; what the client has sent before must have been answered.
   *
   * @returns undefined when there are none
   * @throws SqlError when they do not hold any more; the client's transaction must fail
   */
  static async begin(
    { relay, paired }: QuerySession,
    protocol: "simple" | "extended",
  ): Promise<PendingCommit | undefined> {
    const holds: CommitHold[] = [];
    try {
      const prepared = await paired.prepareCommit(lendConnection(relay, protocol), () =>
        holds.push(relay.holdCommit()),
      );
      const [hold] = holds;
      return prepared === undefined || hold === undefined ? undefined : new PendingCommit(prepared, hold);
    } catch (error) {
      for (const hold of holds) hold.end();
      throw error;
    }
  }

  /** @returns whether the statements hold @throws SqlError when they could not be committed though PostgreSQL has */
  async end(answer: CommitAnswer): Promise<boolean> {
    this.#hold.answered();
    try {
      if (answer === "unknown") return await this.#prepared.endAsPostgres();
      if (answer === "committed") await this.#prepared.commit();
      else await this.#prepared.rollback();
      return answer === "committed";
    } finally {
      this.#hold.end();
    }
  }
}
