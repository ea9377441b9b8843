/** What is said of each key of nodedb.toml: type, range, default, environment variable and meaning. */

export type KeyType =
  | { readonly kind: "text" }
  /** A file or directory; relative ones are taken from where the program is started. */
  | { readonly kind: "path" }
  | { readonly kind: "boolean" }
  | { readonly kind: "integer"; readonly min: number; readonly max: number; readonly unit: string }
  | { readonly kind: "duration"; readonly minMs: number }
  | { readonly kind: "size"; readonly minBytes: number; readonly maxBytes: number }
  | { readonly kind: "choice"; readonly choices: readonly string[] }
  /** One or more of them. */
  | { readonly kind: "choices"; readonly choices: readonly string[] }
  /** A table of texts under names that the administrator chooses. */
  | { readonly kind: "map"; readonly of: string }
  /** An array of tables. */
  | { readonly kind: "tables"; readonly of: string };

export interface ConfigKey {
  readonly key: string;
  /** Another spelling that is accepted too. */
  readonly alias?: string;
  readonly type: KeyType;
  /** As it would stand in the file. Absent: off, or worked out as `defaultDoc` says. */
  readonly default?: string | number | boolean | readonly string[] | Readonly<Record<string, string>>;
  readonly defaultDoc?: string;
  /** What nodedb.toml.example shows when there is no default. */
  readonly example?: string | readonly Readonly<Record<string, string | number>>[];
  readonly env?: string;
  readonly doc: string;
  /** Whether a reload applies it; the others need a restart. */
  readonly live: boolean;
}

/** Longest time that a Node timer can wait, in days: more than 2³¹ ms fires at once. */
export const maxDurationDays = 24;

/** A whole number of something. */
export const count = (min: number, max: number, unit: string) =>
  ({ kind: "integer", min, max, unit }) as const;
/** A time, of at most `maxDurationDays`. */
export const duration = (minMs: number) => ({ kind: "duration", minMs }) as const;
/** In bytes. */
export const kib = 1024;
/** In bytes. */
export const mib = 1024 * kib;
/** A number of bytes. */
export const size = (minBytes: number, maxBytes: number) => ({ kind: "size", minBytes, maxBytes }) as const;
