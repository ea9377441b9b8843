/** The front-end's own secret: upstream credentials and the salts of unknown users are derived from it. */

import { randomBytes } from "node:crypto";
import { linkSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SqlError } from "../errors/sql-error.ts";

const secretBytes = 32;

/** Name of its file in the data directory. */
export const masterSecretFile = "master.secret";

/**
 * Reads the master secret, and makes one at the first start.
 *
 * @returns 32 bytes
 * @throws SqlError object_not_in_prerequisite_state when others may read the file, or it holds something else
 */
export function loadMasterSecret(dataDir: string): Buffer {
  mkdirSync(dataDir, { recursive: true });
  const path = join(dataDir, masterSecretFile);
  createOnce(path);
  if ((statSync(path).mode & 0o077) !== 0) {
    throw new SqlError("object_not_in_prerequisite_state", `${path} may be read by others`, {
      hint: `Run chmod 600 ${path}.`,
    });
  }
  const secret = Buffer.from(readFileSync(path, "utf8").trim(), "hex");
  if (secret.length === secretBytes) return secret;
  throw new SqlError("object_not_in_prerequisite_state", `${path} does not hold a master secret`, {
    hint: "Restore the file: without it the catalog cannot be used.",
  });
}

// Linked into place whole: a crash leaves either no secret or all of it, and of two starts one wins.
function createOnce(path: string): void {
  const draft = `${path}.${process.pid}`;
  writeFileSync(draft, `${randomBytes(secretBytes).toString("hex")}\n`, { mode: 0o600 });
  try {
    linkSync(draft, path);
  } catch (error) {
    if (!(error instanceof Error) || !("code" in error) || error.code !== "EEXIST") throw error;
  } finally {
    rmSync(draft);
  }
}
