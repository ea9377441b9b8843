/** Whom PostgreSQL runs as when the front-end runs as root, which PostgreSQL itself refuses to do. */

import { execFile } from "node:child_process";
import { statSync } from "node:fs";
import { promisify } from "node:util";

const run = promisify(execFile);

export interface UnprivilegedUser {
  readonly uid: number;
  readonly gid: number;
}

/**
 * Chooses the user: the owner of an existing cluster, else `postgres`, else `nobody`.
 *
 * @param clusterDir may not exist yet
 * @returns undefined when this process is not root: PostgreSQL runs as the same user
 * @throws Error when root finds none of them
 */
export async function chooseUnprivilegedUser(clusterDir: string): Promise<UnprivilegedUser | undefined> {
  if (process.getuid?.() !== 0) {
    return undefined;
  }
  const cluster = statSync(clusterDir, { throwIfNoEntry: false });
  if (cluster !== undefined && cluster.uid !== 0) {
    return { uid: cluster.uid, gid: cluster.gid };
  }
  const user = (await findUser("postgres")) ?? (await findUser("nobody"));
  if (user === undefined) {
    throw new Error(
      "PostgreSQL refuses to run as root, and this system has no user postgres or nobody to run it as: start as an ordinary user",
    );
  }
  return user;
}

/** Whether the user may execute (a file) or enter (a directory) at this absolute path; the kernel answers, access lists included. */
export async function canReach(user: UnprivilegedUser, path: string): Promise<boolean> {
  try {
    await run("test", ["-x", path], { ...user, cwd: "/" });
    return true;
  } catch {
    return false;
  }
}

async function findUser(name: string): Promise<UnprivilegedUser | undefined> {
  try {
    // `id` and not /etc/passwd: users may come from a directory service.
    const [uid, gid] = await Promise.all([run("id", ["-u", name]), run("id", ["-g", name])]);
    return { uid: Number(uid.stdout), gid: Number(gid.stdout) };
  } catch {
    return undefined;
  }
}
