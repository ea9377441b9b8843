/**
 * The order of this process's writers of the catalog. They follow one another by the catalog's lock as it is; here those that
 * wait hold no connection, so that readers always find one.
 */

import { SqlError } from "../errors/sql-error.ts";

/** As long as PostgreSQL waits for the catalog's lock, in ms. */
const maxWaitMs = 3_000;

export class WriteQueue {
  #isTaken = false;
  readonly #waiting: (() => void)[] = [];

  /**
   * Waits for its turn.
   *
   * @returns what ends it; further calls do nothing
   * @throws SqlError object_not_in_prerequisite_state after three seconds
   */
  async enter(): Promise<() => void> {
    if (this.#isTaken) await this.#wait();
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

  #wait(): Promise<void> {
    return new Promise((resolve, reject) => {
      const proceed = () => {
        clearTimeout(timer);
        resolve();
      };
      const timer = setTimeout(() => {
        this.#waiting.splice(this.#waiting.indexOf(proceed), 1);
        reject(
          new SqlError("object_not_in_prerequisite_state", "the catalog is locked by another transaction", {
            hint: "Try again when it has ended.",
          }),
        );
      }, maxWaitMs);
      this.#waiting.push(proceed);
    });
  }
}
