/** The files that the configuration is in, or names. */

import { readFileSync, statSync } from "node:fs";

/** What loading needs of the file system. Both throw as node:fs does. */
export interface ConfigFiles {
  read(path: string): string;
  /** Permission bits, as in `stat`. */
  mode(path: string): number;
}

export const nodeFiles: ConfigFiles = {
  read: (path) => readFileSync(path, "utf8"),
  mode: (path) => statSync(path).mode,
};

/** Whether everybody on this machine may read it; false when that cannot be told, which reading it will. */
export function isWorldReadable(files: ConfigFiles, path: string): boolean {
  try {
    return (files.mode(path) & 0o004) !== 0;
  } catch {
    return false;
  }
}
