/** When what is collected gets written: after a while or at once, and never two writes at the same time. */

export class FlushSchedule {
  readonly #write: () => Promise<void>;
  readonly #onFailure: (error: unknown) => void;
  #timer: NodeJS.Timeout | undefined;
  #last: Promise<void> = Promise.resolve();

  /**
   * @param write takes what is there when it begins; what it cannot write it keeps for the next time
   * @param onFailure told of a write that `later` began
   */
  constructor(write: () => Promise<void>, onFailure: (error: unknown) => void) {
    this.#write = write;
    this.#onFailure = onFailure;
  }

  /** Writes when the write that is under way has ended, however it does. @throws what the write throws */
  now(): Promise<void> {
    this.cancel();
    const mine = this.#last.catch(() => undefined).then(this.#write);
    this.#last = mine;
    return mine;
  }

  /** Writes after this time, if that is not to happen anyway. */
  later(delayMs: number): void {
    this.#timer ??= setTimeout(() => void this.now().catch(this.#onFailure), delayMs).unref();
  }

  /** Takes `later` back. */
  cancel(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
