/** Text or TOML value → typed value, by the type of its key. */

import { type KeyType, maxDurationDays } from "./config-key.ts";

/** Durations are in milliseconds, sizes in bytes. */
export type ParsedValue =
  | string
  | number
  | boolean
  | readonly string[]
  | Readonly<Record<string, string>>
  | readonly Readonly<Record<string, unknown>>[];

export type ParseOutcome =
  | { readonly ok: true; readonly value: ParsedValue }
  | { readonly ok: false; readonly expected: string };

const unitMs: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/**
 * Parses a value of the file, or text of the environment.
 *
 * @param isText the value is text whatever its type is: from the environment, or from `${VAR}`
 */
export function parseValue(type: KeyType, value: unknown, isText: boolean): ParseOutcome {
  const expected = describeType(type);
  const refuse: ParseOutcome = { ok: false, expected };
  switch (type.kind) {
    case "text":
    case "path":
      return typeof value === "string" && value !== "" && !value.includes("\0")
        ? { ok: true, value }
        : refuse;
    case "boolean": {
      if (isText && (value === "true" || value === "false")) {
        return { ok: true, value: value === "true" };
      }
      return typeof value === "boolean" ? { ok: true, value } : refuse;
    }
    case "integer": {
      const number = isText && typeof value === "string" && /^\d{1,15}$/.test(value) ? Number(value) : value;
      const isInRange =
        typeof number === "number" && Number.isInteger(number) && number >= type.min && number <= type.max;
      return isInRange ? { ok: true, value: number } : refuse;
    }
    case "duration": {
      const ms = parseDurationMs(value);
      const isInRange = ms !== undefined && ms >= type.minMs && ms <= maxDurationDays * 86_400_000;
      return isInRange ? { ok: true, value: ms } : refuse;
    }
    case "size": {
      const bytes = parseSizeBytes(value);
      const isInRange = bytes !== undefined && bytes >= type.minBytes && bytes <= type.maxBytes;
      return isInRange ? { ok: true, value: bytes } : refuse;
    }
    case "choice":
      return typeof value === "string" && type.choices.includes(value) ? { ok: true, value } : refuse;
    case "choices": {
      const isList = Array.isArray(value) && value.length > 0;
      return isList && value.every((entry) => type.choices.includes(entry)) ? { ok: true, value } : refuse;
    }
    case "map": {
      const isMap =
        isTable(value) &&
        Object.entries(value).every(
          ([name, text]) => /^[a-z_][a-z0-9_]{0,62}$/.test(name) && typeof text === "string" && text !== "",
        );
      return isMap ? { ok: true, value: value as Readonly<Record<string, string>> } : refuse;
    }
    case "tables":
      return Array.isArray(value) && value.every(isTable) ? { ok: true, value } : refuse;
  }
}

function isTable(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/** `30s`, `10m`, `1h`; 0 needs no unit. @returns undefined when it is none of these */
function parseDurationMs(value: unknown): number | undefined {
  if (value === 0 || value === "0") {
    return 0;
  }
  const match = typeof value === "string" ? /^(\d{1,10})(ms|s|m|h|d)$/.exec(value) : null;
  const factor = unitMs[match?.[2] ?? ""];
  return match === null || factor === undefined ? undefined : Number(match[1]) * factor;
}

/** `64KiB`, `1MiB`. @returns undefined when it is neither */
function parseSizeBytes(value: unknown): number | undefined {
  const match = typeof value === "string" ? /^(\d{1,7})(KiB|MiB)$/.exec(value) : null;
  return match === null ? undefined : Number(match[1]) * (match[2] === "MiB" ? 1024 * 1024 : 1024);
}

/** What a value of this type looks like, for messages and for the reference page. */
export function describeType(type: KeyType): string {
  switch (type.kind) {
    case "text":
      return "text";
    case "path":
      return "a path";
    case "boolean":
      return "true or false";
    case "integer":
      return `a whole number from ${type.min} to ${type.max} (${type.unit})`;
    case "duration": {
      const from = type.minMs === 0 ? "0" : `${type.minMs / 1000}s`;
      return `a duration such as "30s" or "10m" (${from} to ${maxDurationDays}d)`;
    }
    case "size": {
      const [from, to] = [type.minBytes, type.maxBytes].map((bytes) =>
        bytes % (1024 * 1024) === 0 ? `${bytes / 1024 / 1024}MiB` : `${bytes / 1024}KiB`,
      );
      return `a size such as "64KiB" or "1MiB" (${from} to ${to})`;
    }
    case "choice":
      return type.choices.map((choice) => `"${choice}"`).join(", ");
    case "choices":
      return `a list of ${type.choices.map((choice) => `"${choice}"`).join(", ")}`;
    case "map":
      return `a table of ${type.of}`;
    case "tables":
      return `a list of tables of ${type.of}`;
  }
}
