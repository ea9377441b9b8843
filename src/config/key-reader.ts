/** Looks keys up in the environment, the file and the defaults, in this order, and notes what is wrong with them. */

import type { ConfigMistake } from "./config.ts";
import type { ConfigKey } from "./config-key.ts";
import { findNearest } from "./nearest.ts";
import { configKeys, type KeyName } from "./schema.ts";
import type { TomlLeaf } from "./toml-file.ts";
import { type ParsedValue, parseValue } from "./values.ts";

type KeyOfKind<Kind extends string> = Extract<(typeof configKeys)[number], { type: { kind: Kind } }>;
type Choice<Name extends KeyName> =
  Extract<(typeof configKeys)[number], { key: Name }> extends { type: { choices: readonly (infer C)[] } }
    ? C
    : never;

export interface KeySources {
  readonly file: string | undefined;
  readonly leaves: readonly TomlLeaf[];
  readonly env: Readonly<Record<string, string | undefined>>;
}

const keysByName: ReadonlyMap<string, ConfigKey> = new Map(
  configKeys.flatMap((entry: ConfigKey) => [
    [entry.key, entry],
    ...(entry.alias === undefined ? [] : [[entry.alias, entry] as const]),
  ]),
);

export class KeyReader {
  readonly mistakes: ConfigMistake[] = [];
  readonly #sources: KeySources;
  readonly #leaves = new Map<string, TomlLeaf>();
  /** Each is parsed once, so that its mistake is noted once. */
  readonly #values = new Map<string, ParsedValue | undefined>();

  constructor(sources: KeySources) {
    this.#sources = sources;
    for (const leaf of sources.leaves) {
      this.#admit(leaf);
    }
  }

  /** @returns undefined when it is not set and has no default, or when it is wrong */
  text(key: KeyOfKind<"text" | "path">["key"]): string | undefined {
    const value = this.#read(key);
    return typeof value === "string" ? value : undefined;
  }

  /** Milliseconds for a duration, bytes for a size; 0 when it is wrong, which is noted. */
  number(key: KeyOfKind<"integer" | "duration" | "size">["key"]): number {
    const value = this.#read(key);
    return typeof value === "number" ? value : 0;
  }

  boolean(key: KeyOfKind<"boolean">["key"]): boolean {
    return this.#read(key) === true;
  }

  choice<Name extends KeyOfKind<"choice">["key"]>(key: Name): Choice<Name> | undefined {
    // parseValue lets nothing but the choices through.
    return this.#read(key) as Choice<Name> | undefined;
  }

  choices(key: KeyOfKind<"choices">["key"]): readonly string[] {
    const value = this.#read(key);
    return Array.isArray(value) ? (value as readonly string[]) : [];
  }

  map(key: KeyOfKind<"map">["key"]): Readonly<Record<string, string>> {
    const value = this.#read(key);
    return typeof value === "object" && !Array.isArray(value)
      ? (value as Readonly<Record<string, string>>)
      : {};
  }

  tables(key: KeyOfKind<"tables">["key"]): readonly Readonly<Record<string, unknown>>[] {
    const value = this.#read(key);
    return Array.isArray(value) ? (value as readonly Readonly<Record<string, unknown>>[]) : [];
  }

  /** What was read so far, by key; secrets among it. */
  get values(): ReadonlyMap<string, ParsedValue | undefined> {
    return this.#values;
  }

  /** Notes a mistake at the place where the key was set. */
  blame(key: KeyName, message: string): void {
    const variable = this.#variable(key);
    const leaf = this.#leaves.get(key);
    this.mistakes.push(
      variable !== undefined || leaf === undefined
        ? { key: variable ?? key, message }
        : { file: this.#sources.file, line: leaf.line, key: leaf.key, message },
    );
  }

  /** Whether the value stands in the file in such a way, apart from what `${VAR}` brings in. */
  isLiteralInFile(key: KeyName, test: (text: string) => boolean): boolean {
    const leaf = this.#leaves.get(key);
    return (
      this.#variable(key) === undefined &&
      typeof leaf?.value === "string" &&
      test(leaf.value.replaceAll(/\$\$\{|\$\{[^}]*\}/g, (found) => (found === "$${" ? found : "")))
    );
  }

  #admit(leaf: TomlLeaf): void {
    const { file } = this.#sources;
    const entry = keysByName.get(leaf.key);
    if (entry !== undefined) {
      const other = this.#leaves.get(entry.key);
      if (other !== undefined) {
        this.mistakes.push({
          file,
          line: leaf.line,
          key: leaf.key,
          message: `is the same as ${other.key}, which is set too`,
        });
      }
      this.#leaves.set(entry.key, leaf);
      return;
    }
    const names = [...keysByName.keys()];
    const table = names.find(
      (name) => keysByName.get(name)?.type.kind === "map" && leaf.key.startsWith(`${name}.`),
    );
    if (table !== undefined) {
      const known = this.#leaves.get(keysByName.get(table)?.key ?? table);
      const added = { [leaf.key.slice(table.length + 1)]: leaf.value };
      const value = { ...(known?.value as Record<string, unknown> | undefined), ...added };
      this.#leaves.set(keysByName.get(table)?.key ?? table, {
        key: table,
        value,
        line: known?.line ?? leaf.line,
      });
      return;
    }
    if (names.some((name) => name.startsWith(`${leaf.key}.`))) {
      const isEmptyTable = typeof leaf.value === "object" && !Array.isArray(leaf.value);
      if (!isEmptyTable) {
        this.mistakes.push({ file, line: leaf.line, key: leaf.key, message: "must be a table" });
      }
      return;
    }
    const nearest = findNearest(leaf.key, names);
    const hint = nearest === undefined ? "" : `; did you mean ${nearest}?`;
    this.mistakes.push({ file, line: leaf.line, key: leaf.key, message: `is no known key${hint}` });
  }

  #variable(key: KeyName): string | undefined {
    const variable = keysByName.get(key)?.env;
    // Set but empty is how compose files and shells say "not set".
    return variable !== undefined && (this.#sources.env[variable] ?? "") !== "" ? variable : undefined;
  }

  #read(key: KeyName): ParsedValue | undefined {
    if (!this.#values.has(key)) {
      this.#values.set(key, this.#parse(key));
    }
    return this.#values.get(key);
  }

  #parse(key: KeyName): ParsedValue | undefined {
    const entry = keysByName.get(key);
    if (entry === undefined) {
      return undefined;
    }
    const variable = this.#variable(key);
    if (variable !== undefined) {
      return this.#check(entry, this.#sources.env[variable], true);
    }
    const leaf = this.#leaves.get(key);
    if (leaf === undefined) {
      return entry.default === undefined ? undefined : this.#check(entry, entry.default, false);
    }
    if (typeof leaf.value === "object") {
      const value = this.#interpolateAll(key, leaf.value);
      return value === undefined ? undefined : this.#check(entry, value, false);
    }
    if (typeof leaf.value !== "string") {
      return this.#check(entry, leaf.value, false);
    }
    const value = this.#interpolate(key, leaf.value);
    return value === undefined ? undefined : this.#check(entry, value, value !== leaf.value);
  }

  #check(entry: ConfigKey, value: unknown, isText: boolean): ParsedValue | undefined {
    const outcome = parseValue(entry.type, value, isText);
    if (outcome.ok) {
      return outcome.value;
    }
    const isTransactionMode = entry.key === "upstream.pool_mode" && value === "transaction";
    // The value is not quoted: it may have come from a variable that holds a secret.
    this.blame(
      entry.key as KeyName,
      isTransactionMode
        ? 'must be "session": there is no transaction pooling yet'
        : `must be ${outcome.expected}`,
    );
    return undefined;
  }

  /** In each text of a list or a table. @returns undefined when a variable is not set */
  #interpolateAll(key: KeyName, value: unknown): unknown {
    if (typeof value === "string") return this.#interpolate(key, value);
    if (Array.isArray(value)) {
      const entries = value.map((entry) => this.#interpolateAll(key, entry));
      return entries.includes(undefined) ? undefined : entries;
    }
    if (typeof value !== "object" || value === null || value instanceof Date) return value;
    const entries = Object.entries(value).map(([name, entry]) => [name, this.#interpolateAll(key, entry)]);
    return entries.some(([, entry]) => entry === undefined) ? undefined : Object.fromEntries(entries);
  }

  /** Replaces `${VAR}`; `$${` stands for `${` itself. @returns undefined when a variable is not set */
  #interpolate(key: KeyName, text: string): string | undefined {
    const missing: string[] = [];
    const result = text.replaceAll(/\$\$\{|\$\{([^}]*)\}/g, (found, name: string | undefined) => {
      if (found === "$${") {
        return "${";
      }
      const value = name === undefined ? undefined : this.#sources.env[name];
      if (value === undefined) {
        missing.push(String(name));
      }
      return value ?? "";
    });
    for (const name of missing) {
      this.blame(key, `needs the environment variable ${name}, which is not set`);
    }
    return missing.length === 0 ? result : undefined;
  }
}
