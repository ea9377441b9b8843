/** nodedb.toml.example and docs/configuration.md say exactly what the schema says; `vitest -u` rewrites the former. */

import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parse } from "smol-toml";
import { describe, expect, test } from "vitest";
import type { ConfigKey } from "../../src/config/config-key.ts";
import { loadConfig } from "../../src/config/load.ts";
import { configKeys } from "../../src/config/schema.ts";
import { renderEnvironmentTable, renderExample, renderKeyTable } from "../support/configuration-pages.ts";

const examplePath = fileURLToPath(new URL("../../nodedb.toml.example", import.meta.url));
const pagePath = fileURLToPath(new URL("../../docs/configuration.md", import.meta.url));
const keys: readonly ConfigKey[] = configKeys;

describe("nodedb.toml.example", () => {
  test("is what the schema renders", async () => {
    await expect(renderExample()).toMatchFileSnapshot(examplePath);
  });

  test("is valid as it stands and changes nothing", () => {
    const outcome = load(readFileSync(examplePath, "utf8"), {});
    expect(outcome).toEqual(load("", {}));
  });

  test("is valid with every setting uncommented, and holds every key and no other", () => {
    const text = readFileSync(examplePath, "utf8").replaceAll(/^#(?=[a-z_]+ = )/gm, "");
    const flat = flatten(parse(text) as Record<string, unknown>);
    expect(Object.keys(flat).sort()).toEqual(keys.map((key) => key.key).sort());
    for (const key of keys) {
      if (key.default !== undefined) {
        expect(flat[key.key], key.key).toEqual(key.default);
      }
    }
    expect(load(text, { UPSTREAM_PASSWORD: "of no account" })).toMatchObject({ ok: true });
  });
});

describe("docs/configuration.md", () => {
  test.each([
    ["keys", renderKeyTable()],
    ["environment", renderEnvironmentTable()],
  ])("its table of %s is what the schema renders", (name, table) => {
    const page = readFileSync(pagePath, "utf8");
    const between = new RegExp(`(<!-- ${name} -->\n)([^]*?)(<!-- /${name} -->)`);
    if (process.env.NODEDB_TEST_UPDATE_DOCS === "1") {
      writeFileSync(
        pagePath,
        page.replace(between, (_all, start, _old, end) => `${start}${table}${end}`),
      );
    }
    expect(between.exec(readFileSync(pagePath, "utf8"))?.[2]).toBe(table);
  });

  test("names no environment variable that is not read", () => {
    const known = new Set([...keys.map((key) => key.env), "NODEDB_CONFIG", "NODEDB_SUPERUSER_PASSWORD"]);
    for (const [name] of readFileSync(pagePath, "utf8").matchAll(/NODEDB_\w+/g)) {
      expect(known).toContain(name);
    }
  });
});

function load(text: string, env: Record<string, string>) {
  return loadConfig({ path: "nodedb.toml", env, files: { read: () => text, mode: () => 0o600 } });
}

function flatten(table: Record<string, unknown>, prefix = ""): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(table).flatMap(([name, value]): [string, unknown][] =>
      typeof value === "object" && value !== null && !keys.some((key) => key.key === prefix + name)
        ? Object.entries(flatten(value as Record<string, unknown>, `${prefix}${name}.`))
        : [[prefix + name, value]],
    ),
  );
}
