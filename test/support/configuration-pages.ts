/** What nodedb.toml.example and the tables of docs/configuration.md must say, rendered from the schema. */

import type { ConfigKey } from "../../src/config/config-key.ts";
import { configKeys, otherEnvironment } from "../../src/config/schema.ts";
import { describeType } from "../../src/config/values.ts";

const keys: readonly ConfigKey[] = configKeys;

export function renderExample(): string {
  let text = `# NodeDB's configuration. Copy it to nodedb.toml and remove the # before a setting to change it.
# Every key with its meaning, unit and default; a key left out has its default.
# \${NAME} in a value is replaced by that environment variable; $\${ stands for \${ itself.
# An environment variable named with a key wins over the file.
`;
  let table = "";
  for (const key of keys) {
    const name = key.key.slice(key.key.lastIndexOf(".") + 1);
    const itsTable = key.key.slice(0, key.key.lastIndexOf("."));
    if (itsTable !== table) {
      table = itsTable;
      text += `\n[${table}]\n`;
    }
    const facts = [
      `Value: ${describeType(key.type)}.`,
      `Default: ${defaultOf(key)}.`,
      ...(key.env === undefined ? [] : [`Environment: ${key.env}.`]),
    ];
    text += `\n${wrap(key.doc)}${wrap(facts.join(" "))}#${name} = ${tomlOf(key.default ?? key.example)}\n`;
  }
  return text;
}

export function renderKeyTable(): string {
  const rows = keys.map((key) => {
    const name = key.alias === undefined ? `\`${key.key}\`` : `\`${key.key}\` (or \`${key.alias}\`)`;
    return [
      name,
      describeType(key.type),
      defaultOf(key),
      key.env === undefined ? "" : `\`${key.env}\``,
      key.live ? "yes" : "",
      key.doc,
    ];
  });
  return renderTable(["key", "value", "default", "environment", "live", "meaning"], rows);
}

export function renderEnvironmentTable(): string {
  const rows = Object.entries(otherEnvironment).map(([name, doc]) => [`\`${name}\``, doc]);
  return renderTable(["variable", "meaning"], rows);
}

function defaultOf(key: ConfigKey): string {
  return key.defaultDoc ?? tomlOf(key.default);
}

function tomlOf(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(tomlOf).join(", ")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  return `{ ${Object.entries(value)
    .map(([name, entry]) => `${name} = ${tomlOf(entry)}`)
    .join(", ")} }`;
}

function renderTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`);
  return `${lines.join("\n")}\n`;
}

function wrap(text: string, width = 98): string {
  let line = "#";
  let result = "";
  for (const word of text.split(" ")) {
    if (line.length + 1 + word.length > width) {
      result += `${line}\n`;
      line = "#";
    }
    line += ` ${word}`;
  }
  return `${result}${line}\n`;
}
