/** Runs an interactive program on a terminal of its own (util-linux's `script`), where Ctrl-C and password prompts work. */

import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";

const waitTimeoutMs = 10_000;

export interface Terminal {
  /** Types a line. */
  type(line: string): void;
  /** Presses Ctrl-C, which makes the terminal send SIGINT to the program. */
  interrupt(): void;
  /**
   * What was printed since the last wait (the echo of what was typed included), up to the end of the match.
   * @throws Error with all that was printed when the program ends or nothing matches within 10 s
   */
  waitFor(pattern: RegExp): Promise<string>;
  close(): Promise<void>;
}

export function openTerminal(program: string, args: readonly string[], env: NodeJS.ProcessEnv): Terminal {
  const words = [program, ...args].map((word) => `'${word.replaceAll("'", "'\\''")}'`);
  const child = spawn("script", ["-qec", words.join(" "), "/dev/null"], { env: { ...env, TERM: "dumb" } });
  const exited = new Promise<void>((resolve) => {
    child.on("close", () => resolve());
  });
  const output = collectOutput(child);
  return {
    type: (line) => child.stdin.write(`${line}\n`),
    interrupt: () => child.stdin.write("\x03"),
    waitFor: output.waitFor,
    async close() {
      // The terminal goes with `script`, and the program gets SIGHUP; SIGTERM would make `script` wait 2 s.
      child.kill("SIGKILL");
      await exited;
    },
  };
}

function collectOutput(child: ChildProcessWithoutNullStreams): Pick<Terminal, "waitFor"> {
  let unread = "";
  let hasEnded = false;
  const listeners = new Set<() => void>();
  const notify = () => {
    for (const listener of listeners) {
      listener();
    }
  };
  child.stdin.on("error", () => {});
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    unread += text;
    notify();
  });
  child.on("close", () => {
    hasEnded = true;
    notify();
  });

  return {
    waitFor: (pattern) =>
      new Promise((resolve, reject) => {
        const timer = setTimeout(() => finish(`nothing matched ${pattern} in time`), waitTimeoutMs);
        const look = () => {
          const match = pattern.exec(unread);
          if (match !== null) {
            const end = match.index + match[0].length;
            const read = unread.slice(0, end);
            unread = unread.slice(end);
            finish(undefined, read);
          } else if (hasEnded) {
            finish(`the program ended before anything matched ${pattern}`);
          }
        };
        const finish = (reason: string | undefined, read = "") => {
          clearTimeout(timer);
          listeners.delete(look);
          if (reason === undefined) {
            resolve(read);
          } else {
            reject(new Error(`${reason}; printed: ${unread}`));
          }
        };
        listeners.add(look);
        look();
      }),
  };
}
