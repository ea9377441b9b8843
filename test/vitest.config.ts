/** How the tests are run. */

import { defineConfig } from "vitest/config";
import { CountReporter } from "./support/count-reporter.ts";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    testTimeout: 30_000,
    hookTimeout: 120_000,
    reporters: ["default", new CountReporter()],
  },
});
