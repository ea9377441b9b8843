/** The lock file against what package.json promises. */

import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { expect, test } from "vitest";

interface Packages {
  readonly packages: Readonly<Record<string, { readonly engines?: { readonly node?: string } }>>;
}

const { packages }: Packages = JSON.parse(
  readFileSync(resolve(import.meta.dirname, "../../package-lock.json"), "utf8"),
);

/** The oldest major release of Node.js that a range allows; each of its alternatives begins with its least version. */
function oldestMajor(range: string): number {
  const majors = range.split("||").map((alternative) => Number(/\d+/.exec(alternative)?.[0] ?? 0));
  return Math.min(...majors);
}

test("no package needs a newer Node.js than the program itself", () => {
  const { "": own, ...others } = packages;
  const promised = oldestMajor(own?.engines?.node ?? "");
  expect(promised).toBe(20);
  expect(Object.keys(others).length).toBeGreaterThan(100);
  const newer = Object.entries(others).filter(
    ([, { engines }]) => oldestMajor(engines?.node ?? "0") > promised,
  );
  expect(newer.map(([path]) => path)).toEqual([]);
});

test("the lock file names no registry: npm asks the one that it is configured for", () => {
  expect(Object.entries(packages).filter(([, entry]) => "resolved" in entry)).toEqual([]);
});
