/**
 * The order of this process's writers of the catalog. They follow one another by the catalog's lock as it is; here those that
 * wait hold no connection, so that readers always find one.
 */

import { SqlError } from "../errors/sql-error.ts";
import { type Cancellation, queryCanceled, throwIfCanceled } from "./cancellation.ts";

/** As long as PostgreSQL waits for the catalog's lock, in ms. */
const maxWaitMs = 3_000;

export class WriteQueue {
  #isTaken = false;
  readonly #waiting: (() => void)[] = [];

  /**
   * Waits for its turn.
   *
   * @returns what ends it; further calls do nothing
   * @throws SqlError object_not_in_prerequisite_state after three seconds, and query_canceled
   */
  async enter(cancellation?: Cancellation): Promise<() => void> {
    throwIfCanceled(cancellation);
    if (this.#isTaken) await this.#wait(cancellation?.signal);
    this.#isTaken = true;
    let isEnded = false;
    return () => {
      if (isEnded) return;
      isEnded = true;
      const next = this.#waiting.shift();
      if (next === undefined) this.#isTaken = false;
      else next();
    };
  }

  #wait(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const stopWaiting = () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", onAbort);
      };
      const giveUp = (error: SqlError) => {
        stopWaiting();
        this.#waiting.splice(this.#waiting.indexOf(proceed), 1);
        reject(error);
      };
      const proceed = () => {
        stopWaiting();
        resolve();
      };
      const onAbort = () => giveUp(queryCanceled());
      const timer = setTimeout(() => {
        giveUp(
          new SqlError("object_not_in_prerequisite_state", "the catalog is locked by another transaction", {
            hint: "Try again when it has ended.",
          }),
        );
      }, maxWaitMs);
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#waiting.push(proceed);
    });
  }
}
