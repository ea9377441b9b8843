/** The program's log: structured lines through pino, short text on a terminal, secrets redacted, keys and tokens cut out. */

import { Writable } from "node:stream";
import { type DestinationStream, pino } from "pino";
import { hideTokens } from "./hide-tokens.ts";

export type LogLevel = "trace" | "debug" | "info" | "warn" | "error" | "fatal" | "silent";
export type LogFormat = "text" | "json";

/** A message, with fields before it where there are any. */
export interface LogMethod {
  (message: string): void;
  (fields: object, message: string): void;
}

/** What the rest of the program sees of the log; a test passes its own destination. */
export interface Log {
  readonly trace: LogMethod;
  readonly debug: LogMethod;
  readonly info: LogMethod;
  readonly warn: LogMethod;
  readonly error: LogMethod;
  readonly fatal: LogMethod;
  /** Can be set while running: a reload changes it. Children keep the level that they were made with. */
  level: string;
  /** A log whose lines carry these fields too. */
  child(bindings: Record<string, unknown>): Log;
}

export interface LogOptions {
  readonly level: LogLevel;
  readonly format: LogFormat;
  /** Where lines go, each with its line feed; standard error when absent. */
  readonly destination?: DestinationStream;
}

/**
 * Fields that are never printed, one level deep as well. Callers do not log secrets in the first
 * place; this is for the object that somebody logs whole.
 */
const secretFields = [
  "password",
  "secret",
  "token",
  "authorization",
  "verifier",
  "clientKey",
  "serverKey",
  "storedKey",
  "masterSecret",
  "cancelKey",
  "proof",
  "superuserPassword",
  "connectionString",
];

/** Opens a log. Standard error, because standard output belongs to what `nodedb start` prints. */
export function createLog(options: LogOptions): Log {
  const destination = options.destination ?? pino.destination({ fd: 2, sync: true });
  return pino(
    {
      level: options.level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: pino.stdSerializers.err, err: pino.stdSerializers.err },
      hooks: { streamWrite: hideTokens },
      redact: { paths: secretFields.flatMap((field) => [field, `*.${field}`]), censor: "[secret]" },
    },
    options.format === "json" ? destination : textLines(destination),
  );
}

/** Turns pino's JSON lines into `time LEVEL message field=value`. */
function textLines(destination: DestinationStream): DestinationStream {
  return new Writable({
    decodeStrings: false,
    write(line: string, _encoding, done) {
      destination.write(formatText(line));
      done();
    },
  });
}

function formatText(line: string): string {
  const { time, level, msg, error, err, ...fields } = JSON.parse(line) as Record<string, unknown>;
  const clock = String(time).slice(11, 23);
  let text = `${clock} ${String(level).toUpperCase().padEnd(5)} ${printable(String(msg ?? ""))}`;
  for (const [name, value] of Object.entries(fields)) {
    text += ` ${printable(name)}=${formatValue(value)}`;
  }
  const cause = (error ?? err) as { stack?: unknown; message?: unknown } | undefined;
  if (cause !== undefined) {
    const lines = String(cause.stack ?? cause.message ?? JSON.stringify(cause)).split("\n");
    text += lines.map((line) => `\n  ${printable(line)}`).join("");
  }
  return `${text}\n`;
}

function formatValue(value: unknown): string {
  if (typeof value === "string" && /^[\w./:@+-]+$/.test(value)) {
    return value;
  }
  return printable(JSON.stringify(value) ?? "undefined");
}

/** Names chosen by clients reach the log: a line feed or an escape sequence in one must not forge a line. */
function printable(text: string): string {
  return text.replaceAll(
    /\p{Cc}|\p{Bidi_Control}/gu,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
