/** psycopg 3: libpq with client-side pipelining, binary formats and COPY row by row. */

import { describeClientProgram, findPythonWith } from "../support/client-program.ts";

const python = findPythonWith("psycopg");

describeClientProgram({
  client: "psycopg 3 (python3-psycopg)",
  isPresent: python !== undefined,
  commands: [[python ?? "python3", "psycopg_checks.py"]],
  checks: [
    "round-trips parameters of many types",
    "round-trips parameters of many types in binary",
    "repeats a prepared statement",
    "copies rows in and out",
    "copies rows in and out in binary",
    "streams 100,000 rows in single-row mode",
    "pipelines statements and gets each result in order",
    "loses only the pipelined statements between an error and the next sync",
    "runs executemany in one go and returns its rows",
    "runs several statements in one string and gets every result",
  ],
});
