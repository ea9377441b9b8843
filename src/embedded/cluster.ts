/** The data directory of the embedded PostgreSQL: made once and whole, its settings written at each start. */

import { execFile } from "node:child_process";
import {
  chownSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { userInfo } from "node:os";
import { basename, dirname, join } from "node:path";
import { promisify } from "node:util";
import { isAlive } from "./postmaster-pid.ts";
import { canReach, type UnprivilegedUser } from "./unprivileged-user.ts";

const run = promisify(execFile);

export interface ClusterOptions {
  readonly clusterDir: string;
  readonly binDir: string;
  readonly user: UnprivilegedUser | undefined;
  readonly superuserName: string;
  /** More arguments for initdb; tests skip its fsync. */
  readonly initdbArgs?: readonly string[];
}

/**
 * Makes the cluster unless it is there already.
 * initdb works in a sibling that is renamed when it is whole, so a crash half-way leaves only
 * something that the next start removes.
 *
 * @returns whether it was made now
 * @throws Error when initdb fails, with what it said
 */
export async function makeCluster(options: ClusterOptions): Promise<boolean> {
  const { clusterDir } = options;
  const parent = dirname(clusterDir);
  mkdirSync(parent, { recursive: true, mode: 0o700 });
  const partialPrefix = `${basename(clusterDir)}.partial-`;
  removeAbandoned(parent, partialPrefix);
  if (existsSync(join(clusterDir, "PG_VERSION"))) {
    return false;
  }
  const partial = join(parent, `${partialPrefix}${process.pid}`);
  mkdirSync(partial, { mode: 0o700 });
  giveTo(options.user, partial);
  const args = [
    "--pgdata",
    await dataDirectoryArgument(partial, options.user),
    "--username",
    options.superuserName,
    "--encoding=UTF8",
    // The builtin provider sorts by code point and knows Unicode's letters, alike on every system.
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--locale=C",
    // Replaced before the first start; named because initdb warns without it.
    "--auth=trust",
    ...(options.initdbArgs ?? []),
  ];
  try {
    await run(join(options.binDir, "initdb"), args, {
      cwd: partial,
      env: postgresEnvironment(),
      ...options.user,
    });
  } catch (cause) {
    rmSync(partial, { recursive: true, force: true });
    const said = String((cause as { stderr?: unknown }).stderr ?? "").trim();
    throw new Error(`initdb failed for ${clusterDir}: ${said === "" ? String(cause) : said}`, { cause });
  }
  try {
    renameSync(partial, clusterDir);
  } catch (cause) {
    rmSync(partial, { recursive: true, force: true });
    if (existsSync(join(clusterDir, "PG_VERSION"))) {
      return false;
    }
    throw new Error(`${clusterDir} is in the way: it is neither empty nor a PostgreSQL data directory`, {
      cause,
    });
  }
  syncDirectory(parent);
  return true;
}

/** A directory that bears the process id of a living maker is left alone, unless it is older than any initdb takes. */
function removeAbandoned(parent: string, prefix: string): void {
  for (const name of readdirSync(parent)) {
    if (!name.startsWith(prefix)) {
      continue;
    }
    const path = join(parent, name);
    const maker = Number(name.slice(prefix.length));
    const isOurs = maker === process.pid;
    const isRecent = Date.now() - statSync(path).mtimeMs < 300_000;
    if (isOurs || !isRecent || !isAlive(maker)) {
      rmSync(path, { recursive: true, force: true });
    }
  }
}

/**
 * Writes access rules and settings, which an upgrade of NodeDB may change.
 * Administrators tune with ALTER SYSTEM, which wins over these.
 */
export function writeClusterSettings(
  clusterDir: string,
  user: UnprivilegedUser | undefined,
  settings: Readonly<Record<string, string>>,
): void {
  // Peer and not trust: another process of the user that PostgreSQL runs as, which may be `nobody`,
  // can enter the directory, and must still not get in. The map lets our user log in as any role.
  write("pg_hba.conf", "# Written by NodeDB at each start.\nlocal all all peer map=nodedb\n");
  write(
    "pg_ident.conf",
    `# Written by NodeDB at each start.\nnodedb ${quoteIdent(userInfo().username)} all\n`,
  );
  const lines = Object.entries(settings).map(
    ([name, value]) => `${name} = '${value.replaceAll("'", "''")}'\n`,
  );
  write("nodedb.conf", `# Written by NodeDB at each start; use ALTER SYSTEM to override.\n${lines.join("")}`);
  const main = join(clusterDir, "postgresql.conf");
  const include = "include_if_exists = 'nodedb.conf'";
  const text = readFileSync(main, "utf8");
  if (!text.includes(include)) {
    write("postgresql.conf", `${text}\n${include}\n`);
  }

  function write(name: string, content: string): void {
    const path = join(clusterDir, name);
    writeFileSync(`${path}.new`, content, { mode: 0o600 });
    giveTo(user, `${path}.new`);
    renameSync(`${path}.new`, path);
  }
}

/**
 * How PostgreSQL, running as this user in this directory, is told where its data is.
 * PostgreSQL changes to an absolute path, for which every parent must be searchable; a checkout
 * under /root is not. `/proc/self/cwd` leads to the directory it was started in without them.
 *
 * @throws Error when the user cannot reach it and the system has no such path
 */
export async function dataDirectoryArgument(
  directory: string,
  user: UnprivilegedUser | undefined,
): Promise<string> {
  if (user === undefined || (await canReach(user, directory))) {
    return directory;
  }
  if (process.platform === "linux" && existsSync("/proc/self/cwd")) {
    return "/proc/self/cwd";
  }
  throw new Error(
    `PostgreSQL refuses to run as root, and user id ${user.uid} cannot reach ${directory}: start as an ordinary user, or set NODEDB_DATA_DIR to a directory whose parents that user may enter`,
  );
}

/** PostgreSQL gets nothing of our environment that it does not need: it may hold passwords. */
export function postgresEnvironment(): NodeJS.ProcessEnv {
  const { PATH, TZ, TMPDIR } = process.env;
  return {
    LC_ALL: "C",
    ...(PATH === undefined ? {} : { PATH }),
    ...(TZ === undefined ? {} : { TZ }),
    ...(TMPDIR === undefined ? {} : { TMPDIR }),
  };
}

function giveTo(user: UnprivilegedUser | undefined, path: string): void {
  if (user !== undefined) {
    chownSync(path, user.uid, user.gid);
  }
}

function quoteIdent(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

function syncDirectory(path: string): void {
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
