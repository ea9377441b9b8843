/** psycopg2: libpq with the simple protocol and client-side parameters. */

import { describeClientProgram, findPythonWith } from "../support/client-program.ts";

const python = findPythonWith("psycopg2");

describeClientProgram({
  client: "psycopg2 (python3-psycopg2)",
  isPresent: python !== undefined,
  commands: [[python ?? "python3", "psycopg2_checks.py"]],
  checks: [
    "round-trips parameters of many types",
    "repeats a prepared statement",
    "copies rows in and out",
    "sends a page of rows with execute_values",
    "stores a large object and reads it back",
    "works asynchronously without blocking its thread",
  ],
});
