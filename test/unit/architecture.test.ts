/** Which folder of src may import which: the shape that keeps the protocol, the grammar and the proofs free of sockets and databases. */

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";
import { describe, expect, test } from "vitest";

const sourceDirectory = resolve(import.meta.dirname, "../../src");

/** Files directly in src: they put the parts together, and may know all of them. */
const roots = [
  "main",
  "server",
  "check",
  "explain-failure",
  "reload",
  "live-settings",
  "open-upstream",
  "open-catalog",
  "open-questions",
  "open-identity",
  "open-session-watch",
  "open-pool-watch",
  "open-http",
  "open-pgwire",
  "open-tls",
  "version",
];

const allowed: Readonly<Record<string, readonly string[]>> = {
  session: ["wire", "scram", "ddl", "auth", "exec", "upstream", "errors", "observe", "config"],
  http: ["ddl", "auth", "exec", "errors", "observe", "config"],
  exec: ["ddl", "catalog", "auth", "upstream", "errors", "observe"],
  auth: ["scram", "catalog", "errors", "observe", "config"],
  catalog: ["errors", "observe"],
  upstream: ["wire", "scram", "errors", "observe", "config"],
  embedded: ["errors", "observe", "config"],
  wire: ["errors"],
  scram: ["errors"],
  ddl: ["errors"],
  config: ["errors"],
  errors: [],
  observe: [],
};

/** Parts that do no input or output, and the files whose task it is to know sockets. */
const withoutIo = ["wire", "scram", "ddl", "errors"];
const filesWithIo = [
  "wire/transport.ts",
  "wire/stream-binding.ts",
  "wire/handle-transport.ts",
  "wire/raw-transport.ts",
  "wire/raw-tls-transport.ts",
  "wire/stream-transport.ts",
  "wire/transport-factory.ts",
  "wire/choose-transport.ts",
];
const ioModules = /^(node:)?(net|tls|fs|http|https|dgram|child_process|dns)(\/|$)|^pg$/;

/** Imports, exports from, dynamic imports and import types. */
const specifiers = /\b(?:from|import)\s*\(?\s*["']([^"']+)["']/g;

interface Import {
  readonly file: string;
  /** As written. */
  readonly specifier: string;
  /** Path within src; undefined for packages and Node's modules. */
  readonly target: string | undefined;
}

function sourceFiles(): string[] {
  return readdirSync(sourceDirectory, { recursive: true, encoding: "utf8" })
    .filter((path) => /\.[jt]s$/.test(path))
    .map((path) => path.split(sep).join("/"));
}

function importsOf(file: string): Import[] {
  const path = join(sourceDirectory, file);
  return [...readFileSync(path, "utf8").matchAll(specifiers)].map(([, specifier = ""]) => {
    const isOwn = specifier.startsWith(".");
    const target = isOwn
      ? relative(sourceDirectory, resolve(dirname(path), specifier))
          .split(sep)
          .join("/")
      : undefined;
    return { file, specifier, target };
  });
}

/** The folder of a file; a file directly in src is named by itself. */
function partOf(path: string): string {
  const [first = ""] = path.split("/");
  return first.replace(/\.[jt]s$/, "");
}

function mayImport(from: string, to: string): boolean {
  return from === to || roots.includes(from) || (allowed[from]?.includes(to) ?? false);
}

/** Whatever reaches itself by the edges. */
function inCircles(edges: readonly (readonly [from: string, to: string])[]): string[] {
  const next = new Map<string, string[]>();
  for (const [from, to] of edges) next.set(from, [...(next.get(from) ?? []), to]);
  const reaches = (from: string, goal: string, seen = new Set<string>()): boolean =>
    (next.get(from) ?? []).some((step) => {
      if (step === goal) return true;
      if (seen.has(step)) return false;
      seen.add(step);
      return reaches(step, goal, seen);
    });
  return [...next.keys()].filter((start) => reaches(start, start));
}

const imports = sourceFiles().flatMap(importsOf);

describe("the folders of src", () => {
  test("are all known to the rules", () => {
    const parts = new Set(sourceFiles().map(partOf));
    expect([...parts].filter((part) => !roots.includes(part) && !(part in allowed))).toEqual([]);
    expect(imports.length).toBeGreaterThan(200);
  });

  test("are in the documentation with what they may import", () => {
    const page = readFileSync(resolve(sourceDirectory, "../docs/architecture.md"), "utf8");
    const rows = [...page.matchAll(/^\| `([a-z]+)` \|.*\| ([^|]+) \|$/gm)].map(([, part = "", list = ""]) => [
      part,
      list === "–" ? [] : list.split(", ").sort(),
    ]);
    expect(Object.fromEntries(rows)).toEqual(
      Object.fromEntries(Object.entries(allowed).map(([part, list]) => [part, [...list].sort()])),
    );
  });

  test("import only what the rules allow", () => {
    const broken = imports.filter(
      ({ file, target }) => target !== undefined && !mayImport(partOf(file), partOf(target)),
    );
    expect(broken.map(({ file, specifier }) => `${file} imports ${specifier}`)).toEqual([]);
  });

  test("import nothing from outside of src but packages", () => {
    const outside = imports.filter(({ target }) => target?.startsWith(".."));
    expect(outside.map(({ file, specifier }) => `${file} imports ${specifier}`)).toEqual([]);
  });

  test("that do no input or output import nothing that does", () => {
    const broken = imports.filter(
      ({ file, specifier }) =>
        withoutIo.includes(partOf(file)) && !filesWithIo.includes(file) && ioModules.test(specifier),
    );
    expect(broken.map(({ file, specifier }) => `${file} imports ${specifier}`)).toEqual([]);
  });

  test("form no circle", () => {
    const between = imports.flatMap(({ file, target }): [string, string][] =>
      target === undefined || partOf(file) === partOf(target) || roots.includes(partOf(file))
        ? []
        : [[partOf(file), partOf(target)]],
    );
    expect(inCircles(between)).toEqual([]);
  });

  test("hold no files that form a circle", () => {
    expect(
      inCircles(imports.flatMap(({ file, target }) => (target === undefined ? [] : [[file, target]]))),
    ).toEqual([]);
  });

  test("write their own imports with the extension of the source, and the generated parser's only within ddl", () => {
    const odd = imports.filter(({ target }) => target !== undefined && !target.endsWith(".ts"));
    expect(odd.filter(({ target }) => target !== "ddl/auth-parser.js").map(({ file }) => file)).toEqual([]);
    expect(odd.filter(({ file }) => partOf(file) !== "ddl").map(({ file }) => file)).toEqual([]);
  });
});
