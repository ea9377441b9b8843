/** The PostgreSQL JDBC driver: its own protocol implementation, with portals, batches and query modes. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import { describeClientProgram, isInstalled, isRunnable } from "../support/client-program.ts";

const driver = "/usr/share/java/postgresql.jar";
const isPresent = isInstalled(driver) && isRunnable("javac", "-version");
// Hooks do not run in a file whose tests are all skipped.
const classDirectory = isPresent ? mkdtempSync(join(tmpdir(), "nodedb-jdbc-")) : "";

afterAll(() => rmSync(classDirectory, { recursive: true, force: true }));

describeClientProgram({
  client: "JDBC (libpostgresql-jdbc-java, default-jdk-headless)",
  isPresent,
  commands: [
    ["javac", "-cp", driver, "-d", classDirectory, "jdbc/Checks.java", "jdbc/JdbcChecks.java"],
    ["java", "-cp", `${driver}:${classDirectory}`, "JdbcChecks"],
  ],
  checks: [
    "round-trips parameters of many types in query mode extended",
    "round-trips parameters of many types in query mode extendedForPrepared",
    "round-trips parameters of many types in query mode extendedCacheEverything",
    "runs with parameters in query mode simple",
    "repeats a prepared statement",
    "describes parameters and columns of a statement",
    "reads the catalogs through DatabaseMetaData",
    "uses isolation level and read-only mode of a transaction",
    "copies rows in and out",
    "runs several statements in one string and gets every result",
    "cancels a statement that exceeds its query timeout",
    "pipelines a batch with reWriteBatchedInserts=false",
    "pipelines a batch with reWriteBatchedInserts=true",
    "reports the failing entry of a batch",
    "gets generated keys",
  ],
});
