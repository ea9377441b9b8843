/** A short way to the directory that holds PostgreSQL's socket. */

import { mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Port in the socket's file name; nothing listens on TCP. */
export const socketPort = 5432;

/** `sun_path` without its final NUL: 107 bytes on Linux, 103 on macOS. */
const maxPathBytes = process.platform === "linux" ? 107 : 103;

export interface SocketDirectory {
  readonly path: string;
  remove(): void;
}

/**
 * The cluster's own directory, which is 0700 and where PostgreSQL puts its socket; behind a link
 * in a private directory when a path through it would be too long for a socket address.
 */
export function openSocketDirectory(clusterDir: string): SocketDirectory {
  if (Buffer.byteLength(join(clusterDir, `.s.PGSQL.${socketPort}`)) <= maxPathBytes) {
    return { path: clusterDir, remove: () => {} };
  }
  const directory = mkdtempSync(join(tmpdir(), "nodedb-"));
  const path = join(directory, "s");
  symlinkSync(clusterDir, path);
  return { path, remove: () => rmSync(directory, { recursive: true, force: true }) };
}
