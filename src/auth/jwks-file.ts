/** Copies of JWK sets in the data directory, so that a front-end that starts while a provider is down knows its keys. */

import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { mkdir, open, rename, rm, unlink } from "node:fs/promises";
import { join } from "node:path";
import { parseStrictObject } from "./strict-json.ts";

/** What a copy is of; one that says otherwise is not used. */
export interface CopyOf {
  /** File name without its ending. */
  readonly id: string;
  readonly issuer: string;
  /** As configured; undefined: found by discovery. */
  readonly url: string | undefined;
}

export interface JwksCopy {
  /** The set as it came. */
  readonly body: Buffer;
  readonly fetchedAtMs: number;
}

/** Larger than any that is written. */
const maxFileBytes = 4 * 1024 * 1024;

/** @param directory made when it is not there */
export async function writeJwksCopy(directory: string, of: CopyOf, copy: JwksCopy): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const path = fileOf(directory, of);
  const temporary = `${path}.${randomBytes(6).toString("hex")}`;
  const text = JSON.stringify({
    issuer: of.issuer,
    url: of.url ?? null,
    fetched_at_ms: copy.fetchedAtMs,
    jwks: copy.body.toString("base64"),
  });
  const file = await open(temporary, "wx", 0o600);
  try {
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/**
 * @returns undefined when there is none
 * @throws Error when there is one that must not be used: of another provider, or in a file that others may write
 */
export async function readJwksCopy(directory: string, of: CopyOf): Promise<JwksCopy | undefined> {
  let file: Awaited<ReturnType<typeof open>>;
  try {
    // What is written here is a plain file; a link could lead anywhere.
    file = await open(fileOf(directory, of), constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
  try {
    const { mode, size } = await file.stat();
    if ((mode & 0o022) !== 0) throw new Error("others may write the copy");
    if (size > maxFileBytes) throw new Error("the copy is too large");
    const stored = parseStrictObject(await file.readFile());
    const jwks = stored?.jwks;
    const fetchedAtMs = stored?.fetched_at_ms;
    if (typeof jwks !== "string" || typeof fetchedAtMs !== "number") throw new Error("the copy is damaged");
    if (stored?.issuer !== of.issuer || stored.url !== (of.url ?? null)) {
      throw new Error("the copy is of another provider");
    }
    return { body: Buffer.from(jwks, "base64"), fetchedAtMs };
  } finally {
    await file.close();
  }
}

/** Of a provider that is gone. */
export async function removeJwksCopy(directory: string, of: CopyOf): Promise<void> {
  await unlink(fileOf(directory, of)).catch((error: unknown) => {
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw error;
  });
}

function fileOf(directory: string, { id }: CopyOf): string {
  return join(directory, `${id}.json`);
}
