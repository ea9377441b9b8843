/** Runs another program to its end and collects what it printed. */

import { spawn } from "node:child_process";

export interface Finished {
  readonly stdout: string;
  readonly stderr: string;
  /** Exit status, null when the program could not be started or was killed by a signal. */
  readonly status: number | null;
}

export interface RunOptions {
  readonly cwd?: string;
  /** Text for its standard input, which is empty otherwise. */
  readonly input?: string;
  /** How the output is read; `latin1` gives every byte as one character. */
  readonly encoding?: "utf8" | "latin1";
}

/** Longest run of one program; the slowest needs about five seconds. */
const programTimeoutMs = 90_000;

export function runProgram(
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  options: RunOptions = {},
): Promise<Finished> {
  return new Promise((resolve) => {
    const child = spawn(program, args, {
      cwd: options.cwd,
      env: { ...env, PYTHONDONTWRITEBYTECODE: "1" },
      stdio: ["pipe", "pipe", "pipe"],
      timeout: programTimeoutMs,
      killSignal: "SIGKILL",
    });
    const encoding = options.encoding ?? "utf8";
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding(encoding).on("data", (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding(encoding).on("data", (text: string) => {
      stderr += text;
    });
    // A program that ends before it has read its input is judged by its status.
    child.stdin.on("error", () => {});
    child.stdin.end(options.input ?? "");
    child.on("error", (error) => resolve({ stdout, stderr: String(error), status: null }));
    child.on("close", (status) => resolve({ stdout, stderr, status }));
  });
}
