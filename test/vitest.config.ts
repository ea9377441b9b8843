/** How the tests are run. */

import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";
import { CountReporter } from "./support/count-reporter.ts";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    // Much of a test is waiting, for a server or for a time limit: three files at once do well on two cores.
    maxWorkers: Math.max(3, Math.floor(availableParallelism() / 2)),
    testTimeout: 30_000,
    hookTimeout: 120_000,
    reporters: ["default", new CountReporter()],
  },
});
