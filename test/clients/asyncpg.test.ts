/** asyncpg: its own protocol implementation, extended and binary throughout. */

import { describeClientProgram, findPythonWith } from "../support/client-program.ts";

const python = findPythonWith("asyncpg");

describeClientProgram({
  client: "asyncpg (python3-asyncpg)",
  isPresent: python !== undefined,
  commands: [[python ?? "python3", "asyncpg_checks.py"]],
  checks: [
    "round-trips parameters of many types in binary",
    "repeats a prepared statement",
    "introspects a composite type",
    "copies rows in and out in binary",
    "is cancelled by pg_cancel_backend with the process id that it was told",
    "pipelines executemany in one transaction",
    "runs several statements in one string",
    "resets a connection that goes back to its pool",
  ],
});
