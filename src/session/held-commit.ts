/** The time of a client's COMMIT that decides on statements of ours, which the catalog holds open meanwhile. */

import { SqlError } from "../errors/sql-error.ts";
import type { CommitHold } from "./relay-contracts.ts";

/** Longest COMMIT with statements of ours in it, in ms. */
const maxHeldCommitMs = 5_000;
/** How long the upstream has to end a COMMIT that was cancelled, in ms. */
const maxCancelledCommitMs = 2_000;

export class HeldCommit {
  readonly #onOverdue: (error: SqlError) => void;
  #ended: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;

  /** @param onOverdue called when a COMMIT takes too long, with what ends the session */
  constructor(onOverdue: (error: SqlError) => void) {
    this.#onOverdue = onOverdue;
  }

  /** Settles at the end of the COMMIT that is held; undefined when there is none. */
  get ended(): Promise<void> | undefined {
    return this.#ended;
  }

  /**
   * Begins one. The time is bounded: a client's deferred triggers may run for as long as they like, and every administrator
   * would wait for them.
   */
  begin(): CommitHold {
    let end = () => {};
    this.#ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    this.#timer = setTimeout(() => this.#onOverdue(overdue()), maxHeldCommitMs);
    return {
      answered: () => clearTimeout(this.#timer),
      end: () => {
        clearTimeout(this.#timer);
        this.#ended = undefined;
        end();
      },
    };
  }

  /** Has been cancelled: calls when the upstream's answer is not to be waited for any longer. */
  whenCancelled(giveUp: () => void): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(giveUp, maxCancelledCommitMs);
  }
}

function overdue(): SqlError {
  return new SqlError(
    "query_canceled",
    "COMMIT took too long for a transaction that changes users, roles or keys",
    {
      severity: "FATAL",
      hint: "Do what takes long in a transaction of its own.",
    },
  );
}
