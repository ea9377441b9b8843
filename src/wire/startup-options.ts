/** The `options` startup parameter: command-line switches for the server process (PostgreSQL 18 manual 32.1.2, 54.7). */

import { SqlError } from "../errors/sql-error.ts";

/** A setting as a switch names it: dashes turned into underscores, case kept. */
export type OptionSetting = readonly [name: string, value: string];

/**
 * Parses the `options` startup parameter as PostgreSQL does: words split at whitespace that no backslash
 * precedes, then `-c name=value`, `-cname=value` and `--name=value`. The names have not been checked.
 *
 * PostgreSQL's other switches (`-S`, `-f`, `-e` …) are abbreviations of settings and old debugging aids;
 * they are refused, so that every setting a client makes is seen by name.
 *
 * @throws SqlError FATAL syntax_error for anything else.
 */
export function parseStartupOptions(options: string): OptionSetting[] {
  const words = splitOptions(options);
  const settings: OptionSetting[] = [];
  for (let index = 0; index < words.length; index += 1) {
    const word = words[index] ?? "";
    if (word.startsWith("--")) {
      settings.push(parseSetting(word.slice(2), "--", word));
    } else if (word === "-c") {
      index += 1;
      settings.push(parseSetting(words[index], "-c ", word));
    } else if (word.startsWith("-c")) {
      settings.push(parseSetting(word.slice(2), "-c ", word));
    } else {
      throw invalidArgument(word);
    }
  }
  return settings;
}

/** Words of the text; a backslash makes the next character part of a word, whatever it is. */
function splitOptions(options: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let escaped = false;
  for (const character of options) {
    if (!escaped && isSpace(character)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else if (!escaped && character === "\\") {
      escaped = true;
      word ??= "";
    } else {
      escaped = false;
      word = (word ?? "") + character;
    }
  }
  if (word !== undefined) words.push(word);
  return words;
}

/** C's isspace in the "C" locale; \s would also split at no-break spaces. */
function isSpace(character: string): boolean {
  return " \t\n\v\f\r".includes(character);
}

function parseSetting(text: string | undefined, prefix: string, word: string): OptionSetting {
  if (text === undefined) throw invalidArgument(word);
  const equals = text.indexOf("=");
  // An empty name would end the list of parameters if it were sent on in a startup packet.
  if (equals === 0 || text === "") throw invalidArgument(word);
  if (equals === -1) {
    throw new SqlError("syntax_error", `${prefix}${text} requires a value`, { severity: "FATAL" });
  }
  return [text.slice(0, equals).replaceAll("-", "_"), text.slice(equals + 1)];
}

function invalidArgument(word: string): SqlError {
  return new SqlError("syntax_error", `invalid command-line argument for server process: ${word}`, {
    severity: "FATAL",
    hint: "Use -c name=value or --name=value.",
  });
}
