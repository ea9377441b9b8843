/** pgbench 15: many small transactions in every protocol mode, and a check of the books afterwards. */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { isRunnable } from "../support/client-program.ts";
import { type Endpoint, libpqEnvironment, openEndpoint, runAsAdmin } from "../support/endpoint.ts";
import { type Finished, runProgram } from "../support/run-program.ts";
import { requireClient } from "../support/skips.ts";

const tables = "pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history";

/** Sends several statements before it reads the first result; the error branch is never taken. */
const pipelineScript = `\\startpipeline
UPDATE pgbench_branches SET bbalance = bbalance + 1 WHERE bid = 1;
SELECT bbalance FROM pgbench_branches WHERE bid = 1;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, 1, 1, CURRENT_TIMESTAMP);
\\endpipeline
`;

describe("pgbench", () => {
  const isThere = requireClient("pgbench (postgresql-15)", isRunnable("pgbench", "--version"));
  const it = test.skipIf(!isThere);
  let directory: string;
  let endpoint: Endpoint;

  beforeAll(async () => {
    if (!isThere) {
      return;
    }
    directory = mkdtempSync(join(tmpdir(), "nodedb-pgbench-"));
    endpoint = await openEndpoint();
    const made = await runProgram("pgbench", ["-i", "-q", "-s", "1"], libpqEnvironment(endpoint, "admin"));
    expect(made.status, made.stderr).toBe(0);
    await runAsAdmin(endpoint, `GRANT SELECT, INSERT, UPDATE, DELETE ON ${tables} TO ${endpoint.user}`);
  });
  afterAll(async () => {
    await endpoint?.close();
    rmSync(directory, { recursive: true, force: true });
  });

  function pgbench(...args: string[]): Promise<Finished> {
    return runProgram("pgbench", ["-n", ...args], libpqEnvironment(endpoint));
  }

  function expectProcessed(finished: Finished, transactions: number): void {
    expect(finished.status, finished.stderr).toBe(0);
    expect(finished.stdout).toContain(`transactions actually processed: ${transactions}/${transactions}`);
    expect(finished.stdout).toContain("number of failed transactions: 0 (");
  }

  async function readHistory(): Promise<{ rows: string; balances: boolean }> {
    const { rows } = await runAsAdmin(
      endpoint,
      `SELECT count(*) AS rows,
              coalesce(sum(delta), 0) = (SELECT sum(abalance) FROM pgbench_accounts)
              AND coalesce(sum(delta), 0) = (SELECT sum(tbalance) FROM pgbench_tellers)
              AND coalesce(sum(delta), 0) = (SELECT sum(bbalance) FROM pgbench_branches) AS balances
       FROM pgbench_history`,
    );
    return rows[0];
  }

  describe.each(["simple", "extended", "prepared"])("in %s mode", (mode) => {
    it("runs the standard transactions of 4 clients, and every balance adds up", async () => {
      const before = await readHistory();
      expectProcessed(await pgbench("-M", mode, "-c", "4", "-t", "50"), 200);
      expect(await readHistory()).toEqual({ rows: String(Number(before.rows) + 200), balances: true });
    });

    it("runs select-only transactions", async () => {
      expectProcessed(await pgbench("-M", mode, "-S", "-c", "8", "-j", "2", "-t", "200"), 1600);
    });

    it("connects anew for each transaction", async () => {
      expectProcessed(await pgbench("-M", mode, "-S", "-C", "-c", "4", "-t", "10"), 40);
    });
  });

  it.each(["extended", "prepared"])("pipelines the statements of a transaction in %s mode", async (mode) => {
    const path = join(directory, "pipeline.sql");
    writeFileSync(path, pipelineScript);
    const before = await readHistory();
    expectProcessed(await pgbench("-M", mode, "-f", path, "-c", "4", "-t", "25"), 100);
    expect((await readHistory()).rows).toBe(String(Number(before.rows) + 100));
    await runAsAdmin(endpoint, "DELETE FROM pgbench_history WHERE delta = 1 AND aid = 1 AND tid = 1");
    await runAsAdmin(
      endpoint,
      "UPDATE pgbench_branches SET bbalance = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)",
    );
  });

  it("retries serialization failures until every transaction is through", async () => {
    const path = join(directory, "serializable.sql");
    writeFileSync(
      path,
      "BEGIN ISOLATION LEVEL SERIALIZABLE;\nUPDATE account SET balance = balance + 1 WHERE id = 1;\nEND;\n",
    );
    expectProcessed(await pgbench("-f", path, "-c", "4", "-t", "20", "--max-tries=1000"), 80);
    const { rows } = await runAsAdmin(endpoint, "SELECT balance FROM account WHERE id = 1");
    expect(rows).toEqual([{ balance: "90.00" }]);
  });
});
