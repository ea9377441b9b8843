/** A reload: rereads the configuration, gives each part what it takes, and names what needs a restart. */

import { changedKeys, type KeyValues } from "./config/changed-keys.ts";
import { type Config, formatMistake } from "./config/config.ts";
import type { LoadOutcome } from "./config/load.ts";
import type { Log } from "./observe/log.ts";

/** A part of the program that takes another configuration while it runs. */
export interface ReloadPart {
  /** For the log. */
  readonly name: string;
  /** What the names of its keys begin with. */
  readonly keys: readonly string[];
  /** @throws when it cannot be used; what there was stays */
  apply(next: Config): void | Promise<void>;
}

export interface ReloadOptions {
  /** What the program was started with. */
  readonly started: KeyValues;
  readonly load: () => LoadOutcome;
  readonly parts: readonly ReloadPart[];
  readonly log: Log;
}

/** @returns a function for each time that a reload is asked for; it never rejects, and they follow one another */
export function createReload(options: ReloadOptions): () => Promise<void> {
  const { started, load, parts, log } = options;
  /** What holds now of the keys that a reload takes. */
  let inForce = started;
  let last = Promise.resolve();

  async function reload(): Promise<void> {
    const outcome = load();
    if (!outcome.ok) {
      for (const mistake of outcome.mistakes) {
        log.error(`configuration not reloaded: ${formatMistake(mistake)}`);
      }
      return;
    }
    const failed: ReloadPart[] = [];
    for (const part of parts) {
      try {
        await part.apply(outcome.config);
      } catch (error) {
        failed.push(part);
        log.error({ err: error }, `${part.name} not reloaded`);
      }
    }
    const isKept = (key: string) => failed.some((part) => part.keys.some((prefix) => key.startsWith(prefix)));
    const applied = changedKeys(inForce, outcome.values).live.filter((key) => !isKept(key));
    inForce = new Map(
      [...outcome.values].map(([key, value]) => [key, isKept(key) ? inForce.get(key) : value]),
    );
    const { restart } = changedKeys(started, outcome.values);
    if (restart.length > 0) log.warn({ keys: restart }, "these keys have changed and need a restart");
    log.info({ applied }, "configuration reloaded");
  }

  return () => {
    last = last
      .then(reload)
      .catch((error: unknown) => log.error({ err: error }, "configuration not reloaded"));
    return last;
  };
}
