/** The configuration file as flat keys: each leaf with its dotted key and its line. */

import { parse, TomlError } from "smol-toml";

export interface TomlLeaf {
  readonly key: string;
  readonly value: unknown;
  /** 1-based; undefined when the scan below did not see it. */
  readonly line: number | undefined;
}

export type TomlOutcome =
  | { readonly ok: true; readonly leaves: readonly TomlLeaf[] }
  | { readonly ok: false; readonly line: number | undefined; readonly message: string };

/** Parses TOML 1.0 and flattens its tables; an empty table is a leaf, so that an unknown one is noticed. */
export function parseTomlFile(text: string): TomlOutcome {
  let root: Record<string, unknown>;
  try {
    root = parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) {
      throw error;
    }
    // The message goes on with the offending line itself, which may hold a password.
    const message = error.message.split("\n", 1)[0] ?? "";
    return { ok: false, line: error.line, message: message.replace(/^Invalid TOML document: /, "") };
  }
  const lines = findKeyLines(text);
  return { ok: true, leaves: flatten(root, "", lines) };
}

function flatten(
  table: Readonly<Record<string, unknown>>,
  prefix: string,
  lines: ReadonlyMap<string, number>,
): TomlLeaf[] {
  return Object.entries(table).flatMap(([name, value]) => {
    const key = prefix + name;
    return isTable(value) && Object.keys(value).length > 0
      ? flatten(value, `${key}.`, lines)
      : [{ key, value, line: lineOf(key, lines) }];
  });
}

function isTable(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/** A key within an inline table has no line of its own: its nearest table's is close enough. */
function lineOf(key: string, lines: ReadonlyMap<string, number>): number | undefined {
  for (let path = key; path !== ""; path = path.slice(0, Math.max(0, path.lastIndexOf(".")))) {
    const line = lines.get(path);
    if (line !== undefined) {
      return line;
    }
  }
  return undefined;
}

/**
 * First line of each key and table. smol-toml keeps no positions, so this scans the text a second
 * time; the parser has accepted it by now, which is why this may be simple.
 */
function findKeyLines(text: string): Map<string, number> {
  const found = new Map<string, number>();
  let table = "";
  let openQuote: string | undefined;
  for (const [index, line] of text.split("\n").entries()) {
    if (openQuote === undefined) {
      const header = /^\s*\[\[?([^\]]+)\]/.exec(line)?.[1];
      const key = /^\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=/.exec(
        line,
      )?.[1];
      if (header !== undefined) {
        table = plainKey(header);
        record(table, index + 1);
        table += ".";
      } else if (key !== undefined) {
        record(table + plainKey(key), index + 1);
      }
    }
    for (const [quote] of line.matchAll(/"""|'''/g)) {
      openQuote = openQuote === undefined ? quote : openQuote === quote ? undefined : openQuote;
    }
  }
  return found;

  function record(key: string, line: number): void {
    if (!found.has(key)) {
      found.set(key, line);
    }
  }
}

function plainKey(text: string): string {
  return text
    .split(".")
    .map((part) => part.trim().replace(/^(["'])(.*)\1$/, "$2"))
    .join(".");
}
