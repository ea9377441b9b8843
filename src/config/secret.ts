/** A value that must not be printed: what logs, JSON and errors see of it is a placeholder. */

import { inspect } from "node:util";

const placeholder = "[secret]";

export class Secret {
  readonly #value: string;

  constructor(value: string) {
    this.#value = value;
  }

  /** The value itself; call it where it is used, and keep the Secret everywhere else. */
  reveal(): string {
    return this.#value;
  }

  toString(): string {
    return placeholder;
  }

  toJSON(): string {
    return placeholder;
  }

  [inspect.custom](): string {
    return placeholder;
  }
}
