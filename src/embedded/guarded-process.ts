/** Runs PostgreSQL under a guard, a shell that shuts it down when this process is gone, however it went. */

import { type ChildProcess, spawn } from "node:child_process";
import type { UnprivilegedUser } from "./unprivileged-user.ts";

export interface GuardedCommand {
  readonly program: string;
  readonly args: readonly string[];
  /** Entered before privileges are dropped, so the user need not be able to reach it by path. */
  readonly cwd: string;
  readonly user: UnprivilegedUser | undefined;
  readonly env: NodeJS.ProcessEnv;
  /** Descriptor of the file that takes its output. */
  readonly logFd: number;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface GuardedProcess {
  /** After the command has ended; a signal that ended it shows as code 128 + its number. */
  readonly exited: Promise<Exit>;
  /** Asks for a fast shutdown, the same way as when this process dies. Can be called twice. */
  release(): void;
}

/**
 * Standard input is a pipe whose other end only this process holds. The kernel closes it when we
 * end, also by SIGKILL; the watcher then reads end of file and sends SIGINT, which is PostgreSQL's
 * fast shutdown. A shell runs a background command with SIGINT ignored, but PostgreSQL installs
 * its own handlers. `read` is a builtin: no third process.
 */
const script = `
exec 3<&0
"$@" </dev/null 3<&- &
command=$!
( while read -r ignored; do :; done; kill -INT "$command" ) <&3 3<&- >/dev/null 2>&1 &
watcher=$!
exec 3<&-
wait "$command"
status=$?
kill "$watcher" 2>/dev/null
exit "$status"
`;

/** Starts the command in a session of its own: Ctrl-C in a terminal must reach only us, because we decide the order. */
export function spawnGuarded(command: GuardedCommand): GuardedProcess {
  const child: ChildProcess = spawn(
    "/bin/sh",
    ["-c", script, "nodedb-postgres-guard", command.program, ...command.args],
    {
      cwd: command.cwd,
      env: command.env,
      detached: true,
      stdio: ["pipe", command.logFd, command.logFd],
      ...command.user,
    },
  );
  // The guard may be gone before the pipe is closed.
  child.stdin?.on("error", () => {});
  const exited = new Promise<Exit>((resolve) => {
    child.on("exit", (code, signal) => resolve({ code, signal }));
    child.on("error", () => resolve({ code: 127, signal: null }));
  });
  return { exited, release: () => child.stdin?.destroy() };
}
