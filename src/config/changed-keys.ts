/** Which keys differ between two readings of the configuration, and whether a running front-end takes them. */

import { isDeepStrictEqual } from "node:util";
import type { ConfigKey } from "./config-key.ts";
import { configKeys } from "./schema.ts";

/** Key → its value as it was read; a key without one is absent. Holds secrets: compared, and never printed. */
export type KeyValues = ReadonlyMap<string, unknown>;

export interface ChangedKeys {
  /** Taken by a reload. */
  readonly live: readonly string[];
  readonly restart: readonly string[];
}

/** Names the keys that differ, in the order of the schema. */
export function changedKeys(before: KeyValues, after: KeyValues): ChangedKeys {
  const keys: readonly ConfigKey[] = configKeys;
  const changed = keys.filter(({ key }) => !isDeepStrictEqual(before.get(key), after.get(key)));
  const names = (isLive: boolean) => changed.filter(({ live }) => live === isLive).map(({ key }) => key);
  return { live: names(true), restart: names(false) };
}
